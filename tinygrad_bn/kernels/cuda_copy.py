"""Many small copies on a GPU, eight in a launch."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import assign, device_of, on_device_of
from .cuda import STORED, launch

_AT_ONCE = 8
_THREADS, _BLOCKS = 256, 256  # blocks for the longest; each thread copies several values of it


def copy_all(pairs: Iterable[tuple[Any, Any]]) -> None:
    """`to[...] = from` for each pair (to, from) of arrays of one shape, on one device.

    Arrays of CuPy go eight by eight, those of one dtype and device, if both are contiguous.
    """
    together: dict[tuple, list[tuple[Any, Any]]] = {}
    for to, source in pairs:
        if type(to) is np.ndarray or not _is_plain(to, source):
            assign(to, source)
        else:
            together.setdefault((to.dtype, to.device.id), []).append((to, source))
    for (dtype, _), group in together.items():
        with on_device_of(group[0][0]):
            for first in range(0, len(group), _AT_ONCE):
                _copy_eight(group[first : first + _AT_ONCE], dtype)


def _is_plain(to: Any, source: Any) -> bool:
    alike = to.dtype == source.dtype and to.dtype.name in STORED and to.size > 0
    alike = alike and device_of(to) == device_of(source)
    return alike and bool(to.flags.c_contiguous and source.flags.c_contiguous)


def _copy_eight(pairs: list[tuple[Any, Any]], dtype: np.dtype) -> None:
    blocks = min(-(-max([to.size for to, _ in pairs]) // _THREADS), _BLOCKS)
    args = [value for to, source in pairs for value in (source, to, to.size)]
    args += [None, None, 0] * (_AT_ONCE - len(pairs))
    launch("copies", "copy_eight", (blocks, len(pairs)), _THREADS, *args, dtype=dtype)
