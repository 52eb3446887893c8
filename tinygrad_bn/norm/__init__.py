"""Normalization, twice: `composed` from primitives, `fused` as one op with the analytic gradient.

Both define `normalize` and `normalize_inference`, which serve the whole family that `axes` lists;
read them side by side.
"""

from . import composed, fused

IMPLEMENTATIONS = {"composed": composed, "fused": fused}
