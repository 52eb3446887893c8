"""The running statistics: moving averages for inference, moved outside the op."""

from ..backend import device_of, on_device_of
from ..kernels import accelerated, cpu_norm, cuda_norm
from ..recording import mark_written


def move(running_mean, running_var, mu, var, m, momentum) -> None:
    """running ← running + momentum (batch − running), in place, for arrays of C numbers.

    The average holds the unbiased variance, σ² m/(m−1), of the m values behind each entry of μ and
    σ² (Ioffe & Szegedy 2015, Algorithm 2). If these have more entries than channels (instance
    norm's N·C), the average over the samples moves. `momentum` weighs the new batch: a number, or
    an array of one.
    """
    with on_device_of(mu):
        _move(running_mean, running_var, mu, var, m / (m - 1), momentum)
    # An op may have kept either of them.
    mark_written(running_mean)
    mark_written(running_var)


@accelerated(cpu_norm.move, cuda_norm.move)
def _move(running_mean, running_var, mu, var, scale, momentum):
    for name, array in (("running_mean", running_mean), ("running_var", running_var)):
        if device_of(array) == "cpu" and not array.flags.writeable:
            raise ValueError(f"{name}: got a read-only array, wants one that can be moved")
    rows = [v.reshape(-1, len(running_mean)) for v in (mu, var)]
    mean, variance = [v.mean(axis=0) if len(v) > 1 else v[0] for v in rows]
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (variance * scale - running_var)
