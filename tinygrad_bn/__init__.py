"""An autograd engine small enough to teach from, whose speciality is normalization."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import environment  # before NumPy is loaded

# isort: split
from numpy import float16, float32, float64, int64

from . import check, distributed, functional, interop, nn, optim
from .anomaly import detect_anomaly
from .backend import device, get_default_device, set_default_device
from .capture import CaptureError, capture
from .checkpointing import checkpoint
from .creation import *
from .dtypes import dtype_of
from .engine import grad
from .graph import Tensor, toposort
from .kernels.compiled import get_num_threads, set_num_threads
from .ops import *
from .primitive import Op, op
from .random_numbers import manual_seed
from .recording import enable_grad, no_grad, tracing
from .scalar import Scalar
from .tensor import named
from .transforms import hessian, jacobian, jvp, vjp

if TYPE_CHECKING:
    from ml_dtypes import bfloat16

    from . import diagram
    from .diagram import draw, explain


def __getattr__(name: str) -> Any:
    """The diagrams and bfloat16, when they are first asked for: a training program does not wait
    for them."""
    if name == "bfloat16":
        return dtype_of(name).type
    if name not in ("diagram", "draw", "explain"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    diagram = import_module(".diagram", __name__)
    return diagram if name == "diagram" else getattr(diagram, name)
