"""Batch norm, twice: `composed` from primitives, and `fused` as one op with the analytic gradient.

Both modules define the same functions in the same order; read them side by side.
"""

from . import composed, fused

IMPLEMENTATIONS = {"composed": composed, "fused": fused}
