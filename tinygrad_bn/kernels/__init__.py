"""Fast code behind a formula. A kernel computes on arrays what the formula says.

The library is whole without kernels: a formula fed arrays gives the same answer, only later.
"""

import functools
import logging
from collections.abc import Callable, Iterable

import numpy as np

from ..backend import imported_cupy, is_array
from ..graph import Tensor

_log = logging.getLogger("tinygrad_bn")


def accelerated(kernel: Callable, on_gpu: Callable | None = None) -> Callable:
    """Give a formula a kernel for NumPy arrays, and another for CuPy's.

    Fed arrays the kernel for them runs; fed a Tensor, which must record, the formula does; and also
    where there is no kernel, or it returns NotImplemented: for an array that it does not know. All
    stay at hand as `.kernel`, `.on_gpu` and `.formula`, to be held against each other.
    """

    def wrap(formula: Callable) -> Callable:
        @functools.wraps(formula)
        def call(*args, **kwargs):
            answer = NotImplemented
            if _all_are(np.ndarray, args):
                answer = kernel(*args, **kwargs)
            elif on_gpu and (cupy := imported_cupy()) and _all_are(cupy.ndarray, args):
                answer = on_gpu(*args, **kwargs)
                if answer is NotImplemented:
                    _log.debug("no CUDA kernel knows these arrays: %s runs", formula.__name__)
            return formula(*args, **kwargs) if answer is NotImplemented else answer

        call.formula, call.kernel, call.on_gpu = formula, kernel, on_gpu
        return call

    return wrap


_NO_ARRAYS = {type(None), float, int, bool}


def _all_are(kind: type, values: Iterable) -> bool:
    """Whether all arrays among the values, and in lists of them, are of this kind."""
    for value in values:
        if (found := type(value)) is kind or found in _NO_ARRAYS:
            continue
        if isinstance(value, (list, tuple)):
            if not _all_are(kind, value):
                return False
        elif isinstance(value, Tensor) or (is_array(value) and not isinstance(value, kind)):
            return False
    return True
