"""Batch norm composed beside fused, as a picture, and as a page with the measured times.

Run it as `python -m viz.fused_vs_composed [folder]`. The times are those that
benchmarks/fused_composed.py has measured and left in benchmarks/results.
"""

import json
import sys
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn import diagram
from tinygrad_bn.diagram.batch_norm import worked_example

from . import GALLERY

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "results" / "fused_composed.json"


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    loss = worked_example("fused")
    print(tg.draw(loss, "fused").save(f"{folder}/fused_vs_composed.svg"))
    page = diagram.comparison(loss, json.loads(BENCHMARK.read_text()))
    print(page.save(f"{folder}/fused_vs_composed.html"))


if __name__ == "__main__":
    main(*sys.argv[1:])
