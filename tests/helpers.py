"""What many tests need: to the device of the run, and back from it."""

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.backend import to_device


def host(value):
    """The NumPy array of a Tensor or array, wherever it is."""
    array = value.data if isinstance(value, tg.Tensor) else value
    return np.array(to_device(array, "cpu")) if hasattr(array, "device") else np.asarray(array)


def leaf(array):
    """A Tensor of the run's device that requires a gradient."""
    return tg.tensor(array, requires_grad=True)
