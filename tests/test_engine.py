"""backward and grad: what arrives where, how often, and what is refused."""

import numpy as np
import pytest
from helpers import assert_values, leaf, share_memory, vector

import tinygrad_bn as tg

# --- Sums -----------------------------------------------------------------------------------------


def test_a_tensor_used_twice_gets_both_gradients():
    x = vector(3.0)
    assert_values(tg.grad(x + x, x)[0], 2.0)
    assert_values(tg.grad(x * x, x)[0], 6.0)
    assert_values(tg.grad(x - x, x)[0], 0.0)
    assert_values(tg.grad(tg.concatenate([x, x, x]), x, tg.tensor([1.0, 2.0, 4.0]))[0], 7.0)


def test_backward_adds_to_grad_what_is_there():
    x = vector(1.0, 2.0)
    (x * 3.0).sum().backward()
    assert_values(x.grad, 3.0, 3.0)
    (x * x).sum().backward()
    assert_values(x.grad, 5.0, 7.0)
    x.grad = None
    (x * x).sum().backward()
    assert_values(x.grad, 2.0, 4.0)


def test_grad_leaves_every_grad_alone():
    x = vector(1.0, 2.0)
    y = x * x
    y.retain_grad()
    tg.grad(y.sum(), [x, y])
    assert x.grad is None
    assert y.grad is None


@pytest.mark.parametrize("depth", [1, 2, 10, 60])
def test_a_chain_of_diamonds_visits_each_node_once(depth):
    visits = []

    def rule(g, _out, _x):
        visits.append(1)
        return g

    @tg.op("visited", rule)
    def visited(xp, x):
        return x + 0.0

    x = vector(1.0)
    y = x
    for _ in range(depth):  # 2^depth paths
        y = visited(y)
        y = y + y
    y.backward()
    assert_values(x.grad, 2.0**depth)
    assert len(visits) == depth


def test_a_node_waits_for_all_its_gradients_though_the_paths_differ_in_length():
    x = vector(2.0)
    y = x * x
    z = y * 3.0
    for _ in range(5):
        z = z + 0.0
    for total in (z + y, y + z):
        assert_values(tg.grad(total, x, retain_graph=True)[0], 16.0)


# --- Twice through one graph ----------------------------------------------------------------------


@pytest.mark.parametrize("function", [lambda x: x * x, lambda x: x + x, tg.sum, tg.exp])
def test_a_second_backward_raises_and_names_retain_graph(function):
    x = vector(3.0)
    y = function(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        tg.grad(y, x)
    assert x.grad is not None


def test_the_error_names_the_op():
    x = vector(3.0)
    y = tg.exp(x)
    tg.grad(y, x)
    with pytest.raises(RuntimeError, match="exp: backward ran"):
        tg.grad(y, x)


def test_retain_graph_keeps_the_graph_for_another_pass():
    x = vector(3.0)
    y = (x * x).sum()
    for k in range(1, 4):
        y.backward(retain_graph=k < 3)
        assert_values(x.grad, 6.0 * k)
    with pytest.raises(RuntimeError, match="retain_graph"):
        y.backward()


def test_create_graph_retains_the_graph_unless_told_otherwise():
    x = vector(3.0)
    y = (x * x).sum()
    tg.grad(y, x, create_graph=True)
    tg.grad(y, x, create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="retain_graph"):
        tg.grad(y, x)


def test_graphs_that_share_a_part_free_it_together():
    x = vector(3.0)
    shared = x * x
    first, second = shared * 2.0, shared * 3.0
    tg.grad(first, x)
    with pytest.raises(RuntimeError, match="mul: backward ran"):
        tg.grad(second, x)


def test_a_pass_frees_no_more_than_it_runs_through():
    x, w = vector(3.0), vector(2.0)
    inner = x * x
    outer = inner * w
    tg.grad(outer, w)
    assert_values(tg.grad(inner, x)[0], 6.0)


# --- Where a gradient can be asked for ------------------------------------------------------------


def test_gradients_of_intermediate_results_and_of_the_output_itself():
    x = vector(2.0)
    y = x * x
    z = y * y
    dz, dy, dx = tg.grad(z, [z, y, x])
    assert_values(dz, 1.0)
    assert_values(dy, 8.0)
    assert_values(dx, 32.0)
    assert_values(tg.grad(x, x)[0], 1.0)


def test_the_answers_come_in_the_order_of_the_inputs_also_when_one_is_there_twice():
    x, y = vector(2.0), vector(5.0)
    a, b, c = tg.grad(x * y, [y, x, y])
    assert (a.item(), b.item(), c.item()) == (2.0, 5.0, 2.0)
    assert not share_memory(a, c)


def test_an_intermediate_of_an_intermediate_stops_nothing():
    x = vector(2.0)
    y = x * 3.0
    assert [g.item() for g in tg.grad(y * x, [x, y])] == [12.0, 2.0]


def test_several_outputs_add_up_with_the_gradient_of_each():
    x = vector(1.0, 2.0)
    seeds = [tg.tensor(np.array([1.0, 10.0])), tg.tensor(np.array(100.0))]
    (g,) = tg.grad([x * x, x.sum()], x, seeds)
    assert_values(g, 102.0, 140.0)
    (g,) = tg.grad((x.sum(), (x * x).sum()), (x,))
    assert_values(g, 3.0, 5.0)
    (g,) = tg.grad([x.sum(), x * x], x, [None, seeds[0]])
    assert_values(g, 3.0, 41.0)


def test_an_output_that_another_is_computed_from_gets_both():
    x = vector(2.0)
    y = x * x
    z = y * y
    assert_values(tg.grad([z, y], x, retain_graph=True)[0], 36.0)
    assert_values(tg.grad([y, z], y)[0], 9.0)


def test_the_same_output_twice_counts_twice():
    x = vector(2.0)
    y = x * x
    assert_values(tg.grad([y, y], x)[0], 8.0)


def test_an_input_on_which_nothing_depends_is_an_error_or_none():
    x, other = vector(2.0), vector(1.0)
    y = x * x
    later = y * 2.0
    with pytest.raises(RuntimeError, match=r"inputs\[1\]: no output depends on it; allow_unused"):
        tg.grad(y, [x, other], retain_graph=True)
    with pytest.raises(RuntimeError, match=r"inputs\[0\]: no output depends on it"):
        tg.grad(y, later, retain_graph=True)
    dx, dother = tg.grad(y, [x, other], allow_unused=True)
    assert_values(dx, 4.0)
    assert dother is None


def test_the_other_output_of_an_op_is_unused():
    @tg.op("two", joint=lambda gs, _outs, _x, needs: [gs[0] * 2.0], outputs=("_a", "_b"))
    def two(xp, x):
        return x * 2.0, x * 3.0

    x = vector(1.0)
    a, b = two(x)
    da, db = tg.grad(a, [a, b], allow_unused=True)
    assert_values(da, 1.0)
    assert db is None


@pytest.mark.parametrize(
    ("inputs", "got"),
    [([1.0], "float"), ([np.ones(2)], "ndarray"), ([None], "NoneType")],
)
def test_inputs_must_be_tensors(inputs, got):
    with pytest.raises(ValueError, match=rf"inputs\[0\]: got {got}, wants a Tensor that requires"):
        tg.grad(vector(1.0), inputs)


def test_constants_have_no_gradient():
    x = vector(1.0)
    with pytest.raises(ValueError, match=r"inputs\[1\]: got a constant"):
        tg.grad(x * x, [x, tg.tensor([1.0])])
    with pytest.raises(RuntimeError, match="does not depend on any Tensor with requires_grad"):
        tg.grad(tg.tensor([1.0]), x)
    with pytest.raises(RuntimeError, match="does not depend on any Tensor with requires_grad"):
        tg.tensor([1.0]).backward()
    with pytest.raises(TypeError, match="got ndarray as an output, wants a Tensor"):
        tg.grad(np.ones(1), x)


# --- The gradient at the output -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_element_needs_no_gradient(shape):
    x = leaf(np.full(shape, 3.0))
    (x * x).backward()
    assert x.grad.item() == 6.0
    assert x.grad.shape == shape


@pytest.mark.parametrize("shape", [(2,), (0,), (2, 1)])
def test_an_output_that_is_no_scalar_needs_a_gradient(shape):
    y = leaf(np.ones(shape)) * 2.0
    with pytest.raises(RuntimeError, match=r"gradient: the output float64\[.*is not a scalar"):
        y.backward()
    with pytest.raises(RuntimeError, match=r"grad_outputs\[0\]: the output float64\[.*not a scal"):
        tg.grad(y, y)


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (3, 1)])
def test_a_gradient_of_another_shape_is_refused(shape):
    y = vector(1.0, 2.0, 3.0) * 2.0
    with pytest.raises(ValueError, match=r"gradient: got float64\[.*\].*, wants float64\[3\]"):
        y.backward(tg.tensor(np.ones(shape)))
    with pytest.raises(ValueError, match=r"grad_outputs\[0\]: got float64\[.*, wants float64\[3\]"):
        tg.grad(y, y, tg.tensor(np.ones(shape)))


def test_the_number_of_gradients_is_that_of_the_outputs():
    x = vector(1.0)
    with pytest.raises(ValueError, match="grad_outputs: got 1 of them, wants 2"):
        tg.grad([x * 2.0, x * 3.0], x, tg.tensor([1.0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_a_gradient_of_another_dtype_becomes_the_outputs(dtype):
    x = leaf(np.ones(2, np.float32))
    (g,) = tg.grad(x * 2.0, x, tg.tensor(np.array([1, 2], dtype)))
    assert g.dtype == np.float32
    assert_values(g, 2.0, 4.0)


def test_a_gradient_may_be_a_list_or_a_number():
    x = vector(1.0, 2.0)
    (x * 2.0).backward([1.0, 2.0])
    assert_values(x.grad, 2.0, 4.0)
    assert_values(tg.grad(x.sum(), x, 3.0)[0], 3.0, 3.0)


def test_a_gradient_on_another_device_is_refused(double_only):
    y = vector(1.0, 2.0) * 2.0
    with pytest.raises(ValueError, match=r"gradient: got float64\[2\], wants float64\[2\] on cuda"):
        y.backward(np.ones(2))
    with pytest.raises(ValueError, match=r"gradient: got float64\[2\] on cuda:1, wants .*cuda:0"):
        y.backward(tg.tensor(np.ones(2), device="cuda:1"))
