"""The running statistics: moving averages for inference, moved outside the op."""

from ..backend import device_of, on_device_of
from ..recording import write


def move(running_mean, running_var, mu, var, m, momentum) -> None:
    """running ← running + momentum (batch − running), in place, for arrays of C numbers.

    The average holds the unbiased variance, σ² m/(m−1), of batches of m values a channel (Ioffe &
    Szegedy 2015, Algorithm 2). `momentum` weighs the new batch: a number, or an array of one.
    """
    with on_device_of(mu):
        mean = running_mean + momentum * (mu.reshape(-1) - running_mean)
        variance = running_var + momentum * (var.reshape(-1) * (m / (m - 1)) - running_var)
    for name, array in (("running_mean", running_mean), ("running_var", running_var)):
        if device_of(array) == "cpu" and not array.flags.writeable:
            raise ValueError(f"{name}: got a read-only array, wants one that can be moved")
    write(running_mean, mean)
    write(running_var, variance)
