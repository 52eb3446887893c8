"""Optimizers, schedules and training: PyTorch's parameters, states and rates.

Recorded in golden/ by golden/make_torch.py, so that no PyTorch is needed here; where it is
installed, `pytest -m torch` holds the same tests against it live.
"""

import numpy as np
import pytest
from golden_cases import answer, names
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.optim import lr_scheduler

every_optimizer = pytest.mark.parametrize("name", names("optim/"))


def same(ours, theirs):
    np.testing.assert_allclose(host(ours), theirs, rtol=1e-12, atol=1e-14)


def parameters_of(data, stage):
    return {key: leaf(data[f"{stage}/{key}"]) for key in "abc"}


def optimizer_of(case, parameters):
    groups = [
        group | {"params": [parameters[key] for key in group["params"]]} for group in case["groups"]
    ]
    return getattr(tg.optim, case["optimizer"])(groups, **case["kwargs"])


def run(case, data, optimizer, parameters, steps):
    """The steps with the case's gradients, and its changes of options."""
    for step in steps:
        for when, group, options in case["changes"]:
            if step == when:
                optimizer.param_groups[group].update(options)
        for key, p in parameters.items():
            absent = step in case["missing"].get(key, ())
            p.grad = None if absent else tg.tensor(data[f"gradient/{key}"][step])
        optimizer.step()


def half_state(case, data):
    """PyTorch's state dict after six steps."""
    state = {}
    for field in data.dtype.names:
        if field.startswith("half_state/"):
            _, number, name = field.split("/")
            state.setdefault(int(number), {})[name] = data[field]
    return {"state": state, "param_groups": case["half_groups"]}


@every_optimizer
def test_steps_with_groups_late_gradients_and_changed_options(name, source):
    case, data = answer(name, source)
    parameters = parameters_of(data, "initial")
    optimizer = optimizer_of(case, parameters)
    for stage, steps in (("half", range(6)), ("final", range(6, 12))):
        run(case, data, optimizer, parameters, steps)
        for key, p in parameters.items():
            same(p, data[f"{stage}/{key}"])


@every_optimizer
def test_the_state_dict_is_pytorchs(name, source):
    case, data = answer(name, source)
    parameters = parameters_of(data, "initial")
    optimizer = optimizer_of(case, parameters)
    run(case, data, optimizer, parameters, range(6))
    ours, theirs = optimizer.state_dict(), half_state(case, data)
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in ours["state"].items():
        assert state.keys() == theirs["state"][number].keys()
        for key, value in state.items():
            same(value, theirs["state"][number][key])
    for group, wanted in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        for key, option in group.items():
            listed = tuple if key == "betas" else lambda option: option
            assert listed(option) == listed(wanted[key])


@every_optimizer
def test_going_on_from_pytorchs_state_dict(name, source):
    case, data = answer(name, source)
    parameters = parameters_of(data, "half")
    optimizer = optimizer_of(case, parameters)
    optimizer.load_state_dict(half_state(case, data))
    run(case, data, optimizer, parameters, range(6, 12))
    for key, p in parameters.items():
        same(p, data[f"final/{key}"])


@pytest.mark.torch
@every_optimizer
def test_pytorch_goes_on_from_our_state_dict(name):
    torch = pytest.importorskip("torch")
    case, data = answer(name, "recorded")
    parameters = parameters_of(data, "initial")
    optimizer = optimizer_of(case, parameters)
    run(case, data, optimizer, parameters, range(6))

    def theirs(value):
        return torch.tensor(host(value)) if isinstance(value, tg.Tensor) else value

    saved = optimizer.state_dict()
    saved["state"] = {
        number: {key: theirs(value) for key, value in state.items()}
        for number, state in saved["state"].items()
    }
    parameters = {key: torch.tensor(data[f"half/{key}"]) for key in "abc"}
    groups = [{"params": [parameters[key] for key in group["params"]]} for group in case["groups"]]
    optimizer = getattr(torch.optim, case["optimizer"])(groups)
    optimizer.load_state_dict(saved)
    for step in range(6, 12):
        for when, group, options in case["changes"]:
            if step == when:
                optimizer.param_groups[group].update(options)
        for key, p in parameters.items():
            absent = step in case["missing"].get(key, ())
            p.grad = None if absent else torch.tensor(data[f"gradient/{key}"][step])
        optimizer.step()
    for key, p in parameters.items():
        same(p.numpy(), data[f"final/{key}"])


def function(text):
    return [function(t) for t in text] if isinstance(text, list) else eval(f"lambda epoch: {text}")


def schedule_of(name, optimizer, kwargs):
    options = dict(kwargs)
    if "lr_lambda" in options:
        options["lr_lambda"] = function(options["lr_lambda"])
    if "schedulers" in options:
        options["schedulers"] = [
            schedule_of(n, optimizer, more) for n, more in kwargs["schedulers"]
        ]
    return getattr(lr_scheduler, name)(optimizer, **options)


@pytest.mark.parametrize("name", names("schedule/"))
def test_schedules_over_thirty_epochs(name, source):
    case, data = answer(name, source)
    optimizer = tg.optim.SGD([{"params": [leaf(np.ones(1))]}, {"params": [], "lr": 0.02}], lr=0.1)
    schedule = schedule_of(case["scheduler"], optimizer, case["kwargs"])
    for epoch, wanted in enumerate(data["rates"]):
        assert schedule.last_epoch == epoch
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        same(schedule.get_last_lr(), wanted)
        schedule.step()


@pytest.mark.parametrize("name", names("training/"))
def test_twenty_steps_of_training(name, source):
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
    optimizer = getattr(tg.optim, case["optimizer"])(net.parameters(), **case["kwargs"])
    x, target = tg.tensor(data["input"]), tg.tensor(data["target"])
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if case["clip"] is not None:
            norm_type = float(case["norm_type"])
            nn.utils.clip_grad_norm_(net.parameters(), case["clip"], norm_type)
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
