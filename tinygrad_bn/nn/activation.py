"""Activations as layers."""

from .. import functional as F
from .module import Module


class ReLU(Module):
    """max(x, 0)"""

    def forward(self, input):
        return F.relu(input)


class Sigmoid(Module):
    """1 / (1 + exp(−x))"""

    def forward(self, input):
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input):
        return F.tanh(input)
