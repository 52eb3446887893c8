"""Every op of batch norm with its value and its gradient.

Run it as `python -m viz.batch_norm_ops [folder]`.
"""

import sys
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn.diagram.batch_norm import worked_example

from . import GALLERY


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    print(tg.draw(worked_example("composed"), "ops").save(f"{folder}/batch_norm_ops.svg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
