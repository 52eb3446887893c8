"""Every CUDA kernel on small arrays, and what it should give: by the tables of the tests.

They are the cases of tests/gpu/test_kernels_cuda_*.py, and a few that are too large for the double.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cupy
import ml_dtypes
import numpy as np
import test_kernels_cuda_conv as conv_tests
import test_kernels_cuda_copy as copy_tests
import test_kernels_cuda_norm as norm_tests
import test_kernels_cuda_pool as pool_tests

from tinygrad_bn.fusion import norm_relu
from tinygrad_bn.kernels import array_conv, conv, cuda_blas, cuda_conv, cuda_copy, cuda_pool
from tinygrad_bn.norm import fused, running

DTYPES = ("float32", "bfloat16", "float16", "float64")
OF_STATISTICS = ("float32", "float64")  # of a batch in 16 bits they are in float32
LARGE_NORMS = {
    "batch norm of many images": ((16, 64, 56, 56), (0, 2, 3), (1, 64, 1, 1)),
    "batch norm of few channels": ((8, 3, 224, 224), (0, 2, 3), (1, 3, 1, 1)),
    "batch norm of many samples": ((2048, 1001), (0,), (1, 1001)),
    "layer norm of many rows": ((512, 4096), (1,), (1, 4096)),
}
MORE_NORMS = {"batch norm of 600 samples": ((600, 5), (0,), (1, 5))}  # in slices
# Of each table so many that every kernel runs.
SOME_NORMS = (
    *("batch norm of 7×7", "batch norm of many places", "batch norm of 33 features"),
    *("group norm", "layer norm", *MORE_NORMS),
)
SOME_CONVOLUTIONS = ("wide", "stride", "groups", "a channel a group", "1 × 1")
SHAPES_OF_PRODUCTS = [((33, 17), (17, 9)), ((64, 64), (64, 32)), ((3, 5, 7), (3, 7, 4))]


def largest(name: str, exact: dict) -> float:
    """The largest of these values that is a finite number."""
    return np.max(abs(exact[name]), where=np.isfinite(exact[name]), initial=0.0)


class Case(NamedTuple):
    name: str
    compute: Callable[[], dict]  # NumPy arrays by name, as the device computes them
    exact: Callable[[dict], dict]  # in float64; given the device's, whose mask a ReLU then has
    on_cpu: Callable[[dict], dict]  # likewise, as the library computes them on the CPU
    allowed: Callable[[str], float]  # how far off one may be, in parts of `size`
    size: Callable[[str, dict], float] = largest


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def rounding(dtype: np.dtype) -> float:
    """Half a unit in the last place."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


def listed(dtype: str, small: bool) -> dict[str, Iterator[Case]]:
    """The cases of one dtype, by the kind of kernel."""
    return {
        "norm": norms(dtype, fused, small),
        "norm and ReLU": norms(dtype, norm_relu, small),
        "convolution": convolutions(dtype, small),
        "max pool": pools(dtype, small),
        "running statistics": statistics(dtype),
        "matrix product": products(dtype),
        "copies": copies(dtype),
    }


def on_device(array: np.ndarray) -> Any:
    return cupy.asarray(array)


def as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def fetched(found: dict) -> dict:
    return {name: array.get() for name, array in found.items()}


# --- Norms ----------------------------------------------------------------------------------------


def norms(dtype: str, op: Any, small: bool) -> Iterator[Case]:
    layouts = norm_tests.LAYOUTS | MORE_NORMS | ({} if small else LARGE_NORMS)
    for name, (shape, axes, affine) in layouts.items():
        if (small and name not in SOME_NORMS) or (op is norm_relu and "layer" in name):
            continue
        yield norm(name, op, shape, axes, affine, dtype)


def norm(name, op, shape, axes, affine, dtype) -> Case:
    stored, tolerance = norm_tests.DTYPES[dtype]
    arrays = norm_tests.arguments(shape, affine, stored)
    how = {"axes": axes, "eps": 1e-5}

    def answers(forward, backward, x, g, gamma, beta, given=None):
        outs = forward(x, gamma, beta, **how)
        y = outs if given is None else (given, *outs[1:])
        needs = (True, True, True)
        return (*outs, *backward((g, None, None), y, x, gamma, beta, needs=needs, **how))

    def compute():
        kernels = op.normalize_forward.on_gpu, op.normalize_grads.on_gpu
        return fetched(dict(zip(norm_tests.NAMES, answers(*kernels, *map(on_device, arrays)))))

    def exact(got):
        formulas = op.normalize_forward.formula, op.normalize_grads.formula
        found = answers(*formulas, *map(widened, arrays), given=widened(got["y"]))
        return dict(zip(norm_tests.NAMES, found))

    def on_cpu(got):
        found = answers(op.normalize_forward, op.normalize_grads, *arrays, given=got["y"])
        return dict(zip(norm_tests.NAMES, found))

    def allowed(what):
        return tolerance if what in ("y", "∂x") else min(tolerance, 2e-6)

    def size(what, exact):
        if what == "∂x":  # a difference of numbers of this size
            return largest("g", {"g": widened(arrays[1])}) / np.sqrt(exact["σ²"].min() + 1e-5)
        terms = arrays[0].size / arrays[2].size if what in ("∂γ", "∂β") else 0  # each about 1
        return max(largest(what, exact), np.sqrt(terms))

    return Case(name, compute, exact, on_cpu, allowed, size)


def statistics(dtype: str) -> Iterator[Case]:
    if dtype in OF_STATISTICS:
        for channels in (5, 300):
            yield running_statistics(channels, np.dtype(dtype))


def running_statistics(channels: int, dtype: np.dtype) -> Case:
    arrays = norm_tests.numbers(channels, *[(channels,)] * 4)
    start = [array.astype(dtype) for array in arrays]

    def moved(place):
        mean, var, mu, variance = [place(array.copy()) for array in start]
        running.move(mean, var, mu, variance, 9, 0.25)
        return {"mean": mean, "var": var}

    def exact(_):
        mean, var, mu, variance = [array.astype(np.float64) for array in start]
        return {"mean": mean + 0.25 * (mu - mean), "var": var + 0.25 * (variance * 9 / 8 - var)}

    return Case(
        f"{channels} channels",
        lambda: fetched(moved(on_device)),
        exact,
        lambda _: moved(as_it_is),
        lambda _: 8 * rounding(dtype),
    )


# --- Windows of images ----------------------------------------------------------------------------


def convolutions(dtype: str, small: bool) -> Iterator[Case]:
    for name, (x, weight, how) in conv_tests.ALL.items():
        if small and name not in SOME_CONVOLUTIONS:
            continue
        yield convolution(name, x, weight, how, dtype_of(dtype))
    if not small:
        how = next(how for name, (_, _, how) in conv_tests.ALL.items() if name == "wide")
        yield convolution("large", (16, 64, 56, 56), (64, 64, 3, 3), how, dtype_of(dtype))


def convolution(name, x, weight, how, dtype) -> Case:
    arrays = conv_tests.arrays(x, weight, how, dtype)
    names = "y", "∂x", "∂weight"
    # As many products as are in a sum: of y, ∂x and ∂weight.
    terms = dict(zip(names, (arrays[1][0].size, arrays[1].size, arrays[3][:, 0].size)))
    summed = rounding(np.dtype(np.float64 if dtype == np.float64 else np.float32))

    def by(module, place):
        return dict(zip(names, conv_tests.convolved(module, *map(place, arrays), how)))

    return Case(
        name,
        lambda: fetched(by(cuda_conv, on_device)),
        lambda _: by(array_conv, widened),
        lambda _: by(conv, as_it_is),
        lambda what: 1.01 * rounding(dtype) + 4 * np.sqrt(terms[what]) * summed,
    )


def pools(dtype: str, small: bool) -> Iterator[Case]:
    for name, (shape, how) in pool_tests.LAYERS.items():
        if not small or name == "overlapping":
            yield pool(name, shape, how, dtype_of(dtype))


def pool(name, shape, how, dtype) -> Case:
    x = pool_tests.images(shape, dtype)
    places = array_conv.max_pool(x.astype(np.float64), **how)[1]
    g = pool_tests.gradient(places.shape, dtype)

    def by(module, place):
        values, where = module.max_pool(place(x), **how)
        at_x = module.max_unpool(place(g), where, shape=x.shape, **how)
        return {"y": values, "∂x": at_x, "where": where}

    return Case(
        name,
        lambda: fetched(by(cuda_pool, on_device)),
        lambda _: by(array_conv, widened),
        lambda _: by(conv, as_it_is),
        lambda _: 0.0,
    )


# --- Copies ---------------------------------------------------------------------------------------


def copies(dtype: str) -> Iterator[Case]:
    arrays = norm_tests.numbers(5, *copy_tests.SHAPES)
    arrays = [np.asarray(array).astype(dtype_of(dtype)) for array in arrays]

    def copied():
        pairs = [(cupy.empty(a.shape, a.dtype), on_device(a)) for a in arrays]
        cuda_copy.copy_all(pairs)
        return {str(to.shape): to.get() for to, _ in pairs}

    def wanted(_):
        return {str(a.shape): a for a in arrays}

    yield Case(
        "many",
        copied,
        lambda _: {n: widened(a) for n, a in wanted(_).items()},
        wanted,
        lambda _: 0.0,
    )


# --- cuBLAS ---------------------------------------------------------------------------------------


def products(dtype: str) -> Iterator[Case]:
    for left, right in SHAPES_OF_PRODUCTS:
        for transposed in (False, True):
            yield matrix_product(left, right, transposed, dtype_of(dtype))


def matrix_product(left, right, transposed, dtype) -> Case:
    arrays = [array.astype(dtype) for array in norm_tests.numbers(3, left, right)]
    summed = rounding(np.dtype(np.float64 if dtype == np.float64 else np.float32))

    def placed(array):
        if not transposed:
            return on_device(array)
        return on_device(array.swapaxes(-1, -2).copy()).swapaxes(-1, -2)

    return Case(
        f"{left} @ {right}{', both transposed' if transposed else ''}",
        lambda: fetched({"ab": cuda_blas.product(*map(placed, arrays))}),
        lambda _: {"ab": np.matmul(*map(widened, arrays))},
        lambda _: {"ab": np.matmul(*arrays)},
        lambda _: 1.01 * rounding(dtype) + 4 * np.sqrt(left[-1]) * summed,
    )
