"""A training run: the model, what trains it, and the folder of its checkpoints.

All that decides how a run goes on is in a checkpoint: parameters, the optimizer, the schedule,
running statistics, the place in the data's order, the state of the random numbers. So a run that
was stopped, or killed, ends with the same bits as one that was not (on the CPU; on a GPU as far as
the GPU repeats itself).
"""

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import ops, optim, random_numbers
from ..anomaly import detect_anomaly
from ..backend import device
from ..capture import capture
from ..creation import tensor
from ..graph import Tensor
from ..nn.files import require_safetensors
from ..optim import lr_scheduler
from ..recording import no_grad
from .checkpoint import (
    DamagedError,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    put_aside,
    remove_checkpoint,
    save_checkpoint,
)
from .config import Config
from .datasets import Dataset, load
from .loop import evaluate, training_step
from .models import MODELS, Between
from .pipeline import Pipeline, Standardization, prefetched
from .progress import TrainingProgress, say
from .streams import HELD_OUT, stream
from .upload import uploaded

_SECONDS_BETWEEN_READINGS = 0.5  # of the losses on a GPU: a reading waits for it


@dataclass
class State:
    """How far a run is."""

    epoch: int = 0  # epochs that are complete
    step: int = 0  # steps in the epoch that has begun
    steps: int = 0  # steps in all
    seen: int = 0  # samples in the epoch that has begun, the sum of their losses, those right
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)  # a record an epoch
    best: dict[str, Any] | None = None  # the record with the lowest loss


class DivergedError(ArithmeticError):
    """The loss, or a parameter, is no longer a finite number."""

    def __init__(self, epoch: int, step: int, what: str) -> None:
        super().__init__(f"epoch {epoch}, step {step}: {what}")
        self.epoch, self.step = epoch, step


class Run:
    """A model in training."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.checkpoints = config, folder / "checkpoints"
        require_safetensors()  # rather now than when the first checkpoint is written
        self.data = load(config.data, config.path and Path(config.path), config.seed, config.target)
        if (config.shift or config.flip) and self.data.x.ndim != 4:
            shape = self.data.x.shape[1:]
            raise ValueError(f"shift, flip: want images, but an input has shape {shape}")
        if config.shift and config.shift >= min(self.data.x.shape[2:]):
            raise ValueError(f"shift: got {config.shift}, wants less than an image has pixels")
        x, y, held_x, held_y = _split(self.data, config.validation, config.seed)
        standardize = Standardization.of(x)
        self.validation = (standardize(held_x), held_y) if len(held_x) else None
        self.test = standardize(self.data.test_x), self.data.test_labels
        augmentation = {"shift": config.shift, "flip": config.flip}
        self.pipeline = Pipeline(x, y, standardize, config.batch_size, config.seed, **augmentation)
        self.begin()
        self._try_smallest_batch()
        self.begin()

    def _try_smallest_batch(self) -> None:
        """A ValueError now, if the model takes no batch of that size: not after the first step."""
        smallest = len(self.pipeline.x) // self.pipeline.steps
        inputs = self.pipeline.standardize(self.pipeline.x[:smallest])
        try:
            with no_grad():
                self.model(tensor(inputs, device=self.config.device))
        except ValueError as error:
            raise ValueError(f"batch_size: some batches have {smallest}; {error}") from error

    def begin(self) -> None:
        """Make the model, and what trains it, as they are before the first step."""
        config = self.config.filled()
        random_numbers.manual_seed(config.seed)
        with device(config.device):
            self.model = MODELS[config.model](
                self.data.x.shape[1:],
                len(self.data.classes),
                Between(config.norm, config.impl, config.activation),
                width=config.width,
                depth=config.depth,
                dropout=config.dropout,
            )
        parameters, rate = self.model.parameters(), {"lr": config.lr}
        decay = {"weight_decay": config.weight_decay}
        self.optimizer = {
            "sgd": lambda: optim.SGD(parameters, **rate, momentum=config.momentum, **decay),
            "adam": lambda: optim.Adam(parameters, **rate, **decay),
            "adamw": lambda: optim.AdamW(parameters, **rate, **decay),
        }[config.optimizer]()
        lower = [math.ceil(share * config.epochs) for share in (1 / 2, 3 / 4)]
        self.schedule = {
            "constant": lambda: lr_scheduler.LambdaLR(self.optimizer, lambda epoch: 1.0),
            "cosine": lambda: lr_scheduler.CosineAnnealingLR(self.optimizer, config.epochs),
            "step": lambda: lr_scheduler.MultiStepLR(self.optimizer, lower),
        }[config.schedule]()
        self.state = State()
        self._step = self._captured if config.capture else self._plain
        self._plain_step = training_step(self.model, self.optimizer)
        self._captured_steps: dict[int, Callable] = {}

    # --- Steps --------------------------------------------------------------------------------

    def _plain(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        return self._plain_step(Tensor(inputs), Tensor(targets))

    def _captured(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        n = len(targets)  # the batches of an epoch have one size or two
        if n not in self._captured_steps:
            state = self.model, self.optimizer
            self._captured_steps[n] = capture(self._plain_step, (inputs, targets), state)
        return self._captured_steps[n](inputs, targets)

    def train_epoch(self, progress: TrainingProgress, stopped: Callable[[], bool]) -> None:
        """Train to the end of the epoch that has begun, or until `stopped()`; a loss that is not
        finite is a DivergedError."""
        state, on_cpu = self.state, self.config.device == "cpu"
        self.model.train()
        made = prefetched(self.pipeline.epoch(state.epoch + 1, state.step), self.config.prefetch)
        unread, since = [], time.perf_counter()
        # A diverging run overflows on its way; it is told by its loss, not by warnings.
        with closing(made), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            with closing(uploaded(made, self.config.device)) as batches:
                for inputs, targets in batches:
                    loss, right = self._step(inputs, targets)
                    unread.append((tensor(loss), tensor(right), len(targets)))
                    now = time.perf_counter()
                    if on_cpu or now - since > _SECONDS_BETWEEN_READINGS:
                        self._read(unread, progress)
                        state.seconds, since = state.seconds + now - since, now
                    if stopped():
                        break
            self._read(unread, progress)
        state.seconds += time.perf_counter() - since

    def _read(self, unread: list, progress: TrainingProgress) -> None:
        """Add up the losses of steps, and show them; on a GPU this waits for it."""
        if not unread:
            return
        state, sizes = self.state, [n for *_, n in unread]
        losses, right = (
            ops.stack([step[k] for step in unread]).cpu().numpy().tolist() for k in (0, 1)
        )
        unread.clear()
        for n, loss, number_right in zip(sizes, losses, right):
            state.step, state.steps, state.seen = state.step + 1, state.steps + 1, state.seen + n
            if not math.isfinite(loss):
                raise DivergedError(*self.last_step, f"the loss is {loss}")
            state.loss, state.right = state.loss + n * loss, state.right + number_right
        seen = state.seen
        progress.step(sum(sizes), state.epoch + 1, seen, state.loss / seen, state.right / seen)

    def close_epoch(self) -> dict[str, Any]:
        """Evaluate, write the record of the epoch, and begin the next."""
        state = self.state
        record = {
            "epoch": state.epoch + 1,
            "step": state.steps,
            "lr": self.schedule.get_last_lr()[0],
            "loss": state.loss / state.seen,
            "accuracy": state.right / state.seen,
        }
        if self.validation:
            loss, accuracy = evaluate(self.model, *self.validation)
            if not math.isfinite(loss):
                raise DivergedError(*self.last_step, "outputs on validation data are not finite")
            record |= {"validation_loss": loss, "validation_accuracy": accuracy}
        before = sum(r["seconds"] for r in state.history)
        seconds = state.seconds - before
        record |= {"seconds": seconds, "samples_per_second": state.seen / seconds}
        state.history.append(record)
        if state.best is None or _loss(record) < _loss(state.best):
            state.best = record
        state.epoch, state.step, state.seen, state.loss, state.right = state.epoch + 1, 0, 0, 0.0, 0
        self.schedule.step()
        return record

    @property
    def epoch_is_over(self) -> bool:
        """Whether the epoch that has begun has no step left."""
        return self.state.step == self.pipeline.steps

    @property
    def last_step(self) -> tuple[int, int]:
        """The last step that was made: its epoch, and its number there; both from 1."""
        state = self.state
        return (state.epoch + 1, state.step) if state.step else (state.epoch, self.pipeline.steps)

    @property
    def complete(self) -> str | None:
        """Why there is nothing more to train: "finished" or "stopped early"; None if there is."""
        state, patience = self.state, self.config.patience
        if state.epoch >= self.config.epochs:
            return "finished"
        if patience and state.best and state.epoch - state.best["epoch"] >= patience:
            return "stopped early"
        return None

    # --- Checkpoints --------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint, and remove those that are no longer kept. What cannot be written is
        an OSError, what is not finite a DivergedError."""
        state, lost = self.state, self._not_finite()
        if lost:
            raise DivergedError(*self.last_step, f"{lost} is not finite after it")
        more = {**dataclasses.asdict(state), "data": self._data()}
        path = checkpoint_path(self.checkpoints, state.steps)
        save_checkpoint(path, self.model, self.optimizer, self.schedule, more)
        for old in checkpoints(self.checkpoints)[self.config.keep :]:
            if old != self.best_path:
                remove_checkpoint(old)

    @property
    def best_path(self) -> Path | None:
        """The checkpoint after the best epoch."""
        best = self.state.best
        return None if best is None else checkpoint_path(self.checkpoints, best["step"])

    def _data(self) -> dict[str, Any]:
        """What tells whether the data are those that a checkpoint was trained on."""
        standardize = self.pipeline.standardize
        return {
            "rows": len(self.pipeline.x),
            "classes": list(self.data.classes),
            "mean": standardize.mean.tolist(),
            "std": standardize.std.tolist(),
        }

    def restore(self) -> bool:
        """Go on from the newest checkpoint that is whole; it is said which are not, and they get
        other names. False if there is no checkpoint. If none is whole, or it is one of
        another model or of other data, that is an error, and all is left as it is."""
        damaged = []
        for path in checkpoints(self.checkpoints):
            try:
                more = load_checkpoint(path, self.model, self.optimizer, self.schedule)
                state = State(**{f.name: more[f.name] for f in dataclasses.fields(State)})
                data = {what: more["data"][what] for what in self._data()}
            except (DamagedError, KeyError, TypeError) as error:
                say(str(error))
                damaged.append(path)
                continue
            for what, value in self._data().items():
                if data[what] != value:
                    short = f"{data[what]!r:.60} in the checkpoint, now {value!r:.60}"
                    raise ValueError(f"{path}: the data have changed: {what} {short}")
            if damaged:
                say(f"in its place {path} is used")
            for other in damaged:
                put_aside(other)
            self.state = state
            return True
        if damaged:
            raise ValueError(f"{self.checkpoints}: none of {len(damaged)} checkpoints is whole")
        return False

    def where_it_diverged(self, error: DivergedError) -> str | None:
        """Which op made the first value that is not finite, if that can be found: the steps since
        the last checkpoint are made again, first to see after which one the parameters were lost,
        then to look at that one. What was trained is given up."""
        last = (error.epoch, error.step)
        lost = self._replay(last, lambda *_: None) or last
        return self._replay(lost, self._watch)

    def _replay(self, last: tuple[int, int], make_last: Callable) -> Any:
        """Make the steps since the last checkpoint again, up to `last`, an epoch and its step; that
        one by `make_last`, whose answer is returned. Before that, the step after which a parameter
        is not finite ends it, and is returned."""
        self.begin()
        self.restore()
        if self.state.epoch != last[0] - 1:
            return None  # its checkpoint could not be written
        self.model.train()
        batches = uploaded(self.pipeline.epoch(last[0], self.state.step), self.config.device)
        with closing(batches), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for number, (inputs, targets) in enumerate(batches, start=self.state.step + 1):
                if number == last[1]:
                    return make_last(number, inputs, targets)
                self._plain(inputs, targets)
                if self._not_finite():
                    return last[0], number
        return None

    def _watch(self, number: int, inputs: Any, targets: Any) -> str | None:
        try:
            with detect_anomaly():
                self._plain(inputs, targets)
        except FloatingPointError as found:
            what, _, place = str(found).partition("\n  recorded at ")
            return f"in step {number}: {what}, {place.partition(', ')[2]}"  # no line of the user's
        lost = self._not_finite()
        return lost and f"in step {number}: after the update {lost} is not finite"

    def _not_finite(self) -> str | None:
        """The first parameter or buffer that has a NaN or an infinity."""
        for key, value in self.model.state_dict().items():
            if not np.isfinite(value.cpu().numpy()).all():
                return key
        return None


def _loss(record: dict[str, Any]) -> float:
    """What the best epoch has the least of."""
    return record.get("validation_loss", record["loss"])


def _split(data: Dataset, share: float, seed: int) -> tuple[np.ndarray, ...]:
    """(x, labels, and those that are held out of them for validation)."""
    held = round(share * len(data.x))
    if share and not 0 < held < len(data.x):
        raise ValueError(
            f"validation: got {share} of {len(data.x):,} rows, wants some on each side"
        )
    order = stream(seed, HELD_OUT).permutation(len(data.x))
    here, there = np.sort(order[held:]), np.sort(order[:held])
    return data.x[here], data.labels[here], data.x[there], data.labels[there]
