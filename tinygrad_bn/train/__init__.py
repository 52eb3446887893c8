"""A small training loop, the data it is shown on, and the report of what came out."""

from .data import batches
from .datasets import digits, disc
from .loop import History, accuracy, error_rate, evaluate, fit, training_step
from .progress import Progress
from .upload import uploaded

__all__ = [
    "History",
    "Progress",
    "accuracy",
    "batches",
    "digits",
    "disc",
    "error_rate",
    "evaluate",
    "fit",
    "training_step",
    "uploaded",
]
