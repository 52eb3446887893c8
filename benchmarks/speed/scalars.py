"""micrograd's own demo, a training step on numbers: Scalar beside micrograd's Value.

Two moons of 50 points, two hidden layers of 16, the max-margin loss of an SVM and L2, the whole
batch. `Neuron` and `MLP` are those of micrograd's nn.py, on whatever class of numbers is given.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from tinygrad_bn import Scalar

from .measure import OURS, Contender, Target, Work
from .rivals import MICROGRAD, installed


class Neuron:
    def __init__(self, value, nin, nonlin):
        self.w = [value(random.uniform(-1, 1)) for _ in range(nin)]
        self.b = value(0)
        self.nonlin = nonlin

    def act(self, x):
        return sum((wi * xi for wi, xi in zip(self.w, x)), self.b)

    def __call__(self, x):
        act = self.act(x)
        return act.relu() if self.nonlin else act

    def parameters(self):
        return [*self.w, self.b]


class DotNeuron(Neuron):
    """The same sum as one node."""

    def act(self, x):
        return Scalar.dot(self.w, x) + self.b


class MLP:
    def __init__(self, neuron, nin, nouts):
        sizes = [nin, *nouts]
        self.layers = [
            [neuron(n, nonlin=i != len(nouts) - 1) for _ in range(m)]
            for i, (n, m) in enumerate(zip(sizes, nouts))
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = [neuron(x) for neuron in layer]
        return x[0] if len(x) == 1 else x

    def parameters(self):
        return [p for layer in self.layers for neuron in layer for p in neuron.parameters()]


def moons(n: int) -> tuple[list[list[float]], list[int]]:
    """As scikit-learn's make_moons: two half circles of n points with noise, and -1 or 1."""
    noise, angles = np.random.default_rng(1337).normal(scale=0.1, size=(2 * n, 2)), np.pi
    angles *= np.linspace(0, 1, n)
    upper = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([upper, [1, 0.5] - upper]) + noise
    return points.tolist(), [-1] * n + [1] * n


def works(quick: bool) -> Iterator[Work]:
    n, hidden = (2, 3) if quick else (50, 16)
    common = {"rounds": 3, "burst": 2.6, "cycles": True, "tolerance": 1e-9}  # micrograd leaves them
    for name, neuron, total, ratio in (
        ("micrograd's step, its own code", partial(Neuron, Scalar), sum, 10.0),
        ("the same with Scalar.dot", partial(DotNeuron, Scalar), Scalar.sum, 40.0),
    ):
        make = partial(contenders, n, hidden, neuron, total)
        yield Work(name, make, (Target(ratio, (MICROGRAD,)),), **common)


def contenders(n: int, hidden: int, neuron: Callable, total: Callable) -> dict[str, Contender]:
    found = {OURS: demo(Scalar, neuron, total, n, hidden)}
    if installed("micrograd"):
        from micrograd.engine import Value

        found[MICROGRAD] = demo(Value, partial(Neuron, Value), sum, n, hidden)
    return found


def demo(value: type, neuron: Callable, total: Callable, n: int, hidden: int) -> Contender:
    """The loop of micrograd's demo.ipynb."""
    random.seed(1337)
    model = MLP(neuron, 2, [hidden, hidden, 1])
    points, labels = moons(n)

    def step():
        inputs = [list(map(value, row)) for row in points]
        scores = list(map(model, inputs))
        losses = [(1 + -yi * scorei).relu() for yi, scorei in zip(labels, scores)]
        data_loss = total(losses) * (1.0 / len(losses))
        reg_loss = 1e-4 * total([p * p for p in model.parameters()])
        loss = data_loss + reg_loss
        for p in model.parameters():
            p.grad = 0
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        return loss.data

    return Contender(step, lambda: [np.array([step() for _ in range(3)])])
