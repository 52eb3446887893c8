"""Normalization on CuPy arrays by the kernels of norm_*.cu: which one runs, in how many blocks.

As on the CPU (`cpu_norm`), a kernel reads an array in the order of memory, and y and ∂x lie as x
does. Where one block for each group would leave most of the device idle, groups are cut into
slices: one launch finds the statistics of each slice, the next merges and uses them.
"""

import functools
from typing import Any

import numpy as np

from ..backend import array_module
from ..reduction import kept_shape
from .cuda import STORED, launch, multiprocessors
from .norm_layout import Layout, layouts

_ACCESS = 16  # bytes that a thread reads at once
_IN_REGISTERS = 64  # bytes of a row that a thread holds, in the dtype in which is computed
_MOST_THREADS = 512
_MOST = 2**31 - 2**20  # an int counts so many, and one turn of all threads more
_THREADS = 256
_BLOCKS = 8  # on a multiprocessor at a time; slices are made for so many


def normalize(x, gamma, beta, *, axes, eps, centred=True, relu=False):
    """(y, μ, σ²) of `norm.fused.normalize_forward`; with `relu`, y = max(y, 0)."""
    layout = _layout(x.shape, x.strides, x.dtype, axes, _shape(gamma), _shape(beta))
    if layout is None or (relu and layout.kind == "rows"):
        return NotImplemented
    xp, dtype = array_module((x,)), _computed(x.dtype)
    kept = kept_shape(x.shape, axes)
    x, mu, var = _in_order(xp, x, layout, x.dtype), xp.empty(kept, dtype), xp.empty(kept, dtype)
    y = xp.empty_like(x)
    gamma, beta = _beside(xp, gamma, dtype), _beside(xp, beta, dtype)
    forward, _ = _KINDS[layout.kind]
    if forward(xp, layout, x, y, gamma, beta, mu, var, eps, centred, relu) is NotImplemented:
        return NotImplemented
    return _back(y, layout), mu, var


def normalize_grads(gs, outs, x, gamma, beta, *, needs, axes, eps, centred=True, relu=False):
    """(∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β) of `norm.fused.normalize_grads`; with `relu`, g counts where y > 0."""
    (g, g_mu, g_var), (y, mu, var) = gs, outs
    layout = _layout(x.shape, x.strides, x.dtype, axes, _shape(gamma), _shape(beta))
    if layout is None or g is None or g_mu is not None or g_var is not None:
        return NotImplemented
    if relu and layout.kind == "rows":
        return NotImplemented
    xp, dtype = array_module((x,)), _computed(x.dtype)
    x, g, y = [
        None if array is None else _in_order(xp, array, layout, x.dtype)
        for array in (x, g, y if relu else None)
    ]
    dx = xp.empty_like(x)
    dgamma = xp.empty(gamma.shape, dtype) if needs[1] else None
    dbeta = xp.empty(beta.shape, dtype) if needs[2] else None
    gamma, mu, var = [_beside(xp, array, dtype) for array in (gamma, mu, var)]
    _, backward = _KINDS[layout.kind]
    arrays = x, g, y, dx, gamma, mu, var, dgamma, dbeta
    if backward(xp, layout, *arrays, eps, centred) is NotImplemented:
        return NotImplemented
    return _back(dx, layout), dgamma, dbeta


def move(running_mean, running_var, mu, var, scale, momentum):
    """What `norm.running.move` does: None once it is done, NotImplemented for other dtypes."""
    xp, dtype = array_module((running_mean,)), running_mean.dtype
    channels, arrays = running_mean.size, (running_mean, running_var, mu, var)
    if dtype not in (np.float32, np.float64) or any([a.dtype != dtype for a in arrays]):
        return NotImplemented
    if not (running_mean.flags.c_contiguous and running_var.flags.c_contiguous):
        return NotImplemented
    on_device = isinstance(momentum, xp.ndarray)
    launch(
        *("running", "move_running", -(-channels // _THREADS), _THREADS),
        *(*arrays, scale, 0.0 if on_device else momentum),
        *(momentum.astype(dtype) if on_device else None, mu.size // channels, channels),
        dtype=dtype,
    )
    return None


# --- What the kernels are given -------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def _layout(shape, strides, dtype, axes, gamma, beta) -> Layout | None:
    """How the kernels read x; None if they do not."""
    if dtype.name not in STORED:
        return None
    for layout in layouts(shape, strides, axes, gamma, beta):
        _, _, _, repeats, groups, parts, run, affine = layout
        if max(repeats * parts * run, groups * parts) > _MOST:  # of a group; and how many
            continue
        if layout.kind != "rows" or affine == run:
            return layout
    return None


def _computed(dtype: np.dtype) -> np.dtype:
    """The dtype of statistics, γ and β beside an x of this one."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _shape(array: Any) -> tuple | None:
    return None if array is None else array.shape


def _in_order(xp: Any, array: Any, layout: Layout, dtype: np.dtype) -> Any:
    if layout.order is not None:
        array = array.transpose(layout.order)
    return xp.ascontiguousarray(array, dtype)


def _back(array: Any, layout: Layout) -> Any:
    return array if layout.back is None else array.transpose(layout.back)


def _beside(xp: Any, array: Any, dtype: np.dtype) -> Any:
    return None if array is None else xp.ascontiguousarray(array, dtype)


def _width(neighbours: int, *arrays: Any) -> int:
    """How many values a thread may read at once, of so many that lie together."""
    width = _ACCESS // arrays[0].itemsize
    fits = neighbours % width == 0
    fits = fits and all([a is None or a.data.ptr % _ACCESS == 0 for a in arrays])
    return width if fits else 1


def _ahead(width: int) -> int:
    """AHEAD of norm.cuh."""
    return 8 if width == 1 else 4


def _slices(xp: Any, blocks: int, turns: int) -> int:
    """Into how many slices the work of each block is cut: at most as many as it has turns."""
    wanted = -(-_BLOCKS * multiprocessors(xp) // blocks)
    return max(1, min(wanted, turns, 512))


# --- One of these for each kind of layout; NotImplemented where it cannot ------------------------


def _slices_of_parts(xp, groups, values, width) -> tuple[int, int]:
    """Slices of each group of so many values, and threads of a block."""
    accesses = values // width
    threads = min(-(-accesses // 32) * 32, _THREADS)
    return _slices(xp, groups, accesses // (threads * _ahead(width))), threads


def _parts_forward(xp, layout, x, y, gamma, beta, mu, var, eps, centred, relu):
    _, _, _, repeats, groups, parts, run, affine = layout
    width = _width(run, x, y)
    start = functools.partial(launch, "norm_parts", dtype=x.dtype, WIDTH=width)
    slices, threads = _slices_of_parts(xp, groups, repeats * parts * run, width)
    grid, partial = (groups, slices), None
    if slices > 1:
        partial = xp.empty((groups, slices, 4), mu.dtype)
        start("parts_statistics", grid, threads, x, partial, repeats, groups, parts * run)
    start(
        *("parts_forward", grid, threads, x, y, partial, gamma, beta, mu, var),
        *(eps, centred, relu, repeats, groups, parts, run, affine),
    )


def _parts_backward(xp, layout, x, g, y, dx, gamma, mu, var, dgamma, dbeta, eps, centred):
    _, _, _, repeats, groups, parts, run, affine = layout
    width, cells = _width(run, x, g, y, dx), groups * parts
    start = functools.partial(launch, "norm_parts", dtype=x.dtype, WIDTH=width)
    slices, threads = _slices_of_parts(xp, groups, repeats * parts * run, width)
    wanted = dgamma is not None or dbeta is not None
    affine_apart = wanted and (parts > 1 or affine != groups)
    pieces, partial = 0, None
    if slices > 1 or parts > 1 or affine_apart:
        pieces, threads_of_cell = _slices_of_parts(xp, cells, repeats * run, width)
        partial = xp.empty((cells, pieces, 3), mu.dtype)
        start(
            *("parts_gradient_sums", (cells, pieces), threads_of_cell, x, g, y, mu, partial),
            *(repeats, groups, parts, run),
        )
    sizes = repeats, groups, parts, run, affine, pieces
    inside = (None, None) if affine_apart else (dgamma, dbeta)
    start(
        *("parts_gradients", (groups, slices), threads, x, g, y, dx, partial, gamma, mu, var),
        *(*inside, eps, centred, *sizes),
    )
    if affine_apart:
        start(
            *("parts_affine_gradients", -(-affine // _THREADS), _THREADS, partial, var),
            *(dgamma, dbeta, eps, centred, *sizes),
        )


def _blocks_of_columns(xp, rows, columns, width) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid, and the threads of a block."""
    lanes, blocks = 32, -(-columns // (32 * width))
    lines = next(n for n in (4, 8, 16) if rows <= 4 * n or n == 16)
    return (blocks, _slices(xp, 2 * blocks, rows // (lines * _ahead(width)))), (lanes, lines)


def _columns_forward(xp, layout, x, y, gamma, beta, mu, var, eps, centred, relu):
    rows, columns = layout.repeats, layout.groups
    width = _width(columns, x, y) if columns >= _THREADS else 1
    start = functools.partial(launch, "norm_columns", dtype=x.dtype, WIDTH=width)
    grid, threads = _blocks_of_columns(xp, rows, columns, width)
    partial = None
    if grid[1] > 1:
        partial = xp.empty((grid[1], columns, 4), mu.dtype)
        start("columns_statistics", grid, threads, x, partial, rows, columns)
    start(
        *("columns_forward", grid, threads, x, y, partial, gamma, beta, mu, var),
        *(eps, centred, relu, rows, columns),
    )


def _columns_backward(xp, layout, x, g, y, dx, gamma, mu, var, dgamma, dbeta, eps, centred):
    rows, columns = layout.repeats, layout.groups
    width = _width(columns, x, g, y, dx) if columns >= _THREADS else 1
    start = functools.partial(launch, "norm_columns", dtype=x.dtype, WIDTH=width)
    grid, threads = _blocks_of_columns(xp, rows, columns, width)
    partial = None
    if grid[1] > 1:
        partial = xp.empty((grid[1], columns, 3), mu.dtype)
        start("columns_gradient_sums", grid, threads, x, g, y, mu, partial, rows, columns)
    start(
        *("columns_gradients", grid, threads, x, g, y, dx, partial, gamma, mu, var),
        *(dgamma, dbeta, eps, centred, rows, columns),
    )


def most_packs(width: int, dtype: np.dtype) -> int:
    """The largest ROW: more would not stay in registers (nor as many values, if one by one)."""
    return _IN_REGISTERS // (_computed(dtype).itemsize * max(width, 2))


def _workers(rows, size, width, dtype) -> tuple[int, tuple[int, int]] | None:
    """ROW, and the threads of a block: for each row as few warps as can hold it; but where one is
    enough, several rows. None if the registers of a block cannot hold a row."""
    packs, most = size // width, most_packs(width, dtype)
    row = next(n for n in (1, 2, 4, 8) if n * _THREADS >= packs or n == most)
    threads = max(32, -(-packs // (row * 32)) * 32)
    if threads > _MOST_THREADS:
        return None
    return row, (threads, 1 if threads > 32 else min(4, rows))


def _rows_forward(xp, layout, x, y, gamma, beta, mu, var, eps, centred, _relu):
    rows, size = layout.groups, layout.run
    width = _width(size, x, y)
    if (workers := _workers(rows, size, width, x.dtype)) is None:
        return NotImplemented
    row, threads = workers
    blocks = min(-(-rows // threads[1]), _BLOCKS * multiprocessors(xp))
    launch(
        *("norm_rows", "rows_forward", blocks, threads, x, y, gamma, beta, mu, var),
        *(eps, centred, rows, size),
        **{"dtype": x.dtype, "WIDTH": width, "ROW": row},
    )


def _rows_backward(xp, layout, x, g, _y, dx, gamma, mu, var, dgamma, dbeta, eps, centred):
    rows, size = layout.groups, layout.run
    width = _width(size, x, g, dx)
    if (workers := _workers(rows, size, width, x.dtype)) is None:
        return NotImplemented
    row, threads = workers
    start = functools.partial(launch, "norm_rows", dtype=x.dtype, WIDTH=width, ROW=row)
    blocks = min(-(-rows // threads[1]), 2 * multiprocessors(xp))  # each leaves a row of sums
    shape = blocks * threads[1], size
    of_gamma, of_beta = [
        None if wanted is None else xp.empty(shape, mu.dtype) for wanted in (dgamma, dbeta)
    ]
    start(
        *("rows_gradients", blocks, threads, x, g, dx, gamma, mu, var, of_gamma, of_beta),
        *(eps, centred, rows, size),
    )
    if of_gamma is not None or of_beta is not None:
        start(
            *("sums_over_rows", -(-size // 32), (32, 16), of_gamma, of_beta, dgamma, dbeta),
            *shape,
        )


_KINDS = {
    "parts": (_parts_forward, _parts_backward),
    "columns": (_columns_forward, _columns_backward),
    "rows": (_rows_forward, _rows_backward),
}
