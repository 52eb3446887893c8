// Images as the rows of matrices, with the channels last, and back; kernels/cuda_conv.py launches
// it, and multiplies the matrices.
//
// A block takes a tile from one side to the other: so many places by so many channels, `broad`, a
// power of 2 from 4 to 32. Reading and writing, neighbouring threads reach for neighbouring numbers:
// for places in the images, for channels in the rows.

#include "windows.cuh"

#define TILE 1024 // numbers: four for each of 256 threads

struct Tile {
  int channel, group; // its first channel, in this group
  int64 place;        // its first place
};

__device__ inline Tile own_tile(int groups, int channels, int broad) {
  int across = (channels + broad - 1) / broad, number = blockIdx.x / across;
  return {int(blockIdx.x % across) * broad, number % groups,
          int64(number / groups) * (TILE / broad)};
}

// rows (groups, images, od, oh, ow, kd, kh, kw, channels): what each window meets in x (images,
// groups, channels, depth, height, width), 0 in the padding. Behind them stand `more` zeros.
extern "C" __global__ void __launch_bounds__(256) rows_of_images(
    const T *x, T *rows, int groups, int channels, int broad, long long places, long long more,
    int depth, int height, int width, int od, int oh, int ow, int kd, int kh, int kw, int sd,
    int sh, int sw, int bd, int bh, int bw, int rd, int rh, int rw) {
  __shared__ T tile[TILE + 32];
  Tile own = own_tile(groups, channels, broad);
  int length = TILE / broad, column = threadIdx.x % length;
  int64 read = own.place + column, rest = read / (kd * kh * kw);
  int met = int(read % (kd * kh * kw)); // of the kernel
  int w = int(rest % ow) * sw - bw + met % kw * rw;
  rest /= ow;
  int h = int(rest % oh) * sh - bh + met / kw % kh * rh;
  rest /= oh;
  int d = int(rest % od) * sd - bd + met / kw / kh * rd;
  bool inside = read < places && within(d, depth) && within(h, height) && within(w, width);
  int64 line = ((rest / od * groups + own.group) * channels + own.channel) * depth + d;
  const T *from = x + (line * height + h) * width + w;
  int64 image = int64(depth) * height * width;
  for (int i = threadIdx.x / length; i < broad; i += blockDim.x / length) {
    T &to = tile[i * (length + 1) + column];
    put(to, A(0));
    if (inside && own.channel + i < channels) to = from[i * image];
  }
  __syncthreads();
  int row = threadIdx.x % broad, channel = own.channel + row;
  for (int i = threadIdx.x / broad; i < length; i += blockDim.x / broad) {
    int64 written = own.place + i;
    if (written < places && channel < channels)
      rows[(own.group * places + written) * channels + channel] = tile[row * (length + 1) + i];
  }
  if (blockIdx.x == 0)
    for (int64 i = threadIdx.x; i < more; i += blockDim.x)
      put(rows[groups * places * channels + i], A(0));
}

// out (images, groups, channels, lines, width) plus bias (groups, channels) or NULL, from products
// (groups, images, lines, pitch, channels), where a line goes on with what nobody wants.
extern "C" __global__ void __launch_bounds__(256) images_of_rows(
    const A *products, const T *bias, T *out, int groups, int channels, int broad,
    long long places, long long lines, int width, int pitch) {
  __shared__ A tile[TILE + 32];
  Tile own = own_tile(groups, channels, broad);
  int length = TILE / broad, row = threadIdx.x % broad;
  for (int i = threadIdx.x / broad; i < length; i += blockDim.x / broad) {
    int64 read = own.place + i, line = read / width + own.group * (places / width);
    if (read < places && own.channel + row < channels)
      tile[row * (length + 1) + i] =
          products[(line * pitch + read % width) * channels + own.channel + row];
  }
  __syncthreads();
  int column = threadIdx.x % length;
  int64 written = own.place + column, image = lines * width;
  if (written >= places) return;
  for (int i = threadIdx.x / length; i < broad; i += blockDim.x / length) {
    int channel = own.channel + i;
    if (channel >= channels) return;
    A value = tile[i * (length + 1) + column];
    if (bias) value += number(bias[own.group * channels + channel]);
    int64 to = (written / image * groups + own.group) * channels + channel;
    put(out[to * image + written % image], value);
  }
}
