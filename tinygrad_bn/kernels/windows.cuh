// Windows of images. An image is (depth, height, width), its axes are d, h and w, and it has 1 for
// those that it lacks. Along each: o, how many windows; k, the places of the kernel; s, the stride;
// b, the padding before; r, the dilation ("rate"). kernels/cuda_windows.py gives these 18 numbers.

#include "numbers.cuh"

// The threads of a grid share the numbers from 0 on: each begins here, and goes on by so many.
__device__ inline int64 own_number() { return int64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline int64 all_threads() { return int64(gridDim.x) * blockDim.x; }

// A place in an image, or a window of it; and in which image, of those that follow one another.
struct Point { int d, h, w; int64 image; };

__device__ inline Point point_of(int64 number, int depth, int height, int width) {
  int64 lines = number / width, planes = lines / height;
  return {int(planes % depth), int(lines % height), int(number % width), planes / depth};
}

__device__ inline bool within(int at, int size) { return 0 <= at && at < size; }

// Along an axis the windows that reach over place `at` are those from the first to the last.
__device__ inline int first_window(int at, int k, int s, int b, int r) {
  int begin = at + b - (k - 1) * r; // of the first at the earliest
  return begin > 0 ? (begin + s - 1) / s : 0;
}
__device__ inline int last_window(int at, int o, int s, int b) { return min((at + b) / s, o - 1); }
