"""A training run: the model, what trains it, and the folder of its checkpoints.

All that decides how a run goes on is in a checkpoint: parameters, the optimizer, the schedule,
running statistics, the place in the data's order, the state of the random numbers. So a run that
was stopped, or killed, ends with the same bits as one that was not (on the CPU; on a GPU as far as
the GPU repeats itself).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import operator
import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional as F
from .. import ops
from ..backend import module_on
from ..capture import capture
from ..creation import tensor
from ..distributed import ALONE, Communicator, DataParallel
from ..distributed.agreement import check_same, from_rank_0, together
from ..distributed.start import device_of_rank, on_device
from ..graph import Tensor
from ..nn import Module, convert_sync_batchnorm
from ..nn.files import require_safetensors
from ..recording import no_grad
from .checkpoint import (
    FILES,
    DamagedError,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    put_aside,
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from .config import Config
from .datasets import Dataset, load
from .loop import evaluate, training_step
from .making import make_model, make_optimizer, make_schedule
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
    """A model in training, by one process or by several ranks: then each has a `Run`, and all of
    them do together what is done here. Only rank 0 writes files."""

    def __init__(
        self, config: Config, folder: Path | None = None, comm: Communicator = ALONE
    ) -> None:
        """`folder` may be set later, before anything is saved or restored."""
        self.config, self.folder, self.comm = config, folder, comm
        together(comm, self._prepare)
        self.comm = on_device(comm, self.device)
        if comm.size > 1:
            check_same(comm, {"data": self._fingerprint()})
        self.begin()

    def _prepare(self) -> None:
        """What each rank does for itself: load the data, see whether the settings fit them."""
        config = self.config
        require_safetensors()  # rather now than when the first checkpoint is written
        self.device = device_of_rank(config.device, self.comm)
        module_on(self.device)
        if config.capture and self.comm.size > 1:
            raise ValueError(f"capture: wants one process, and there are {self.comm.size} ranks")
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
        how = {"shift": config.shift, "flip": config.flip, "parts": config.accumulate}
        how["comm"] = self.comm
        self.pipeline = Pipeline(x, y, standardize, config.batch_size, config.seed, **how)
        self._try_smallest_part()

    def _try_smallest_part(self) -> None:
        """A ValueError now, if the model takes no batch of that size: not after the first step."""
        pipeline, parts = self.pipeline, self.config.accumulate
        batch = len(pipeline.x) // pipeline.steps
        if (smallest := batch // parts) == 0:
            raise ValueError(f"accumulate: got {parts}, and some batches have only {batch} rows")
        inputs = pipeline.standardize(pipeline.x[:smallest])
        try:
            with no_grad():
                make_model(self.config, self.data, self.device)(tensor(inputs, device=self.device))
        except ValueError as error:
            what = "batches" if parts == 1 else "parts of them"
            raise ValueError(f"batch_size: some {what} have {smallest}; {error}") from error

    def begin(self) -> None:
        """Make the model, and what trains it, as they are before the first step."""
        self.model = make_model(self.config, self.data, self.device)
        if self.comm.size > 1:
            self.model = convert_sync_batchnorm(self.model, self.comm)
        self.optimizer = make_optimizer(self.config, self.model.parameters())
        self.schedule = make_schedule(self.config, self.optimizer)
        self.parallel = DataParallel(self.model, self.optimizer, self.comm)
        self.state, self._asked, self._stop = State(), lambda: False, False
        self._step = self._captured if self.config.capture else self.make_step
        self._plain_step = training_step(self.model, self.optimizer)
        self._captured_steps: dict[int, Callable] = {}

    # --- Steps --------------------------------------------------------------------------------

    def make_step(self, parts: Iterable[tuple[Any, Any]], n: int) -> tuple[Tensor, Tensor]:
        """One step on a batch of n rows, of which these are this rank's. Returns the mean loss, and
        how many rows were put into their class, on all ranks."""
        losses, right = [], []
        self.optimizer.zero_grad()
        for inputs, targets in parts:
            outputs, targets = self.model(Tensor(inputs)), Tensor(targets)
            loss = F.cross_entropy(outputs, targets, reduction="sum") / n
            loss.backward()
            losses.append(loss.detach())
            right.append((outputs.detach().argmax(axis=1) == targets).sum())
        sums = [functools.reduce(operator.add, several) for several in (losses, right)]
        *sums, asked = self.parallel.sum_gradients(*sums, float(self._asked()))
        self.optimizer.step()
        self._stop = asked > 0
        return tuple(sums)

    def _captured(self, parts: Iterable[tuple[Any, Any]], n: int) -> tuple[Tensor, Tensor]:
        ((inputs, targets),) = parts
        if n not in self._captured_steps:  # the batches of an epoch have one size or two
            state = self.model, self.optimizer
            self._captured_steps[n] = capture(self._plain_step, (inputs, targets), state)
        return self._captured_steps[n](inputs, targets)

    def train_epoch(self, progress: TrainingProgress, asked: Callable[[], bool]) -> None:
        """Train to the end of the epoch that has begun, or until it is `asked()` to stop; a loss
        that is not finite is a DivergedError, and ranks that differ then are a RankError."""
        state, parts, self._asked = self.state, self.config.accumulate, asked
        at_once = self.device == "cpu" or self.comm.size > 1  # nobody waits, or all do anyway
        self.model.train()
        made = self.pipeline.epoch(state.epoch + 1, state.step)
        made = prefetched(made, self.config.prefetch)
        unread, since = [], time.perf_counter()
        # A diverging run overflows on its way; it is told by its loss, not by warnings.
        with closing(made), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            with closing(uploaded(made, self.device)) as batches:
                for k in range(state.step, self.pipeline.steps):
                    n = self.pipeline.rows(k)
                    loss, right = self._step(itertools.islice(batches, parts), n)
                    unread.append((tensor(loss), tensor(right), n))  # of a captured step, copies
                    now = time.perf_counter()
                    if at_once or now - since > _SECONDS_BETWEEN_READINGS:
                        self._read(unread, progress)
                        state.seconds, since = state.seconds + now - since, now
                    if self.stops(asked):
                        break
            self._read(unread, progress)
        self.parallel.check_equal()
        state.seconds += time.perf_counter() - since

    def stops(self, asked: Callable[[], bool]) -> bool:
        """Whether to stop now. Several ranks do after the first step of which all knew that one of
        them was asked to."""
        return asked() if self.comm.size == 1 else self._stop

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
            loss, accuracy = evaluate(self.model, *self.validation, self.comm)
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

    @property
    def checkpoints(self) -> Path:
        """Where they are."""
        return self.folder / "checkpoints"

    def save(self) -> None:
        """Write a checkpoint, and remove those that are no longer kept. What cannot be written is
        an OSError, what is not finite a DivergedError."""
        state, lost = self.state, not_finite(self.model)
        if lost:
            raise DivergedError(*self.last_step, f"{lost} is not finite after it")
        if self.comm.rank:
            return
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

    def load_best(self) -> None:
        """Give the model, on all ranks, the parameters of the best epoch; a ValueError, or of
        several ranks a RankError, says why that cannot be."""

        def load():
            self.model.load_state_dict(read_checkpoint(self.best_path)[0]["model"])

        from_rank_0(self.comm, load)
        self.parallel = DataParallel(self.model, self.optimizer, self.comm)  # it tells the others

    def _fingerprint(self) -> str:
        """Of all data."""
        digest = hashlib.blake2b(json.dumps(self._data()).encode())
        for array in (self.data.x, self.data.labels, self.data.test_x, self.data.test_labels):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

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
        found = from_rank_0(self.comm, self._restore_newest)
        if found and self.comm.size > 1:
            path = Path(os.fsdecode(found))
            files = {n: from_rank_0(self.comm, lambda n=n: (path / n).read_bytes()) for n in FILES}
            if self.comm.rank:
                self._load(path, files)
        return bool(found)

    def _restore_newest(self) -> bytes:
        """What `restore` does on rank 0. Returns which checkpoint it was; nothing for none."""
        damaged = []
        for path in checkpoints(self.checkpoints):
            try:
                data = self._load(path)
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
            return os.fsencode(path)
        if damaged:
            raise ValueError(f"{self.checkpoints}: none of {len(damaged)} checkpoints is whole")
        return b""

    def _load(self, path: Path, files: dict[str, bytes] | None = None) -> dict[str, Any]:
        """Load a checkpoint; returns what it knows of its data."""
        trained = self.model, self.optimizer, self.schedule
        more = load_checkpoint(path, *trained, files)
        state = State(**{f.name: more[f.name] for f in dataclasses.fields(State)})
        data = {what: more["data"][what] for what in self._data()}
        self.state = state
        return data


def not_finite(model: Module) -> str | None:
    """The first parameter or buffer that has a NaN or an infinity."""
    for key, value in model.state_dict().items():
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
