"""Draw all pictures: `python -m viz [folder]`."""

import sys

from . import batch_norm_ops, norm_family

for program in (batch_norm_ops, norm_family):
    program.main(*sys.argv[1:])
