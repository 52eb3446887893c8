"""What the engine remembers: hooks and `.grad`; and the order in which it walks."""

import numpy as np
import pytest
from helpers import assert_values, host, share_memory, vector
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_bn as tg


@tg.op(
    "two",
    joint=lambda gs, _outs, _x, needs: [
        sum(g * k for g, k in zip(gs, (2.0, 3.0)) if g is not None)
    ],
    outputs=("_a", "_b"),
)
def two(xp, x):
    """An op with two outputs, 2x and 3x."""
    return x * 2.0, x * 3.0


# --- Hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["leaf", "intermediate"])
def test_a_hook_sees_the_finished_sum_once_as_a_tensor(kind):
    seen = []
    x = vector(3.0)
    y = x * 1.0 if kind == "intermediate" else x
    y.register_hook(seen.append)
    (y * y + y).backward()
    assert [type(g) for g in seen] == [tg.Tensor]
    assert_values(seen[0], 7.0)
    assert_values(x.grad, 7.0)


def test_what_a_hook_returns_takes_the_gradients_place():
    x = vector(3.0)
    y = x * 2.0
    y.register_hook(lambda g: g * 10.0)
    y.register_hook(lambda g: None)
    y.register_hook(lambda g: g + 1.0)
    y.retain_grad()
    y.backward(retain_graph=True)
    assert_values(y.grad, 11.0)
    assert_values(x.grad, 22.0)
    assert [g.item() for g in tg.grad(y, [x, y])] == [22.0, 11.0]


def test_a_hook_on_a_leaf_replaces_what_is_added_to_grad():
    x = vector(3.0)
    x.register_hook(lambda g: g * 0.5)
    for wanted in (3.0, 6.0):
        (x * x).backward()
        assert_values(x.grad, wanted)


def test_a_removed_hook_is_not_called():
    calls = []
    x = vector(3.0)
    first = x.register_hook(lambda g: calls.append("first"))
    x.register_hook(lambda g: calls.append("second"))
    first.remove()
    first.remove()  # again: nothing happens
    (x * x).backward()
    assert calls == ["second"]


def test_a_hook_may_remove_itself():
    calls = []
    x = vector(3.0)

    def once(g):
        calls.append("once")
        handle.remove()

    handle = x.register_hook(once)
    x.register_hook(lambda g: calls.append("always"))
    for _ in range(2):
        (x * x).backward()
    assert calls == ["once", "always", "always"]


def test_what_a_hook_of_a_plain_pass_computes_is_not_recorded():
    seen = []
    x = vector(3.0)
    x.register_hook(lambda g: seen.append((g * x).requires_grad))
    (x * x).backward(retain_graph=True)
    tg.grad(x * x, x, create_graph=True)
    assert seen == [False, True]


def test_the_hooks_of_two_outputs_are_called_for_their_own():
    x = vector(1.0)
    a, b = two(x)
    a.register_hook(lambda g: g * 100.0)
    b.register_hook(lambda g: pytest.fail("nothing arrived here"))
    a.backward()
    assert_values(x.grad, 200.0)


def test_a_hook_under_create_graph_is_recorded():
    x = vector(2.0)
    y = x * 1.0
    y.register_hook(lambda g: g * y)
    (dx,) = tg.grad(y * y, x, create_graph=True)  # 2y · y
    assert_values(dx, 8.0)
    assert_values(tg.grad(dx, x)[0], 16.0)  # 4y, and the hook again


def test_a_hook_that_returns_another_shape_is_refused():
    x = vector(1.0, 2.0)
    x.register_hook(lambda g: g.sum())
    with pytest.raises((ValueError, RuntimeError), match=r"hook.*float64\[2\]"):
        (x * x).sum().backward()
    assert x.grad is None


def test_a_hook_that_returns_another_dtype_changes_the_values_only():
    x = vector(1.0, 2.0)
    x.register_hook(lambda g: (g * 2.0).astype(np.float16))
    (x * x).sum().backward()
    assert x.grad.dtype == np.float64
    assert_values(x.grad, 4.0, 8.0)


def test_a_constant_takes_no_hook():
    with pytest.raises(RuntimeError, match="register_hook: this Tensor does not require"):
        tg.tensor([1.0]).register_hook(print)


# --- .grad ----------------------------------------------------------------------------------------


def test_only_leaves_and_those_that_asked_keep_a_gradient():
    x = vector(2.0)
    y = x * x
    z = y * y
    y.retain_grad()
    z.backward()
    assert_values(x.grad, 32.0)
    assert_values(y.grad, 8.0)
    assert z.grad is None


def test_a_retained_gradient_adds_up_like_a_leafs():
    x = vector(2.0)
    y = x * x
    y.retain_grad()
    for wanted in (1.0, 2.0):
        y.backward(retain_graph=True)
        assert_values(y.grad, wanted)
    y.grad = None
    assert y.grad is None
    y.backward()
    assert_values(y.grad, 1.0)


def test_each_output_of_an_op_keeps_its_own_gradient_if_it_asked():
    x = vector(1.0)
    a, b = two(x)
    a.retain_grad()
    (a + b * 10.0).backward(retain_graph=True)
    assert_values(a.grad, 1.0)
    assert b.grad is None
    b.retain_grad()
    (a + b * 10.0).backward(retain_graph=True)
    assert_values(a.grad, 2.0)
    assert_values(b.grad, 10.0)
    assert_values(x.grad, 64.0)
    a.grad = None
    (a + b).backward()
    assert_values(a.grad, 1.0)
    assert_values(b.grad, 11.0)


def test_retain_grad_of_a_leaf_changes_nothing_and_of_a_constant_raises():
    x = vector(2.0)
    x.retain_grad()
    assert x.grad is None
    (x * x).backward()
    assert_values(x.grad, 4.0)
    with pytest.raises(RuntimeError, match="retain_grad: this Tensor does not require"):
        tg.tensor([1.0]).retain_grad()


def test_an_unused_leaf_keeps_no_gradient():
    x, unused = vector(2.0), vector(1.0)
    (x * x).backward()
    assert unused.grad is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,  # the seed itself
        lambda x: x + 0.0,
        lambda x: x.reshape(2, 1).reshape(2),  # views
        lambda x: tg.broadcast_to(x, (2,)),
        lambda x: tg.split(x, 2)[0],
    ],
)
def test_grad_owns_its_memory(function):
    x, other = vector(1.0, 2.0), vector(1.0, 2.0)
    y = function(x) + other
    seed = tg.tensor(np.full(y.shape, 5.0))
    y.backward(seed)
    assert not share_memory(x.grad, seed)
    assert not share_memory(x.grad, other.grad)
    before = host(x.grad)
    seed.data[...] = 0.0
    other.grad.data[...] = 0.0
    assert_values(x.grad, *before)
    x.grad.data[...] = 7.0  # it can be written into
    assert_values(x.grad, 7.0, 7.0)


def test_a_gradient_that_was_taken_out_is_not_changed_by_the_next_pass():
    x = vector(2.0)
    (x * x).backward()
    kept = x.grad
    (x * x).backward()
    assert_values(kept, 4.0)
    assert_values(x.grad, 8.0)


def test_a_gradient_that_was_taken_out_stays_though_an_optimizer_has_a_place_for_the_next():
    x = vector(2.0)
    optimizer = tg.optim.SGD([x], lr=0.1)
    (x * x).backward()
    kept = x.grad
    optimizer.zero_grad()
    (x * x * x).backward()
    assert_values(kept, 4.0)
    assert_values(x.grad, 12.0)


def test_a_pass_that_fails_changes_no_gradient():
    def fail(g):
        raise ZeroDivisionError

    x, w = vector(2.0), vector(3.0)
    middle = x * x
    middle.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        (middle * w).backward()
    assert x.grad is None
    assert w.grad is None


def test_the_gradient_in_grad_is_a_constant():
    x = vector(2.0)
    (x * x).backward()
    assert not x.grad.requires_grad


# --- toposort -------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=30), st.data())
def test_toposort_gives_all_that_the_roots_depend_on_each_once_before_its_parents(edges, data):
    parents = {k: [p % k for p in row] if k else [] for k, row in enumerate(edges)}
    nodes = {k: [k] for k in parents}  # unhashable, and equal to nothing by identity
    roots = data.draw(st.lists(st.sampled_from(sorted(parents)), min_size=1))
    asked = []

    def parents_of(node):
        asked.append(node[0])
        return [nodes[p] for p in parents[node[0]]]

    order = tg.toposort([nodes[root] for root in roots], parents_of)
    position = {node[0]: k for k, node in enumerate(order)}
    assert len(position) == len(order) == len(asked)  # so the time is linear
    reachable, todo = set(), list(roots)
    while todo:
        node = todo.pop()
        if node not in reachable:
            reachable.add(node)
            todo.extend(parents[node])
    assert set(position) == reachable
    assert all(position[k] < position[p] for k in position for p in parents[k])


def test_toposort_does_not_compare_nodes():
    class Node:
        __hash__ = None

        def __init__(self, *parents):
            self.parents = parents

        def __eq__(self, other):
            raise AssertionError("compared")

    a = Node()
    b, c = Node(a, a), Node(a)
    d = Node(b, c)
    order = tg.toposort([d], lambda node: node.parents)
    assert [id(n) for n in order[::3]] == [id(d), id(a)]
    assert len(order) == 4


def test_a_hook_cannot_write_into_what_others_see(cpu_only):
    x, y = vector(1.0), vector(1.0)
    total = x + y

    def times_ten(g):
        g.data *= 10

    y.register_hook(times_ten)
    with pytest.raises(ValueError, match="read-only"):
        total.backward()
    assert x.grad is None
