"""Elementwise ops. Each statement is a line of the table of derivatives: label, rules, forward.

In a rule, `g` is the gradient at the output `out`; a name with a leading underscore is not kept.
"""

from ..engine import add
from ..graph import op
from .compare import equal, greater, sign

__all__ = [
    "abs",
    "add",
    "div",
    "exp",
    "log",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "pow",
    "relu",
    "sigmoid",
    "sqrt",
    "sub",
    "tanh",
    "where",
]


@op("−", lambda g, _out, _x, _y: g, lambda g, _out, _x, _y: -g)
def sub(xp, x, y):
    """x - y"""
    return x - y


@op("×", lambda g, _out, _x, y: g * y, lambda g, _out, x, _y: g * x)
def mul(xp, x, y):
    """x * y"""
    return x * y


@op("÷", lambda g, _out, _x, y: g / y, lambda g, out, _x, y: -g * out / y)
def div(xp, x, y):
    """x / y"""
    return x / y


@op("−", lambda g, _out, _x: -g)
def neg(xp, x):
    """-x"""
    return -x


@op(
    "pow",
    lambda g, _out, x, y: g * y * pow(where(_zero_to_zero(x, y), 1.0, x), y - 1.0),
    lambda g, out, x, _y: g * out * log(where(equal(x, 0), 1.0, x)),
)
def pow(xp, x, y):
    """x ** y. The gradient to y counts as 0 where x is 0, and is NaN where x is negative."""
    return x**y


def _zero_to_zero(x, y):
    """Where x⁰ stands at x = 0: its derivative is 0, but y · x^(y-1) would be 0 · ∞."""
    return equal(x, 0) * equal(y, 0)


@op("|·|", lambda g, _out, x: g * sign(x))
def abs(xp, x):
    """The absolute value; its gradient at 0 is 0."""
    return xp.absolute(x)


@op("exp", lambda g, out, _x: g * out)
def exp(xp, x):
    """e ** x"""
    return xp.exp(x)


@op("log", lambda g, _out, x: g / x)
def log(xp, x):
    """The natural logarithm."""
    return xp.log(x)


@op("√", lambda g, out, _x: g / (out * 2.0))
def sqrt(xp, x):
    """The square root; its gradient at 0 is infinite."""
    return xp.sqrt(x)


@op("tanh", lambda g, out, _x: g * (1.0 - out * out))
def tanh(xp, x):
    """The hyperbolic tangent."""
    return xp.tanh(x)


@op("σ", lambda g, out, _x: g * (out * (1.0 - out)))
def sigmoid(xp, x):
    """1 / (1 + exp(-x)), without overflow."""
    e = xp.exp(-xp.absolute(x))
    return xp.where(xp.greater_equal(x, 0), 1.0, e) / (1.0 + e)


@op("relu", lambda g, out, _x: g * greater(out, 0))
def relu(xp, x):
    """max(x, 0); its gradient at 0 is 0."""
    return xp.maximum(x, 0)


@op(
    "max",
    lambda g, _out, x, y: where(greater(x, y), g, where(equal(x, y), g * 0.5, 0.0)),
    lambda g, _out, x, y: where(greater(y, x), g, where(equal(x, y), g * 0.5, 0.0)),
)
def maximum(xp, x, y):
    """The larger of x and y; where they are equal each gets half of the gradient."""
    return xp.maximum(x, y)


@op(
    "min",
    lambda g, _out, x, y: where(greater(y, x), g, where(equal(x, y), g * 0.5, 0.0)),
    lambda g, _out, x, y: where(greater(x, y), g, where(equal(x, y), g * 0.5, 0.0)),
)
def minimum(xp, x, y):
    """The smaller of x and y; where they are equal each gets half of the gradient."""
    return xp.minimum(x, y)


@op(
    "where",
    None,
    lambda g, _out, condition, _x, _y: where(condition, g, 0.0),
    lambda g, _out, condition, _x, _y: where(condition, 0.0, g),
)
def where(xp, condition, x, y):
    """x where the condition holds, else y."""
    if x is None or y is None:
        raise TypeError("x, y: got None, wants arrays or numbers")
    return xp.where(condition, x, y)
