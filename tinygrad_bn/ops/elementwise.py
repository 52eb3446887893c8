"""Elementwise ops. Each statement is a line of the table of derivatives: label, rules, forward.

In a rule, `g` is the gradient at the output `out`; a name with a leading underscore is not kept.
"""

import math

import numpy as np

from .. import backend
from ..engine import add
from ..primitive import op
from .compare import equal, greater, less, not_equal, sign

__all__ = ["abs", "add", "clip", "cos", "div", "erf", "exp", "gelu", "leaky_relu", "log", "maximum",
           "minimum", "mul", "neg", "pow", "relu", "sigmoid", "sin", "softplus", "sqrt", "sub",
           "tanh", "where"]  # fmt: skip


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
    # At 0⁰ the derivative is 0, but y · x^(y-1) would be 0 · ∞.
    lambda g, _out, x, y: g * y * pow(where(equal(x, 0) & equal(y, 0), 1.0, x), y - 1.0),
    lambda g, out, x, _y: g * out * log(where(equal(x, 0), 1.0, x)),
)
def pow(xp, x, y):
    """x ** y. The gradient to y counts as 0 where x is 0, and is NaN where x is negative."""
    return x**y


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


@op("sin", lambda g, _out, x: g * cos(x))
def sin(xp, x):
    """The sine of an angle in radians."""
    return xp.sin(x)


@op("cos", lambda g, _out, x: -g * sin(x))
def cos(xp, x):
    """The cosine of an angle in radians."""
    return xp.cos(x)


@op("tanh", lambda g, out, _x: g * (1.0 - out * out))
def tanh(xp, x):
    """The hyperbolic tangent."""
    return xp.tanh(x)


def real(x):
    """x, but integers in the floating-point dtype that NumPy's exp gives them: to negate or to
    subtract unsigned ones would wrap."""
    if not hasattr(x, "dtype") or backend.is_floating(x.dtype):
        return x
    return x.astype(np.result_type(x.dtype, np.float16))


def narrow(out, *inputs):
    """out in bfloat16 if the inputs are: numbers in a formula widen it, as does CuPy's where."""
    codes = {x.dtype.char for x in inputs if hasattr(x, "dtype")}
    return out.astype(inputs[0].dtype) if codes == {"E"} else out


@op("σ", lambda g, out, _x: g * (out * (1.0 - out)))
def sigmoid(xp, x):
    """1 / (1 + exp(-x)), without overflow."""
    e = xp.exp(-xp.absolute(real(x)))
    return narrow(xp.where(xp.greater_equal(x, 0), 1.0, e) / (1.0 + e), x)


@op("relu", lambda g, out, _x: g * greater(out, 0))
def relu(xp, x):
    """max(x, 0); its gradient at 0 is 0."""
    return xp.maximum(x, 0)


@op("leaky relu", lambda g, _out, x, slope=0.01: where(greater(x, 0), g, g * slope))
def leaky_relu(xp, x, *, slope=0.01):
    """x, and slope · x below 0; its gradient at 0 is the slope."""
    return narrow(xp.maximum(x, 0) + xp.minimum(x, 0) * slope, x)


@op("softplus", lambda g, _out, x: g * sigmoid(x))
def softplus(xp, x):
    """log(1 + exp(x)), without overflow."""
    x = real(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.absolute(x)))


def _bell(x):
    """exp(−x²). The square of a large x would overflow; at 30 the bell is 0 in every precision."""
    x = clip(x, -30.0, 30.0)
    return exp(-x * x)


@op("erf", lambda g, _out, x: g * (_bell(x) * (2 / math.sqrt(math.pi))))
def erf(xp, x):
    """The error function, 2/√π · ∫₀ˣ exp(−t²) dt."""
    return backend.erf(xp.asarray(x))


def _normal_cdf(x):
    """Φ, the share of the normal distribution below x."""
    return 0.5 * (1.0 + erf(x * math.sqrt(0.5)))


def _gelu_grad(g, _out, x):
    density = _bell(x * math.sqrt(0.5)) * (1 / math.sqrt(2 * math.pi))
    return g * (_normal_cdf(x) + clip(x, -40.0, 40.0) * density)  # 0, not ∞ · 0, where x is ±∞


@op("gelu", _gelu_grad)
def gelu(xp, x):
    """x · Φ(x), where Φ is the normal distribution's (Hendrycks & Gimpel 2016); 0 at -∞."""
    return narrow(xp.maximum(x, -40.0) * _normal_cdf(x), x)  # Φ(-40) is 0


def _clip_high_grad(g, out, x, low, _high):
    held = less(out, x)
    if low is not None:  # where low > high, high holds whatever x is
        held = held | (greater(out, x) & not_equal(out, low))
    return where(held, g, 0.0)


@op(
    "clip",
    lambda g, out, x, _low, _high: where(equal(out, x), g, 0.0),
    lambda g, out, x, low, _high: where(greater(out, x) & equal(out, low), g, 0.0),
    _clip_high_grad,
)
def clip(xp, x, low=None, high=None):
    """x, but low where it is below, and high where it is above; a bound of None does not bind. The
    gradient goes to x where low <= x <= high, else to the bound that is returned. (PyTorch from
    2.15 has low < x < high.)"""
    if low is None and high is None:
        raise ValueError("low, high: got None for both, wants at least one of them")
    return narrow(xp.clip(x, low, high), x, low, high)


def _if_above(g, x, y):
    """g where x is larger than y, half of it where they are equal."""
    return where(greater(x, y), g, where(equal(x, y), g * 0.5, 0.0))


@op("max", lambda g, _out, x, y: _if_above(g, x, y), lambda g, _out, x, y: _if_above(g, y, x))
def maximum(xp, x, y):
    """The larger of x and y; where they are equal each gets half of the gradient."""
    return xp.maximum(x, y)


@op("min", lambda g, _out, x, y: _if_above(g, y, x), lambda g, _out, x, y: _if_above(g, x, y))
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
    return xp.where(condition, x, y) if xp is np else narrow(xp.where(condition, x, y), x, y)
