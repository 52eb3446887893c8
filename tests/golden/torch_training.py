"""Training, and what a model looks like.

sgd/...          20 steps of torch.optim.SGD on the cross entropy of linear2(relu(norm(linear1(
                 input)))), in some with an uncalled layer `unused`: initial/PARAMETER, target,
                 `losses` (each taken before its step), and final/KEY of the state_dict
sequential/...   the repr and the state_dict_keys of a model
"""

import torch
import torch.nn.functional as F
from recorder import describe, draw, random_stream, store
from torch import nn


def make():
    make_sgd()
    last = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    model = nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Flatten(), last)
    describe("sequential/nested", {}, repr=repr(model), state_dict_keys=list(model.state_dict()))


def perceptron(has_unused_layer):
    layers = {"linear1": nn.Linear(4, 5), "norm": nn.BatchNorm1d(5), "linear2": nn.Linear(5, 3)}
    unused = {"unused": nn.Linear(3, 2)} if has_unused_layer else {}
    return nn.ModuleDict(layers | unused).double()


def make_sgd():
    random, parameters = random_stream("sgd"), perceptron(True).named_parameters()
    initial = {key: draw(random, parameter.shape) for key, parameter in parameters}
    data, labels = draw(random, (8, 4)), random.integers(0, 3, 8)
    plain, momentum = {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}
    decayed, nesterov = momentum | {"weight_decay": 0.01}, momentum | {"nesterov": True}
    settings = {"plain": plain, "momentum": momentum, "weight_decay": decayed}
    settings |= {"nesterov": nesterov, "frozen-parameter": decayed, "unused-parameter": decayed}
    for word, kwargs in settings.items():
        frozen = ["linear1.weight"] if word == "frozen-parameter" else []
        model = perceptron(word == "unused-parameter")
        for key, parameter in model.named_parameters():
            parameter.data = torch.tensor(initial[key])
            parameter.requires_grad_(key not in frozen)
        optimizer, losses = torch.optim.SGD(model.parameters(), **kwargs), []
        for _ in range(20):
            optimizer.zero_grad()
            hidden = torch.relu(model["norm"](model["linear1"](torch.tensor(data))))
            loss = F.cross_entropy(model["linear2"](hidden), torch.tensor(labels))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
        describe(f"sgd/{word}", kwargs, frozen=frozen, without_gradient=without)
        store(f"sgd/{word}", {"input": data, "target": labels, "losses": losses})
        used = {key: initial[key] for key, _ in model.named_parameters()}
        for stage, values in (("initial", used), ("final", model.state_dict())):
            store(f"sgd/{word}", {f"{stage}/{key}": value for key, value in values.items()})
