"""Scalar: one Python float and its local derivatives. The same idea as Tensor, on one number.

An op stores its arguments and the local derivative to each, so an edge of the graph carries the
number that the chain rule multiplies. micrograd's demos run on it unchanged (Scalar for Value).

>>> a, b = Scalar(2.0), Scalar(-3.0)
>>> c = a * b + a
>>> c.backward()
>>> a.grad, b.grad
(-2.0, 2.0)
"""

import math
from collections.abc import Iterable

import numpy as np

from .engine import toposort

__all__ = ["Scalar"]

_NUMBERS = (int, float, np.number)


class Scalar:
    """A number in a graph: `parents` are the Scalars that it was computed from, `local` its
    derivatives to each of them, `op` what was done, `grad` what backward adds up."""

    __slots__ = ("data", "grad", "parents", "local", "op", "name")

    def __init__(self, data: float, parents: tuple = (), local: tuple = (), op: str = "") -> None:
        if not isinstance(data, _NUMBERS):
            raise TypeError(f"Scalar: got {type(data).__name__} {data!r:.40}, wants a number")
        self.data, self.grad = data, 0.0
        self.parents, self.local, self.op, self.name = parents, local, op, None

    def __add__(self, other):
        if isinstance(other, Scalar):
            return Scalar(self.data + other.data, (self, other), (1.0, 1.0), "+")
        if isinstance(other, _NUMBERS):
            return Scalar(self.data + other, (self,), (1.0,), "+")
        return NotImplemented

    def __mul__(self, other):
        if isinstance(other, Scalar):
            return Scalar(self.data * other.data, (self, other), (other.data, self.data), "×")
        if isinstance(other, _NUMBERS):
            return Scalar(self.data * other, (self,), (other,), "×")
        return NotImplemented

    def __pow__(self, other):
        x = self.data
        if isinstance(other, Scalar):
            n = other.data
            out = x**n
            return Scalar(out, (self, other), (_power_slope(x, n), out * _log(x)), "pow")
        if isinstance(other, _NUMBERS):
            return Scalar(x**other, (self,), (_power_slope(x, other),), f"^{other:g}")
        return NotImplemented

    def __rpow__(self, other):
        return Scalar(other) ** self

    def __neg__(self):
        return Scalar(-self.data, (self,), (-1.0,), "−")

    def __sub__(self, other):
        if isinstance(other, Scalar):
            return Scalar(self.data - other.data, (self, other), (1.0, -1.0), "−")
        return self + -other if isinstance(other, _NUMBERS) else NotImplemented

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        if isinstance(other, Scalar):
            out = self.data / other.data
            return Scalar(out, (self, other), (1.0 / other.data, -out / other.data), "÷")
        return self * (1.0 / other) if isinstance(other, _NUMBERS) else NotImplemented

    def __rtruediv__(self, other):
        return self**-1 * other

    __radd__, __rmul__ = __add__, __mul__

    def exp(self):
        out = math.exp(self.data)
        return Scalar(out, (self,), (out,), "exp")

    def log(self):
        """The natural logarithm of a positive number."""
        if not self.data > 0:
            raise ValueError(f"log: got {self.data}, wants a positive number")
        return Scalar(math.log(self.data), (self,), (1.0 / self.data,), "log")

    def sqrt(self):
        """The square root of a number ≥ 0; its derivative at 0 is infinite."""
        if not self.data >= 0:
            raise ValueError(f"sqrt: got {self.data}, wants a number ≥ 0")
        out = math.sqrt(self.data)
        return Scalar(out, (self,), (0.5 / out if out else math.inf,), "√")

    def tanh(self):
        out = math.tanh(self.data)
        return Scalar(out, (self,), (1.0 - out * out,), "tanh")

    def sigmoid(self):
        e = math.exp(-abs(self.data))
        out = (1.0 if self.data >= 0 else e) / (1.0 + e)
        return Scalar(out, (self,), (out * (1.0 - out),), "σ")

    def relu(self):
        """max(self, 0); its derivative at 0 is 0."""
        out = 0 if self.data <= 0 else self.data  # NaN stays
        return Scalar(out, (self,), (1.0 if self.data > 0 else 0.0,), "relu")

    @staticmethod
    def sum(terms: Iterable["Scalar | float"]) -> "Scalar":
        """The sum of Scalars and numbers as one node."""
        terms = tuple(terms)
        parents = tuple([t for t in terms if isinstance(t, Scalar)])
        return Scalar(math.fsum(map(_value, terms)), parents, (1.0,) * len(parents), "Σ")

    @staticmethod
    def dot(xs: Iterable["Scalar | float"], ys: Iterable["Scalar | float"]) -> "Scalar":
        """Σ xᵢ yᵢ as one node, for as many Scalars or numbers in `xs` as in `ys`."""
        xs, ys = tuple(xs), tuple(ys)
        if len(xs) != len(ys):
            raise ValueError(f"dot: got {len(xs)} and {len(ys)} terms, wants as many of each")
        x, y = list(map(_value, xs)), list(map(_value, ys))
        edges = [(a, slope) for a, slope in zip(xs + ys, y + x) if isinstance(a, Scalar)]
        parents, local = zip(*edges) if edges else ((), ())
        return Scalar(math.fsum([a * b for a, b in zip(x, y)]), parents, local, "·")

    def backward(self) -> None:
        """Add the derivative of this to `grad` of every Scalar without parents that it depends on,
        and set `grad` of all between."""
        order = toposort([self], _parents)
        for node in order:
            if node.parents:
                node.grad = 0.0
        self.grad += 1.0
        for node in order:
            g = node.grad
            for parent, slope in zip(node.parents, node.local):
                parent.grad += g * slope

    def __repr__(self) -> str:
        return f"Scalar(data={self.data}, grad={self.grad})"

    # micrograd's drawing code asks for these by their old names.
    _prev = property(lambda self: set(self.parents))
    _op = property(lambda self: self.op)


def _value(term: "Scalar | float") -> float:
    return term.data if isinstance(term, Scalar) else term


def _parents(node: Scalar) -> tuple:
    return node.parents


def _power_slope(x: float, n: float) -> float:
    """d(xⁿ)/dx; 0 for n = 0, also at x = 0."""
    if x == 0 and 0 < n < 1:
        return math.inf
    return n * x ** (n - 1) if n else 0.0


def _log(x: float) -> float:
    """log x in d(xⁿ)/dn; at x = 0 it counts as 0, below 0 it is NaN."""
    return (math.log(x) if x > 0 else math.nan) if x else 0.0
