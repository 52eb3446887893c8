"""How fast the library is, beside others that do the same work: `python -m benchmarks.speed`."""
