"""PyTorch's functions, by PyTorch's names and defaults, over `ops` and `norm`."""

from . import activation, conv, layers, loss, norm, padding
from .activation import *
from .conv import *
from .layers import *
from .loss import *
from .norm import *
from .padding import *

__all__ = [n for file in (activation, conv, layers, loss, norm, padding) for n in file.__all__]
