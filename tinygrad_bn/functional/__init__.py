"""PyTorch's functions, by PyTorch's names and defaults, over `ops` and `norm`."""

from . import activation, layers, loss, norm
from .activation import *
from .layers import *
from .loss import *
from .norm import *

__all__ = [*activation.__all__, *layers.__all__, *loss.__all__, *norm.__all__]
