"""Every op of batch norm with its value and gradient: composed and fused, forward and backward.

Run it as `python -m viz.batch_norm_ops [folder]`.
"""

import sys
from pathlib import Path

from tinygrad_bn.diagram.batch_norm import draw_batch_norm

GALLERY = Path(__file__).parent / "gallery"


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    paths, reason = draw_batch_norm(folder)
    for path in paths:
        print(path)
    if reason is not None:
        print(f"no SVG: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
