"""What `Sequential` runs as one op: layers of which nobody would see the inner values.

Nothing is fused while a picture is taken, under hooks, in subclasses, or in a module that was given
another `forward`. What is fused gives the same numbers, up to the last digit. Where something does
not fit, the modules run one after the other, and say so.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .. import recording
from ..fusion.layers import layers, small_layers
from ..graph import Tensor
from ..kernels import cpu_dense
from ..reduction import SUMMED
from .activation import ReLU
from .layers import Linear
from .module import Module
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d


def takes_relu(norm: Module, following: Module) -> bool:
    """Whether `norm.forward_relu` does what the two modules do one after the other."""
    if type(following) is not ReLU or type(norm) not in (BatchNorm1d, BatchNorm2d, BatchNorm3d):
        return False
    fused = norm.training and norm.impl == "fused"
    return fused and _is_plain(norm) and _is_plain(following) and recording.scopes.get() is None


def _is_plain(module: Module) -> bool:
    return module._module_hooks is None and "forward" not in module.__dict__


class DenseLayer(NamedTuple):
    """Linear, BatchNorm1d and ReLU, which are run as one."""

    norm: BatchNorm1d
    parameters: tuple[Tensor | None, ...]  # W, b, γ, β
    width: int


def dense_layers(modules: list[Module], input: Any) -> list[DenseLayer]:
    """The layers with which `modules` begin, as far as they fit `input` and each other."""
    found: list[DenseLayer] = []
    if not isinstance(input, Tensor) or input.ndim != 2 or len(input.data) < 2:
        return found
    width, dtype = input.data.shape[1], input.data.dtype
    if dtype.char in SUMMED:
        return found
    for linear, norm, relu in zip(modules[0::3], modules[1::3], modules[2::3]):
        if type(linear) is not Linear or type(norm) is not BatchNorm1d:
            break
        if not (_is_plain(linear) and takes_relu(norm, relu)):
            break
        layer = _layer(linear, norm, width, dtype)
        if layer is None:
            break
        found.append(layer)
        width = layer.width
    return found


def _layer(linear: Linear, norm: BatchNorm1d, inputs: int, dtype: np.dtype) -> DenseLayer | None:
    """The layer, if all vectors in it are as its output, and its numbers in their range."""
    # Looked up in the dicts, which is quicker than by attribute.
    of_linear, of_norm, buffers = linear._parameters, norm._parameters, norm._buffers
    try:
        weight, bias = of_linear["weight"], of_linear["bias"]
        gamma, beta = of_norm["weight"], of_norm["bias"]
        mean, var = buffers["running_mean"], buffers["running_var"]
        counts = buffers["num_batches_tracked"] is not None
    except KeyError:  # somebody took it away
        return None
    width, matrix = norm.num_features, weight.data
    if not width or matrix.shape != (width, inputs) or matrix.dtype != dtype:
        return None
    shape = (width,)
    for vector in (bias, gamma, beta, mean, var):
        if vector is not None:
            array = vector.data
            if array.shape != shape or array.dtype != dtype:
                return None
    if (mean is not None) != counts or (var is not None) != counts:
        return None
    eps, momentum = norm.eps, 0.0 if norm.momentum is None else norm.momentum
    if type(eps) is not float or type(momentum) is not float:
        return None
    if not (0 <= eps < math.inf and 0 <= momentum <= 1):
        return None
    return DenseLayer(norm, (weight, bias, gamma, beta), width)


def run_layers(fitting: list[DenseLayer], input: Tensor) -> Tensor:
    """What these `dense_layers` make of the input, as one op."""
    arguments, x = [input], input.data
    for layer in fitting:
        arguments += layer.parameters
    eps, widths = zip(*[(layer.norm.eps, layer.width) for layer in fitting])
    if cpu_dense.suits(x, widths):
        y, hidden = small_layers(arguments, eps=eps)
        inner = [hidden.data[piece] for piece in cpu_dense.hidden_slices(len(x), widths)]
    else:
        *inner, y = layers(arguments, eps=eps)
        inner = [value.data for value in inner]
    for layer, mu, var in zip(fitting, inner[1::4], inner[2::4]):
        layer.norm.observe(mu, var, len(x))
    return y
