"""PyTorch's functions, by PyTorch's names and defaults, over `ops` and `norm`."""

from . import activation, conv, layers, loss, norm, padding
from .activation import *
from .conv import *
from .layers import *
from .loss import *
from .norm import *
from .padding import *

_rooms = (activation, conv, layers, loss, norm, padding)
__all__ = [name for room in _rooms for name in room.__all__]
