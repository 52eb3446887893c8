"""A row of the tables of ops: an expression that reads the same with our names and with NumPy's."""

from typing import NamedTuple

import numpy as np
from helpers import grid, listed, on_device

import tinygrad_bn as tg


def softmax(x, axis=-1):
    return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)


FORMULAS = {  # where NumPy has another name, or no such function
    "neg": np.negative,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": np.power,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "logsumexp": lambda x, *axis, **options: np.log(np.sum(np.exp(x), *axis, **options)),
    "softmax": softmax,
    "log_softmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "linear": lambda x, weight, bias=0: np.matmul(x, weight.T) + bias,
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
