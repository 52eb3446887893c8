"""Scalar: one Python float and its local derivatives. The same idea as Tensor, on one number.

An op stores its arguments and the local derivative to each, so an edge of the graph carries the
number that the chain rule multiplies. micrograd's demos run on it unchanged (Scalar for Value).

>>> a, b = Scalar(2.0), Scalar(-3.0)
>>> c = a * b + a
>>> c.backward()
>>> a.grad, b.grad
(-2.0, 2.0)
"""

import itertools
import math
from collections.abc import Iterable
from operator import mul

import numpy as np

from .graph import youngest_first

__all__ = ["Scalar"]

_NUMBERS = (int, float, np.integer, np.floating)
_ticks = itertools.count()


class Scalar:
    """A number in a graph: `parents` are the Scalars that it was computed from, `local` its
    derivatives to each of them, `op` what was done, `grad` what backward adds up.

    The garbage collector looks at every object again and again, so a node is one object: its one or
    two edges are in slots, and only more of them, or a user's own, in a pair of tuples, `many`.
    `time` counts the ops: a node is younger than its parents (-1 where there are none).
    """

    __slots__ = ("data", "grad", "op", "name", "time", "many")
    __slots__ += ("left", "to_left", "right", "to_right")

    def __init__(self, data: float, parents: tuple = (), local: tuple = (), op: str = "") -> None:
        if not isinstance(data, _NUMBERS):
            raise TypeError(f"Scalar: got {type(data).__name__} {data!r:.40}, wants a number")
        self.data, self.grad, self.op, self.name = data, 0.0, op, None
        self.time = next(_ticks) if parents else -1
        self.many = (parents, local) if parents else None
        self.left = self.right = None

    @property
    def parents(self) -> tuple["Scalar", ...]:
        if self.left is None:
            return self.many[0] if self.many else ()
        return (self.left,) if self.right is None else (self.left, self.right)

    @property
    def local(self) -> tuple[float, ...]:
        if self.left is None:
            return self.many[1] if self.many else ()
        return (self.to_left,) if self.right is None else (self.to_left, self.to_right)

    def __add__(self, other):
        if isinstance(other, Scalar):
            return _result("+", self.data + other.data, self, 1.0, other, 1.0)
        if isinstance(other, _NUMBERS):
            return _result("+", self.data + other, self, 1.0)
        return NotImplemented

    def __mul__(self, other):
        if isinstance(other, Scalar):
            return _result("×", self.data * other.data, self, other.data, other, self.data)
        if isinstance(other, _NUMBERS):
            return _result("×", self.data * other, self, other)
        return NotImplemented

    def __pow__(self, other):
        x = self.data
        if isinstance(other, Scalar):
            n = other.data
            out = x**n
            return _result("pow", out, self, _power_slope(x, n), other, out * _log(x))
        if isinstance(other, _NUMBERS):
            return _result(f"^{other:g}", x**other, self, _power_slope(x, other))
        return NotImplemented

    def __rpow__(self, other):
        return Scalar(other) ** self

    def __neg__(self):
        return _result("−", -self.data, self, -1.0)

    def __sub__(self, other):
        if isinstance(other, Scalar):
            return _result("−", self.data - other.data, self, 1.0, other, -1.0)
        return self + -other if isinstance(other, _NUMBERS) else NotImplemented

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        if isinstance(other, Scalar):
            out = self.data / other.data
            return _result("÷", out, self, 1.0 / other.data, other, -out / other.data)
        return self * (1.0 / other) if isinstance(other, _NUMBERS) else NotImplemented

    def __rtruediv__(self, other):
        return self**-1 * other

    __radd__, __rmul__ = __add__, __mul__

    def exp(self):
        out = math.exp(self.data)
        return _result("exp", out, self, out)

    def log(self):
        """The natural logarithm of a positive number."""
        if not self.data > 0:
            raise ValueError(f"log: got {self.data}, wants a positive number")
        return _result("log", math.log(self.data), self, 1.0 / self.data)

    def sqrt(self):
        """The square root of a number ≥ 0; its derivative at 0 is infinite."""
        if not self.data >= 0:
            raise ValueError(f"sqrt: got {self.data}, wants a number ≥ 0")
        out = math.sqrt(self.data)
        return _result("√", out, self, 0.5 / out if out else math.inf)

    def tanh(self):
        out = math.tanh(self.data)
        return _result("tanh", out, self, 1.0 - out * out)

    def sigmoid(self):
        e = math.exp(-abs(self.data))
        out = (1.0 if self.data >= 0 else e) / (1.0 + e)
        return _result("σ", out, self, out * (1.0 - out))

    def relu(self):
        """max(self, 0); its derivative at 0 is 0."""
        x = self.data
        return _result("relu", 0 if x <= 0 else x, self, 1.0 if x > 0 else 0.0)  # NaN stays

    @staticmethod
    def sum(terms: Iterable["Scalar | float"]) -> "Scalar":
        """The sum of Scalars and numbers as one node, rounded once."""
        terms = list(terms)
        values = [t.data if isinstance(t, Scalar) else t for t in terms]
        parents = tuple([t for t in terms if isinstance(t, Scalar)])
        return Scalar(math.fsum(values), parents, (1.0,) * len(parents), "Σ")

    @staticmethod
    def dot(xs: Iterable["Scalar | float"], ys: Iterable["Scalar | float"]) -> "Scalar":
        """Σ xᵢ yᵢ as one node, for as many Scalars or numbers in `xs` as in `ys`."""
        xs, ys = list(xs), list(ys)
        if (n := len(xs)) != len(ys):
            raise ValueError(f"dot: got {n} and {len(ys)} terms, wants as many of each")
        terms = xs + ys
        values = [t.data if isinstance(t, Scalar) else t for t in terms]
        x, y = values[:n], values[n:]
        parents, slopes = tuple([t for t in terms if isinstance(t, Scalar)]), y + x
        if len(parents) < len(terms):
            slopes = [slope for t, slope in zip(terms, slopes) if isinstance(t, Scalar)]
        return Scalar(math.fsum(map(mul, x, y)), parents, tuple(slopes), "·")

    def backward(self) -> None:
        """Add the derivative of this to `grad` of every Scalar without parents that it depends on,
        and set `grad` of all between."""
        order = youngest_first([self])
        for node in order:
            if node.time >= 0:
                node.grad = 0.0
        self.grad += 1.0
        for node in order:
            g = node.grad
            if node.left is not None:
                node.left.grad += g * node.to_left
                if node.right is not None:
                    node.right.grad += g * node.to_right
            elif node.many is not None:
                for parent, slope in zip(*node.many):
                    parent.grad += g * slope

    def __repr__(self) -> str:
        return f"Scalar(data={self.data}, grad={self.grad})"

    # micrograd's drawing code asks for these by their old names.
    _prev = property(lambda self: set(self.parents))
    _op = property(lambda self: self.op)


def _result(op, data, left, to_left, right=None, to_right=0.0, new=Scalar.__new__):
    """The Scalar that an op makes of one or two others: quicker than to call the class."""
    node = new(Scalar)
    node.data, node.grad, node.op, node.name = data, 0.0, op, None
    node.time, node.many = next(_ticks), None
    node.left, node.to_left = left, to_left
    node.right, node.to_right = right, to_right
    return node


def _power_slope(x: float, n: float) -> float:
    """d(xⁿ)/dx; 0 for n = 0, also at x = 0."""
    if x == 0 and 0 < n < 1:
        return math.inf
    return n * x ** (n - 1) if n else 0.0


def _log(x: float) -> float:
    """log x in d(xⁿ)/dn; at x = 0 it counts as 0, below 0 it is NaN."""
    return (math.log(x) if x > 0 else math.nan) if x else 0.0
