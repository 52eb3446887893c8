"""Convolution of CuPy arrays, by one matrix product with the windows of all images as rows.

A row holds what a window meets, with the channels last. At stride 1 the next window along the last
axis meets the same, one place further: so a buffer holds each place once for all the windows of a
line, and the matrix lies in it with rows that overlap. BLAS takes no overlapping rows; but of k
windows side by side every k-th do not overlap, so it is a stack of k matrices, and still one call.
These matrices overlap, and their answers are interleaved but share no element. Of a stack cuBLAS
forbids only answers that do ("Matrices C[i] should not overlap; otherwise, undefined behavior is
expected", at cublasGemmStridedBatchedEx in its documentation).

How often a product of C channels with as many, of k × k places, moves an image through memory; the
last number of each is for the answer, and for copying it to where the channels are not last:

    k² products at offsets into the image, which add up     2 + k² + (2k² − 1) + 2    30 at k = 3
    one product, all windows as rows                        1 + k² + k² + 3           22
    one product, rows that overlap                          1 + k + k² + 3            16

The gradient at x is again a convolution, with the kernel reversed: at stride s of s kernels, each
for the places that lie alike between the windows. A product with Inf is NaN where a kernel meets
the padding, and in the gradient at weight also behind the end of a line.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..backend import array_module
from ..reduction import WIDER, accumulator
from . import cuda_depthwise
from .cuda import launch
from .cuda_blas import product
from .cuda_windows import geometry, known

SCRATCH = 256 << 20  # bytes for rows and products: so many images at a time, but at least one
_IN_VAIN = 1 / 8  # of rows that overlap so many may be no window's
_TILE, _THREADS = 1024, 256  # of the kernels in conv.cu


def convolve(x, weight, bias, *, groups, **how):
    """`ops.convolution`."""
    if not known(x, weight, bias, padding=how["padding"]):
        return NotImplemented
    if weight.shape[1] == 1 < groups:
        return cuda_depthwise.convolve(x, weight, bias, groups=groups, **how)
    return _convolve(x, _filters(weight, groups), bias, **how)


def convolve_input(g, weight, *, shape, groups, **how):
    """`ops.convolution_input`."""
    if not known(g, weight, padding=how["padding"]):
        return NotImplemented
    if weight.shape[1] == 1 < groups:
        return cuda_depthwise.convolve_input(g, weight, shape=shape, groups=groups, **how)
    filters, once = _filters(weight, groups).swapaxes(1, 2), (1,) * (g.ndim - 2)
    out = None if max(how["stride"]) == 1 else array_module((g,)).zeros(shape, g.dtype)
    for places, taps, padding, dilation in _phases(shape[2:], g.shape[2:], weight.shape[2:], **how):
        part = _convolve(g, filters[(..., *taps)], None, once, padding, dilation)
        if out is None:
            return part
        out[(..., *places)] = part
    return out


def convolve_weight(x, g, *, shape, groups, **how):
    """`ops.convolution_weight`."""
    if not known(x, g, padding=how["padding"]):
        return NotImplemented
    if shape[1] == 1 < groups:
        return cuda_depthwise.convolve_weight(x, g, shape=shape, groups=groups, **how)
    xp, outputs, channels = array_module((x,)), shape[0] // groups, shape[1]
    rows = _rows(x.shape[2:], shape[2:], **how, may_overlap=groups == 1)
    beside, width = _rows_beside(g.shape[2:], rows.pitch), rows.places * channels
    sums = xp.empty((groups, outputs, rows.span, width), accumulator(x.dtype))
    for part in _parts(x, groups, rows, width, outputs):
        cells = _cells(x[part], groups, rows.geometry, rows.span - 1)
        left = _cells(g[part], groups, beside).reshape(groups, -1, outputs).swapaxes(1, 2)
        height, step = left.shape[2], rows.step * width
        for k in range(rows.span):
            met = _matrices(cells[k * width :], (groups, height, width), height * step, step)
            product(left, met, out=sums[:, :, k], accumulate=part.start > 0)
    sums = sums.reshape(shape[0], rows.span, rows.places, channels)
    return sums.transpose(0, 3, 2, 1).astype(x.dtype, order="C").reshape(shape)


def channel_sums(g):
    """Σ g over all but the channels, the gradient at the bias: over each image first, for CuPy has
    one block compute a sum; and from one image to the next in twice the precision."""
    of_images = g.reshape(*g.shape[:2], math.prod(g.shape[2:]))
    of_images = of_images.sum(axis=2, dtype=accumulator(g.dtype))
    return of_images.sum(axis=0, dtype=WIDER.get(of_images.dtype.char)).astype(g.dtype)


def _filters(weight, groups):
    """A weight (groups · outputs, channels, …) as (groups, outputs, channels, …)."""
    return weight.reshape(groups, -1, *weight.shape[1:])


def _convolve(x, filters, bias, stride, padding, dilation):
    """x (N, groups · channels, …) with filters (groups, outputs, channels, …), plus a bias."""
    xp, (groups, outputs, channels, *kernel) = array_module((x,)), filters.shape
    rows = _rows(x.shape[2:], tuple(kernel), stride, padding, dilation, groups == 1)
    out = xp.empty((len(x), groups * outputs, *rows.counts), x.dtype)
    if groups == max(*kernel, *stride) == 1 and not any(itertools.chain(*padding)):
        return _convolve_places(x, filters[(0, ..., *[0] * len(kernel))], bias, out)
    last = (filters.ndim - 1,) if rows.span > 1 else ()
    order = (0, 1, *last, *range(3, filters.ndim - len(last)), 2)  # as in a row
    right = xp.ascontiguousarray(filters.transpose(order)).reshape(groups, outputs, -1)
    bias = None if bias is None else xp.ascontiguousarray(bias)
    for part in _parts(x, groups, rows, rows.places * channels, outputs):
        cells = _cells(x[part], groups, rows.geometry, rows.span - 1)
        products = _products(cells, right.swapaxes(1, 2), rows, part.stop - part.start)
        _write_images(products, bias, out[part], rows)
    return out


def _convolve_places(x, matrix, bias, out):
    """A convolution whose windows are places: each image is multiplied where it is."""
    flat = out.reshape(*out.shape[:2], -1)
    if bias is not None:
        flat[...] = bias[:, None]
    product(matrix, x.reshape(*x.shape[:2], -1), out=flat, accumulate=bias is not None)
    return out


# --- Images as rows -------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """How the windows of an image lie in a buffer of cells.

    In a cell `places` of the kernel stand side by side, with all channels. A row begins every
    `step` cells, and goes over `span` of them.
    """

    counts: tuple[int, ...]  # windows along each axis
    geometry: tuple[int, ...]  # of windows.cuh, as if each cell were a window
    places: int
    span: int
    step: int
    pitch: int  # the rows of a line of windows; those behind the windows are of no use

    @property
    def number(self) -> int:
        """The rows of an image."""
        return math.prod(self.counts[:-1]) * self.pitch


@functools.lru_cache(maxsize=256)
def _rows(sizes, kernel, stride, padding, dilation, may_overlap) -> _Rows:
    """The rows of images of these sizes. They overlap along the last axis where that pays."""
    counts, numbers = geometry(sizes, kernel, stride, padding, dilation)
    n, m, k, s, before = sizes[-1], counts[-1], kernel[-1], stride[-1], padding[-1][0]
    # A line ends where zeros that a window lacks may be those before the next line.
    end = (m - 1) * s + k
    cells = max(m * s, min(end, max(n + before, end - before)))
    cells = _whole(cells, _whole(k, s))
    if not may_overlap or k == 1 or dilation[-1] > 1 or cells > (1 + _IN_VAIN) * m * s:
        return _Rows(counts, numbers, math.prod(kernel), span=1, step=1, pitch=m)
    along = (*kernel[:-1], 1), (*stride[:-1], 1), (*padding[:-1], (before, cells - n - before))
    _, numbers = geometry(sizes, *along, (*dilation[:-1], 1))
    return _Rows(counts, numbers, math.prod(kernel[:-1]), span=k, step=s, pitch=cells // s)


def _rows_beside(counts, pitch) -> tuple[int, ...]:
    """The geometry for which the answers of windows stand beside the rows of these windows."""
    ones = (1,) * len(counts)
    padding = *[(0, 0)] * (len(counts) - 1), (0, pitch - counts[-1])
    return geometry(counts, ones, ones, padding, ones)[1]


def _parts(x, groups: int, rows: _Rows, width: int, outputs: int) -> Iterator[slice]:
    """Some images at a time, so many that their cells and products fit in SCRATCH."""
    sums = np.dtype(accumulator(x.dtype)).itemsize
    numbers = rows.step * width * x.itemsize + outputs * sums
    step = max(1, SCRATCH // (groups * rows.number * numbers))
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def _cells(x, groups: int, geometry: tuple[int, ...], more: int = 0):
    """The buffer (groups, images, …, kernel, channels) of these images, flat, and `more` cells of
    zeros behind it."""
    xp, channels, kernel = array_module((x,)), x.shape[1] // groups, math.prod(geometry[6:9])
    places = len(x) * math.prod(geometry[3:6]) * kernel
    cells = xp.empty((groups * places + more * kernel) * channels, x.dtype)
    blocks, broad = _tiles(places, groups, channels)
    numbers = groups, channels, broad, places, more * kernel * channels, *geometry
    args = xp.ascontiguousarray(x), cells, *numbers
    launch("conv", "rows_of_images", blocks, _THREADS, *args, dtype=x.dtype)
    return cells


def _products(cells, right, rows: _Rows, images: int):
    """The rows of images times right (groups, width of a row, outputs): (groups, rows, outputs)."""
    groups, width, outputs = right.shape
    stack = _whole(rows.span, rows.step) // rows.step  # side by side so many rows overlap
    height, step = images * rows.number // stack, width // rows.span * rows.step
    out = array_module((cells,)).empty((groups, height * stack, outputs), accumulator(cells.dtype))
    # Either there is one group, or no row overlaps another.
    apart = (step, outputs) if groups == 1 else (height * step, height * outputs)
    left = _matrices(cells, (groups * stack, height, width), apart[0], stack * step)
    into = _matrices(out, (groups * stack, height, outputs), apart[1], stack * outputs)
    product(left, right, out=into)
    return out


def _matrices(array, shape, apart: int, step: int):
    """A stack of matrices in an array, `apart` numbers from each other, `step` from row to row."""
    as_strided = array_module((array,)).lib.stride_tricks.as_strided
    return as_strided(array, shape, [n * array.itemsize for n in (apart, step, 1)])


def _write_images(products, bias, out, rows: _Rows) -> None:
    """Products (groups, rows, channels), but those of no use, plus the bias as images."""
    groups, _, channels = products.shape
    lines, width = math.prod(rows.counts[:-1]), rows.counts[-1]
    places = len(out) * lines * width
    blocks, broad = _tiles(places, groups, channels)
    args = products, bias, out, groups, channels, broad, places, lines, width, rows.pitch
    launch("conv", "images_of_rows", blocks, _THREADS, *args, dtype=out.dtype)


def _tiles(places: int, groups: int, channels: int) -> tuple[int, int]:
    """Into how many tiles the kernels in conv.cu cut these, and how many channels a tile has."""
    broad = min(max(1 << (channels - 1).bit_length(), 4), 32)
    return groups * math.ceil(channels / broad) * math.ceil(places / (_TILE // broad)), broad


def _whole(number: int, of: int) -> int:
    """The next multiple."""
    return -(-number // of) * of


# --- The places of an image that lie alike between windows ----------------------------------------


def _phases(sizes, counts, kernel, *, stride, padding, dilation) -> Iterator[tuple]:
    """For the gradient at an image: which of its places are a convolution of the gradient g, with
    which places of the kernel, which padding and which dilation; each with one for each axis."""
    along = map(_phases_along, sizes, counts, kernel, stride, padding, dilation)
    for phases in itertools.product(*map(list, along)):
        yield tuple(zip(*phases))


def _phases_along(size, count, kernel, stride, padding, dilation) -> Iterator[tuple]:
    """Place i of an image meets place k of the kernel if (i + before − k · dilation) / stride is a
    whole number, that of the window: what is true of i and k is so of every stride-th i, and of
    every apart-th k."""
    before, apart = padding[0], stride // math.gcd(stride, dilation)
    for first in range(min(stride, size)):
        taps = [k for k in range(kernel) if (first + before - k * dilation) % stride == 0]
        if taps:
            window = (first + before - taps[-1] * dilation) // stride  # the first that is met
            last = (first + before - taps[0] * dilation) // stride + len(range(first, size, stride))
            yield (
                slice(first, None, stride),
                slice(taps[-1], None, -apart),
                (-window, last - count),
                apart * dilation // stride,
            )
