"""Matrix products, and functions of a matrix: all over stacks (…, n, n), matrix by matrix.

The rules are those of Giles (2008), "Collected matrix derivative results for forward and reverse
mode algorithmic differentiation", where a rule says nothing else. A function that reads only half
of a symmetric matrix (`cholesky`, `eigh` and what rests on it) has a symmetric gradient: that for
moving a pair of mirrored elements, shared by the two.

LAPACK knows float32 and float64 alone: of integers the result is float64 as in NumPy, of float16 it
is float32. A matrix that is singular, or not positive definite where it should be, is a ValueError
of `solve`, `inv` and `cholesky` on the CPU; on a GPU, where a check would wait, nothing is raised.
"""

import math

import numpy as np

from ..kernels.cuda_blas import product
from ..primitive import op
from ..reduction import SUMMED, accumulator
from .shape import expand_dims, reshape, squeeze, swapaxes, transpose

__all__ = ["cholesky", "eigh", "inv", "linear", "lyapunov", "matmul", "solve", "sqrtm"]


def _transposed(a):
    return swapaxes(a, axis1=-1, axis2=-2)


def _left_grad(g, _out, _x, y):
    if len(y.shape) == 1:  # a column
        g, y = expand_dims(g, axis=-1), expand_dims(y, axis=-1)
    if len(_x.shape) == 1:  # a row: the engine takes its first axis away
        g = expand_dims(g, axis=-2)
    return matmul(g, _transposed(y))


def _right_grad(g, _out, x, _y):
    column = len(_y.shape) == 1
    if column:
        g = expand_dims(g, axis=-1)
    if len(x.shape) == 1:  # a row
        g, x = expand_dims(g, axis=-2), expand_dims(x, axis=-2)
    product = matmul(_transposed(x), g)
    return squeeze(product, axis=-1) if column else product


@op("@", _left_grad, _right_grad)
def matmul(xp, x, y):
    """x @ y: matrices, stacks of matrices (leading axes broadcast), vectors."""
    if xp is np and x.dtype.char in SUMMED:  # which BLAS does not know
        return matmul.forward(np, _single(x), _single(y)).astype(np.result_type(x.dtype, y.dtype))
    multiply = product if xp is not np else np.dot if x.ndim == y.ndim == 2 else np.matmul
    return multiply(x, y)  # (NumPy's dot costs less)


def _rows(x):
    """(…, n) as a matrix (rows, n)."""
    return x if len(x.shape) == 2 else reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1]))


@op(
    "linear",
    lambda g, _out, _x, weight, _bias: matmul(g, weight),
    lambda g, _out, x, _weight, _bias: matmul(transpose(_rows(g)), _rows(x)),
    lambda g, _out, _x, _weight, _bias: g,
)
def linear(xp, x, weight, bias=None):
    """x @ weight.T + bias, for x (…, n), weight (m, n), bias (m,) or None."""
    if x.shape[-1:] != weight.shape[1:] or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError("wants input (…, n), weight (m, n), and bias (m,) or None")
    out = matmul(x, weight.T)
    if bias is None or out.dtype != bias.dtype:
        return out if bias is None else out + bias
    out += bias
    return out


def _symmetric(a):
    return (a + _transposed(a)) * 0.5


@op("I")
def identity_like(xp, a):
    """The identity matrix of the size, dtype and device of square ones; a constant."""
    return xp.eye(a.shape[-1], dtype=a.dtype)


def _single(a):
    return a.astype(accumulator(a.dtype), copy=False)


def _solve_grads(g, out, a, _b, needs):
    column = (*g.shape, 1) if len(_b.shape) == 1 else g.shape
    db = solve(_transposed(a), reshape(g, shape=column))
    da = -matmul(db, _transposed(reshape(out, shape=column))) if needs[0] else None
    return da, reshape(db, shape=g.shape)


@op("solve", joint=_solve_grads)
def solve(xp, a, b):
    """The x with a @ x = b, for a (…, n, n) and b (…, n, k), or b (n,): one vector for all a.

    As in NumPy 2, a b of two axes is a matrix, whatever a is. PyTorch takes it for a stack of
    vectors if its shape is that of a without the last axis: here, that is b[..., None].
    """
    if a.shape[-1:] != a.shape[-2:-1] or b.shape[-2:][:1] != a.shape[-1:]:
        raise ValueError("wants a (…, n, n), and b (…, n, k) or (n,)")
    columns = b[:, None] if b.ndim == 1 else b
    stack = np.broadcast_shapes(a.shape[:-2], columns.shape[:-2])  # CuPy's solve broadcasts nothing
    a = xp.broadcast_to(a, stack + a.shape[-2:])
    columns = xp.broadcast_to(columns, stack + columns.shape[-2:])
    x = xp.linalg.solve(_single(a), _single(columns))
    return x[..., 0] if b.ndim == 1 else x


@op("⁻¹", lambda g, out, _a: -matmul(matmul(_transposed(out), g), _transposed(out)))
def inv(xp, a):
    """The inverse of each matrix. To multiply by it, `solve` is faster and more accurate."""
    return xp.linalg.inv(_single(a))


@op("Φ", lambda g, _out, _a: _phi(g))
def _phi(xp, a):
    """The lower triangle with half of the diagonal. (Linear, and its own transpose.)"""
    return (xp.tril(a) + xp.tril(a, -1)) * 0.5


def _cholesky_grad(g, out, _a):
    """L⁻ᵀ S L⁻¹, where S is the symmetric half of Φ(Lᵀ g)."""
    upper = _transposed(out)
    left = solve(upper, _symmetric(_phi(matmul(upper, g))))
    return solve(upper, _transposed(left))


@op("chol", _cholesky_grad)
def cholesky(xp, a):
    """The lower triangular L with L Lᵀ = a, for symmetric positive definite a.

    Reads the lower triangle of a. The rule is that of Murray (2016), "Differentiation of the
    Cholesky decomposition".
    """
    return xp.linalg.cholesky(_single(a))


def _eigh_grad(gs, outs, _a):
    """V (diag(g_w) + F ∘ Vᵀ g_v) Vᵀ, symmetric, where F is 1 / (w_j − w_i), and 0 for i = j."""
    (g_w, g_v), (w, v) = gs, outs
    identity, inner = identity_like(v), 0.0
    if g_w is not None:
        inner = identity * expand_dims(g_w, axis=-2)
    if g_v is not None:
        turn = matmul(_transposed(v), g_v)
        apart = expand_dims(w, axis=-2) - expand_dims(w, axis=-1) + identity  # the turn has 0 there
        inner = inner + (turn - _transposed(turn)) * 0.5 / apart
    return matmul(matmul(v, inner), _transposed(v))


@op("eigh", _eigh_grad, outputs=("w", "v"))
def eigh(xp, a):
    """Eigenvalues w (…, n), ascending, and eigenvectors v (…, n, n), as columns, of symmetric a.

    Reads the lower triangle of a. A vector's sign is arbitrary, and so is the basis of a space of
    equal eigenvalues: there v has no derivative (infinite or NaN here), and w none of order 2.
    """
    return tuple(xp.linalg.eigh(_single(a)))


def _lyapunov_grads(g, out, s, _q, needs):
    dq = lyapunov(s, g)
    if not needs[0]:
        return None, dq
    y = _transposed(out)
    return -_symmetric(matmul(dq, y) + matmul(y, dq)), dq


@op("lyapunov", joint=_lyapunov_grads)
def lyapunov(xp, s, q):
    """The Y with s Y + Y s = q, for symmetric positive definite s: the derivative of `sqrtm`.

    Its own derivatives are made of itself; so no order divides by a difference of eigenvalues.
    """
    if q.shape[-2:] != s.shape[-2:]:
        raise ValueError("wants s and q (…, n, n)")
    w, v = xp.linalg.eigh(_single(s))
    turned = xp.swapaxes(v, -1, -2) @ q @ v
    return v @ (turned / (w[..., :, None] + w[..., None, :])) @ xp.swapaxes(v, -1, -2)


@op("^½", lambda g, out, _a: lyapunov(out, _symmetric(g)))
def sqrtm(xp, a):
    """The symmetric positive definite S with S S = a, for such a; reads its lower triangle.

    The rule, from dS S + S dS = da, stays right where eigenvalues are equal, as that of `eigh` does
    not (Lin & Maji 2017, "Improved bilinear pooling with CNNs").
    """
    w, v = xp.linalg.eigh(_single(a))
    return (v * xp.sqrt(w)[..., None, :]) @ xp.swapaxes(v, -1, -2)
