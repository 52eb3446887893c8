"""One small training loop, and how good what it trained is."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from .. import ops
from ..backend import array_of, as_array, describe, device_of, to_device
from ..distributed import ALONE, Communicator
from ..functional.arguments import whole
from ..graph import Tensor
from ..nn import Module
from ..optim import SGD
from ..optim.base import Optimizer
from ..recording import no_grad
from .data import batches
from .progress import Progress
from .upload import uploaded

_EVALUATED_AT_ONCE = 1000  # inputs


@dataclass(frozen=True)
class History:
    """What `fit` saw: the mean training loss of each epoch, and the epoch (counted from 1), if any,
    whose loss was NaN or infinite. There it stopped, and that loss is not listed."""

    losses: tuple[float, ...]
    diverged_in: int | None


def training_step(model: Module, optimizer: Optimizer) -> Callable:
    """A function that makes one training step on a batch: inputs (n, …) and the classes (n,).

    It returns the cross entropy of the batch, and how many of its n inputs were put into their
    class, as Tensors; both were found before the step. It may be captured.

    >>> from tinygrad_bn import nn, ones, optim, tensor
    >>> model = nn.Linear(2, 2)
    >>> step = training_step(model, optim.SGD(model.parameters(), lr=0.1))
    >>> inputs, targets = ones(3, 2), tensor([0, 0, 1])
    >>> first, last = [step(inputs, targets)[0].item() for _ in range(20)][:: 19]
    >>> first > last
    True
    """

    def step(inputs, targets):
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        return loss.detach(), (outputs.detach().argmax(axis=1) == targets).sum()

    return step


def fit(
    model: Module,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float = 0.0,
    seed: int = 0,
    progress: str | None = None,
) -> History:
    """Train `model` to name the classes y of x: cross entropy, SGD, batches shuffled every epoch.

    x (n, …) and y (n,), arrays or Tensors on the host or on the model's device, stay there; from
    the host each batch is uploaded while the one before is computed with. For a model without
    parameters in float64, an x in float64, NumPy's default, is cast to the dtype of its first
    parameter. `seed` is that of the shuffling. `progress` is the name under which progress is
    shown; without one all is silent. No step waits for the device: the loss is read once an epoch,
    and y only once. A loss that is no longer finite ends the training.
    """
    epochs, batch_size = whole("epochs", epochs, 1), whole("batch_size", batch_size, 1)
    x, y, device = _prepared(model, x, y)
    x = x if device_of(x) == "cpu" else to_device(x, device)
    y = to_device(y, device_of(x))
    step = training_step(model, SGD(model.parameters(), lr=lr, momentum=momentum))
    generator = np.random.default_rng(seed)
    shown = None if progress is None else Progress(progress, epochs)
    losses = []
    _check_labels(model, x, y, device)
    model.train()
    # A diverging run overflows on its way; it is told by its loss, not by warnings.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for epoch in range(1, epochs + 1):
            total = 0.0
            pairs = batches(x, y, batch_size, generator)
            for inputs, targets in pairs if device_of(x) == device else uploaded(pairs, device):
                loss, _ = step(Tensor(inputs), Tensor(targets))
                total = total + loss * len(targets)
            mean = float(total) / len(x)
            diverged = not math.isfinite(mean)
            if shown:
                shown.advance("diverged" if diverged else f"loss {mean:.4f}", last=diverged)
            if diverged:
                return History(tuple(losses), epoch)
            losses.append(mean)
    return History(tuple(losses), None)


def _prepared(model: Module, x: Any, y: Any) -> tuple[Any, Any, str]:
    """x, in a dtype that the model takes, and y as arrays where they are; the model's device."""
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError(f"model: got {type(model).__name__} without parameters, wants some")
    x, y = as_array(array_of(x)), as_array(array_of(y))
    for name, array in (("x", x), ("y", y)):
        if not array.shape or not len(array):
            raise ValueError(f"{name}: got {describe(array)}, wants at least one row")
    if x.dtype == np.float64 and all(p.dtype != np.float64 for p in parameters):
        x = as_array(x, parameters[0].dtype)
    return x, y, parameters[0].device


def _check_labels(model: Module, x: Any, y: Any, device: str) -> None:
    """A ValueError unless y names classes that the model has outputs (n, classes, …) for. (Beside
    the loss: on a GPU, where no step waits, a label that is no class makes it NaN.)"""
    with _evaluating(model):
        outputs = model(Tensor(to_device(x[:1], device)))
    if len(outputs.shape) < 2:
        raise ValueError(f"model: got outputs {describe(outputs)}, wants (n, classes)")
    classes, wanted = outputs.shape[1], (len(x), *outputs.shape[2:])
    host = to_device(y, "cpu")
    if host.dtype.kind not in "iu" or host.shape != wanted:
        raise ValueError(f"y: got {describe(host)}, wants integers of shape {wanted}")
    if len(wrong := host[(host < 0) | (host >= classes)]):
        raise ValueError(f"y: got class {wrong[0]}, wants 0 … {classes - 1}")


@contextlib.contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """In the block all modules are in evaluation mode, and nothing is recorded."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(model: Module, x: Any, y: Any, comm: Communicator = ALONE) -> tuple[float, float]:
    """(mean cross entropy, accuracy) of the model, in evaluation mode, on x (n, …) and classes y.

    Both are NaN if any output is NaN or infinite: a diverged model names no class, and its accuracy
    is not that of guessing. x and y are as in `fit`. The ranks of `comm` do a share each, together.
    """
    x, y, device = _prepared(model, x, y)
    _check_labels(model, x, y, device)
    losses, right, largest, mine = 0.0, 0, 0.0, comm.share(len(x))
    with _evaluating(model):
        for k in range(mine.start, mine.stop, _EVALUATED_AT_ONCE):
            rows = slice(k, min(k + _EVALUATED_AT_ONCE, mine.stop))
            inputs, targets = (Tensor(to_device(a[rows], device)) for a in (x, y))
            outputs = model(inputs)
            losses = losses + F.cross_entropy(outputs, targets, reduction="sum")
            right = right + (outputs.argmax(axis=1) == targets).sum()
            largest = ops.maximum(largest, ops.abs(outputs).max())  # NaN, if one is
    lost = 0.0 if math.isfinite(float(largest)) else math.nan
    losses, right, lost = comm.allreduce_(np.array([float(losses), int(right), lost])).tolist()
    return (math.nan, math.nan) if lost else (losses / y.size, right / y.size)


def accuracy(model: Module, x: Any, y: Any) -> float | None:
    """The share of x (n, …) that the model, in evaluation mode, puts into its class y; None where
    `evaluate` gives NaN."""
    found = evaluate(model, x, y)[1]
    return None if math.isnan(found) else found


def error_rate(model: Module, x: Any, y: Any) -> float | None:
    """The share that it puts into another class; None where `accuracy` is."""
    right = accuracy(model, x, y)
    return None if right is None else 1.0 - right
