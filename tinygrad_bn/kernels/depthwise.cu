// Convolution of each channel by itself; kernels/cuda_depthwise.py launches it.
//
// An input channel has `filters` of the output channels, which follow one another.

#include "windows.cuh"

extern "C" __global__ void __launch_bounds__(256) forward(
    const T *x, const T *weight, const T *bias, T *out, long long windows, int channels,
    int filters, int depth, int height, int width, int od, int oh, int ow, int kd, int kh, int kw,
    int sd, int sh, int sw, int bd, int bh, int bw, int rd, int rh, int rw) {
  for (int64 i = own_number(); i < windows; i += all_threads()) {
    Point window = point_of(i, od, oh, ow);
    int first_d = window.d * sd - bd, first_h = window.h * sh - bh, first_w = window.w * sw - bw;
    int filter = int(window.image % (int64(channels) * filters));
    const T *image = x + window.image / filters * depth * height * width;
    const T *kernel = weight + int64(filter) * kd * kh * kw;
    A sum = bias ? number(bias[filter]) : A(0);
    for (int a = 0; a < kd; a++)
      for (int b = 0; b < kh; b++)
        for (int c = 0; c < kw; c++, kernel++) {
          int d = first_d + a * rd, h = first_h + b * rh, w = first_w + c * rw;
          if (within(d, depth) && within(h, height) && within(w, width))
            sum = fma(number(*kernel), number(image[(int64(d) * height + h) * width + w]), sum);
        }
    put(out[i], sum);
  }
}

// The place in the kernel by which window `number` meets place `at`, or -1.
__device__ inline int met_by(int at, int number, int s, int b, int r) {
  int far = at + b - number * s;
  return r == 1 ? far : far % r ? -1 : far / r;
}

// At x.
extern "C" __global__ void __launch_bounds__(256) input_gradient(
    const T *g, const T *weight, T *out, long long places, int channels, int filters, int depth,
    int height, int width, int od, int oh, int ow, int kd, int kh, int kw, int sd, int sh, int sw,
    int bd, int bh, int bw, int rd, int rh, int rw) {
  for (int64 i = own_number(); i < places; i += all_threads()) {
    Point point = point_of(i, depth, height, width);
    int d = point.d, h = point.h, w = point.w;
    int channel = int(point.image % channels);
    A sum = A(0);
    int last_d = last_window(d, od, sd, bd), last_h = last_window(h, oh, sh, bh);
    int first_w = first_window(w, kw, sw, bw, rw), last_w = last_window(w, ow, sw, bw);
    for (int f = 0; f < filters; f++) {
      const T *from = g + (point.image * filters + f) * od * oh * ow;
      const T *kernel = weight + (int64(channel) * filters + f) * kd * kh * kw;
      for (int p = first_window(d, kd, sd, bd, rd); p <= last_d; p++) {
        int a = met_by(d, p, sd, bd, rd);
        if (a < 0) continue;
        for (int q = first_window(h, kh, sh, bh, rh); q <= last_h; q++) {
          int b = met_by(h, q, sh, bh, rh);
          if (b < 0) continue;
          const T *line = from + (int64(p) * oh + q) * ow, *of_kernel = kernel + (a * kh + b) * kw;
          for (int t = first_w; t <= last_w; t++) {
            int c = met_by(w, t, sw, bw, rw);
            if (c >= 0) sum = fma(number(of_kernel[c]), number(line[t]), sum);
          }
        }
      }
    }
    put(out[i], sum);
  }
}

// At one place of one kernel, by a block: the sum over all windows of all images.
extern "C" __global__ void __launch_bounds__(256) weight_gradient(
    const T *x, const T *g, T *out, int images, int channels, int filters, int depth, int height,
    int width, int od, int oh, int ow, int kd, int kh, int kw, int sd, int sh, int sw, int bd,
    int bh, int bw, int rd, int rh, int rw) {
  int place = blockIdx.x % (kd * kh * kw), filter = blockIdx.x / (kd * kh * kw);
  int from_w = place % kw * rw - bw, from_h = place / kw % kh * rh - bh;
  int from_d = place / kw / kh * rd - bd;
  int64 windows = int64(od) * oh * ow;
  A sum = A(0);
  for (int64 i = threadIdx.x; i < images * windows; i += blockDim.x) {
    int64 image = i / windows, rest = i % windows;
    int w = int(rest % ow) * sw + from_w, h = int(rest / ow % oh) * sh + from_h;
    int d = int(rest / ow / oh) * sd + from_d;
    if (!(within(d, depth) && within(h, height) && within(w, width))) continue;
    int64 line = (image * channels + filter / filters) * depth + d;
    sum = fma(number(x[(line * height + h) * width + w]),
              number(g[(image * channels * filters + filter) * windows + rest]), sum);
  }
  __shared__ A sums[256];
  sums[threadIdx.x] = sum;
  for (int half = 128; half; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) put(out[blockIdx.x], sums[0]);
}
