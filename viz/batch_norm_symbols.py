"""The signature picture: the symbols of the lecture, and every path of the gradient.

Run it as `python -m viz.batch_norm_symbols [folder]`.
"""

import sys
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn.diagram.batch_norm import worked_example

from . import GALLERY


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    loss = worked_example("composed")
    for theme in ("light", "dark"):
        picture = tg.draw(loss, "symbols", theme=theme)
        print(picture.save(f"{folder}/batch_norm_symbols_{theme}.svg"))
    for notation in ("fleuret", "hat"):
        picture = tg.draw(loss, "symbols", notation)
        print(picture.save(f"{folder}/batch_norm_symbols_{notation}.svg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
