"""Batch norm, twice: `composed` from primitives, and `fused` as one op with the analytic gradient.

Both define `batch_norm` and `batch_norm_inference`; read them side by side.
"""

from . import composed, fused

IMPLEMENTATIONS = {"composed": composed, "fused": fused}
