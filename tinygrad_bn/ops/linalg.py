"""Matrix products."""

import math

from ..graph import op
from .elementwise import mul
from .reduce import sum
from .shape import expand_dims, reshape, squeeze, swapaxes, transpose

__all__ = ["linear", "matmul"]


def _left_grad(g, _out, _x, y):
    rank_x, rank_y = len(_x.shape), len(y.shape)
    if rank_y == 1:  # (…, n, k) @ (k,): each row times the number that it gave
        return mul(expand_dims(g, axis=-1), y)
    if rank_x == 1:  # (k,) @ (…, k, n)
        return squeeze(matmul(y, expand_dims(g, axis=-1)), axis=-1)
    return matmul(g, swapaxes(y, axis1=-1, axis2=-2))


def _right_grad(g, _out, x, _y):
    rank_x, rank_y = len(x.shape), len(_y.shape)
    if rank_x == 1:
        row = g if rank_y == 1 else expand_dims(g, axis=-2)
        return mul(x if rank_y == 1 else expand_dims(x, axis=-1), row)
    if rank_y == 1:  # (…, n, k) @ (k,)
        return squeeze(matmul(swapaxes(x, axis1=-1, axis2=-2), expand_dims(g, axis=-1)), axis=-1)
    return matmul(swapaxes(x, axis1=-1, axis2=-2), g)


@op("@", _left_grad, _right_grad)
def matmul(xp, x, y):
    """x @ y: matrices, stacks of matrices (leading axes broadcast), vectors."""
    return xp.matmul(x, y)


def _rows(x):
    """(…, n) as a matrix (rows, n)."""
    return reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))


@op(
    "linear",
    lambda g, _out, _x, weight, _bias: matmul(g, weight),
    lambda g, _out, x, _weight, _bias: matmul(transpose(_rows(g)), _rows(x)),
    lambda g, _out, _x, _weight, _bias: sum(_rows(g), axis=0),
)
def linear(xp, x, weight, bias=None):
    """x @ weight.T + bias, for x (…, n), weight (m, n), bias (m,) or None."""
    if len(weight.shape) != 2 or len(x.shape) < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError("weight: wants shape (m, n) where input is (…, n)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError("bias: wants shape (m,) where weight is (m, n)")
    out = xp.matmul(x, weight.T)
    return out if bias is None else out + bias
