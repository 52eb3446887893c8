"""What the functions take."""

from typing import Any

import numpy as np

from ..backend import array_of, as_given

__all__ = ["NUMBERS", "Array", "array_of", "as_given"]

Array = Any  # a Tensor, or an array of NumPy or CuPy: the answer is of the same kind
NUMBERS = (int, float, np.number)
