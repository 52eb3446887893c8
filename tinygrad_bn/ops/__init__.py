"""The primitives: each one statement, with its label, its gradient rules and its forward."""

from . import compare, elementwise, index, linalg, reduce, shape
from .compare import *
from .elementwise import *
from .index import *
from .linalg import *
from .reduce import *
from .shape import *

__all__ = [
    *compare.__all__,
    *elementwise.__all__,
    *index.__all__,
    *linalg.__all__,
    *reduce.__all__,
    *shape.__all__,
]
