// Normalization of rows of `size` values, along which γ and β vary: layer norm and RMS norm.
//
// A row stays in the registers of blockDim.x threads, in ROW packs each: a "worker". A block is
// blockDim.y workers, which go on to other rows, so that γ and β are read once.

#include "norm.cuh"

#ifndef ROW
#define ROW 1
#endif

// Where pack number k of this thread is in a row.
__device__ inline int at(int k) { return (threadIdx.x + k * blockDim.x) * WIDTH; }
__device__ inline int this_worker() { return blockIdx.x * blockDim.y + threadIdx.y; }
__device__ inline int all_workers() { return gridDim.x * blockDim.y; }

__device__ inline void read_affine(const A *values, A otherwise, int size, A (&to)[ROW][WIDTH]) {
#pragma unroll
  for (int k = 0; k < ROW; k++)
#pragma unroll
    for (int j = 0; j < WIDTH; j++)
      to[k][j] = at(k) < size ? or_else(values, at(k) + j, otherwise) : otherwise;
}

// y, μ and σ².
extern "C" __global__ void __launch_bounds__(512) rows_forward(
    const T *x, T *y, const A *gamma, const A *beta, A *mu, A *var, A eps, int centred, int rows,
    int size) {
  A scale[ROW][WIDTH], shift[ROW][WIDTH];
  read_affine(gamma, A(1), size, scale);
  read_affine(beta, A(0), size, shift);
  for (int row = this_worker(); row < rows; row += all_workers()) {
    const T *from = x + int64(row) * size;
    Pack packs[ROW];
    A first = centred ? number(from[0]) : A(0), sum = A(0), squares = A(0);
    Statistics found = nothing();
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size) {
        packs[k] = load(from + at(k));
#pragma unroll
        for (int j = 0; j < WIDTH; j++) sum += number(packs[k].value[j]) - first;
      }
    if (centred) found = mean_of(size, first, of_block(sum, A(0)));
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size)
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          A d = deviation(number(packs[k].value[j]), found.mean, found.rest);
          squares = fma(d, d, squares);
        }
    A variance = of_block(squares, A(0)) / size, r = reciprocal_std(variance, eps);
    if (threadIdx.x == 0) mu[row] = found.mean, var[row] = variance;
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size) {
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          A xhat = deviation(number(packs[k].value[j]), found.mean, found.rest) * r;
          put(packs[k].value[j], fma(xhat, scale[k][j], shift[k][j]));
        }
        store(y + int64(row) * size + at(k), packs[k]);
      }
  }
}

// ∂ℓ/∂x, and what each worker's rows give to ∂ℓ/∂γ and ∂ℓ/∂β: partial_gamma and partial_beta
// (workers, size), or NULL.
extern "C" __global__ void __launch_bounds__(512) rows_gradients(
    const T *x, const T *g, T *dx, const A *gamma, const A *mu, const A *var, A *partial_gamma,
    A *partial_beta, A eps, int centred, int rows, int size) {
  A scale[ROW][WIDTH], of_gamma[ROW][WIDTH], of_beta[ROW][WIDTH];
  read_affine(gamma, A(1), size, scale);
  read_affine(nullptr, A(0), size, of_gamma);
  read_affine(nullptr, A(0), size, of_beta);
  for (int row = this_worker(); row < rows; row += all_workers()) {
    int64 start = int64(row) * size;
    Pack xs[ROW], gs[ROW];
    A mean = mu[row], r = reciprocal_std(var[row], eps);
    Sums sums = {A(0), A(0), A(0)};
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size) xs[k] = load(x + start + at(k)), gs[k] = load(g + start + at(k));
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size)
#pragma unroll
        for (int j = 0; j < WIDTH; j++)
          add(sums, number(xs[k].value[j]) - mean, number(gs[k].value[j]) * scale[k][j]);
    sums = of_block(sums, Sums{A(0), A(0), A(0)});
    A rest = centred ? sums.d / size : A(0), mean_g = centred ? sums.g / size : A(0);
    A mean_gd = (sums.gd - rest * sums.g) / size * r * r;
#pragma unroll
    for (int k = 0; k < ROW; k++)
      if (at(k) < size) {
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          A d = deviation(number(xs[k].value[j]), mean, rest), in = number(gs[k].value[j]);
          of_gamma[k][j] = fma(in, d * r, of_gamma[k][j]);
          of_beta[k][j] += in;
          put(xs[k].value[j], r * (fma(in, scale[k][j], -mean_g) - d * mean_gd));
        }
        store(dx + start + at(k), xs[k]);
      }
  }
#pragma unroll
  for (int k = 0; k < ROW; k++)
    if (at(k) < size)
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        int64 place = int64(this_worker()) * size + at(k) + j;
        if (partial_gamma) partial_gamma[place] = of_gamma[k][j];
        if (partial_beta) partial_beta[place] = of_beta[k][j];
      }
}

// The sums over the rows of two matrices, either of which may be NULL: 32 columns a block.
extern "C" __global__ void __launch_bounds__(512) sums_over_rows(
    const A *a, const A *b, A *sum_a, A *sum_b, int rows, int columns) {
  int column = blockIdx.x * 32 + threadIdx.x;
  A of_a = A(0), of_b = A(0);
  if (column < columns)
    for (int row = threadIdx.y; row < rows; row += blockDim.y) {
      int64 place = int64(row) * columns + column;
      if (a) of_a += a[place];
      if (b) of_b += b[place];
    }
  of_a = of_column(of_a), of_b = of_column(of_b);
  if (threadIdx.y || column >= columns) return;
  if (a) sum_a[column] = of_a;
  if (b) sum_b[column] = of_b;
}
