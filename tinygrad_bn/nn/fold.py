"""Batch norm in inference, folded into the layer before it: the same outputs, one layer less."""

import copy

from ..norm.fold import fold as folded_arrays
from .container import Sequential
from .conv import Conv1d, Conv2d, Conv3d
from .layers import Linear
from .module import Module, Parameter
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .sync_norm import SyncBatchNorm

_PAIRS = {Linear: BatchNorm1d, Conv1d: BatchNorm1d, Conv2d: BatchNorm2d, Conv3d: BatchNorm3d}


def fold(layer: Module, norm: Module) -> Module:
    """A copy of `layer` that gives what `norm(layer(x))` gives in evaluation.

    `layer`: a Linear (of inputs (N, features)) or a Conv; `norm`: the batch norm of its outputs, in
    evaluation mode, with running statistics. Neither is touched. Errors: a ValueError for any other
    pair.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import nn
    >>> layer, norm, x = nn.Linear(3, 2), nn.BatchNorm1d(2).eval(), tg.ones(1, 3)
    >>> bool(abs(nn.fold(layer, norm)(x) - norm(layer(x))).max() < 1e-6)
    True
    """
    if layer._module_hooks or norm._module_hooks:
        raise ValueError("layer, norm: got one with hooks, which would see something else")
    if not _fits(layer, norm):
        raise ValueError(
            f"layer, norm: got {type(layer).__name__} and {type(norm).__name__}, wants Linear and "
            "BatchNorm1d, or a Conv and the BatchNorm of its rank"
        )
    if norm.training or norm.running_mean is None:
        raise ValueError(
            "norm: got one that normalizes by the batch's statistics, wants evaluation mode "
            "(call eval() first) and running statistics"
        )
    channels = len(layer.weight)
    if norm.num_features != channels:
        raise ValueError(f"norm: got {norm.num_features} channels, wants {channels} of the layer")
    tensors = (layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    arrays = [None if tensor is None else tensor.data for tensor in tensors]
    weight, bias = folded_arrays(layer.weight.data, *arrays, norm.eps)
    twin = copy.deepcopy(layer)
    learns = layer.weight.requires_grad
    twin.weight, twin.bias = Parameter(weight, learns), Parameter(bias, learns)
    return twin


def fold_sequential(model: Sequential) -> Sequential:
    """A copy of `model` with every batch norm that follows a Linear or a Conv folded into it, also
    in Sequentials inside. The layers that stay keep their names. What has hooks, and subclasses of
    Sequential, are copied as they are. `model` must be in evaluation mode; it stays as it is. A
    Linear before a BatchNorm1d must get inputs (N, features)."""
    if type(model) is not Sequential or model._module_hooks:
        raise TypeError(f"model: got {type(model).__name__}, wants a Sequential without hooks")
    if model.training:
        raise ValueError("model: got one in training, wants evaluation mode (call eval() first)")
    kept: dict[str, Module] = {}
    last = None  # the name of the layer just before, while nothing but a norm can follow it
    for name, module in model.named_children():
        hooked = module._module_hooks or (last and kept[last]._module_hooks)
        if last and not hooked and _fits(kept[last], module) and module.running_mean is not None:
            kept[last] = fold(kept[last], module)
            last = None
            continue
        inside = type(module) is Sequential and not module._module_hooks
        kept[name] = fold_sequential(module) if inside else copy.deepcopy(module)
        last = name
    return Sequential(kept).eval()


def _fits(layer: Module, norm: Module) -> bool:
    # By exact types: a subclass may compute something else.
    return type(layer) in _PAIRS and type(norm) in (_PAIRS[type(layer)], SyncBatchNorm)
