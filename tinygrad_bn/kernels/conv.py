"""Convolution and max pooling of arrays: compiled for NumPy's, by CUDA for CuPy's, and wherever
that is missing by whole-array operations."""

from . import accelerated, array_conv, cpu_conv, cpu_pool, cuda_conv, cuda_pool

convolve = accelerated(cpu_conv.convolve, cuda_conv.convolve)(array_conv.convolve)
convolve_input = accelerated(cpu_conv.convolve_input, cuda_conv.convolve_input)(
    array_conv.convolve_input
)
convolve_weight = accelerated(cpu_conv.convolve_weight, cuda_conv.convolve_weight)(
    array_conv.convolve_weight
)
max_pool = accelerated(cpu_pool.max_pool, cuda_pool.max_pool)(array_conv.max_pool)
max_unpool = accelerated(cpu_pool.max_unpool, cuda_pool.max_unpool)(array_conv.max_unpool)
