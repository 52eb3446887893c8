"""Tests that say what PyTorch does too: run on this library, and with `-m torch` on PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg


def _ours():
    return SimpleNamespace(
        tensor=lambda values, requires_grad=False: tg.tensor(
            np.array(values, np.float64), requires_grad=requires_grad
        ),
        values=lambda t: None if t is None else host(t).tolist(),
        grad=tg.grad,
        no_grad=tg.no_grad,
        nn=tg.nn,
        **{word: getattr(tg, word) for word in ("vjp", "jvp", "jacobian", "hessian")},
    )


def _pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transforms = torch.autograd.functional
    return SimpleNamespace(
        tensor=lambda values, requires_grad=False: torch.tensor(
            np.array(values, np.float64), requires_grad=requires_grad
        ),
        values=lambda t: None if t is None else t.tolist(),
        grad=torch.autograd.grad,
        no_grad=torch.no_grad,
        nn=torch.nn,
        **{word: getattr(transforms, word) for word in ("vjp", "jvp", "jacobian", "hessian")},
    )


# Each makes a namespace: `tensor`, `values` (as nested lists), `grad`, `no_grad`, `nn`, transforms.
LIBRARIES = [
    pytest.param(_ours, id="ours"),
    pytest.param(_pytorchs, id="pytorch", marks=pytest.mark.torch),
]
