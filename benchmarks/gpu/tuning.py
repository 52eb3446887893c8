"""Alternatives: other constants for the norms that miss their target, other ways to convolve."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import cupy
import numpy as np

from tinygrad_bn.kernels import cuda_conv, cuda_norm
from tinygrad_bn.kernels.cuda_blas import product

from . import norms, timing
from .cases import dtype_of
from .report import AS_IT_IS, OF_BOUND
from .rival import PyTorch, pytorch

DTYPES = ("float32", "bfloat16")
SETTINGS: dict[str, dict[str, Any]] = {  # names in cuda_norm, and what is put there
    AS_IT_IS: {},
    "_BLOCKS = 2": {"_BLOCKS": 2},
    "_BLOCKS = 4": {"_BLOCKS": 4},
    "_BLOCKS = 16": {"_BLOCKS": 16},
    "_BLOCKS = 32": {"_BLOCKS": 32},
    "_THREADS = 128": {"_THREADS": 128},
    "_width(…) = 1": {"_width": lambda *_: 1},
}
IMAGES = [  # of a convolution: N, C, size; outputs, kernel, stride
    (64, 64, 56, 64, 3, 1),
    (64, 256, 14, 256, 3, 1),
    (64, 3, 32, 16, 3, 1),
    (64, 64, 56, 128, 3, 2),
]
TINY_IMAGES = [(2, 3, 9, 4, 3, 1), (2, 3, 9, 4, 3, 2)]


def rows(dry: bool) -> Iterator[dict]:
    rival = pytorch(dry)
    with timing.one_stream(rival):
        for sizes in TINY_IMAGES if dry else IMAGES:
            for dtype in DTYPES:
                yield timing.tried(
                    f"convolution {sizes} {dtype}", convolved, sizes, dtype, rival, dry
                )
                timing.free_memory(rival)
        speed = norms.copied(dry)
        for norm in norms.TINY[:1] if dry else norms.NORMS:
            for dtype in DTYPES:
                if dry or norms.size_of_x(norm, dtype) >= norms.LARGE:
                    yield from swept(norm, dtype, speed, dry)
                    timing.free_memory(None)


# --- Norms ----------------------------------------------------------------------------------------


def swept(norm: norms.Norm, dtype: str, speed: float, dry: bool) -> Iterator[dict]:
    """A row for each setting; only the first if that reaches the target."""
    for name, setting in SETTINGS.items():
        row = timing.tried(
            f"{norm.name} {norm.shape} {dtype}, {name}", shares, norm, dtype, speed, setting, dry
        )
        yield {**row, "norm": norm.name, "shape": norm.shape, "dtype": dtype, "setting": name}
        if not dry and not setting and min(row.get("of_bound", {"": 0}).values()) >= OF_BOUND:
            return


def shares(norm: norms.Norm, dtype: str, speed: float, setting: dict, dry: bool) -> dict:
    """Of the copy's speed, forward and backward."""
    sets = 2 if dry else norms.number_of_sets(norm, dtype)
    found = {}
    with ExitStack() as patches:
        for name, value in setting.items():
            patches.enter_context(mock.patch.object(cuda_norm, name, value))
        steps = norms.our_steps(norm, dtype, sets)
        for (which, step), passes in zip(steps.items(), norm.passes):
            graph = {"": timing.graphed(step, sets)}
            (_, median, _) = timing.seconds(graph, dry, sets)[""]
            found[which] = passes * norms.size_of_x(norm, dtype) / speed / median
    return {"of_bound": found}


# --- Convolution ----------------------------------------------------------------------------------


def convolved(sizes: tuple, dtype: str, rival: PyTorch | None, dry: bool) -> dict:
    """Seconds of each way forward, and of the gradients; how far the ways are from the first."""
    n, channels, size, outputs, kernel, stride = sizes
    generator, places = np.random.default_rng(0), (size + kernel // 2 * 2 - kernel) // stride + 1
    shapes = (n, channels, size, size), (outputs, channels, kernel, kernel)
    plain = [
        generator.standard_normal(shape, np.float32)
        for shape in (*shapes, (n, outputs, places, places))
    ]
    x, weight, g = (cupy.asarray(array).astype(dtype_of(dtype)) for array in plain)
    padding = kernel // 2
    how = {
        "stride": (stride,) * 2,
        "padding": ((padding, padding),) * 2,
        "dilation": (1, 1),
        "groups": 1,
    }
    forward = partial(cuda_conv.convolve, x, weight, None, **how)
    ways: dict[str, Callable[[], Any]] = {
        "forward": forward,
        "∂x": partial(cuda_conv.convolve_input, g, weight, shape=x.shape, **how),
        "∂weight": partial(cuda_conv.convolve_weight, x, g, shape=weight.shape, **how),
        "forward, no row overlaps": partial(no_row_overlaps, forward),
    }
    if stride == 1:
        ways["forward, k² products"] = partial(of_k2_products, x, weight, padding)
    exact = forward().astype(np.float32)
    off = {}
    for name, way in ways.items():
        if name.startswith("forward"):
            off[name] = float(abs(way().astype(np.float32) - exact).max() / abs(exact).max())
    graphs = {name: timing.graphed(lambda _, way=way: way(), 1) for name, way in ways.items()}
    if rival is not None:
        for name, step in their_ways(plain, dtype, stride, padding, rival).items():
            graphs[name] = rival.graphed(step, 1)
    return {"seconds": timing.seconds(graphs, dry), "off": off}


def no_row_overlaps(way: Callable) -> Any:
    """With a matrix that has each window as a row of its own."""
    cuda_conv._rows.cache_clear()
    try:
        with mock.patch.object(cuda_conv, "_IN_VAIN", -1.0):
            return way()
    finally:
        cuda_conv._rows.cache_clear()


def of_k2_products(x: Any, weight: Any, padding: int) -> Any:
    """A product for each place of the kernel, at its offset into the padded image, channels last.

    All rows of the flat image are multiplied; those at the end of a line come to nothing.
    """
    outputs, _, *kernel = weight.shape
    n, channels, *sizes = x.shape
    high, wide = (size + 2 * padding for size in sizes)
    image = cupy.zeros((n, high, wide, channels), x.dtype)
    inside = (slice(None), *[slice(padding, padding + size) for size in sizes])
    image[inside] = x.transpose(0, 2, 3, 1)
    rows = image.reshape(-1, channels)
    number = len(rows) - (kernel[0] - 1) * wide - (kernel[1] - 1)
    sums = cupy.empty((len(rows), outputs), np.float32)
    for k, (i, j) in enumerate(np.ndindex(*kernel)):
        start = i * wide + j
        met = cupy.ascontiguousarray(weight[:, :, i, j])
        product(rows[start : start + number], met.T, out=sums[:number], accumulate=k > 0)
    found = sums.reshape(n, high, wide, outputs)[:, : high - kernel[0] + 1, : wide - kernel[1] + 1]
    return cupy.ascontiguousarray(found.transpose(0, 3, 1, 2)).astype(x.dtype)


def their_ways(
    plain: list[np.ndarray], dtype: str, stride: int, padding: int, rival: PyTorch
) -> dict[str, timing.Step]:
    """As cuDNN computes it, with all digits of float32, and with those of TF32."""
    torch = rival.torch
    x, weight, g = (rival.tensor(array, dtype) for array in plain)

    def forward(_):
        return torch.nn.functional.conv2d(x, weight, None, stride, padding)

    def backward(which, _):
        how = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(g, x, weight, *how, which)

    def with_tf32(_):
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            return forward(_)

    found = {
        "PyTorch, forward": forward,
        "PyTorch, ∂x": partial(backward, [True, False, False]),
        "PyTorch, ∂weight": partial(backward, [False, True, False]),
    }
    return found | ({"PyTorch, forward in TF32": with_tf32} if dtype == "float32" else {})
