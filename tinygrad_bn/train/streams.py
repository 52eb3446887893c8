"""Streams of random numbers from one seed, that have nothing to do with each other."""

import numpy as np

ORDER, AUGMENTATION, HELD_OUT, DATA = range(4)  # what the numbers are used for


def stream(seed: int, use: int, *place: int) -> np.random.Generator:
    """The random numbers of a seed for one use, and for a place in it: an epoch, a batch. They are
    others than those of `manual_seed(seed)`.

    >>> [stream(3, ORDER, 1).permutation(4).tolist() for _ in range(2)]
    [[3, 0, 2, 1], [3, 0, 2, 1]]
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, *place)))
