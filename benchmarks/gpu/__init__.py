"""The sections of `benchmarks.gpu_run`: each module has a generator `rows`."""
