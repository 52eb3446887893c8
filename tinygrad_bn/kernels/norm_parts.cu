// Normalization of (repeats, groups, parts, run), where a group shares statistics.
//
// Batch norm of images (repeats: N, groups: C), instance norm (groups: N·C), group norm (groups:
// N·G, parts: C/G). γ and β belong to a part: number (group % (affine / parts)) · parts + part. The
// values of a group lie in `repeats` stretches of parts · run, cut into gridDim.y slices. A block
// works on one group, blockIdx.x, and on one slice of it.

#include "norm.cuh"

// Where an access is among the values of a group: found by one division, then by additions.
struct Position { unsigned repeat, inside; };

__device__ inline Position position_of(unsigned access, unsigned stretch) {
  return {access / stretch, access % stretch};
}
__device__ inline void move(Position &position, Position step, unsigned stretch) {
  position.repeat += step.repeat;
  position.inside += step.inside;
  if (position.inside >= stretch) position.inside -= stretch, position.repeat++;
}

// A walk of this thread through slice number `slice` of a group: its accesses, AHEAD at a time.
struct Walk {
  unsigned next, end, stretch;
  Position position, step;
  int64 base, apart; // of the group's first value; from one repeat to the next

  __device__ inline Walk(int group, int slice, int repeats, int groups, int values) {
    stretch = values / WIDTH;
    unsigned all = repeats * stretch, share = (all + gridDim.y - 1) / gridDim.y;
    next = slice * share + threadIdx.x;
    end = min(all, (slice + 1) * share);
    position = position_of(next, stretch);
    step = position_of(blockDim.x, stretch);
    base = int64(group) * values;
    apart = int64(groups) * values;
  }
  __device__ inline bool is_on() const { return next < end; }
  // The address of the next access, and in `inside` where in its stretch it is.
  __device__ inline int64 take(unsigned &inside) {
    inside = position.inside * WIDTH;
    int64 address = base + position.repeat * apart + inside;
    move(position, step, stretch);
    next += blockDim.x;
    return address;
  }
};

__device__ inline Statistics statistics_of_slice(const T *x, Walk walk) {
  Statistics all = nothing();
  while (walk.is_on()) {
    Pack packs[AHEAD];
    int count = 0;
    unsigned inside;
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (walk.is_on()) packs[k] = load(x + walk.take(inside)), count++;
    A first = number(packs[0].value[0]), sum = A(0);
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (k < count) sum += number(packs[k].value[j]) - first;
    Statistics some = mean_of(count * WIDTH, first, sum);
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (k < count) {
          A d = deviation(number(packs[k].value[j]), some.mean, some.rest);
          some.squares = fma(d, d, some.squares);
        }
    all = merged(all, some);
  }
  return of_block(all, nothing());
}

// partial (groups, slices): the statistics of each slice.
extern "C" __global__ void __launch_bounds__(256) parts_statistics(
    const T *x, A *partial, int repeats, int groups, int values) {
  int group = blockIdx.x, slice = blockIdx.y;
  Statistics found = statistics_of_slice(x, Walk(group, slice, repeats, groups, values));
  if (threadIdx.x == 0)
    reinterpret_cast<Statistics *>(partial)[int64(group) * gridDim.y + slice] = found;
}

// y, μ and σ². partial: what parts_statistics found; NULL if one slice is all.
extern "C" __global__ void __launch_bounds__(256) parts_forward(
    const T *x, T *y, const A *partial, const A *gamma, const A *beta, A *mu, A *var, A eps,
    int centred, int relu, int repeats, int groups, int parts, int run, int affine) {
  // Backwards, as the slices that were read last may still be in the cache.
  int group = blockIdx.x, slice = gridDim.y - 1 - blockIdx.y, values = parts * run;
  Walk walk(group, slice, repeats, groups, values);
  Statistics all = nothing();
  if (partial) {
    const Statistics *found = reinterpret_cast<const Statistics *>(partial);
    for (int k = threadIdx.x % 32; k < gridDim.y; k += 32)
      all = merged(all, found[int64(group) * gridDim.y + k]);
    all = of_warp(all);
  } else {
    all = statistics_of_slice(x, walk);
  }
  A variance = all.squares / all.count;
  if (!centred) {
    variance += all.mean * all.mean;
    all.mean = all.rest = A(0);
  }
  if (slice == 0 && threadIdx.x == 0) mu[group] = all.mean, var[group] = variance;
  A r = reciprocal_std(variance, eps);
  int i = group % (affine / parts) * parts, first_affine = i;
  A scale = r * or_else(gamma, i, A(1)), shift = or_else(beta, i, A(0));
  while (walk.is_on()) {
    Pack packs[AHEAD];
    int64 places[AHEAD];
    unsigned insides[AHEAD];
    int count = 0;
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (walk.is_on()) packs[k] = load(x + (places[k] = walk.take(insides[k]))), count++;
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
      if (k < count) {
        if (parts > 1) {
          i = first_affine + insides[k] / run;
          scale = r * or_else(gamma, i, A(1)), shift = or_else(beta, i, A(0));
        }
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          A out = fma(deviation(number(packs[k].value[j]), all.mean, all.rest), scale, shift);
          put(packs[k].value[j], relu && out < A(0) ? A(0) : out);
        }
        store(y + places[k], packs[k]);
      }
  }
}

__device__ inline Sums sums_of_slice(const T *x, const T *g, const T *y, A mean, Walk walk) {
  Sums sums = {A(0), A(0), A(0)};
  while (walk.is_on()) {
    Pack xs[PAIRS], gs[PAIRS], ys[PAIRS];
    int count = 0;
    unsigned inside;
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
      if (walk.is_on()) {
        int64 place = walk.take(inside);
        xs[k] = load(x + place), gs[k] = load(g + place), count++;
        if (y) ys[k] = load(y + place);
      }
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
#pragma unroll
      for (int j = 0; j < WIDTH; j++)
        if (k < count) {
          bool passed = !y || number(ys[k].value[j]) > A(0);
          add(sums, number(xs[k].value[j]) - mean, passed ? number(gs[k].value[j]) : A(0));
        }
  }
  return of_block(sums, Sums{A(0), A(0), A(0)});
}

// partial (groups · parts, slices): the sums of each part, as if each were a group.
// y: the output of a fused ReLU, which lets g pass where it is positive; else NULL.
extern "C" __global__ void __launch_bounds__(256) parts_gradient_sums(
    const T *x, const T *g, const T *y, const A *mu, A *partial, int repeats, int groups, int parts,
    int run) {
  int cell = blockIdx.x, slice = blockIdx.y;
  Walk walk(cell, slice, repeats, groups * parts, run);
  Sums sums = sums_of_slice(x, g, y, mu[cell / parts], walk);
  if (threadIdx.x == 0) reinterpret_cast<Sums *>(partial)[int64(cell) * gridDim.y + slice] = sums;
}

// ∂ℓ/∂x = r (ĝ − mean(ĝ) − x̂ mean(ĝ x̂)), ĝ = γ g. partial: what parts_gradient_sums found in
// `slices` slices a part; NULL if a group is one part and one slice. dgamma and dbeta, or NULL, are
// written where each has one group; else parts_affine_gradients does it.
extern "C" __global__ void __launch_bounds__(256) parts_gradients(
    const T *x, const T *g, const T *y, T *dx, const A *partial, const A *gamma, const A *mu,
    const A *var, A *dgamma, A *dbeta, A eps, int centred, int repeats, int groups, int parts,
    int run, int affine, int slices) {
  int group = blockIdx.x, slice = gridDim.y - 1 - blockIdx.y;
  int first_affine = group % (affine / parts) * parts;
  Walk walk(group, slice, repeats, groups, parts * run);
  A mean = mu[group], r = reciprocal_std(var[group], eps);
  A scale = or_else(gamma, first_affine, A(1));
  Sums own = {A(0), A(0), A(0)}, sums = own; // of g, and of γ g
  if (partial) {
    for (int k = threadIdx.x; k < parts * slices; k += blockDim.x) {
      Sums some = reinterpret_cast<const Sums *>(partial)[int64(group) * parts * slices + k];
      A its_scale = or_else(gamma, first_affine + k / slices, A(1));
      own = own + some;
      sums = sums + Sums{some.d, some.g * its_scale, some.gd * its_scale};
    }
    own = of_block(own, Sums{A(0), A(0), A(0)});
    sums = of_block(sums, Sums{A(0), A(0), A(0)});
  } else {
    own = sums_of_slice(x, g, y, mean, walk);
    sums = {own.d, own.g * scale, own.gd * scale};
  }
  A values = A(repeats) * (parts * run), rest = centred ? sums.d / values : A(0);
  if (slice == 0 && threadIdx.x == 0) {
    if (dgamma) dgamma[group] = (own.gd - rest * own.g) * r;
    if (dbeta) dbeta[group] = own.g;
  }
  A mean_g = centred ? sums.g / values : A(0);
  A mean_gd = (sums.gd - rest * sums.g) / values * r * r;
  while (walk.is_on()) {
    Pack xs[PAIRS], gs[PAIRS], ys[PAIRS];
    int64 places[PAIRS];
    unsigned insides[PAIRS];
    int count = 0;
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
      if (walk.is_on()) {
        places[k] = walk.take(insides[k]);
        xs[k] = load(x + places[k]), gs[k] = load(g + places[k]), count++;
        if (y) ys[k] = load(y + places[k]);
      }
#pragma unroll
    for (int k = 0; k < PAIRS; k++)
      if (k < count) {
        if (parts > 1) scale = or_else(gamma, first_affine + insides[k] / run, A(1));
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
          A d = deviation(number(xs[k].value[j]), mean, rest), through = number(gs[k].value[j]);
          if (y && !(number(ys[k].value[j]) > A(0))) through = A(0);
          put(xs[k].value[j], r * (fma(through, scale, -mean_g) - d * mean_gd));
        }
        store(dx + places[k], xs[k]);
      }
  }
}

// dgamma and dbeta (affine,), or NULL, from the sums of the parts of all groups; a thread for each.
extern "C" __global__ void __launch_bounds__(256) parts_affine_gradients(
    const A *partial, const A *var, A *dgamma, A *dbeta, A eps, int centred, int repeats,
    int groups, int parts, int run, int affine, int slices) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= affine) return;
  A of_gamma = A(0), of_beta = A(0), values = A(repeats) * (parts * run);
  for (int group = i / parts; group < groups; group += affine / parts) {
    Sums own = {A(0), A(0), A(0)};
    A all_d = A(0); // of all parts of the group, whose mean it is
    for (int k = 0; k < parts * slices; k++) {
      Sums some = reinterpret_cast<const Sums *>(partial)[int64(group) * parts * slices + k];
      all_d += some.d;
      if (k / slices == i % parts) own = own + some;
    }
    A rest = centred ? all_d / values : A(0);
    of_gamma = fma(own.gd - rest * own.g, reciprocal_std(var[group], eps), of_gamma);
    of_beta += own.g;
  }
  if (dgamma) dgamma[i] = of_gamma;
  if (dbeta) dbeta[i] = of_beta;
}
