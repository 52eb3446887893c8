"""The page on which batch norm computes, forward and backward, one op at a time.

Run it as `python -m viz.stepper [folder]`.
"""

import sys
from pathlib import Path

from tinygrad_bn import diagram
from tinygrad_bn.diagram.batch_norm import worked_example

from . import GALLERY


def main(folder: str | Path = GALLERY) -> None:
    """Write it into `folder` and say so."""
    page = diagram.stepper(worked_example("composed"), title="Batch norm, one op at a time")
    print(page.save(f"{folder}/stepper.html"))


if __name__ == "__main__":
    main(*sys.argv[1:])
