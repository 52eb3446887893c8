"""The state dict of optimizers (its form is held against PyTorch's in test_golden_training)."""

import copy

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg


def made(optimizer=tg.optim.Adam, **options):
    """An optimizer of three parameters of two dtypes in two groups, and the parameters."""
    a, b, c = leaf(np.ones((2, 3))), leaf(np.ones(2, np.float32)), leaf(np.ones(()))
    groups = [{"params": [a, b]}, {"params": [c], "lr": 0.5}]
    return optimizer(groups, lr=0.1, **options), [a, b, c]


def step(optimizer, parameters, size=1.0):
    for k, p in enumerate(parameters):
        p.grad = tg.tensor(np.full(p.shape, size * (k + 1), p.dtype))
    optimizer.step()


def numbers(state_dict):
    """A state dict with lists for its Tensors, to be compared."""
    state = {
        number: {k: host(v).tolist() for k, v in entry.items()}
        for number, entry in state_dict["state"].items()
    }
    return {"state": state, "param_groups": state_dict["param_groups"]}


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (tg.optim.SGD, {}),
        (tg.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (tg.optim.Adam, {"amsgrad": True}),
        (tg.optim.AdamW, {}),
    ],
)
def test_an_optimizer_goes_on_from_its_state_dict(optimizer, options):
    first, parameters = made(optimizer, **options)
    for size in (1.0, 2.0):
        step(first, parameters, size)
    first.param_groups[1]["lr"] = 0.25
    second, others = made(optimizer)
    step(second, others, 7.0)  # a state of its own, which is to be replaced
    for p, q in zip(parameters, others):
        q.data = tg.tensor(host(p)).data
    second.load_state_dict(first.state_dict())
    assert numbers(second.state_dict()) == numbers(first.state_dict())
    step(first, parameters, 3.0)
    step(second, others, 3.0)
    for p, q in zip(parameters, others):
        np.testing.assert_array_equal(host(p), host(q))


def test_a_state_dict_is_a_copy():
    optimizer, parameters = made()
    step(optimizer, parameters)
    saved = optimizer.state_dict()
    before = copy.deepcopy(numbers(saved))
    step(optimizer, parameters)
    optimizer.param_groups[0]["lr"] = 7
    assert numbers(saved) == before
    optimizer.load_state_dict(saved)
    step(optimizer, parameters)
    assert numbers(saved) == before


def test_only_parameters_that_were_stepped_have_a_state():
    optimizer, parameters = made(tg.optim.SGD, momentum=0.9)
    assert optimizer.state_dict()["state"] == {}
    step(optimizer, parameters[1:2])
    (number,) = optimizer.state_dict()["state"]
    assert number == 1
    optimizer.param_groups[0]["momentum"] = 0.0
    assert optimizer.state_dict()["state"] == {}


def test_an_empty_state_forgets():
    optimizer, parameters = made()
    fresh = optimizer.state_dict()
    step(optimizer, parameters)
    optimizer.load_state_dict(fresh)
    assert optimizer.state_dict()["state"] == {}
    before = host(parameters[0])
    step(optimizer, parameters[:1])
    np.testing.assert_allclose(host(parameters[0]), before - 0.1, rtol=1e-7)  # as a first step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("state"), "state_dict: got"),
        (lambda s: s.update(state=5), "state: got 5, wants a dict"),
        (lambda s: s.update(param_groups=5), "param_groups: got 5, wants a list of dicts"),
        (lambda s: s["param_groups"].insert(1, 5), r"param_groups\[1\]: got 5, wants numbers as"),
        (
            lambda s: s["param_groups"][1].pop("params"),
            r"param_groups\[1\]: got .*wants numbers as",
        ),
        (
            lambda s: s["param_groups"][0].update(params=2),
            r"param_groups\[0\]: got .*wants numbers",
        ),
        (lambda s: s["param_groups"][0].update(params="01"), r"param_groups\[0\]: got"),
        (lambda s: s["param_groups"][0].update(params=[0, 0]), r"numbers \[0, 0, 2\], wants each"),
        (
            lambda s: s["param_groups"][1].update(params=[1]),
            r"numbers \[0, 1, 1\], wants each once",
        ),
        (lambda s: s["param_groups"].pop(), r"got \[2\] parameters in groups, wants \[2, 1\]"),
        (lambda s: s["param_groups"][0]["params"].append(3), r"got \[3, 1\] parameters"),
        (lambda s: s["param_groups"][1].pop("betas"), "param_groups: got no betas"),
        (lambda s: s["param_groups"][1].update(lr=-1), "lr: got -1"),
        (lambda s: s["param_groups"][1].update(maximize=True), "maximize: got True"),
        (lambda s: s["param_groups"][1].update(decoupled_weight_decay=True), "decoupled_weight"),
        (lambda s: s["state"].update({7: {}}), r"state: got \[7\], which are in no group"),
        (lambda s: s["state"][2].pop("exp_avg"), r"state\[2\]: got \['exp_avg_sq', 'step'\]"),
        (lambda s: s["state"][2].update(extra=1), r"state\[2\]: got .*extra"),
        (lambda s: s["param_groups"][1].update(amsgrad=True), r"wants .*'max_exp_avg_sq'"),
        (lambda s: s["state"][2].update(step=1.5), r"state\[2\]\['step'\]: got 1.5"),
        (lambda s: s["state"][2].update(step=-1), r"state\[2\]\['step'\]: got -1"),
        (lambda s: s["state"][2].update(step="one"), r"state\[2\]\['step'\]: got 'one'"),
        (lambda s: s["state"][2].update(exp_avg=np.ones(2)), r"\['exp_avg'\]: got float64\[2\]"),
        (lambda s: s["state"][2].update(exp_avg="x"), r"\['exp_avg'\]: got 'x'"),
        (lambda s: s["state"].update({2: 5}), r"state\[2\]: got 5"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named_and_changes_nothing(change, message):
    optimizer, parameters = made()
    step(optimizer, parameters)
    before = numbers(optimizer.state_dict())
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.7
    state["state"][0]["exp_avg"] = np.zeros((2, 3))
    change(state)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert numbers(optimizer.state_dict()) == before


def test_another_optimizers_state_dict_is_refused():
    sgd, _ = made(tg.optim.SGD)
    adam, _ = made(tg.optim.Adam)
    with pytest.raises(ValueError, match="param_groups: got no betas"):
        adam.load_state_dict(sgd.state_dict())
    with pytest.raises(ValueError, match="param_groups: got no momentum"):
        sgd.load_state_dict(adam.state_dict())
    with pytest.raises(ValueError, match="state_dict: got None"):
        sgd.load_state_dict(None)
