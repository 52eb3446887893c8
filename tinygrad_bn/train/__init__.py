"""A small training loop, the data it is shown on, and the report of what came out."""

from .data import batches, digits, disc
from .loop import History, Progress, error_rate, fit
from .upload import uploaded

__all__ = ["History", "Progress", "batches", "digits", "disc", "error_rate", "fit", "uploaded"]
