"""What several ranks gain on this machine: `python -m benchmarks.scaling`."""
