"""Random numbers: initial weights from the host, and in a step random bits where the arrays are.

`manual_seed` seeds both, and a seed gives the same numbers on every device.
"""

from contextvars import ContextVar
from typing import Any

import numpy as np

from .backend import array_module, assign, copied, device_of, on_device_of, to_device

_generator = np.random.default_rng()
_keys: dict[str, Any] = {}  # by device: two numbers from which the next random bits are made
# Of several ranks with one seed, and so the same keys, each has bits of its own: by the number of
# the process or, where ranks are threads, that of the thread.
process_stream = 0
stream: ContextVar[int | None] = ContextVar("stream", default=None)


def manual_seed(seed: int) -> None:
    """Seed the generator behind `randn`, `rand` and initial weights (on the host, so that a seed
    gives the same network on every device), and what dropout draws."""
    global _generator
    _generator = np.random.default_rng(seed)
    for device, keys in _keys.items():  # where they are, for a captured step reads them there
        assign(keys, _first_keys(device))


def generator() -> np.random.Generator:
    """The host generator that `manual_seed` seeds."""
    return _generator


def random_bits(like: Any) -> Any:
    """A random uint32 for each element of an array, on its device. Nothing is copied there.

    The n-th is a hash of n and two keys ("lowbias32" of C. Wellons' "Prospecting for hash
    functions", 2018). The keys lie on the device, and every call moves them there: so a captured
    step draws other numbers each time it is replayed.
    """
    with on_device_of(like):
        keys = _keys_on(device_of(like))
        bits = array_module((like,)).arange(like.size, dtype=np.uint32)
        if number := process_stream if stream.get() is None else stream.get():
            bits += np.uint32(number * 0x9E3779B1 % 2**32)  # count from where no other stream does
        for key, shift, factor in ((keys[0], 16, 0x7FEB352D), (keys[1], 15, 0x846CA68B)):
            bits += key
            bits ^= bits >> shift
            bits *= factor
        bits ^= bits >> 16
        keys += 0x9E3779B9  # by the golden ratio: the next keys are far from all before
    return bits.reshape(like.shape)


def _keys_on(device: str) -> Any:
    if device not in _keys:
        _keys[device] = _first_keys(device)
    return _keys[device]


def _first_keys(device: str) -> Any:
    seed = _generator.bit_generator.seed_seq.entropy
    return to_device(np.random.SeedSequence(seed).generate_state(2), device)


def random_state() -> tuple[dict, dict]:
    """What the numbers to come depend on; nothing waits for a device."""
    return _generator.bit_generator.state, {d: copied(keys) for d, keys in _keys.items()}


def set_random_state(state: tuple[dict, dict]) -> None:
    """Draw again what was drawn after `random_state` gave this."""
    _generator.bit_generator.state, kept = state
    for device in {*_keys, *kept}:
        keys = to_device(kept[device], device) if device in kept else _first_keys(device)
        assign(_keys_on(device), keys)
