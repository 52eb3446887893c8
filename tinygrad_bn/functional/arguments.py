"""What the functions take."""

from typing import Any

import numpy as np

from ..backend import as_array

Array = Any  # a Tensor, or an array of NumPy or CuPy: the answer is of the same kind
NUMBERS = (int, float, np.number)


def as_given(value):
    """A list as an array; Tensors, arrays and None as they are."""
    return as_array(value) if isinstance(value, (list, tuple)) else value
