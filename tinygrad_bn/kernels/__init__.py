"""Fast code behind a formula. A kernel computes on arrays what the formula says.

The library is whole without kernels: a formula fed arrays gives the same answer, only later.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np

from ..backend import is_array
from ..graph import Tensor


def accelerated(kernel: Callable) -> Callable[[Callable], Callable]:
    """Give a formula a kernel for NumPy arrays.

    Fed arrays of NumPy the kernel runs; fed a Tensor, which must record, or arrays of CuPy, the
    formula does. Both stay at hand as `.kernel` and `.formula`, to be held against each other.
    """

    def wrap(formula: Callable) -> Callable:
        @functools.wraps(formula)
        def call(*args, **kwargs):
            return (kernel if _of_numpy(args) else formula)(*args, **kwargs)

        call.formula, call.kernel = formula, kernel
        return call

    return wrap


def _of_numpy(values: Iterable) -> bool:
    """Whether all arrays among the values, and in lists of them, are NumPy's."""
    for value in values:
        if value is None or type(value) is np.ndarray:
            continue
        if isinstance(value, (list, tuple)):
            if not _of_numpy(value):
                return False
        elif isinstance(value, Tensor) or (is_array(value) and not isinstance(value, np.ndarray)):
            return False
    return True
