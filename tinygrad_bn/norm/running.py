"""The running statistics: moving averages for inference, moved outside the op."""

from ..backend import device_of, on_device_of
from ..recording import write


def move(running_mean, running_var, mu, var, m, momentum) -> None:
    """running ← running + momentum (batch − running), in place, for arrays of C numbers.

    The average holds the unbiased variance, σ² m/(m−1), of the m values behind each entry of μ and
    σ² (Ioffe & Szegedy 2015, Algorithm 2). If these have more entries than channels (instance
    norm's N·C), the average over the samples moves. `momentum` weighs the new batch: a number, or
    an array of one.
    """
    channels = len(running_mean)
    with on_device_of(mu):
        rows = (v.reshape(-1, channels) for v in (mu, var))
        batch_mean, batch_var = (v.mean(axis=0) if len(v) > 1 else v[0] for v in rows)
        mean = running_mean + momentum * (batch_mean - running_mean)
        variance = running_var + momentum * (batch_var * (m / (m - 1)) - running_var)
    for name, array in (("running_mean", running_mean), ("running_var", running_var)):
        if device_of(array) == "cpu" and not array.flags.writeable:
            raise ValueError(f"{name}: got a read-only array, wants one that can be moved")
    write(running_mean, mean)
    write(running_var, variance)
