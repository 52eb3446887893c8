"""Whitening over the batch: what batch norm simplifies.

With μ and Σ the mean and the covariance of the rows of x, and S Sᵀ = Σ + εI, the rows of

    y = (x − μ) S⁻ᵀ

have mean 0 and covariance I, as ε goes to 0. Ioffe & Szegedy (2015) start from this (section 2)
and then, as it is costly, scale each column by itself (section 3): batch norm is what is left if
the entries of Σ off the diagonal are left out. Any such S whitens: `zca` takes the symmetric one
and `cholesky` the triangular one (Kessy, Lewin & Strimmer 2018, "Optimal whitening and
decorrelation"). Both are made of ops, so that every order of derivative is right, also where
eigenvalues of Σ are equal.
"""

from .. import ops
from ..backend import describe, is_floating
from ..ops.linalg import identity_like
from ..ops.shape import cast
from ..tensor import named
from .composed import widened

__all__ = ["cholesky", "zca"]


def zca(x, *, eps):
    """Whiten the rows of x (N, C) by the symmetric S = (Σ + εI)^½: of all white y the nearest to x.

    Σ is the biased covariance, as in batch norm. Σ + εI must be positive definite: for N ≤ C that
    takes an ε > 0, well above the rounding of Σ. y has the shape and dtype of x.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn.norm import whiten
    >>> y = whiten.zca(tg.tensor([[2.0, 1.0], [-2.0, -1.0], [0.0, 3.0], [0.0, -3.0]]), eps=0.0)
    >>> (y.T @ y / 4).numpy().round(5)
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    return _whiten(x, ops.sqrtm, eps)


def cholesky(x, *, eps):
    """Whiten the rows of x (N, C) by the lower triangular S: column k of y is made of the first k
    of x (the Gram–Schmidt process). All else is as in `zca`."""
    return _whiten(x, ops.cholesky, eps)


def _whiten(x, root, eps):
    if len(x.shape) != 2 or not x.shape[0] or not is_floating(x.dtype):
        raise ValueError(f"x: got {describe(x)}, wants floating point (N, C) with N > 0")
    values = widened(x)
    d = named("d", values - named("μ_B", ops.mean(values, axis=0)))
    cov = named("Σ_B", ops.matmul(ops.transpose(d), d) / x.shape[0])
    s = named("S", root(cov + identity_like(cov) * eps))
    y = ops.transpose(ops.solve(s, ops.transpose(d)))
    return named("y", cast(y, x.dtype))
