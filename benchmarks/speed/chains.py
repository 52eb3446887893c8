"""A chain of ops on a small Tensor, forward, backward and freed: the time of an op.

With a million ops the garbage collector has a million nodes to look at, again and again.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

import tinygrad_bn as tg

from .measure import OURS, Contender, Target, Work
from .rivals import TORCH, arrays, by_threads, installed

LENGTHS = {1_000: (2.0, None), 10_000: (1.0, None), 100_000: (1.0, None), 1_000_000: (1.0, 2.0)}
FACTOR = np.full(8, 1 + 2**-20, np.float32)


def works(quick: bool) -> Iterator[Work]:
    for length, (ratio, stretch) in {10: (1.0, None)}.items() if quick else LENGTHS.items():
        yield Work(
            f"a chain of {length:,} ops",
            partial(contenders, length),
            (Target(ratio, TORCH[1:], stretch),),
            parts=length,
            rounds=9 if length < 1_000_000 else 3,
            tolerance=0.0,  # the same operations in the same order
        )


def contenders(length: int) -> dict[str, Contender]:
    found = {OURS: chain(tg.tensor, length)}
    if installed("torch"):
        import torch

        step, numbers, _ = chain(torch.tensor, length)
        name = TORCH[1]  # there is nothing to share
        found[name] = by_threads(step, numbers)[name]
    return found


def chain(tensor, length: int) -> Contender:
    x, factor = tensor(np.ones_like(FACTOR), requires_grad=True), tensor(FACTOR)

    def step():
        y = x
        for _ in range(length):
            y = y * factor
        x.grad = None
        y.backward(factor)
        return y.detach(), x.grad

    return Contender(step, lambda: arrays(step()))
