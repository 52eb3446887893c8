"""The running statistics in machine code: a call costs less than one operation of NumPy."""

from .compiled import Loop


@Loop
def move(running_mean, running_var, mu, var, scale, momentum):
    """running ← running + momentum (batch − running), in place; σ² is multiplied by `scale`. The
    average over samples moves, if μ and σ² have several values for a channel."""
    channels = running_mean.size
    samples = mu.size // channels
    for c in range(channels):
        mean, variance = 0.0, 0.0
        for i in range(c, mu.size, channels):
            mean += mu[i]
            variance += var[i]
        running_mean[c] += momentum * (mean / samples - running_mean[c])
        running_var[c] += momentum * (variance / samples * scale - running_var[c])
