"""From the data to the batches of an epoch: order, augmentation, standardization, ahead of time.

Order and augmentation depend on the seed, the epoch and the number of the batch, and on nothing
that happened before. So an epoch can be entered at any batch, a thread may run ahead, and ranks
that share a batch agree on it, however many they are.
"""

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..distributed import ALONE, Communicator
from .data import split
from .streams import AUGMENTATION, ORDER, stream

_AT_ONCE = 4096  # rows in float64


@dataclass(frozen=True)
class Standardization:
    """(x − mean) / std of each channel of images (n, C, H, W), or of each feature (n, F)."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "Standardization":
        """That of these data. What does not vary is only centred."""
        axes = (0, *range(2, x.ndim))
        chunks = [x[k : k + _AT_ONCE] for k in range(0, len(x), _AT_ONCE)]
        size = x.size // x.shape[1]
        mean = sum(chunk.sum(axes, np.float64, keepdims=True) for chunk in chunks) / size
        squares = sum(np.square(chunk - mean).sum(axes, keepdims=True) for chunk in chunks)
        std = np.sqrt(squares / size)
        std[std == 0] = 1
        return cls(mean[0], std[0])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x in float32, standardized."""
        mean, scale = self.mean.astype(np.float32), (1 / self.std).astype(np.float32)
        with np.errstate(over="ignore"):  # what is beyond all that was seen may come out infinite
            return (x.astype(np.float32) - mean) * scale


def shifted(images: np.ndarray, most: int, to: np.ndarray) -> np.ndarray:
    """Each image (C, H, W) moved by up to `most` pixels, up or down and to a side; what comes in is
    0. `to` (2, n): from where each is taken in the image with a margin of `most`."""
    n, channels, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    top, left = to[..., None]
    rows, columns = top + np.arange(height), left + np.arange(width)
    n, channels = np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None]
    return padded[n, channels, rows[:, None, :, None], columns[:, None, None, :]]


def mirrored(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    """The images, those with a true value in `which` (n,) with the left side on the right."""
    return np.where(which[:, None, None, None], images[..., ::-1], images)


@dataclass(frozen=True)
class Pipeline:
    """The batches of each epoch of x (n, …) and classes y (n,): each in `parts`, one after the
    other, and of each part what is the share of this rank of `comm`."""

    x: np.ndarray
    y: np.ndarray
    standardize: Standardization
    batch_size: int
    seed: int
    shift: int = 0
    flip: bool = False
    parts: int = 1
    comm: Communicator = ALONE

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The parts of the batches of an epoch (from 1) from batch number `first` (from 0) on."""
        order = stream(self.seed, ORDER, number).permutation(len(self.x))
        numbered = enumerate(split(order, self.steps))
        for k, rows in itertools.islice(numbered, first, None):
            # Drawn for all rows, whoever takes them.
            random, n = stream(self.seed, AUGMENTATION, number, k), len(rows)
            to = random.integers(0, 2 * self.shift + 1, (2, n)) if self.shift else None
            mirror = random.random(n) < 0.5 if self.flip else None
            for part in split(np.arange(n), self.parts):
                mine = part[self.comm.share(len(part))]
                inputs, targets = self.x[rows[mine]], self.y[rows[mine]]
                if self.shift:
                    inputs = shifted(inputs, self.shift, to[:, mine])
                if self.flip:
                    inputs = mirrored(inputs, mirror[mine])
                yield self.standardize(inputs), targets

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.x) // self.batch_size)

    def rows(self, k: int) -> int:
        """How many rows batch number k (from 0) of an epoch has, on all ranks."""
        return (k + 1) * len(self.x) // self.steps - k * len(self.x) // self.steps


_END = object()


def prefetched(iterable: Iterable, ahead: int) -> Iterator:
    """The same items, of which a thread makes up to `ahead` before they are asked for.

    What it raises is raised here, in its turn. If the iterator is closed, the thread ends.

    >>> list(prefetched(range(5), 2))
    [0, 1, 2, 3, 4]
    """
    if not ahead:
        yield from iterable
        return
    ready, closed = queue.Queue(ahead), threading.Event()

    def put(item) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work():
        try:
            for item in iterable:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        closed.set()
        thread.join()
