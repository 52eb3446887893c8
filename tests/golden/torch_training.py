"""Optimizers, schedules, training, and what a model looks like.

optim/...        12 steps of torch.optim.CLASS on parameters a (2, 3), b (4,), c () whose gradients
                 are given: gradient/KEY has one a step, and `missing` names the steps at which
                 there was none. `groups`: the names and options of each group; `changes`: [step,
                 group, options set before it]. initial/KEY, half/KEY (after 6 steps) and
                 final/KEY; half_groups and half_state/NUMBER/NAME: the state dict after 6 steps
schedule/...     rates: the rate of each of two groups (initially 0.1 and 0.02) in 31 epochs
training/...     20 steps of torch.optim.CLASS on the cross entropy of linear2(relu(norm(linear1(
                 input)))), in some with an uncalled layer `unused`, or with the gradients' norm
                 clipped to `clip`: initial/PARAMETER, target, `losses` (each taken before its
                 step), and final/KEY of the state_dict
sequential/...   the repr and the state_dict_keys of a model
"""

import torch
import torch.nn.functional as F
from recorder import describe, draw, random_stream, store
from torch import nn
from torch.optim import lr_scheduler


def make():
    make_steps()
    make_schedules()
    make_training()
    last = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    model = nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Flatten(), last)
    describe("sequential/nested", {}, repr=repr(model), state_dict_keys=list(model.state_dict()))


def make_steps():
    momentum = {"lr": 0.1, "momentum": 0.9}
    adam = {"lr": 0.05, "betas": [0.8, 0.9]}
    changes = [[4, 0, {"lr": 0.2}], [8, 1, {"lr": 0.01}]]
    one_steps("sgd", "SGD", {"lr": 0.1})
    one_steps("sgd-decay", "SGD", {"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.3}, changes)
    one_steps("sgd-momentum", "SGD", momentum, {"momentum": 0.0}, changes)
    one_steps("sgd-dampening", "SGD", momentum | {"dampening": 0.5, "weight_decay": 0.1})
    one_steps("sgd-nesterov", "SGD", momentum | {"nesterov": True}, {"weight_decay": 0.2})
    for name in ("Adam", "AdamW"):
        word = name.lower()
        one_steps(word, name, {"lr": 0.05})
        one_steps(f"{word}-decay", name, adam | {"weight_decay": 0.1}, {"lr": 0.3}, changes)
        one_steps(f"{word}-amsgrad", name, adam | {"amsgrad": True, "eps": 0.01}, {"eps": 0.1})


def one_steps(word, name, kwargs, of_b=None, changes=()):
    """b has its first gradient at step 5, and options `of_b`; c has none now and then."""
    random, missing = random_stream("optim"), {"b": [0, 1, 2, 3, 4], "c": [3, 6, 7]}
    shapes = {"a": (2, 3), "b": (4,), "c": ()}
    values = {f"initial/{key}": draw(random, shape) for key, shape in shapes.items()}
    values |= {f"gradient/{key}": draw(random, (12, *shape)) for key, shape in shapes.items()}
    parameters = {key: torch.tensor(values[f"initial/{key}"]) for key in shapes}
    groups = [{"params": ["a", "c"]}, {"params": ["b"], **(of_b or {})}]
    optimizer = getattr(torch.optim, name)(
        [group | {"params": [parameters[key] for key in group["params"]]} for group in groups],
        **kwargs,
    )
    for step in range(12):
        for when, group, options in changes:
            if step == when:
                optimizer.param_groups[group].update(options)
        for key, parameter in parameters.items():
            gradient = torch.tensor(values[f"gradient/{key}"][step])
            parameter.grad = None if step in missing.get(key, ()) else gradient
        optimizer.step()
        if step == 5:
            half = optimizer.state_dict()
            values |= {f"half/{key}": parameter.clone() for key, parameter in parameters.items()}
            for number, state in half["state"].items():
                for key, value in state.items():
                    values[f"half_state/{number}/{key}"] = value.clone()
    values |= {f"final/{key}": parameter for key, parameter in parameters.items()}
    store(f"optim/{word}", values)
    more = {"missing": missing, "changes": changes, "half_groups": half["param_groups"]}
    describe(f"optim/{word}", kwargs, optimizer=name, groups=groups, **more)


def make_schedules():
    warm_up, cosine = ["LinearLR", {"total_iters": 5}], ["CosineAnnealingLR", {"T_max": 20}]
    parts = [["ConstantLR", {}], ["ExponentialLR", {"gamma": 0.9}], ["StepLR", {"step_size": 3}]]
    for word, name, kwargs in (
        ("step", "StepLR", {"step_size": 7, "gamma": 0.5}),
        ("milestones", "MultiStepLR", {"milestones": [3, 10, 10, 20], "gamma": 0.3}),
        ("exponential", "ExponentialLR", {"gamma": 0.9}),
        ("cosine", "CosineAnnealingLR", {"T_max": 30}),
        ("cosine-and-back", "CosineAnnealingLR", {"T_max": 12, "eta_min": 0.01}),
        ("linear", "LinearLR", {}),
        ("linear-down", "LinearLR", {"start_factor": 0.9, "end_factor": 0.2, "total_iters": 20}),
        ("constant", "ConstantLR", {"factor": 0.25, "total_iters": 6}),
        ("lambda", "LambdaLR", {"lr_lambda": "0.95 ** epoch"}),
        ("lambdas", "LambdaLR", {"lr_lambda": ["0.95 ** epoch", "1 / (1 + epoch)"]}),
        ("warm-up", "SequentialLR", {"schedulers": [warm_up, cosine], "milestones": [5]}),
        ("three", "SequentialLR", {"schedulers": parts, "milestones": [4, 10]}),
    ):
        groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.02}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        schedule, rates = made(name, optimizer, kwargs), []
        for _ in range(31):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        describe(f"schedule/{word}", kwargs, scheduler=name)
        store(f"schedule/{word}", {"rates": rates})


def made(name, optimizer, kwargs):
    """A schedule; functions are given as texts, and schedules as [name, kwargs]."""
    options = dict(kwargs)
    if "lr_lambda" in options:
        options["lr_lambda"] = function(options["lr_lambda"])
    if "schedulers" in options:
        options["schedulers"] = [
            made(part, optimizer, more) for part, more in options["schedulers"]
        ]
    return getattr(lr_scheduler, name)(optimizer, **options)


def function(text):
    """The function of the epoch that a text gives, or a list of them."""
    if isinstance(text, list):
        return [function(each) for each in text]
    return eval(f"lambda epoch: {text}")


def perceptron(has_unused_layer):
    layers = {"linear1": nn.Linear(4, 5), "norm": nn.BatchNorm1d(5), "linear2": nn.Linear(5, 3)}
    unused = {"unused": nn.Linear(3, 2)} if has_unused_layer else {}
    return nn.ModuleDict(layers | unused).double()


def make_training():
    momentum = {"lr": 0.1, "momentum": 0.9}
    decayed = momentum | {"weight_decay": 0.01}
    one_training("sgd", "SGD", {"lr": 0.1})
    one_training("sgd-momentum", "SGD", momentum)
    one_training("sgd-decay", "SGD", decayed)
    one_training("sgd-nesterov", "SGD", momentum | {"nesterov": True})
    one_training("sgd-frozen-parameter", "SGD", decayed, frozen=["linear1.weight"])
    one_training("sgd-unused-parameter", "SGD", decayed, has_unused_layer=True)
    one_training("sgd-clipped", "SGD", momentum, clip=0.1)
    one_training("sgd-clipped-largest", "SGD", momentum, clip=0.05, norm_type="inf")
    # The gradient of this bias is 0 but for rounding, which Adam would take for a direction.
    quiet = ["linear1.bias"]
    one_training("adam", "Adam", {"lr": 0.02}, frozen=quiet)
    one_training("adamw-clipped", "AdamW", {"lr": 0.02}, frozen=quiet, clip=0.5)


def one_training(
    word, name, kwargs, *, frozen=(), has_unused_layer=False, clip=None, norm_type="2"
):
    random, named = random_stream("training"), perceptron(True).named_parameters()
    initial = {key: draw(random, parameter.shape) for key, parameter in named}
    data, labels = draw(random, (8, 4)), random.integers(0, 3, 8)
    model = perceptron(has_unused_layer)
    for key, parameter in model.named_parameters():
        parameter.data = torch.tensor(initial[key])
        parameter.requires_grad_(key not in frozen)
    optimizer, losses = getattr(torch.optim, name)(model.parameters(), **kwargs), []
    for _ in range(20):
        optimizer.zero_grad()
        hidden = torch.relu(model["norm"](model["linear1"](torch.tensor(data))))
        loss = F.cross_entropy(model["linear2"](hidden), torch.tensor(labels))
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip, float(norm_type))
        optimizer.step()
        losses.append(loss.item())
    more = {"optimizer": name, "frozen": list(frozen), "clip": clip, "norm_type": norm_type}
    describe(f"training/{word}", kwargs, **more)
    store(f"training/{word}", {"input": data, "target": labels, "losses": losses})
    used = {key: initial[key] for key, _ in model.named_parameters()}
    for stage, values in (("initial", used), ("final", model.state_dict())):
        store(f"training/{word}", {f"{stage}/{key}": value for key, value in values.items()})
