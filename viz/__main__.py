"""Draw all pictures: `python -m viz [folder]`."""

import sys
from pathlib import Path

from . import (
    GALLERY,
    batch_norm_butterfly,
    batch_norm_ops,
    batch_norm_scalars,
    batch_norm_symbols,
    family,
    fused_vs_composed,
    mlp,
    stepper,
)

folder = Path(*sys.argv[1:2] or [GALLERY])
folder.mkdir(parents=True, exist_ok=True)
for program in (
    batch_norm_symbols,
    batch_norm_ops,
    batch_norm_scalars,
    batch_norm_butterfly,
    fused_vs_composed,
    stepper,
    family,
    mlp,
):
    program.main(folder)
