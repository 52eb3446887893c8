"""Batch norm and its recorded backward pass, side by side, composed and fused.

Run it as `python -m viz.batch_norm_butterfly [folder]`.
"""

import sys
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn.diagram.batch_norm import worked_example

from . import GALLERY


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    for implementation in ("composed", "fused"):
        picture = tg.draw(worked_example(implementation), "butterfly")
        print(picture.save(f"{folder}/batch_norm_butterfly_{implementation}.svg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
