"""An autograd engine small enough to teach from, whose speciality is normalization."""

from numpy import float16, float32, float64, int64

from . import check, functional, interop, nn, optim
from .anomaly import detect_anomaly
from .backend import device, get_default_device, manual_seed, set_default_device
from .checkpointing import checkpoint
from .creation import *
from .diagram import draw, explain
from .engine import grad, toposort
from .graph import Op, Tensor, op
from .ops import *
from .recording import enable_grad, no_grad, tracing
from .scalar import Scalar
from .tensor import named
from .transforms import hessian, jacobian, jvp, vjp
