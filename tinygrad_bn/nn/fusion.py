"""What `Sequential` runs as one op: layers of which nobody would see the inner values.

Nothing is fused while a picture is taken, under hooks, in subclasses, or in a module that was given
another `forward`. What is fused gives the same numbers, up to the last digit. Where something does
not fit, the modules run one after the other, and say so.
"""

import math
from typing import Any

from .. import recording
from ..fusion.layers import layers
from ..graph import Tensor
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
    return module._module_hooks is None and "forward" not in vars(module)


def dense_layers(modules: list[Module], input: Any) -> list[tuple[Linear, BatchNorm1d]]:
    """The layers Linear, BatchNorm1d, ReLU with which `modules` begin, as far as they fit `input`
    and each other."""
    found: list = []
    if not isinstance(input, Tensor) or input.ndim != 2 or len(input.data) < 2:
        return found
    width, dtype = input.data.shape[1], input.data.dtype
    for linear, norm, relu in zip(modules[0::3], modules[1::3], modules[2::3]):
        if type(linear) is not Linear or type(norm) is not BatchNorm1d:
            break
        weight = linear.weight.data
        fits = weight.shape[1] == width and weight.dtype == dtype and dtype != "float16"
        width = len(weight)
        if not fits or norm.num_features != width or not _fits(linear, norm, width, dtype):
            break
        if not (takes_relu(norm, relu) and _is_plain(linear)):
            break
        found.append((linear, norm))
    return found


def _fits(linear: Linear, norm: BatchNorm1d, width: int, dtype: Any) -> bool:
    """Whether all vectors of a layer are as its output, and its numbers in their range."""
    mean, var = norm.running_mean, norm.running_var
    for vector in (linear.bias, norm.weight, norm.bias, mean, var):
        if vector is not None and (vector.data.shape, vector.data.dtype) != ((width,), dtype):
            return False
    momentum = 0.0 if norm.momentum is None else norm.momentum
    numbers = type(norm.eps) is float and type(momentum) is float
    alike = (mean is None) == (var is None) == (norm.num_batches_tracked is None)
    return numbers and 0 <= norm.eps < math.inf and 0 <= momentum <= 1 and alike


def run_layers(fitting: list[tuple[Linear, BatchNorm1d]], input: Tensor) -> Tensor:
    """What these `dense_layers` make of the input, as one op."""
    parameters = []
    for linear, norm in fitting:
        parameters += [linear.weight, linear.bias, norm.weight, norm.bias]
    outputs = layers([input, *parameters], eps=tuple([norm.eps for _, norm in fitting]))
    for k, (_, norm) in enumerate(fitting):
        _, mu, var, _ = outputs[4 * k : 4 * k + 4]
        norm.observe(mu.data, var.data, len(input.data))
    return outputs[-1]
