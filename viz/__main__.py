"""Draw all pictures: `python -m viz [folder]`."""

import sys

from . import batch_norm_ops

for program in (batch_norm_ops,):
    program.main(*sys.argv[1:])
