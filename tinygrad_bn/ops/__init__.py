"""The primitives: each one statement, with its label, its gradient rules and its forward."""

from . import compare, conv, einstein, elementwise, index, linalg, reduce, shape
from .compare import *
from .conv import *
from .einstein import *
from .elementwise import *
from .index import *
from .linalg import *
from .reduce import *
from .shape import *

_rooms = (compare, conv, einstein, elementwise, index, linalg, reduce, shape)
__all__ = [name for room in _rooms for name in room.__all__]
