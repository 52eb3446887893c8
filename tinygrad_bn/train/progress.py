"""How far a long run is: a bar by tqdm if it is installed and stdout is a terminal, else lines.

Of several ranks only rank 0 shows it.
"""

import contextlib
import sys
import time
from typing import Any

from ..distributed import communicator


def say(text: str) -> None:
    """Print a line. That nobody can read it any more (a full disk, a closed pipe) ends no work."""
    if communicator().rank:
        return
    with contextlib.suppress(OSError):
        print(text, flush=True)


class Progress:
    """Of a number of things to do. Plain lines come every few seconds, and one at the end."""

    seconds_between_lines = 5.0

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._last_line = time.monotonic()
        self._bar = _terminal_bar(desc=what, total=total)

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
            say(f"{self.what}: {self.done}/{self.total}, {note}")


class TrainingProgress:
    """Of a training run, in samples. Each epoch leaves a line; a long one has some on its way."""

    seconds_between_lines = 10.0

    def __init__(self, name: str, epochs: int, samples: int, done: int) -> None:
        """`samples` in an epoch; `done`: how many were seen before."""
        self.epochs, self.samples = epochs, samples
        self._last_line = self._since = time.monotonic()
        self._before = done
        self._bar = _terminal_bar(
            desc=name, total=epochs * samples, initial=done, unit=" samples", unit_scale=True
        )

    def step(self, n: int, epoch: int, seen: int, loss: float, accuracy: float) -> None:
        """n more samples of an epoch were seen, `seen` by now, with this mean loss and accuracy."""
        note = f"epoch {epoch}/{self.epochs}, loss {loss:.4f}, accuracy {100 * accuracy:.1f} %"
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line >= self.seconds_between_lines:
            self.line(f"{note} after {seen:,} of {self.samples:,} samples")

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done; `record` is its line in metrics.jsonl."""
        seen = record["epoch"] * self.samples
        each = (time.monotonic() - self._since) / (seen - self._before)
        left = (self.epochs * self.samples - seen) * each
        validation = ""
        if "validation_loss" in record:
            accuracy = 100 * record["validation_accuracy"]
            validation = f", validation {record['validation_loss']:.4f} and {accuracy:.1f} %"
        self.line(
            f"epoch {record['epoch']}/{self.epochs}, loss {record['loss']:.4f}, accuracy "
            f"{100 * record['accuracy']:.1f} %{validation}, "
            f"{record['samples_per_second']:,.0f} samples/s, {left:.0f} s left"
        )

    def line(self, text: str) -> None:
        """A line of text, above the bar if there is one."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.write(text)
        else:
            say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _terminal_bar(**how: Any) -> Any:
    if communicator().rank or not sys.stdout.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(file=sys.stdout, dynamic_ncols=True, **how)
