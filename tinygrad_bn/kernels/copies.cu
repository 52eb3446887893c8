// Copies of up to eight arrays in one launch: blockIdx.y says which; kernels/cuda_copy.py.

__device__ inline void copy(const T *from, T *to, long long count) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count;
       i += (long long)gridDim.x * blockDim.x)
    to[i] = from[i];
}

// (CuPy has no way to pass the addresses as a table without copying it to the device first.)
extern "C" __global__ void __launch_bounds__(256) copy_eight(
    const T *from0, T *to0, long long count0, const T *from1, T *to1, long long count1,
    const T *from2, T *to2, long long count2, const T *from3, T *to3, long long count3,
    const T *from4, T *to4, long long count4, const T *from5, T *to5, long long count5,
    const T *from6, T *to6, long long count6, const T *from7, T *to7, long long count7) {
  switch (blockIdx.y) {
  case 0: return copy(from0, to0, count0);
  case 1: return copy(from1, to1, count1);
  case 2: return copy(from2, to2, count2);
  case 3: return copy(from3, to3, count3);
  case 4: return copy(from4, to4, count4);
  case 5: return copy(from5, to5, count5);
  case 6: return copy(from6, to6, count6);
  case 7: return copy(from7, to7, count7);
  }
}
