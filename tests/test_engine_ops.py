"""What a recorded op keeps, and what happens to it when arrays change later."""

import weakref

import numpy as np
import pytest
from helpers import assert_values, grid, leaf, on_device, vector

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes, held_bytes

# --- What is kept ---------------------------------------------------------------------------------


def kept(node):
    """Which arguments a node keeps, and whether it keeps its outputs: "x", "out", …"""
    names = [name for name, array in zip("xyz", node.arrays) if array is not None]
    return names + (["out"] if node.outputs is not None else [])


def test_a_chain_of_additions_keeps_no_array():
    x = leaf(np.ones(100))
    y = x
    for _ in range(20):
        y = y + x
    nodes = graph_nodes([y])
    assert len(nodes) == 20
    assert all(kept(node) == [] for node in nodes)
    assert held_bytes([y]) == 0


@pytest.mark.parametrize(
    ("op", "wanted"),
    [
        *[(op, "") for op in (tg.neg, tg.sum, tg.mean, tg.transpose, tg.squeeze)],
        (lambda x: tg.reshape(x, (3, 2)), ""),
        (lambda x: x[1:], ""),
        (lambda x: x + 1.0, ""),
        (lambda x: x - 1.0, ""),
        (lambda x: x * 2.0, "y"),  # the number
        (lambda x: x / 2.0, "y"),
        (lambda x: tg.concatenate([x, x]), ""),
        (lambda x: tg.broadcast_to(x, (2, 2, 3)), ""),
        (lambda x: tg.astype(x, np.float32), ""),
        *[(op, "out") for op in (tg.exp, tg.sqrt, tg.tanh, tg.sigmoid, tg.relu, tg.softmax)],
        *[(op, "x") for op in (tg.log, tg.abs, tg.var)],
        *[(op, "x out") for op in (tg.max, tg.logsumexp)],
    ],
)
def test_a_node_keeps_what_its_rule_reads(op, wanted):
    (node,) = graph_nodes([op(leaf(grid((2, 3), 0.5, 2)))])
    assert kept(node) == wanted.split()


@pytest.mark.parametrize(
    ("op", "of_both", "of_x", "of_y"),
    [
        (tg.mul, "x y", "y", "x"),
        (tg.div, "y out", "y", "y out"),
        (tg.matmul, "x y", "y", "x"),
        (tg.add, "", "", ""),
    ],
)
def test_a_rule_that_is_not_needed_keeps_nothing(op, of_both, of_x, of_y):
    x, y = grid((2, 2)), grid((2, 2), seed=1)
    for arguments, wanted in (
        ((leaf(x), leaf(y)), of_both),
        ((leaf(x), tg.tensor(y)), of_x),
        ((tg.tensor(x), leaf(y)), of_y),
    ):
        (node,) = graph_nodes([op(*arguments)])
        assert kept(node) == wanted.split()


def test_of_an_argument_that_is_not_kept_a_rule_sees_shape_and_dtype():
    seen = []

    def rule(g, out, _x):
        seen.append((out, _x.shape, _x.dtype, hasattr(_x, "sum")))
        return tg.broadcast_to(g, shape=_x.shape)

    @tg.op("total", rule)
    def total(xp, x):
        return xp.sum(x, dtype=np.float64)

    x = leaf(np.ones((2, 3), np.float32))
    (g,) = tg.grad(total(x), x)
    assert_values(g, *np.ones(6))
    assert g.dtype == np.float32
    ((_, *like),) = seen
    assert like == [(2, 3), np.float32, False]


def test_a_node_holds_no_tensor():
    x = vector(3.0)
    y = x * x
    there = weakref.ref(y)
    z = y * y
    del y
    assert there() is None
    assert_values(tg.grad(z, x)[0], 108.0)


def test_an_array_that_no_rule_reads_is_freed_at_once():
    x = vector(3.0)
    y = x + 1.0
    there = weakref.ref(y.data)
    z = y + 1.0
    del y
    assert there() is None
    assert_values(tg.grad(z, x)[0], 1.0)


def test_backward_frees_the_arrays_as_it_goes():
    freed = []
    x = vector(3.0)
    first = x * 1.0
    first.register_hook(lambda g: freed.append(there() is None))
    y = tg.exp(first)
    there = weakref.ref(y.data)
    z = y * y
    del y
    assert there() is not None
    z.backward()
    assert freed == [True]  # when the gradient reached the first op, the last ones were free
    assert z.node.arrays is None


# --- What is done to a Tensor or its array later --------------------------------------------------


def test_assigning_data_later_changes_no_gradient_of_order_1_or_2():
    x = vector(3.0)
    y = x * x * x
    x.data = x.data * 100.0
    (dx,) = tg.grad(y, x, create_graph=True)
    assert_values(dx, 27.0)
    x.data = x.data * 100.0
    dx.data = dx.data * 100.0
    assert_values(tg.grad(dx, x)[0], 18.0)


def changed_in_place(x):
    with tg.no_grad():
        x += 1.0


@pytest.mark.parametrize(
    "read", [lambda x: x * x, lambda x: x.reshape(2, 1) ** 2, lambda x: tg.log(x[::-1])]
)
def test_a_write_between_forward_and_backward_raises_also_through_a_view(read):
    x = vector(3.0, 4.0)
    y = read(x).sum()
    changed_in_place(x)
    with pytest.raises(RuntimeError, match=r"float64\[.*\].* was changed in place"):
        y.backward()


def test_an_optimizers_step_between_forward_and_backward_raises():
    x = vector(3.0)
    optimizer = tg.optim.SGD([x], lr=0.1)
    y = x * x
    y.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"mul: float64\[1\].*, which its gradient needs, was"):
        y.backward()
    optimizer.zero_grad()
    (x * x).backward()  # a new forward pass is right
    assert_values(x.grad, 2 * x.item())


def test_a_write_into_a_view_counts_for_all_that_share_its_memory():
    shared = on_device(np.array([1.0, 2.0, 3.0]))
    x, y = tg.Tensor(shared[:2], requires_grad=True), tg.Tensor(shared[1:], requires_grad=True)
    square = (x * x).sum()
    changed_in_place(y)
    assert_values(x, 1.0, 3.0)
    with pytest.raises(RuntimeError, match="was changed in place"):
        square.backward()
    weight = vector(1.0, 2.0)
    tg.optim.SGD([weight])  # the weight is now a view of the optimizer's array
    square = (weight * weight).sum()
    changed_in_place(weight)
    with pytest.raises(RuntimeError, match="was changed in place"):
        square.backward()


@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("memory", ["apart", "of one optimizer", "that is no array's"])
def test_a_write_into_any_argument_counts(memory, changed):
    factors = [vector(1.0, 2.0), vector(3.0, 4.0)]
    if memory == "of one optimizer":
        tg.optim.SGD(factors)
    elif memory == "that is no array's":
        buffer = bytearray(32)  # shared memory or a mapped file would be the same
        parts = [np.ndarray(2, buffer=buffer, offset=offset) for offset in (0, 16)]
        factors = [tg.Tensor(part, requires_grad=True) for part in parts]
    product = (factors[0] * factors[1]).sum()
    changed_in_place(factors[changed])
    with pytest.raises(RuntimeError, match="was changed in place"):
        product.backward()


def test_load_state_dict_between_forward_and_backward_raises():
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    x = leaf(np.ones((3, 2), np.float32))
    y = layer(x).sum()
    layer.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"linear: float32\[2, 2\].* was changed in place"):
        y.backward()


def test_a_training_step_of_batch_norm_raises_where_the_last_statistics_are_still_needed():
    norm = nn.BatchNorm1d(2)
    x = leaf(np.arange(6, dtype=np.float32).reshape(3, 2))
    y = norm.eval()(x).sum()
    norm.train()(x)
    with pytest.raises(RuntimeError, match=r"inference.*: float32\[2\].* was changed in place"):
        y.backward()


def test_a_write_before_the_second_order_raises():
    x = vector(3.0)
    (dx,) = tg.grad(x * x * x, x, create_graph=True)
    changed_in_place(x)
    with pytest.raises(RuntimeError, match="was changed in place"):
        tg.grad(dx, x)


def test_a_write_into_what_no_rule_reads_is_no_error():
    x, w = vector(3.0), vector(2.0)
    total = x + w
    product = x * w.detach()  # only x's rule is needed, and it reads w
    changed_in_place(x)
    assert_values(tg.grad(total, x)[0], 1.0)
    assert_values(tg.grad(product, x)[0], 2.0)


@pytest.mark.parametrize(
    "function",
    [
        *(lambda x: x * 2.0, lambda x: x.reshape(2, 1), lambda x: x[::-1], lambda x: x.T, tg.exp),
        *(tg.sum, lambda x: x[0] * x[1], lambda x: x[0]),  # without axes
    ],
)
def test_recorded_results_are_read_only_and_their_inputs_are_not(function, cpu_only):
    x = vector(1.0, 2.0)
    y = function(x)
    assert not y.data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        y.detach().numpy()[...] = 0.0
    x.data[...] = 5.0
    with tg.no_grad():
        function(x).data[...] = 0.0  # nobody will ask for its gradient


def test_what_is_kept_for_backward_has_memory_also_without_axes():
    x = leaf(np.float64(2))
    (kept,) = tg.exp(x).node.outputs
    assert type(kept) is type(x.data)
