"""Composed against fused batch norm, side by side: `python benchmarks/fused_composed.py`.

The time of forward and backward, the median of interleaved runs; and the peak of the memory that a
run takes beyond its inputs, as NumPy reports its arrays to tracemalloc. Both depend on the machine
and its load, so the page of `diagram.comparison` reads them from results/fused_composed.json, which
this program writes. The ops recorded and the bytes held for backward depend on neither.
"""

import json
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.check import graph_nodes, held_bytes

SHAPES = [(32, 64, 56, 56), (1024, 64)]
IMPLEMENTATIONS = ("composed", "fused")
BUDGET = 30  # seconds for each shape: many runs, for other programs come and go
RESULTS = Path(__file__).parent / "results" / "fused_composed.json"


def batch_norms(shape: tuple[int, ...]) -> tuple[list[tg.Tensor], dict[str, Callable]]:
    """x, γ and β in float32, and what makes y of them with each implementation."""
    random = np.random.default_rng(0)
    channels = shape[1]
    arrays = random.standard_normal(shape), np.ones(channels), np.zeros(channels)
    inputs = [tg.tensor(a.astype(np.float32), requires_grad=True) for a in arrays]

    def batch_norm(implementation):
        x, gamma, beta = inputs
        return F.batch_norm(x, None, None, gamma, beta, training=True, impl=implementation)

    return inputs, {name: lambda name=name: batch_norm(name) for name in IMPLEMENTATIONS}


def measured(shape: tuple[int, ...]) -> dict:
    """The row of a shape."""
    inputs, forward = batch_norms(shape)
    arriving = tg.tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32))

    def step(implementation):
        tg.grad(forward[implementation](), inputs, arriving)

    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    end = time.perf_counter() + BUDGET
    while time.perf_counter() < end:
        for name in IMPLEMENTATIONS:
            start = time.perf_counter()
            step(name)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(runs) for name, runs in seconds.items()}
    graphs = {name: [forward[name]()] for name in IMPLEMENTATIONS}
    return {
        "shape": shape,
        "dtype": "float32",
        "runs": len(seconds["fused"]),
        "seconds": {name: float(f"{s:.3g}") for name, s in median.items()},
        "ratio": round(median["composed"] / median["fused"], 2),
        "peak_bytes": {name: peak(lambda name=name: step(name)) for name in IMPLEMENTATIONS},
        "held_bytes": {name: held_bytes(graph) for name, graph in graphs.items()},
        "ops": {name: len(graph_nodes(graph)) for name, graph in graphs.items()},
    }


def peak(run: Callable) -> int:
    """The most bytes that are in use at once during a run, beyond those in use before; to four
    digits, as the interpreter's own objects come and go."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        return int(float(f"{tracemalloc.get_traced_memory()[1] - before:.4g}"))
    finally:
        tracemalloc.stop()


def main() -> None:
    results = {
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rows": [measured(shape) for shape in SHAPES],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
