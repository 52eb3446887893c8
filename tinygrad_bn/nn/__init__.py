"""Layers with PyTorch's names, arguments and state-dict keys."""

from .activation import ReLU, Sigmoid, Tanh
from .layers import Flatten, Linear, Sequential
from .module import Module, Parameter
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Flatten",
    "Linear",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
]
