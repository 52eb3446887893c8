"""Nothing is left behind: no growth, no reference cycles, no recursion however long the chain."""

import contextlib
import gc
import sys
import weakref

import numpy as np
import pytest
from helpers import assert_values, leaf, vector

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, recording
from tinygrad_bn.memory import owned


@contextlib.contextmanager
def collector_off():
    """Without the garbage collector, and nothing for it to do at the start."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cyclic_garbage(function):
    """What only the garbage collector could free after a call, by type."""
    function()  # caches are filled
    with collector_off():
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            function()
            gc.collect()
            return sorted({type(item).__name__ for item in gc.garbage})
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


def trainer(impl="fused"):
    """A function that makes a training step of a small network with batch norm."""
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, impl=impl), nn.ReLU(), nn.Linear(8, 3))
    optimizer = tg.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x, target = tg.randn(16, 4), tg.tensor(np.arange(16) % 3)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(x), target).backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("impl", ["fused", "composed"])
def test_training_steps_leave_nothing_behind(impl, cpu_only):
    step = trainer(impl)
    step()
    with collector_off():
        objects, grown = len(gc.get_objects()), []
        # Every array, number and string is a block. NumPy and Python cache some thousand of them:
        # the blocks grow for a while, and then no more. A leak would be 500 of them in each round.
        for _ in range(12):
            before = sys.getallocatedblocks()
            for _ in range(500):
                step()
            grown.append(sys.getallocatedblocks() - before)
            if grown[-1] < 50:
                break
        assert gc.collect() == 0
        assert len(gc.get_objects()) - objects < 10
        assert grown[-1] < 50


def test_the_graph_of_a_step_is_gone_with_its_loss():
    x = vector(1.0, 2.0)
    loss = tg.sum(tg.exp(x * x))
    with collector_off():
        there = [weakref.ref(loss), weakref.ref(loss.data)]
        loss.backward()
        del loss
        assert [reference() for reference in there] == [None, None]


def create_graph_to_order_3():
    x = vector(0.5, 1.5)
    y = tg.sum(tg.tanh(x) * tg.exp(x))
    for _ in range(3):
        (y,) = tg.grad(y, x, create_graph=True)
        y = tg.sum(y)


def retained_and_hooked():
    x = vector(1.0, 2.0)
    y = x * x
    y.retain_grad()
    y.register_hook(lambda g: g * 2.0).remove()
    x.register_hook(lambda g: g * 2.0)
    y.sum().backward(retain_graph=True)
    y.sum().backward()


def abandoned():
    x = vector(1.0, 2.0)
    tg.sum(tg.exp(x) / x)


def several_outputs():
    x = leaf(np.arange(6.0).reshape(3, 2))
    y = F.batch_norm(x, None, None, training=True)
    (g,) = tg.grad((y * y * x).sum(), x, create_graph=True)
    tg.grad(g.sum(), x)
    tg.concatenate(tg.split(x, 3)).sum().backward()


def traced():
    with tg.tracing():
        tg.named("loss", tg.sum(vector(1.0, 2.0) * 2.0)).backward()


def refused():
    x = vector(1.0, 2.0)
    y = tg.exp(x)
    tg.grad(y.sum(), x)
    for wrong in (lambda: tg.grad(y.sum(), x), lambda: x * np.ones(3), lambda: x[5]):
        with contextlib.suppress(RuntimeError, ValueError, IndexError):
            wrong()


@pytest.mark.parametrize(
    "function",
    [
        *(create_graph_to_order_3, retained_and_hooked, abandoned),
        *(several_outputs, traced, refused, lambda: trainer()()),
    ],
    ids=lambda function: function.__name__,
)
def test_there_are_no_reference_cycles(function):
    assert cyclic_garbage(function) == []


def test_the_record_of_writes_forgets_arrays_that_are_gone():
    with collector_off():
        before = len(recording._writes)
        x = vector(1.0)
        with tg.no_grad():
            x += 1.0
        assert len(recording._writes) == before + 1
        del x
        assert len(recording._writes) == before


def chain(length):
    x = vector(1.0)
    y = x
    for _ in range(length):
        y = y + 1.0
    return x, y


def test_a_chain_of_a_million_ops_runs_forward_and_backward_and_frees(cpu_only):
    length = 1_000_000
    assert length > 100 * sys.getrecursionlimit()
    with collector_off():  # which would look through the growing graph again and again
        x, y = chain(length)
        assert_values(y, length + 1.0)
        y.backward()
        assert_values(x.grad, 1.0)
        there = weakref.ref(y)
        del y
        assert there() is None


def test_a_long_graph_that_was_never_run_backward_frees(cpu_only):
    with collector_off():
        x = vector(1.0)
        y = x
        for _ in range(200_000):
            y = y * 1.0
        first = weakref.ref(x)
        del x, y
        assert first() is None


def test_an_array_that_somebody_else_sees_is_copied_and_no_other():
    array, base, rows = np.ones(6), np.ones(6), np.ones((2, 6))
    view, seen, row = base.reshape(2, 3), [array], rows[0]
    assert owned(array) is not array
    assert owned(view) is not view
    assert owned(row) is not row
    del base, seen
    assert owned(array) is array
    assert owned(view) is view
