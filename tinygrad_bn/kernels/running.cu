// The running statistics of batch norm and instance norm.

#include "norm.cuh"

// running ← running + momentum (batch − running), by the mean over `samples` of the statistics.
extern "C" __global__ void __launch_bounds__(256) move_running(
    A *running_mean, A *running_var, const A *mu, const A *var, A scale, A momentum,
    const A *momentum_on_device, int samples, int channels) {
  int channel = blockIdx.x * blockDim.x + threadIdx.x;
  if (channel >= channels) return;
  A weight = momentum_on_device ? *momentum_on_device : momentum, mean = A(0), variance = A(0);
  for (int sample = 0; sample < samples; sample++) {
    mean += mu[int64(sample) * channels + channel];
    variance += var[int64(sample) * channels + channel];
  }
  running_mean[channel] += weight * (mean / samples - running_mean[channel]);
  running_var[channel] += weight * (variance / samples * scale - running_var[channel]);
}
