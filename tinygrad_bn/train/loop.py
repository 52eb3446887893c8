"""One small training loop, its progress, and the error of what it trained."""

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from ..backend import array_of, as_array, describe, device_of, to_device
from ..functional.arguments import whole
from ..graph import Tensor
from ..nn import Module
from ..optim import SGD
from ..recording import no_grad
from .data import batches
from .upload import uploaded


@dataclass(frozen=True)
class History:
    """What `fit` saw: the mean training loss of each epoch, and the epoch (counted from 1), if any,
    whose loss was NaN or infinite. There it stopped, and that loss is not listed."""

    losses: tuple[float, ...]
    diverged_in: int | None


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
    optimizer = SGD(model.parameters(), lr=lr, momentum=momentum)
    generator = np.random.default_rng(seed)
    shown = None if progress is None else Progress(progress, epochs)
    losses, checked = [], False
    model.train()
    # A diverging run overflows on its way; it is told by its loss, not by warnings.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for epoch in range(1, epochs + 1):
            total = 0.0
            pairs = batches(x, y, batch_size, generator)
            for inputs, targets in pairs if device_of(x) == device else uploaded(pairs, device):
                optimizer.zero_grad()
                outputs = model(Tensor(inputs))
                if not checked:
                    _check_labels(y, len(x), outputs)
                    checked = True
                loss = F.cross_entropy(outputs, targets)
                loss.backward()
                optimizer.step()
                total = total + loss.detach() * len(targets)
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


def _check_labels(y: Any, rows: int, outputs: Tensor) -> None:
    """A ValueError unless y names classes that the model has outputs (n, classes, …) for. (Beside
    the loss: on a GPU, where no step waits, a label that is no class makes it NaN.)"""
    if len(outputs.shape) < 2:
        raise ValueError(f"model: got outputs {describe(outputs)}, wants (n, classes)")
    classes, wanted = outputs.shape[1], (rows, *outputs.shape[2:])
    host = to_device(y, "cpu")
    if host.dtype.kind not in "iu" or host.shape != wanted:
        raise ValueError(f"y: got {describe(host)}, wants integers of shape {wanted}")
    if len(wrong := host[(host < 0) | (host >= classes)]):
        raise ValueError(f"y: got class {wrong[0]}, wants 0 … {classes - 1}")


def error_rate(model: Module, x: Any, y: Any) -> float | None:
    """The share of x (n, …) that the model, in evaluation mode, puts into another class than y.

    None if any output is NaN or infinite: a diverged model names no class, and its error is not
    that of guessing. x and y are as in `fit`.
    """
    x, y, device = _prepared(model, x, y)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with no_grad(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        outputs = model(Tensor(to_device(x, device)))
        finite = bool(abs(outputs.data).max() < math.inf)  # false for NaN, too
    for module, training in modes:
        module.training = training
    _check_labels(y, len(x), outputs)
    wrong = outputs.data.argmax(1) != to_device(y, device)
    return float(wrong.mean()) if finite else None


class Progress:
    """How far a long run is: a bar by tqdm if it is installed and stdout is a terminal, otherwise
    plain lines, of which there is one every few seconds and one at the end."""

    seconds_between_lines = 5.0

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._last_line = time.monotonic()
        self._bar = _terminal_bar(what, total)

    def advance(self, note: str, last: bool = False) -> None:
        """One more of `total` is done; `note` says how it went. `last`: no more will come."""
        self.done += 1
        last = last or self.done == self.total
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
            if last:
                self._bar.close()
        elif last or time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line = time.monotonic()
            print(f"{self.what}: {self.done}/{self.total}, {note}", flush=True)


def _terminal_bar(what: str, total: int) -> Any:
    if not sys.stdout.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=what, file=sys.stdout, dynamic_ncols=True)
