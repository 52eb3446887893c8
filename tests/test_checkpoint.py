"""checkpoint: the same gradients for less memory, or an error that says what was not the same."""

import gc
import tracemalloc

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, vector
from hypothesis import given
from test_engine_memory import collector_off, cyclic_garbage
from test_engine_orders import ALL, programs, run

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.check import held_bytes


def plainly(function, *args, **kwargs):
    """What `checkpoint` is held against."""
    return function(*args, **kwargs)


def nested(function, *args, **kwargs):
    """A checkpoint in a checkpoint, with ops around it."""

    def middle(*args, **kwargs):
        return tg.checkpoint(function, *args, **kwargs) * 1.0

    return tg.checkpoint(middle, *args, **kwargs)


BOTH = [tg.checkpoint, nested]


def derivatives(output, inputs, orders):
    """The output, its gradients at the inputs, those of their sum, and so on, as arrays."""
    found = [host(output)]
    for _ in range(orders):
        if not output.requires_grad:  # it has become linear
            break
        gradients = tg.grad(tg.sum(output), inputs, create_graph=True, allow_unused=True)
        found += [host(g) for g in gradients if g is not None]
        output = tg.sum(tg.stack([tg.sum(g) for g in gradients if g is not None]))
    return found


def assert_the_same(ours, theirs):
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(got, wanted)


# --- Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", BOTH)
def test_gradients_to_order_4_reach_arguments_and_all_that_the_function_closes_over(checkpoint):
    def derived(checkpoint):
        x, p, q = vector(0.3, -0.7), vector(1.1, 0.4), vector(0.5, 0.2)
        captured = tg.exp(q)  # a result from outside

        def function(x):
            return tg.tanh(x * p) * tg.exp(x) / (captured + x * x)

        return derivatives(checkpoint(function, x * x), [x, p, q], 4)

    assert_the_same(derived(checkpoint), derived(plainly))


@given(programs(ALL), programs(ALL))
def test_any_two_programs_in_checkpoints_give_the_same_bits(first, second):
    def derived(checkpoint):
        inputs = [leaf(grid((2, 3), -1, 1)), leaf(grid((3,), -1, 1, seed=1))]
        y = checkpoint(run, first, *inputs)
        return derivatives(checkpoint(run, second, y, y=inputs[1]), inputs, 2)

    assert_the_same(derived(tg.checkpoint), derived(plainly))
    assert_the_same(derived(nested), derived(plainly))


def test_tensors_in_lists_tuples_dicts_and_keywords_are_arguments_too():
    a, b, c, d = vector(1.0), vector(2.0), vector(3.0), vector(5.0)

    def function(pair, more, k, *, named):
        return tg.exp(pair[0] * pair[1] * 0.1) * more["c"] * k * named[0]

    args = [(a, b), {"c": c}, 2.0]
    y = tg.checkpoint(function, *args, named=[d])
    wanted = derivatives(function(*args, named=[d]), [a, b, c, d], 1)
    args[1]["c"] = None
    for tensor in (a, b, c, d):
        tensor.data = tensor.data * 100.0
    assert_the_same(derivatives(y, [a, b, c, d], 1), wanted)


def test_constants_among_the_arguments_stay_constants():
    x, weights, rows = vector(2.0, 3.0), tg.tensor(np.array([5.0, 7.0])), tg.tensor([1, 0, 1])
    y = tg.checkpoint(lambda x, w, k: (tg.exp(x) * tg.exp(w))[k + 0], x, weights, rows)
    assert_close(tg.grad(tg.sum(y), x)[0], np.exp([7.0, 10.0]) * [1.0, 2.0])


def test_a_function_may_return_anything_or_its_argument_or_record_nothing():
    x = vector(2.0)
    answer = tg.checkpoint(lambda x: {"square": [x * x], "same": x, "note": "text"}, x)
    assert answer["same"] is x
    assert answer["note"] == "text"
    assert_values(tg.grad(answer["square"][0], x)[0], 4.0)
    assert_values(tg.checkpoint(lambda: tg.ones(1)), 1.0)


def test_with_nothing_to_record_nothing_is_kept():
    x = vector(2.0)
    with tg.no_grad():
        y = tg.checkpoint(tg.exp, x)
    assert not y.requires_grad
    assert not tg.checkpoint(tg.exp, x.detach()).requires_grad


def penalty(x, b):
    """The square of a gradient with respect to something made inside."""
    z = (x * 2.0).detach().requires_grad_()
    (g,) = tg.grad(tg.sum(tg.exp(z * b)), z, create_graph=True)
    return g * g * x


def transformed(x, b):
    def function(t):
        return tg.exp(t * b)

    slopes = tg.vjp(function, x, x)[1] * tg.jvp(function, x, b)[1]
    return slopes + tg.sum(tg.hessian(lambda t: tg.sum(function(t)), x))


@pytest.mark.parametrize("checkpoint", BOTH)
@pytest.mark.parametrize("function", [penalty, transformed])
@pytest.mark.parametrize("closes", [False, True])
def test_a_function_may_differentiate_inside(checkpoint, function, closes):
    def derived(checkpoint):
        x, b = vector(0.5, 1.5), vector(0.3, 0.2)
        y = checkpoint(lambda x: function(x, b), x) if closes else checkpoint(function, x, b)
        return derivatives(y, [x, b], 2)

    assert_the_same(derived(checkpoint), derived(plainly))


@pytest.mark.parametrize("recorded", [False, True])
def test_a_checkpoint_inside_a_transform(recorded):
    p = vector(0.3, 0.2)
    x, v = tg.tensor(np.array([0.5, 1.5])), tg.tensor(np.array([1.0, -2.0]))

    def all_of(checkpoint):
        def function(x):
            return checkpoint(lambda t: tg.exp(t * p) * t, x)

        with tg.enable_grad() if recorded else tg.no_grad():
            return [
                tg.vjp(function, x, v)[1],
                tg.jvp(function, x, v)[1],
                tg.jvp(lambda x: tg.jvp(function, x, v)[1], x, v)[1],
                tg.jacobian(function, x),
                tg.hessian(lambda x: tg.sum(function(x)), x),
            ]

    for got, wanted in zip(all_of(tg.checkpoint), all_of(plainly), strict=True):
        np.testing.assert_array_equal(host(got), host(wanted))
        assert got.requires_grad == recorded
        if recorded:
            (g,), (w,) = (tg.grad(tg.sum(t), p) for t in (got, wanted))
            np.testing.assert_array_equal(host(g), host(w))


# --- What is kept ---------------------------------------------------------------------------------


def block(x, depth=6):
    for _ in range(depth):
        x = tg.tanh(x * 1.0)
    return x


def chain(checkpoint, x, blocks=8):
    for _ in range(blocks):
        x = checkpoint(block, x)
    return tg.sum(x)


def test_a_graph_keeps_the_inputs_of_its_checkpoints_only():
    x = leaf(np.full(1000, 0.5))
    assert held_bytes([chain(plainly, x)], [x]) == 8 * 6 * 8000
    assert held_bytes([chain(tg.checkpoint, x)], [x]) == 7 * 8000
    assert held_bytes([tg.checkpoint(chain, tg.checkpoint, x)], [x]) == 0


def test_a_function_that_keeps_no_array_is_not_called_again():
    calls = []

    def function(x):
        calls.append(1)
        return x + x + 1.0

    x = vector(1.0)
    tg.checkpoint(function, x).backward()
    assert_values(x.grad, 2.0)
    assert len(calls) == 1


def test_a_transform_inside_holds_no_array_that_was_made_inside():
    x = leaf(np.ones(100))

    def function(x):
        value, gradient = tg.vjp(lambda t: tg.sum(t * t * t), tg.exp(x))
        return value + gradient

    assert held_bytes([tg.checkpoint(function, x)], [x]) == 0


@pytest.mark.parametrize("checkpoint", BOTH)
def test_held_bytes_counts_what_was_computed_again_and_not_yet_used(checkpoint):
    x, p = leaf(np.ones(100)), leaf(np.full(100, 2.0))
    y = checkpoint(lambda x: tg.exp(tg.exp(x) * p), x)
    assert held_bytes([y], [x, p]) == 0
    tg.grad(y, p, tg.ones_like(y), retain_graph=True)  # leaves the first exp
    assert held_bytes([y], [x, p]) == 800
    tg.grad(y, x, tg.ones_like(y))
    assert held_bytes([y], [x, p]) == 0


SIZE = 1 << 14


def peak(function):
    """How many arrays of SIZE a call of `function` has at most at a time, beyond those before."""
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / (8 * SIZE)
    finally:
        tracemalloc.stop()


def test_the_peak_of_a_step_falls_from_blocks_times_depth_to_blocks_plus_depth(cpu_only):
    x = leaf(np.full(SIZE, 0.5))

    def step(checkpoint):
        return lambda: chain(checkpoint, x, blocks=16).backward()

    assert peak(step(plainly)) > 16 * 6
    assert peak(step(tg.checkpoint)) < 16 + 6 + 4

    def four(x):
        for _ in range(4):
            x = tg.checkpoint(block, x)
        return x

    def in_groups():
        y = x
        for _ in range(4):
            y = tg.checkpoint(four, y)
        tg.sum(y).backward()

    assert peak(in_groups) < 4 + 4 + 6 + 4


def network():
    tg.manual_seed(0)
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(3))
    )


def checkpointed_step():
    net, x = network(), tg.randn(8, 4)
    optimizer = tg.optim.SGD(net.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        h = x
        for part in net:
            h = nested(part, h)
        tg.sum(h * h).backward()
        optimizer.step()

    return step


def abandoned():
    x = vector(1.0)
    tg.checkpoint(lambda: tg.exp(x * x))


def raised():
    def fail(x):
        nested(tg.exp, x)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nested(fail, vector(1.0))


def differentiated():
    x, p = vector(1.0), vector(2.0)
    (g,) = tg.grad(nested(lambda x: tg.exp(x * p), x), x, create_graph=True)
    tg.grad(g, p)
    tg.jvp(lambda x: nested(lambda x: tg.exp(x * p), x), x, x)


@pytest.mark.parametrize(
    "function", [lambda: checkpointed_step()(), abandoned, raised, differentiated]
)
def test_there_are_no_reference_cycles(function):
    assert cyclic_garbage(function) == []


def test_steps_leave_nothing_behind():
    step = checkpointed_step()
    step()
    with collector_off():
        objects = len(gc.get_objects())
        for _ in range(20):
            step()
        assert gc.collect() == 0
        assert len(gc.get_objects()) - objects < 10


def test_a_long_chain_of_checkpoints_runs_and_frees(cpu_only):
    x = vector(1.0)
    y = x
    for _ in range(5000):
        y = tg.checkpoint(lambda y=y: y * 1.5 / 1.5)  # each closes over the last
    y.backward(retain_graph=True)
    assert_values(x.grad, 1.0)
    del y
