"""What the tests share: Tensors on the device under test, their memory layouts, comparisons."""

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.backend import to_device
from tinygrad_bn.kernels.compiled import ANNOUNCEMENT

LAYOUTS = ("contiguous", "transposed", "channels last", "strided", "reversed")


def host(value):
    """The NumPy array of a Tensor or array, wherever it is."""
    array = value.data if isinstance(value, tg.Tensor) else value
    return np.array(to_device(array, "cpu")) if hasattr(array, "device") else np.asarray(array)


def leaf(array):
    """A Tensor of the run's device that requires a gradient, with memory of its own."""
    return tg.tensor(array, requires_grad=True)


def vector(*values):
    """A float64 leaf with these elements."""
    return leaf(np.array(values))


def on_device(array):
    """A copy of a NumPy array on the device under test."""
    return tg.tensor(array).data


def laid_out(array, layout):
    """The values of a NumPy array on the device under test, in another order in memory."""
    if array.ndim == 0 or layout == "contiguous":
        return on_device(array)
    if layout == "transposed":
        return on_device(array.T).T
    if layout == "channels last":
        order = (0, *range(2, array.ndim), *range(1, min(array.ndim, 2)))
        return on_device(array.transpose(order)).transpose(np.argsort(order).tolist())
    if layout == "reversed":
        return on_device(array[..., ::-1])[..., ::-1]
    return on_device(np.repeat(array, 2, axis=-1))[..., ::2]


def share_memory(a, b):
    """Whether two Tensors or arrays have bytes in common."""
    a, b = (x.data if isinstance(x, tg.Tensor) else x for x in (a, b))
    return np.shares_memory(getattr(a, "_memory", a), getattr(b, "_memory", b))


def listed(answer):
    """The outputs of an op as a list."""
    return list(answer) if isinstance(answer, (list, tuple)) else [answer]


def assert_values(got, *wanted):
    """Exactly these elements."""
    np.testing.assert_array_equal(host(got).ravel(), wanted)


def assert_close(got, wanted, ulps=4, scale=0.0):
    """Equal dtypes, shapes and, within some units in the last place of the largest, values.

    `scale` is the size of the terms, where the values are small differences of larger terms."""
    got, wanted = host(got), host(wanted)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(got, wanted)
    elif wanted.size:
        scale = np.max(np.abs(wanted), where=np.isfinite(wanted), initial=scale)
        tolerance = ulps * np.finfo(wanted.dtype).eps * scale
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


def grid(shape, low=-2.0, high=2.0, seed=0):
    """Numbers without order: no two are equal, none is 0, and no grid of another seed has them."""
    size = int(np.prod(shape))
    steps = np.random.default_rng(seed).permutation(size) + 0.3 + 0.07 * seed
    return (low + (high - low) * steps / max(size, 1)).reshape(shape)


def complaints(stderr):
    """The lines that a program wrote to stderr, but that it compiles (on a machine new to it)."""
    return [line for line in stderr.splitlines() if line != ANNOUNCEMENT]
