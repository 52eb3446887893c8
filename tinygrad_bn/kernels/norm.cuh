// What the kernels for normalization share; kernels/cuda_norm.py launches them.
//
// T is the dtype of x and y, and A that of statistics, γ and β, and of all sums. WIDTH values of T
// are read in one access of 16 bytes; WIDTH is 1 where sizes or addresses do not allow it.
//
// A mean is two numbers, `mean + rest`: rounded to A, one of 10⁴ would cost y three digits. No sum
// depends on who comes first, so each run gives the same bits.

#include "numbers.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#define AHEAD (WIDTH == 1 ? 8 : 4) // accesses under way before the first is waited for
#define PAIRS (AHEAD / 2)          // the same, where two arrays are read

// --- Memory --------------------------------------------------------------------------------------

struct alignas(WIDTH * sizeof(T)) Pack { T value[WIDTH]; }; // what one access reads

__device__ inline Pack load(const T *from) { return *reinterpret_cast<const Pack *>(from); }
__device__ inline void store(T *to, const Pack &pack) { *reinterpret_cast<Pack *>(to) = pack; }
__device__ inline A or_else(const A *values, int64 i, A otherwise) {
  return values ? values[i] : otherwise;
}

// --- Statistics ----------------------------------------------------------------------------------

struct Statistics { A count, mean, rest, squares; }; // of some values; squares: Σ (value − mean)²

__device__ inline Statistics nothing() { return {A(0), A(0), A(0), A(0)}; }

// Chan, Golub & LeVeque 1979. Right if either has no values; NaN for an infinite one.
__device__ inline Statistics merged(Statistics a, Statistics b) {
  if (b.count == A(0)) return a;
  if (a.count == A(0)) return b;
  Statistics all;
  all.count = a.count + b.count;
  A share = b.count / all.count;
  A apart = (b.mean - a.mean) + (b.rest - a.rest);
  A moved = fma(apart, share, a.rest);
  all.mean = a.mean + moved;
  all.rest = moved - (all.mean - a.mean);
  all.squares = a.squares + b.squares + apart * apart * a.count * share;
  return all;
}

// Of `count` values x₀, x₁, …, from Σ (xᵢ − x₀); `squares` is still to come.
__device__ inline Statistics mean_of(A count, A first, A sum) {
  A moved = sum / count, mean = first + moved;
  return {count, mean, moved - (mean - first), A(0)};
}

// |mean| may be so large that `rest` is NaN (∞ − ∞); then so is the deviation, as it should be.
__device__ inline A deviation(A x, A mean, A rest) { return (x - mean) - rest; }
__device__ inline A reciprocal_std(A variance, A eps) { return A(1) / sqrt(variance + eps); }

// What the backward pass sums over values that share statistics, where d = value − mean: of d, of
// the gradient g, and of g d. The mean of d is 0 but for the digits that the mean has lost.
struct Sums { A d, g, gd; };

__device__ inline Sums operator+(Sums a, Sums b) { return {a.d + b.d, a.g + b.g, a.gd + b.gd}; }

__device__ inline void add(Sums &sums, A d, A g) {
  sums.d += d;
  sums.g += g;
  sums.gd = fma(g, d, sums.gd);
}

// --- What the threads of a warp, of a block, or of a column found together -----------------------

__device__ inline A from_lane(A value, int distance) {
  return __shfl_xor_sync(0xffffffffu, value, distance);
}
__device__ inline Statistics from_lane(Statistics s, int distance) {
  return {from_lane(s.count, distance), from_lane(s.mean, distance), from_lane(s.rest, distance),
          from_lane(s.squares, distance)};
}
__device__ inline Sums from_lane(Sums s, int distance) {
  return {from_lane(s.d, distance), from_lane(s.g, distance), from_lane(s.gd, distance)};
}
__device__ inline A together(A a, A b) { return a + b; }
__device__ inline Sums together(Sums a, Sums b) { return a + b; }
__device__ inline Statistics together(Statistics a, Statistics b) { return merged(a, b); }

template <class Found> __device__ inline Found of_warp(Found found) {
#pragma unroll
  for (int distance = 16; distance; distance >>= 1) {
    Found other = from_lane(found, distance); // in one order, so that all lanes get the same bits
    found = threadIdx.x & distance ? together(other, found) : together(found, other);
  }
  return found;
}

// Of all blockDim.x threads (whole warps), given to each; `none` adds nothing. Where a warp is a
// row by itself (blockDim.x is 32), of the warp.
template <class Found> __device__ inline Found of_block(Found found, Found none) {
  found = of_warp(found);
  if (blockDim.x == 32) return found;
  __shared__ Found of_warps[32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) of_warps[warp] = found;
  __syncthreads();
  found = of_warp(lane < blockDim.x / 32 ? of_warps[lane] : none);
  __syncthreads(); // before somebody fills it again
  return found;
}

// Of the blockDim.y threads (a power of 2) of one column, given to each.
template <class Found> __device__ inline Found of_column(Found found) {
  __shared__ Found of_threads[16][32];
  of_threads[threadIdx.y][threadIdx.x] = found;
  __syncthreads();
  for (int half = blockDim.y / 2; half; half /= 2) {
    if (threadIdx.y < half)
      of_threads[threadIdx.y][threadIdx.x] = together(
          of_threads[threadIdx.y][threadIdx.x], of_threads[threadIdx.y + half][threadIdx.x]);
    __syncthreads();
  }
  found = of_threads[0][threadIdx.x];
  __syncthreads(); // before somebody fills it again
  return found;
}
