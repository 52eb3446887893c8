"""Ops and activations: PyTorch's values and gradients of two orders (golden/torch_ops)."""

import types

import numpy as np
import pytest
from golden_cases import answer, check_function, names
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F

OPTIONS = {"dim": "axis", "dims": "axis", "keepdim": "keepdims", "min": "low", "max": "high"}


def with_pytorchs_options(op):
    return lambda *args, **options: op(*args, **{OPTIONS.get(k, k): options[k] for k in options})


OURS = {name: with_pytorchs_options(getattr(tg, name)) for name in tg.ops.__all__} | {
    "clamp": with_pytorchs_options(tg.clip),
    "take_along_dim": with_pytorchs_options(tg.take_along_axis),
    "sort": lambda x, dim, stable: [tg.sort(x, dim)],  # PyTorch's first answer: the values
    "nn": types.SimpleNamespace(functional=F),
    "inf": np.inf,
}

# PyTorch's second derivatives are NaN at 0 to the power of a tensor, in the norm of zeros, and in a
# norm below 2 of a vector with a zero. And at an exponent of exactly 0 it drops d²/dx dy xʸ = 1/x,
# which test_pow_at_exponent_zero checks against the formula.
FIRST_ORDER_ONLY = {
    *("ops/pow-tensor-at-zero", "ops/pow-constant-tensor-at-zero", "ops/pow-tensor"),
    *(f"ops/norm{ord}-zeros" for ord in (2, 3, 4)),
    *(f"ops/norm{ord}-{zeros}" for ord in (1.5, 0.5, -1) for zeros in ("a-zero", "zeros")),
}


@pytest.mark.parametrize("name", names("ops/"))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # 0 to negative powers
def test_ops_to_second_order(name, source):
    case, data = answer(name, source)
    order = 1 if name in FIRST_ORDER_ONLY else 2
    check_function(lambda **given: eval(case["function"], OURS | given), case, data, order)


def test_pow_at_exponent_zero():
    x, y = leaf(np.array(1.5)), leaf(np.array(0.0))
    (dx,) = tg.grad(x**y, x, create_graph=True)
    assert host(tg.grad(dx, y)[0]) == pytest.approx(1 / 1.5, abs=1e-15)
