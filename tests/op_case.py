"""A row of the tables of ops: an expression that reads the same with our names and with NumPy's."""

import math
from typing import NamedTuple

import numpy as np
from helpers import grid, listed, on_device

import tinygrad_bn as tg


def softmax(x, axis=-1):
    return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)


def erf(x):
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), x.dtype)


def in_single(function):
    """A function of LAPACK's, which refuses float16, in float32 where it is given that."""
    return lambda *arrays: function(*[np.asarray(a, np.result_type(a, np.float32)) for a in arrays])


def sqrtm(a):
    w, v = np.linalg.eigh(a)
    return v * np.sqrt(w)[..., None, :] @ v.mT


def lyapunov(s, q):
    w, v = np.linalg.eigh(s)
    return v @ (v.mT @ q @ v / (w[..., None] + w[..., None, :])) @ v.mT


FORMULAS = {  # where NumPy has another name, or no such function
    "neg": np.negative,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": np.power,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "clip": lambda x, low=None, high=None: np.clip(x, low, high),
    "erf": erf,
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "vector_norm": np.linalg.vector_norm,
    "pad": lambda x, widths, value=0: np.pad(x, widths, constant_values=value),
    "logsumexp": lambda x, *axis, **options: np.log(np.sum(np.exp(x), *axis, **options)),
    "softmax": softmax,
    "log_softmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "linear": lambda x, weight, bias=0: np.matmul(x, weight.T) + bias,
    **{f.__name__: in_single(f) for f in (sqrtm, lyapunov)},
    **{f: in_single(getattr(np.linalg, f)) for f in ("solve", "inv", "cholesky", "eigh")},
    "sum_to": lambda x, shape: np.sum(x, axis=(0, 2)).reshape(shape),
}
INDICES = {
    "i": np.array([1, 0, 1]),  # with repeats
    "j": np.array([[0, -1], [1, 1]]),
    "rows": np.array([False, True]),
    "mask": np.array([[True, False, True], [False, False, True]]),
}


class Case(NamedTuple):
    """An expression, the shapes of x, y and z, and the range of their values."""

    expression: str
    shapes: tuple
    low: float = -2.0
    high: float = 2.0

    def __str__(self):
        return f"{self.expression} {' '.join(map(str, self.shapes))}"

    def inputs(self, dtype=np.float64):
        """NumPy arrays, with values away from each other and from 0."""
        return [
            grid(shape, self.low, self.high, seed).astype(dtype)
            for seed, shape in enumerate(self.shapes)
        ]

    def ours(self, *inputs):
        """The outputs for Tensors or arrays, by our ops; always a list."""
        indices = {name: on_device(index) for name, index in INDICES.items()}
        return listed(eval(self.expression, {**vars(tg), **indices, **dict(zip("xyz", inputs))}))

    def theirs(self, *inputs):
        """The outputs for NumPy arrays, by NumPy or a formula."""
        names = {**vars(np), **FORMULAS, **INDICES, **dict(zip("xyz", inputs))}
        return listed(eval(self.expression, names))
