"""Values, gradients of two orders, running statistics and training steps: PyTorch's.

Recorded in golden/ by golden/make_torch.py, so that no PyTorch is needed here; where it is
installed, `pytest -m torch` holds the same tests against it live.
"""

import functools

import numpy as np
import pytest
from golden_cases import answer, check_function, close, names
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn


def ours(case):
    """The library's op for a case of torch's."""
    options, function = dict(case["kwargs"]), case["function"]
    if "[" in function:
        index = function[len("input[") : -1]
        if index.startswith(":"):
            return lambda input, columns: input[:, columns]
        parts = index.split(", ")
        return lambda input, **given: input[
            given[parts[0]] if len(parts) == 1 else tuple(given[n] for n in parts)
        ]
    axis = options.pop("dim", None)
    if axis is not None:
        options["axis"] = tuple(axis) if isinstance(axis, list) else axis
    if "keepdim" in options:
        options["keepdims"] = options.pop("keepdim")
    op = getattr(tg, function.split(".")[-1])
    if function.endswith(("pow", "matmul", "maximum")):
        given = options.get("exponent")
        return lambda input, other=None, exponent=given: op(
            input, exponent if other is None else other
        )
    return lambda input: op(input, **options)


# At 0 to the power of a tensor PyTorch's second derivatives are NaN; and at an exponent of exactly
# 0 it drops d²/dx dy xʸ = 1/x, which test_pow_at_exponent_zero checks against the formula.
BEYOND_PYTORCH = {
    "ops/pow-tensor-at-zero",
    "ops/pow-constant-tensor-at-zero",
    "ops/pow-tensor",
}


@pytest.mark.parametrize("impl", ["fused", "composed"])
@pytest.mark.parametrize("name", names("batch_norm/"))
def test_norms_to_second_order_and_running_statistics(name, source, impl):
    case, data = answer(name, source)
    function = functools.partial(getattr(F, name.split("/")[0]), **case["kwargs"], impl=impl)
    check_function(function, case, data)


@pytest.mark.parametrize("name", names("cross_entropy/", "mse_loss/"))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the mean of no targets
def test_losses_to_second_order(name, source):
    case, data = answer(name, source)
    function = functools.partial(getattr(F, name.split("/")[0]), **case["kwargs"])
    check_function(function, case, data)


@pytest.mark.parametrize("name", names("ops/"))
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # 0 to negative powers
def test_ops_to_second_order(name, source):
    case, data = answer(name, source)
    check_function(ours(case), case, data, order=1 if name in BEYOND_PYTORCH else 2)


def test_pow_at_exponent_zero():
    x, y = leaf(np.array(1.5)), leaf(np.array(0.0))
    (dx,) = tg.grad(x**y, x, create_graph=True)
    assert host(tg.grad(dx, y)[0]) == pytest.approx(1 / 1.5, abs=1e-15)


@pytest.mark.parametrize("impl", ["fused", "composed"])
@pytest.mark.parametrize("name", names("module/"))
def test_running_statistics_after_five_steps_and_evaluation(name, source, impl):
    case, data = answer(name, source)
    layer = getattr(nn, case["function"].split(".")[-1])(**case["kwargs"], impl=impl)
    assert list(layer.state_dict()) == case["state_dict_keys"]
    for key in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, key)
        if tensor is not None:  # the golden values are float64
            start = data[key] if key in data.dtype.names else host(tensor).astype(np.float64)
            tensor.data = tg.tensor(start).data
    for batch in data["batches"]:
        layer(tg.tensor(batch))
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        if f"after/{key}" in data.dtype.names:
            close(getattr(layer, key), data[f"after/{key}"], np.float64)
    close(layer.eval()(tg.tensor(data["eval_input"])), data["eval_output"], np.float64)


@pytest.mark.parametrize("name", names("sgd/"))
def test_twenty_steps_of_sgd(name, source):
    case, data = answer(name, source)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear1, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)
            self.linear2 = nn.Linear(5, 3)
            if "initial/unused.weight" in data.dtype.names:
                self.unused = nn.Linear(*data["initial/unused.weight"].shape[::-1])

        def forward(self, x):
            return self.linear2(F.relu(self.norm(self.linear1(x))))

    net = Net()
    for key, parameter in net.named_parameters():
        parameter.data = tg.tensor(data[f"initial/{key}"]).data
        parameter.requires_grad = key not in case["frozen"]
    for buffer in net.buffers():
        if buffer.dtype.kind == "f":
            buffer.data = buffer.data.astype(np.float64)
    optimizer = tg.optim.SGD(net.parameters(), **case["kwargs"])
    x, target = tg.tensor(data["input"]), tg.tensor(data["target"])
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(losses, data["losses"], rtol=1e-12)
    for key, value in net.state_dict().items():
        np.testing.assert_allclose(host(value), data[f"final/{key}"], rtol=1e-11, atol=1e-13)


def test_repr_and_state_dict_keys_are_pytorchs(source):
    net = nn.Sequential(
        nn.Linear(2, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Tanh(), nn.Sigmoid()),
    )
    theirs, _ = answer("sequential/nested", source)
    assert repr(net) == theirs["repr"]
    assert list(net.state_dict()) == theirs["state_dict_keys"]


@pytest.mark.parametrize("name", names("orders/batch_norm"))
def test_fused_is_right_where_pytorchs_fused_norm_is_not(name, source):
    _, data = answer(name, source)
    x, weight, bias = (leaf(data[k]) for k in ("x", "weight", "bias"))
    gradient = F.batch_norm(x, None, None, weight, bias, training=True)
    off = []
    for probe, truth in zip(data["probes"], data["primitive"]):
        (gradient,) = tg.grad(tg.sum(gradient * tg.tensor(probe)), x, create_graph=True)
        off.append(np.abs(host(gradient) - truth).max() / np.abs(truth).max())
    assert max(off) < 1e-12
    assert (data["relative_difference"][:2] < 1e-12).all()  # PyTorch's own, right at 1 and 2 …
    assert (data["relative_difference"][2:] > 0.1).all()  # … and wrong from 3
