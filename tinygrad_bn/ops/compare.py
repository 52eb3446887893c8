"""Ops without gradients: comparisons, signs, positions. They are locally constant, so what they
return is not recorded, and a gradient rule may treat it as a constant at every order."""

from ..primitive import op
from ..reduction import accumulator

__all__ = ["argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "equal", "greater",
           "greater_equal", "invert", "isfinite", "less", "less_equal", "not_equal",
           "sign"]  # fmt: skip


@op("=")
def equal(xp, x, y):
    """x == y"""
    return xp.equal(x, y)


@op("≠")
def not_equal(xp, x, y):
    """x != y"""
    return xp.not_equal(x, y)


@op("<")
def less(xp, x, y):
    """x < y"""
    return xp.less(x, y)


@op("≤")
def less_equal(xp, x, y):
    """x <= y"""
    return xp.less_equal(x, y)


@op(">")
def greater(xp, x, y):
    """x > y"""
    return xp.greater(x, y)


@op("≥")
def greater_equal(xp, x, y):
    """x >= y"""
    return xp.greater_equal(x, y)


@op("and")
def bitwise_and(xp, x, y):
    """x & y: for masks, where both hold."""
    return x & y


@op("or")
def bitwise_or(xp, x, y):
    """x | y: for masks, where either holds."""
    return x | y


@op("not")
def invert(xp, x):
    """~x: for masks, where it does not hold."""
    return ~x


@op("sign")
def sign(xp, x):
    """-1, 0 or 1."""
    return xp.sign(x)


@op("finite?")
def isfinite(xp, x):
    """Whether x is neither NaN nor infinite."""
    return xp.isfinite(x)


@op("argmax")
def argmax(xp, x, *, axis=None, keepdims=False):
    """The position of the first largest value along `axis` (of the flattened x for None)."""
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@op("argmin")
def argmin(xp, x, *, axis=None, keepdims=False):
    """The position of the first smallest value along `axis` (of the flattened x for None)."""
    return xp.argmin(x, axis=axis, keepdims=keepdims)


@op("argsort")
def argsort(xp, x, *, axis=-1):
    """The positions of the values along `axis` (of the flattened x for None) from the smallest to
    the largest; equal ones stay in order, and NaN comes last. (CuPy sorts no bfloat16.)"""
    return xp.argsort(x.astype(accumulator(x.dtype), copy=False), axis=axis, kind="stable")
