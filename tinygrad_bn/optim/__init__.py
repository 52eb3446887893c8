"""Optimizers and learning-rate schedules with PyTorch's names and formulas."""

from . import lr_scheduler
from .base import Optimizer
from .optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
