"""Training one step at a time, so that an experiment can measure on the way."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..graph import Tensor
from ..nn import Module, Sequential
from ..optim import SGD
from ..recording import no_grad
from ..train import batches, training_step


def steps(
    model: Module, x: Any, y: Any, count: int, *, lr: float, batch_size: int, seed: int
) -> Iterator[int]:
    """Train `model` to name the classes y of x, as `train.fit` does, and pause after each step.

    Yields how many of the `count` steps are made; the model is in training mode then. `seed` is
    that of the shuffling.

    >>> from tinygrad_bn import nn
    >>> x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])
    >>> list(steps(nn.Linear(2, 2), x, y, count=3, lr=0.1, batch_size=2, seed=0))
    [1, 2, 3]
    """
    step = training_step(model, SGD(model.parameters(), lr=lr))
    generator, done = np.random.default_rng(seed), 0
    while True:
        for inputs, targets in batches(x, y, batch_size, generator):
            if done == count:
                return
            model.train()
            # A diverging run overflows on its way; whoever measures sees that.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                step(Tensor(inputs), Tensor(targets))
            done += 1
            yield done


def inputs_of(model: Sequential, index: int, x: Any) -> np.ndarray:
    """What comes to the module of that index in training mode when x goes in.

    So batch norm uses the statistics of x. The running ones stay as they are.
    """
    state = model.state_dict()
    with no_grad(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inputs = model.train()[:index](Tensor(x)).data
    model.load_state_dict(state)
    return inputs
