"""Convolution and pooling on NumPy arrays: compiled, and without numba, against the definition."""

import functools
import threading

import numpy as np
import op_table_conv
import pytest
from helpers import LAYOUTS, grid, laid_out

import tinygrad_bn as tg
from tinygrad_bn.kernels import array_conv, compiled, cpu_conv, cpu_pool


@pytest.fixture(params=["compiled", "NumPy"], autouse=True)
def path(request, monkeypatch):
    """Each claim holds for the compiled loops, and without numba."""
    if request.param == "NumPy":
        monkeypatch.setattr(cpu_conv, "loops", lambda name: None)
        monkeypatch.setattr(cpu_pool, "loops", lambda name: None)
    elif compiled.loops("conv") is None:
        pytest.skip("numba is not installed")
    return request.param


def how(stride=1, padding=0, dilation=1, groups=1, rank=2):
    """The options of a convolution, with a number for each axis."""
    numbers = [n if isinstance(n, tuple) else (n,) * rank for n in (stride, padding, dilation)]
    pairs = tuple([p if isinstance(p, tuple) else (p, p) for p in numbers[1]])
    return {"stride": numbers[0], "padding": pairs, "dilation": numbers[2], "groups": groups}


def assert_near(got, wanted, terms, factor=2.0):
    """A sum of so many products differs by no more than rounding each of them and each sum."""
    assert got.dtype.itemsize < wanted.dtype.itemsize or got.dtype == wanted.dtype
    scale = np.max(np.abs(wanted), initial=0.0)
    tolerance = factor * np.sqrt(terms) * np.finfo(got.dtype).eps * scale
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


CASES = {  # the shapes of x and weight, and the options
    "as they come": ((2, 3, 5, 4), (2, 3, 3, 2), how()),
    "stride": ((2, 2, 7, 6), (3, 2, 3, 2), how(stride=(2, 3))),
    "stride larger than the kernel": ((2, 2, 7, 6), (3, 2, 2, 1), how(stride=3)),
    "padding": ((1, 2, 4, 3), (2, 2, 3, 3), how(padding=((1, 0), (2, 3)))),
    "dilation": ((1, 2, 7, 6), (2, 2, 3, 2), how(dilation=(2, 3))),
    "dilation and stride": ((1, 1, 9, 8), (2, 1, 2, 3), how(dilation=(3, 2), stride=2, padding=1)),
    "groups": ((2, 4, 4, 3), (6, 2, 2, 2), how(groups=2)),
    "a channel a group": ((2, 3, 4, 3), (3, 1, 2, 2), how(groups=3, padding=1)),
    "1 × 1": ((2, 3, 3, 4), (4, 3, 1, 1), how()),
    "one place": ((3, 2, 1, 1), (2, 2, 3, 3), how(padding=1)),
    "an image smaller than the kernel": ((1, 1, 2, 2), (1, 1, 4, 5), how(padding=2)),
    "more channels than a vector": ((1, 2, 3, 3), (37, 2, 2, 2), how()),
    "no image": ((0, 2, 4, 4), (3, 2, 2, 2), how()),
    "one axis": ((2, 2, 7), (3, 2, 3), how(2, 1, 2, rank=1)),
    "three axes": ((1, 2, 3, 2, 4), (2, 1, 2, 2, 3), how((1, 2, 1), 1, groups=2, rank=3)),
}
every_case = pytest.mark.parametrize(("x", "weight", "how"), CASES.values(), ids=CASES)


@every_case
def test_a_convolution_is_its_definition(x, weight, how):
    x, weight, bias = grid(x), grid(weight, seed=1), grid(weight[:1], seed=2)
    wanted = op_table_conv.convolution(x, weight, bias, **how)
    assert_near(cpu_conv.convolve(x, weight, bias, **how), wanted, weight[0].size)


@every_case
def test_its_gradients_are_their_definitions(x, weight, how):
    x, weight = grid(x), grid(weight, seed=1)
    g = grid(op_table_conv.convolution(x, weight, None, **how).shape, seed=2)
    wanted = op_table_conv.convolution_input(g, weight, shape=x.shape, **how)
    assert_near(cpu_conv.convolve_input(g, weight, shape=x.shape, **how), wanted, weight.size)
    wanted = op_table_conv.convolution_weight(x, g, shape=weight.shape, **how)
    assert_near(cpu_conv.convolve_weight(x, g, shape=weight.shape, **how), wanted, g.size)
    np.testing.assert_allclose(
        cpu_conv.channel_sums(g), g.sum(axis=(0, *range(2, g.ndim))), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("options", [how(padding=1), how(2, 1), how(1, 2, 2, groups=2)], ids=str)
def test_many_images_with_many_windows(options):
    """So many that they are cut into tasks, in float32; the definition is that of float64."""
    x, weight = grid((9, 32, 38, 21)).astype("f4"), grid((44, 32, 3, 3), seed=1).astype("f4")
    weight = weight[:, : 32 // options["groups"]]
    exact = [x.astype("f8"), weight.astype("f8")]
    wanted = array_conv.convolve(*exact, None, **options)
    assert_near(cpu_conv.convolve(x, weight, None, **options), wanted, weight[0].size)
    g = grid(wanted.shape, seed=2).astype("f4")
    wanted = array_conv.convolve_input(g.astype("f8"), exact[1], shape=x.shape, **options)
    assert_near(cpu_conv.convolve_input(g, weight, shape=x.shape, **options), wanted, 400)
    wanted = array_conv.convolve_weight(exact[0], g.astype("f8"), shape=weight.shape, **options)
    got = cpu_conv.convolve_weight(x, g, shape=weight.shape, **options)
    assert_near(got, wanted, g[:, 0].size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_in_memory_changes_nothing(layout):
    shapes = ((2, 3, 5, 4), (4, 3, 3, 2), (2, 4, 3, 3))
    plain = [grid(shape, seed=seed) for seed, shape in enumerate(shapes)]
    with tg.device("cpu"):
        x, weight, g = (laid_out(array, layout) for array in plain)
    for op, args, shape in (
        ("convolve", (0, 1, None), None),
        ("convolve_input", (2, 1), shapes[0]),
        ("convolve_weight", (0, 2), shapes[1]),
    ):
        options = how() | ({"shape": shape} if shape else {})
        of = functools.partial(getattr(cpu_conv, op), **options)
        got = of(*[None if k is None else (x, weight, g)[k] for k in args])
        np.testing.assert_array_equal(got, of(*[None if k is None else plain[k] for k in args]))


def test_float16_is_summed_in_float32():
    x, weight = grid((2, 40, 6, 5)).astype("f2"), grid((3, 40, 3, 3), seed=1).astype("f2")
    wanted = array_conv.convolve(x.astype("f4"), weight.astype("f4"), None, **how())
    got = cpu_conv.convolve(x, weight, None, **how())
    assert got.dtype == np.float16
    assert_near(got, wanted, 1, factor=0.51)


def test_answers_have_their_channels_last_in_memory_where_they_are_compiled(path):
    x, weight = grid((2, 3, 4, 4)), grid((4, 3, 3, 3))
    y = cpu_conv.convolve(x, weight, None, **how(padding=1))
    last = cpu_pool.max_pool(y, **POOL)[0].transpose(0, 2, 3, 1)
    assert last.flags.c_contiguous == (path == "compiled")


# --- Pooling --------------------------------------------------------------------------------------

POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
POOLS = {
    "tiles": POOL,
    "overlapping": POOL | {"kernel": (3, 2), "stride": (1, 1)},
    "padded": POOL | {"kernel": (3, 3), "padding": ((1, 1), (1, 0))},
    "dilated": POOL | {"dilation": (2, 3), "padding": ((1, 1), (1, 1))},
    "apart": POOL | {"stride": (3, 3), "kernel": (1, 2)},
}


def some_with_nan(channels):
    """Numbers of which some are equal, some infinite, some NaN."""
    random = np.random.default_rng(0)
    x = random.integers(0, 4, (3, channels, 6, 7)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    x[random.random(x.shape) < 0.1] = -np.inf
    return x


@pytest.mark.parametrize("channels", [1, 19, 40])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_the_largest_values_and_their_gradient(pool, channels):
    x = some_with_nan(channels)
    values, where = cpu_pool.max_pool(x, **pool)
    for n, c, i, j in np.ndindex(values.shape):
        best, place = -np.inf, None
        for a, b in np.ndindex(pool["kernel"]):
            at = [
                p * s - before + k * d
                for p, s, (before, _), k, d in zip(
                    (i, j), pool["stride"], pool["padding"], (a, b), pool["dilation"]
                )
            ]
            if 0 <= at[0] < 6 and 0 <= at[1] < 7:
                value = x[(n, c, *at)]
                if place is None or value > best or np.isnan(value):
                    best, place = value, at[0] * 7 + at[1]
        assert where[n, c, i, j] == place
        np.testing.assert_equal(values[n, c, i, j], best)
    g = grid(values.shape).astype(np.float32)
    wanted = np.zeros((*x.shape[:2], 42))
    for at in np.ndindex(values.shape):
        wanted[(*at[:2], where[at])] += g[at]
    got = cpu_pool.max_unpool(g, where, shape=x.shape, **pool)
    assert_near(got, wanted.reshape(x.shape), 6)


# --- Threads --------------------------------------------------------------------------------------


def test_several_python_threads_at_once():
    x, weight = grid((8, 16, 20, 20)).astype("f4"), grid((32, 16, 3, 3), seed=1).astype("f4")

    def step(answers=None):
        y = cpu_conv.convolve(x, weight, None, **how(padding=1))
        p, where = cpu_pool.max_pool(y, **POOL)
        g = cpu_pool.max_unpool(p, where, shape=y.shape, **POOL)
        answer = (
            cpu_conv.convolve_weight(x, g, shape=weight.shape, **how(padding=1)),
            cpu_conv.convolve_input(g, weight, shape=x.shape, **how(padding=1)),
        )
        if answers is not None:
            answers.append(answer)
        return answer

    wanted, answers = step(), []
    threads = [threading.Thread(target=step, args=(answers,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    for answer in answers:
        for got, want in zip(answer, wanted):
            np.testing.assert_array_equal(got, want)


def test_a_window_in_the_padding_has_no_maximum():
    x = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 8)
    how = {"kernel": (1,), "stride": (1,), "padding": ((1, 1),), "dilation": (1,)}
    values, where = tg.ops.conv.max_pool(x, **how)
    np.testing.assert_array_equal(values.ravel(), [0, *range(1, 9), 0])
    np.testing.assert_array_equal(where.ravel(), [-1, *range(8), -1])
