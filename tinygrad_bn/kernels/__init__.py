"""Fast code behind a formula. A kernel computes on arrays what the formula says.

The library is whole without kernels: a formula fed arrays gives the same answer, only later.
"""

import functools
from collections.abc import Callable

import numpy as np

from ..backend import array_module
from ..graph import Tensor


def accelerated(kernel: Callable) -> Callable[[Callable], Callable]:
    """Give a formula a kernel for NumPy arrays.

    Fed arrays of NumPy the kernel runs; fed a Tensor, which must record, or arrays of CuPy, the
    formula does. Both stay at hand as `.kernel` and `.formula`, to be held against each other.
    """

    def wrap(formula: Callable) -> Callable:
        @functools.wraps(formula)
        def call(*args, **kwargs):
            flat = []
            for arg in args:
                flat.extend(arg) if isinstance(arg, (list, tuple)) else flat.append(arg)
            recorded = any([isinstance(arg, Tensor) for arg in flat])
            on_cpu = not recorded and array_module(flat) is np
            return (kernel if on_cpu else formula)(*args, **kwargs)

        call.formula, call.kernel = formula, kernel
        return call

    return wrap
