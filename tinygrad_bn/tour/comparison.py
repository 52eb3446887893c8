"""Fused batch norm held against composed, and what comes of saving the statistics as constants."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from ..check import compare
from ..creation import tensor
from ..graph import Tensor
from ..norm import composed, fused
from ..ops import mean, sqrt
from ..primitive import op


def _example() -> list[Tensor]:
    """x (32, 16), γ and β (16,) in float64; always the same."""
    random = np.random.default_rng(0)
    x, gamma, beta = random.normal(size=(32, 16)), *random.normal(1, 0.5, size=(2, 16))
    return [tensor(v, requires_grad=True) for v in (x, gamma, beta)]


def compare_batch_norms() -> dict:
    """Print and return how composed and fused batch norm compare."""
    inputs, order = _example(), 4
    options = {"axes": (0,), "eps": 1e-5}
    result = compare(
        lambda *values: composed.normalize(*values, **options),
        lambda *values: fused.normalize(*values, **options),
        *inputs,
        order=order,
    )
    parting = _first_above(1e-9, result.differences)
    if parting is None:
        title = f"One fused op equals the composed formula at every order to {order}"
    else:
        title = f"Fused and composed batch norm part at order {parting}"
    return {
        "title": title,
        "shape": inputs[0].shape,
        "ops": result.ops,
        "held_bytes": result.held,
        "differences": result.differences,
        "seconds": result.seconds,
    }


def _saved_constants_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps):
    """∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β by the formula of `norm.fused`, with μ and σ² as bare constants."""
    g, m = gs[0], x.size // gamma.size
    mu, var = (v.detach() if isinstance(v, Tensor) else v for v in outs[1:])
    r = 1.0 / sqrt(var + eps)
    xhat = (x - mu) * r
    mean_g, mean_gxhat = (mean(v, axis=axes, keepdims=True) for v in (g, g * xhat))
    dx = gamma * r * (g - mean_g - xhat * mean_gxhat)
    return dx, mean_gxhat * m, mean_g * m


@op("batch norm, constants", joint=_saved_constants_grads, outputs=("_y", "mu", "var"))
def batch_norm_with_saved_constants(xp, x, gamma, beta, *, axes, eps):
    """Fused batch norm as other libraries write it, to show what goes wrong: for its gradient the
    statistics are constants, arrays without a history."""
    return fused.normalize_forward(x, gamma, beta, axes=axes, eps=eps)


def compare_saved_constants() -> dict:
    """How far y's gradients of orders 1 to 4 are from those of composed batch norm, with the
    statistics as saved constants and as outputs."""
    order = 4

    def differences(batch_norm) -> tuple[float, ...]:
        def only_y(implementation):
            return lambda *values: implementation(*values, axes=(0,), eps=1e-5)[0]

        with contextlib.redirect_stdout(io.StringIO()):  # compare prints; one table is enough
            both = only_y(composed.normalize), only_y(batch_norm)
            return compare(*both, *_example(), order=order, repeat=1).differences[1:]

    constants = differences(batch_norm_with_saved_constants)
    wrong_from = _first_above(1e-6, (0.0, *constants))
    if wrong_from is None:
        title = f"Statistics saved as constants did no harm up to order {order}"
    elif wrong_from == 1:
        title = "Statistics saved as constants give wrong gradients"
    else:
        right = "order 1" if wrong_from == 2 else f"orders 1 to {wrong_from - 1}"
        title = f"Statistics saved as constants: right at {right}, wrong from order {wrong_from}"
    return {
        "title": title,
        "orders": list(range(1, order + 1)),
        "constants": constants,
        "outputs": differences(fused.normalize),
        "wrong_from": wrong_from,
    }


def _first_above(bound: float, differences: Sequence[float]) -> int | None:
    return next((k for k, d in enumerate(differences) if not d <= bound), None)
