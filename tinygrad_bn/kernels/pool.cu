// Max pooling; kernels/cuda_pool.py launches it.

#include "windows.cuh"

// Of each window the largest value, and its place in the image: of equal ones the first, of NaNs
// the last. A window that lies in the padding has 0 from place -1.
extern "C" __global__ void __launch_bounds__(256) max_pool(
    const T *x, T *out, long long *where, long long windows, int depth, int height, int width,
    int od, int oh, int ow, int kd, int kh, int kw, int sd, int sh, int sw, int bd, int bh, int bw,
    int rd, int rh, int rw) {
  for (int64 i = own_number(); i < windows; i += all_threads()) {
    Point window = point_of(i, od, oh, ow);
    int first_d = window.d * sd - bd, first_h = window.h * sh - bh, first_w = window.w * sw - bw;
    const T *image = x + window.image * depth * height * width;
    A largest = A(0);
    int64 place = -1;
    for (int a = 0; a < kd; a++) {
      int d = first_d + a * rd;
      if (!within(d, depth)) continue;
      for (int b = 0; b < kh; b++) {
        int h = first_h + b * rh;
        if (!within(h, height)) continue;
        for (int c = 0; c < kw; c++) {
          int w = first_w + c * rw;
          if (!within(w, width)) continue;
          int64 at = (int64(d) * height + h) * width + w;
          A value = number(image[at]);
          if (place < 0 || value > largest || value != value) largest = value, place = at;
        }
      }
    }
    put(out[i], largest);
    where[i] = place;
  }
}

// Each place gets the sum of g over the windows that found their largest value there: it asks those
// that reach over it, one after the other, so that each run gives the same bits.
extern "C" __global__ void __launch_bounds__(256) max_unpool(
    const T *g, const long long *where, T *out, long long places, int depth, int height, int width,
    int od, int oh, int ow, int kd, int kh, int kw, int sd, int sh, int sw, int bd, int bh, int bw,
    int rd, int rh, int rw) {
  for (int64 i = own_number(); i < places; i += all_threads()) {
    Point point = point_of(i, depth, height, width);
    int d = point.d, h = point.h, w = point.w;
    int64 image = point.image * od * oh * ow, at = (int64(d) * height + h) * width + w;
    A sum = A(0);
    int last_d = last_window(d, od, sd, bd), last_h = last_window(h, oh, sh, bh);
    int first_w = first_window(w, kw, sw, bw, rw), last_w = last_window(w, ow, sw, bw);
    for (int a = first_window(d, kd, sd, bd, rd); a <= last_d; a++)
      for (int b = first_window(h, kh, sh, bh, rh); b <= last_h; b++)
        for (int c = first_w; c <= last_w; c++) {
          int64 window = image + (int64(a) * oh + b) * ow + c;
          if (where[window] == at) sum += number(g[window]);
        }
    put(out[i], sum);
  }
}
