"""What PyTorch answers: recorded in golden/, or computed now by the PyTorch that is installed."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host, laid_out, leaf

import tinygrad_bn as tg

FOLDER = Path(__file__).parent / "golden"
CASES, GROUPS = {}, {}  # by name: the case, and the group of files where it is
for _file in sorted(FOLDER.glob("*.json")):
    for _case in json.loads(_file.read_text())["cases"]:
        CASES[_case["name"]], GROUPS[_case["name"]] = _case, _file.stem


def names(*prefixes):
    return [name for name in CASES if name.startswith(prefixes)]


@functools.cache
def _recorded(group):
    return CASES, np.load(FOLDER / f"{group}.npz")


@functools.cache
def _live(group):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import make_torch

    return make_torch.record(group)


def answer(name, source):
    """A case, and its arrays: "recorded", or "live" from PyTorch itself."""
    cases, arrays = (_live if source == "live" else _recorded)(GROUPS[name])
    return cases[name], arrays.get(name)


def close(ours, theirs, dtype):
    """Equal within some units in the last place of the largest value (of 1, if that is more)."""
    bound = 2e-15 if dtype == np.float64 else 5e-7
    size = max(1.0, np.abs(np.nan_to_num(theirs)).max(initial=0.0))
    np.testing.assert_allclose(host(ours), theirs, rtol=0, atol=64 * bound * size)


def check_function(function, case, data, order=2, layout="contiguous"):
    """`function`, called with a case's keywords, has PyTorch's value, its gradients of orders 1 and
    2 (or 1), and leaves behind the same running statistics."""
    dtype = data[case["variables"][0]].dtype
    variables = {
        k: tg.Tensor(laid_out(data[k], layout), requires_grad=True) for k in case["variables"]
    }
    constants = {k: tg.tensor(data[k]) for k in case["constants"]}
    cotangent = leaf(data["cotangent"])
    output = function(**variables, **constants)
    close(output, data["output"], dtype)
    firsts = tg.grad(output, list(variables.values()), cotangent, create_graph=True)
    for k, first in zip(variables, firsts):
        close(first, data[f"gradient/{k}"], dtype)
    for k in ("running_mean", "running_var"):
        if f"after/{k}" in data.dtype.names:
            close(constants[k], data[f"after/{k}"], dtype)
    if order == 1:
        return
    total = sum(tg.sum(f * tg.tensor(data[f"probe/{k}"])) for k, f in zip(variables, firsts))
    seconds = tg.grad(total, [*variables.values(), cotangent], allow_unused=True)
    for k, second in zip([*variables, "cotangent"], seconds):
        wanted = data[f"second/{k}"]
        close(np.zeros_like(wanted) if second is None else second, wanted, dtype)
