// Normalization of the columns of a matrix (rows, columns): batch norm of (N, C).
//
// A block works on 32 · WIDTH columns and one of gridDim.y slices of the rows.

#include "norm.cuh"

// The rows of a slice; this thread takes every blockDim.y-th.
struct Rows {
  int first, end;
  __device__ inline Rows(int slice, int rows) {
    int share = (rows + gridDim.y - 1) / gridDim.y;
    first = slice * share + threadIdx.y;
    end = min(rows, (slice + 1) * share);
  }
};

__device__ inline void statistics_of_columns(
    const T *x, Rows rows, int columns, int column, Statistics (&all)[WIDTH]) {
#pragma unroll
  for (int j = 0; j < WIDTH; j++) all[j] = nothing();
  for (int row = rows.first; row < rows.end; row += AHEAD * blockDim.y) {
    Pack packs[AHEAD];
    int count = 0;
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int next = row + k * blockDim.y;
      if (next < rows.end) packs[k] = load(x + int64(next) * columns + column), count++;
    }
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      A first = number(packs[0].value[j]), sum = A(0);
#pragma unroll
      for (int k = 0; k < AHEAD; k++)
        if (k < count) sum += number(packs[k].value[j]) - first;
      Statistics some = mean_of(count, first, sum);
#pragma unroll
      for (int k = 0; k < AHEAD; k++)
        if (k < count) {
          A d = deviation(number(packs[k].value[j]), some.mean, some.rest);
          some.squares = fma(d, d, some.squares);
        }
      all[j] = merged(all[j], some);
    }
  }
#pragma unroll
  for (int j = 0; j < WIDTH; j++) all[j] = of_column(all[j]);
}

// partial (slices, columns): the statistics of each slice.
extern "C" __global__ void __launch_bounds__(512) columns_statistics(
    const T *x, A *partial, int rows, int columns) {
  int column = (blockIdx.x * 32 + threadIdx.x) * WIDTH;
  Rows own(blockIdx.y, column < columns ? rows : 0); // all threads go to the barriers
  Statistics found[WIDTH];
  statistics_of_columns(x, own, columns, column, found);
  if (threadIdx.y || column >= columns) return;
#pragma unroll
  for (int j = 0; j < WIDTH; j++)
    reinterpret_cast<Statistics *>(partial)[int64(blockIdx.y) * columns + column + j] = found[j];
}

// y, μ and σ². partial: what columns_statistics found; NULL if one slice is all.
extern "C" __global__ void __launch_bounds__(512) columns_forward(
    const T *x, T *y, const A *partial, const A *gamma, const A *beta, A *mu, A *var, A eps,
    int centred, int relu, int rows, int columns) {
  int column = (blockIdx.x * 32 + threadIdx.x) * WIDTH, slice = gridDim.y - 1 - blockIdx.y;
  Rows own(slice, column < columns ? rows : 0);
  Statistics all[WIDTH];
  if (partial) {
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      all[j] = nothing();
      if (column < columns)
        for (int k = threadIdx.y; k < gridDim.y; k += blockDim.y)
          all[j] = merged(all[j], reinterpret_cast<const Statistics *>(
                                      partial)[int64(k) * columns + column + j]);
      all[j] = of_column(all[j]);
    }
  } else {
    statistics_of_columns(x, own, columns, column, all);
  }
  if (column >= columns) return;
  A scale[WIDTH], shift[WIDTH];
#pragma unroll
  for (int j = 0; j < WIDTH; j++) {
    A variance = all[j].squares / all[j].count;
    if (!centred) {
      variance += all[j].mean * all[j].mean;
      all[j].mean = all[j].rest = A(0);
    }
    if (slice == 0 && threadIdx.y == 0) mu[column + j] = all[j].mean, var[column + j] = variance;
    scale[j] = reciprocal_std(variance, eps) * or_else(gamma, column + j, A(1));
    shift[j] = or_else(beta, column + j, A(0));
  }
  for (int row = own.first; row < own.end; row += AHEAD * blockDim.y) {
    Pack packs[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int next = row + k * blockDim.y;
      if (next < own.end) packs[k] = load(x + int64(next) * columns + column);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      int next = row + k * blockDim.y;
      if (next >= own.end) break;
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        A d = deviation(number(packs[k].value[j]), all[j].mean, all[j].rest);
        A out = fma(d, scale[j], shift[j]);
        put(packs[k].value[j], relu && out < A(0) ? A(0) : out);
      }
      store(y + int64(next) * columns + column, packs[k]);
    }
  }
}

__device__ inline void sums_of_columns(
    const T *x, const T *g, const T *y, const A *mu, Rows rows, int columns, int column,
    Sums (&sums)[WIDTH]) {
  A mean[WIDTH];
#pragma unroll
  for (int j = 0; j < WIDTH; j++) {
    sums[j] = {A(0), A(0), A(0)};
    mean[j] = column < columns ? mu[column + j] : A(0);
  }
#pragma unroll 4
  for (int row = rows.first; row < rows.end; row += blockDim.y) {
    int64 place = int64(row) * columns + column;
    Pack xs = load(x + place), gs = load(g + place), ys;
    if (y) ys = load(y + place);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      bool passed = !y || number(ys.value[j]) > A(0);
      add(sums[j], number(xs.value[j]) - mean[j], passed ? number(gs.value[j]) : A(0));
    }
  }
#pragma unroll
  for (int j = 0; j < WIDTH; j++) sums[j] = of_column(sums[j]);
}

// partial (slices, columns): the sums of each slice.
extern "C" __global__ void __launch_bounds__(512) columns_gradient_sums(
    const T *x, const T *g, const T *y, const A *mu, A *partial, int rows, int columns) {
  int column = (blockIdx.x * 32 + threadIdx.x) * WIDTH;
  Rows own(blockIdx.y, column < columns ? rows : 0);
  Sums sums[WIDTH];
  sums_of_columns(x, g, y, mu, own, columns, column, sums);
  if (threadIdx.y || column >= columns) return;
#pragma unroll
  for (int j = 0; j < WIDTH; j++)
    reinterpret_cast<Sums *>(partial)[int64(blockIdx.y) * columns + column + j] = sums[j];
}

// As parts_gradients. partial: what columns_gradient_sums found; NULL if one slice is all.
extern "C" __global__ void __launch_bounds__(512) columns_gradients(
    const T *x, const T *g, const T *y, T *dx, const A *partial, const A *gamma, const A *mu,
    const A *var, A *dgamma, A *dbeta, A eps, int centred, int rows, int columns) {
  int column = (blockIdx.x * 32 + threadIdx.x) * WIDTH, slice = gridDim.y - 1 - blockIdx.y;
  Rows own(slice, column < columns ? rows : 0);
  Sums sums[WIDTH];
  if (partial) {
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      sums[j] = {A(0), A(0), A(0)};
      if (column < columns)
        for (int k = threadIdx.y; k < gridDim.y; k += blockDim.y)
          sums[j] = sums[j] +
                    reinterpret_cast<const Sums *>(partial)[int64(k) * columns + column + j];
      sums[j] = of_column(sums[j]);
    }
  } else {
    sums_of_columns(x, g, y, mu, own, columns, column, sums);
  }
  if (column >= columns) return;
  A mean[WIDTH], rest[WIDTH], scale[WIDTH], mean_g[WIDTH], mean_gd[WIDTH];
#pragma unroll
  for (int j = 0; j < WIDTH; j++) {
    A r = reciprocal_std(var[column + j], eps);
    mean[j] = mu[column + j];
    rest[j] = centred ? sums[j].d / rows : A(0);
    A gd = sums[j].gd - rest[j] * sums[j].g;
    if (slice == 0 && threadIdx.y == 0) {
      if (dgamma) dgamma[column + j] = gd * r;
      if (dbeta) dbeta[column + j] = sums[j].g;
    }
    scale[j] = r * or_else(gamma, column + j, A(1));
    mean_g[j] = centred ? sums[j].g / rows : A(0);
    mean_gd[j] = gd / rows * r * r;
  }
  for (int row = own.first; row < own.end; row += PAIRS * blockDim.y) {
    Pack xs[PAIRS], gs[PAIRS], ys[PAIRS];
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
      int next = row + k * blockDim.y;
      if (next >= own.end) break;
      int64 place = int64(next) * columns + column;
      xs[k] = load(x + place), gs[k] = load(g + place);
      if (y) ys[k] = load(y + place);
    }
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
      int next = row + k * blockDim.y;
      if (next >= own.end) break;
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        A d = deviation(number(xs[k].value[j]), mean[j], rest[j]), through = number(gs[k].value[j]);
        if (y && !(number(ys[k].value[j]) > A(0))) through = A(0);
        put(xs[k].value[j], scale[j] * (through - mean_g[j] - d * mean_gd[j]));
      }
      store(dx + int64(next) * columns + column, xs[k]);
    }
  }
}
