"""The norms are PyTorch's: values, gradients of two orders, running statistics, layers, errors."""

import functools

import numpy as np
import pytest
from golden_cases import CASES, answer, check_function, close, names
from helpers import LAYOUTS, host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

FAMILY = ("batch_norm/", "layer_norm/", "rms_norm/", "group_norm/", "instance_norm/")
BOTH = pytest.mark.parametrize("impl", ["fused", "composed"])


def ours(name, case, impl):
    return functools.partial(getattr(F, name.split("/")[0]), **case["kwargs"], impl=impl)


@BOTH
@pytest.mark.parametrize("name", names(*FAMILY))
def test_values_two_orders_of_gradients_and_running_statistics(name, source, impl):
    case, data = answer(name, source)
    check_function(ours(name, case, impl), case, data)


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS[1:])
@pytest.mark.parametrize("name", [n for n in names(*FAMILY) if "-f4" in n or "float32" in n])
def test_the_order_of_values_in_memory_changes_nothing(name, source, impl, layout):
    case, data = answer(name, source)
    check_function(ours(name, case, impl), case, data, layout=layout)


def with_values(layer, data):
    """The layer with the parameters of a golden case, all in float64."""
    for key in ("weight", "bias", "running_mean", "running_var"):
        tensor = getattr(layer, key, None)
        if tensor is not None:
            start = data[key] if key in data.dtype.names else host(tensor).astype(np.float64)
            tensor.data = tg.tensor(start).data
    return layer


def check_buffers(layer, data):
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        if f"after/{key}" in data.dtype.names:
            close(getattr(layer, key), data[f"after/{key}"], np.float64)


@BOTH
@pytest.mark.parametrize("name", names("module/"))
def test_batch_norm_layers_after_five_steps_and_in_evaluation(name, source, impl):
    case, data = answer(name, source)
    layer = getattr(nn, case["function"].split(".")[-1])(**case["kwargs"], impl=impl)
    assert list(layer.state_dict()) == case["state_dict_keys"]
    with_values(layer, data)
    for batch in data["batches"]:
        layer(tg.tensor(batch))
    check_buffers(layer, data)
    close(layer.eval()(tg.tensor(data["eval_input"])), data["eval_output"], np.float64)


@BOTH
@pytest.mark.parametrize("name", names("layer/"))
def test_layers_after_three_steps_and_in_evaluation(name, source, impl):
    case, data = answer(name, source)
    layer = getattr(nn, case["function"])(**case["arguments"], impl=impl)
    assert repr(layer) == case["repr"]
    assert list(layer.state_dict()) == case["state_dict_keys"]
    with_values(layer, data)
    for batch, output in zip(data["batches"], data["outputs"], strict=True):
        close(layer(tg.tensor(batch)), output, np.float64)
    check_buffers(layer, data)
    close(layer.eval()(tg.tensor(data["eval_input"])), data["eval_output"], np.float64)


@pytest.mark.parametrize("name", names("errors/"))
def test_what_pytorch_refuses_is_refused_by_name_and_what_it_takes_is_taken(name, source):
    case, _ = answer(name, source)
    function = getattr(F, name.split("/")[1])
    arguments = {k: leaf(np.ones(shape)) for k, shape in case["arrays"].items()}
    if case["raises"]:
        named = "(input|normalized_shape|num_groups|weight|bias|running_mean): got"
        with pytest.raises((ValueError, TypeError), match=f"^{named}"):
            function(**arguments, **case["kwargs"])
    else:
        y = function(**arguments, **case["kwargs"])
        assert y.shape == arguments["input"].shape
        tg.sum(y).backward()
        assert arguments["input"].grad is not None
        for tensor in arguments.values():
            if tensor.grad is not None:  # running statistics get none
                assert np.isfinite(host(tensor.grad)).all()


def test_the_errors_are_of_both_kinds():
    raised = [CASES[name]["raises"] is not None for name in names("errors/")]
    assert 20 <= sum(raised) < len(raised) - 5


@pytest.mark.parametrize("name", names("orders/batch_norm", "orders/layer_norm"))
def test_fused_is_right_where_pytorchs_fused_norm_is_not(name, source):
    _, data = answer(name, source)
    x, weight, bias = (leaf(data[k]) for k in ("x", "weight", "bias"))
    if name == "orders/batch_norm":
        gradient = F.batch_norm(x, None, None, weight, bias, training=True)
    else:
        gradient = F.layer_norm(x, 3, weight, bias)
    off = []
    for probe, truth in zip(data["probes"], data["primitive"]):
        (gradient,) = tg.grad(tg.sum(gradient * tg.tensor(probe)), x, create_graph=True)
        off.append(np.abs(host(gradient) - truth).max() / np.abs(truth).max())
    assert max(off) < 1e-12
    assert (data["relative_difference"][:2] < 1e-12).all()  # PyTorch's own, right at 1 and 2 …
    assert not (data["relative_difference"][2:] < 0.1).any()  # … and from 3 wrong, or refused
