"""Where a Tensor leaves for NumPy, Python and other libraries, or is copied."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import assert_close, assert_values, host, leaf, on_device, share_memory, vector

import tinygrad_bn as tg
from tinygrad_bn import nn

# --- NumPy ----------------------------------------------------------------------------------------


def test_numpy_gives_the_array_itself(cpu_only):
    t = tg.tensor([1.0, 2.0])
    assert t.numpy() is t.data
    assert np.asarray(t) is t.data
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    assert not share_memory(np.array(t), t)
    np.testing.assert_array_equal(np.stack([t.numpy(), np.ones(2)]), [[1, 2], [1, 1]])


@pytest.mark.parametrize(
    "leave", [lambda t: t.numpy(), np.asarray, np.array, lambda t: np.asarray(t, np.float32)]
)
def test_a_tensor_that_requires_a_gradient_does_not_become_an_array(leave):
    with pytest.raises(RuntimeError, match=r"call detach\(\) first, then numpy\(\)"):
        leave(vector(1.0, 2.0))


@pytest.mark.parametrize("leave", [lambda t: t.numpy(), np.asarray])
def test_a_tensor_on_another_device_does_not_become_an_array(leave, double_only):
    with pytest.raises(RuntimeError, match=r"a Tensor on cuda:0: call cpu\(\) first"):
        leave(tg.tensor([1.0]))


@pytest.mark.parametrize(
    ("call", "theirs", "ours"),
    [
        (np.exp, "numpy.exp", "exp"),
        (np.negative, "numpy.negative", "neg"),
        (np.abs, "numpy.absolute", "abs"),
        (np.sum, "numpy.sum", "sum"),
        (lambda t: np.mean(t, axis=0), "numpy.mean", "mean"),
        (lambda t: np.where(t, 1, 0), "numpy.where", "where"),
        (lambda t: np.maximum(t, 0), "numpy.maximum", "maximum"),
        (lambda t: np.concatenate([t, t]), "numpy.concatenate", "concatenate"),
        (lambda t: np.stack([np.ones(2), t]), "numpy.stack", "stack"),
        (np.zeros_like, "numpy.zeros_like", "zeros_like"),
    ],
)
def test_numpys_functions_refuse_a_tensor_and_name_ours(call, theirs, ours):
    wanted = rf"{theirs} was called on a Tensor.*: use tinygrad_bn\.{ours}, or call detach"
    for t in (vector(1.0, 2.0), tg.tensor([1.0, 2.0])):
        with pytest.raises(TypeError, match=wanted):
            call(t)
    assert hasattr(tg, ours)


@pytest.mark.parametrize(
    ("call", "theirs"),
    [
        (lambda t: np.cumsum(t), "numpy.cumsum"),
        (lambda t: np.linalg.norm(t), "numpy.linalg.norm"),
        (np.sin, "numpy.sin"),
        (lambda t: np.add(t, t, out=np.ones(2)), "numpy.add"),
        (lambda t: np.ones(2) // t, "numpy.floor_divide"),
    ],
)
def test_what_we_lack_is_refused_too(call, theirs):
    with pytest.raises(TypeError, match=rf"{theirs} was called on a Tensor.*call detach\(\)"):
        call(vector(1.0, 2.0))


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.power, np.matmul, np.less, np.equal])
def test_numpys_operators_as_functions_are_ours(ufunc):
    array = np.array([1.0, 2.0])
    got = ufunc(leaf(array), leaf(array))
    assert isinstance(got, tg.Tensor)
    assert_close(got, ufunc(array, array))


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_is_a_python_number(shape):
    x = leaf(np.full(shape, 2.5))
    assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
    assert [type(v) for v in (x.item(), float(x), int(x), bool(x))] == [float, float, int, bool]
    assert math.sqrt(leaf(np.array(4.0))) == 2.0
    assert type(tg.tensor(3).item()) is int
    assert type(tg.tensor(True).item()) is bool


def test_several_elements_are_no_number():
    for call in (tg.Tensor.item, float, int, bool):
        with pytest.raises(ValueError, match=r"item: wants one element, got float64\[2\]"):
            call(vector(1.0, 2.0))


def test_an_integer_tensor_is_an_index_and_a_float_is_not():
    assert [10, 20, 30][tg.tensor(1)] == 20
    assert list(range(tg.tensor(2))) == [0, 1]
    for t in (vector(1.0), tg.tensor(True)):
        with pytest.raises(TypeError, match="an index must be an integer, got"):
            [10, 20][t]


def test_formatting():
    x = leaf(np.array(2.5))
    assert f"{x:.2f} {x:g}" == "2.50 2.5"
    assert f"{x}" == repr(x) == str(x)
    with pytest.raises(ValueError, match="item: wants one element"):
        f"{vector(1.0, 2.0):.2f}"


def test_length_iteration_and_unpacking():
    x = leaf(np.arange(6.0).reshape(3, 2))
    assert len(x) == 3
    rows = list(x)
    assert all(row.shape == (2,) for row in rows)
    a, _, c = x
    assert_values(tg.grad(tg.sum(a + c), x)[0], 1, 1, 0, 0, 1, 1)
    assert 3.0 in x[1]
    assert 9.0 not in x[1]
    for call in (len, iter, list):
        with pytest.raises(TypeError, match=r"len\(\) of a 0-d Tensor"):
            call(leaf(np.array(1.0)))


def test_properties():
    x = leaf(np.ones((2, 3), np.float16))
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((2, 3), 2, 6, np.float16, 2)
    assert x.tolist() == [[1.0] * 3] * 2
    assert x.T.shape == (3, 2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tg.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: tg.tensor(2.0), "tensor(2.)"),
        (lambda: tg.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: tg.tensor([True]), "tensor([ True])"),
        (lambda: tg.tensor([]), "tensor([])"),
        (lambda: tg.tensor([1, 2], dtype=np.int8), "tensor([1, 2], dtype=int8)"),
        (lambda: vector(0.5), "tensor([0.5], dtype=float64, requires_grad=True)"),
        (lambda: vector(0.5) * 2.0, "tensor([1.], dtype=float64, op=mul)"),
        (lambda: tg.tensor([[1.0], [1 / 3]]), "tensor([[1.    ],\n        [0.3333]])"),
    ],
)
def test_repr(make, text, cpu_only):
    assert repr(make()) == text


def test_repr_names_another_device(double_only):
    assert repr(tg.tensor([1.5])) == "tensor([1.5], device='cuda:0')"
    text = "tensor([1.5], dtype=float64, device='cuda:0', requires_grad=True)"
    assert repr(vector(1.5)) == text


def test_elements_cannot_be_assigned():
    x = tg.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"cannot be assigned.*where\(mask, value, t\)"):
        x[0] = 5.0
    assert_values(x, 1.0, 2.0)


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: x.reshape(3, 2), (3, 2)),
        (lambda x: x.reshape((3, -1)), (3, 2)),
        (lambda x: x.reshape([6]), (6,)),
        (lambda x: x.flatten(), (6,)),
        (lambda x: x.transpose(), (3, 2)),
        (lambda x: x.transpose(1, 0), (3, 2)),
        (lambda x: x.transpose((0, 1)), (2, 3)),
        (lambda x: x.swapaxes(0, 1), (3, 2)),
        (lambda x: x.expand_dims(0), (1, 2, 3)),
        (lambda x: x[None].squeeze(), (2, 3)),
        (lambda x: x.broadcast_to(4, 2, 3), (4, 2, 3)),
        (lambda x: x.sum(0), (3,)),
        (lambda x: x.mean(axis=1, keepdims=True), (2, 1)),
        (lambda x: x.var(axis=1, correction=1), (2,)),
        (lambda x: x.max(1), (2,)),
        (lambda x: x.argmax(1), (2,)),
        (lambda x: x.softmax(axis=0), (2, 3)),
        (lambda x: x.split(3, axis=1)[2], (2, 1)),
        (lambda x: x.exp().log().sqrt().tanh().sigmoid().relu().abs(), (2, 3)),
    ],
)
def test_methods_take_their_arguments_by_position_and_by_name(call, shape):
    x = leaf(np.arange(1.0, 7.0).reshape(2, 3))
    assert call(x).shape == shape


# --- DLPack ---------------------------------------------------------------------------------------


def test_dlpack_to_and_from_numpy_shares_the_memory(cpu_only):
    t = tg.tensor([1.0, 2.0])
    array = np.from_dlpack(t)
    assert share_memory(array, t)
    source = np.arange(3.0)
    mine = tg.from_dlpack(source)
    assert share_memory(mine, source)
    assert (mine.dtype, mine.requires_grad) == (np.float64, False)
    assert share_memory(tg.from_dlpack(t), t)


def test_dlpack_of_a_device_array_stays_there(double_only):
    t = tg.tensor([1.0, 2.0])
    assert t.__dlpack_device__() == (2, 0)
    with double_only.forbid("h2d", "d2h"):
        mine = tg.from_dlpack(t)
    assert mine.device == "cuda:0"
    assert share_memory(mine, t)


def test_dlpack_refuses_a_tensor_that_requires_a_gradient(cpu_only):
    with pytest.raises(BufferError, match=r"requires a gradient: export its detach\(\)"):
        np.from_dlpack(vector(1.0))
    np.testing.assert_array_equal(np.from_dlpack((vector(1.0) * 2.0).detach()), [2.0])


# --- Copies and pickles ---------------------------------------------------------------------------


def test_a_deep_copy_of_a_leaf_is_a_leaf_with_its_own_array_and_gradient():
    x = tg.named("x", vector(1.0, 2.0))
    (x * x).sum().backward()
    other = copy.deepcopy(x)
    assert_values(other, 1.0, 2.0)
    assert_values(other.grad, 2.0, 4.0)
    assert (other.name, other.requires_grad, other.is_leaf) == ("x", True, True)
    assert not share_memory(other, x)
    assert not share_memory(other.grad, x.grad)
    (other * 1.0).sum().backward()
    assert_values(x.grad, 2.0, 4.0)


def test_a_shallow_copy_shares_the_array_and_has_a_gradient_of_its_own():
    x = vector(1.0, 2.0)
    other = copy.copy(x)
    assert other.data is x.data
    (other * 3.0).sum().backward()
    assert x.grad is None
    assert_values(other.grad, 3.0, 3.0)


def test_a_copy_of_a_constant_is_a_constant_and_of_a_parameter_a_parameter():
    assert not copy.deepcopy(tg.tensor([1.0])).requires_grad
    parameter = copy.deepcopy(nn.Parameter([1.0]))
    assert type(parameter) is nn.Parameter
    assert parameter.requires_grad


def test_a_tensor_that_is_there_twice_is_copied_once():
    x = vector(1.0)
    a, b = copy.deepcopy([x, x])
    assert a is b


def test_a_copied_network_is_trained_alone():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {key: host(value) for key, value in net.state_dict().items()}
    other = copy.deepcopy(net)
    optimizer = tg.optim.SGD(other.parameters(), lr=1.0)
    (other(tg.randn(4, 2)) ** 3).sum().backward()
    optimizer.step()
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(host(value), before[key])


@pytest.mark.parametrize("function", [copy.copy, copy.deepcopy])
def test_the_result_of_an_op_is_not_copied(function):
    with pytest.raises(RuntimeError, match=r"only a leaf can be copied.*copy its detach\(\)"):
        function(vector(1.0) * 2.0)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_state_dict_named(protocol):
    for t in (vector(1.0), tg.tensor([1.0]), nn.Parameter([1.0])):
        with pytest.raises(TypeError, match=r"state_dict\(\)"):
            pickle.dumps(t, protocol)


# --- Devices --------------------------------------------------------------------------------------


def test_to_the_same_device_is_the_tensor_itself():
    x = vector(1.0)
    assert x.to(x.device) is x


def test_to_another_device_is_differentiable(double_only):
    x = vector(1.0, 2.0)
    y = x.cpu()
    assert (y.device, y.requires_grad) == ("cpu", True)
    (g,) = tg.grad((y * y).sum().cuda(), x, create_graph=True)
    assert g.device == "cuda:0"
    assert_values(g, 2.0, 4.0)
    assert_values(tg.grad(g.sum(), x)[0], 2.0, 2.0)


def test_a_second_device_computes_there(double_only):
    x = leaf(np.array([1.0, 2.0])).to("cuda:1").detach().requires_grad_()
    y = (x * 2.0 + x.exp()).sum()
    assert y.device == "cuda:1"
    y.backward()
    assert x.grad.device == "cuda:1"
    np.testing.assert_allclose(host(x.grad), 2.0 + np.exp([1.0, 2.0]), rtol=1e-15)
    with pytest.raises(ValueError, match=r"add\(.*different devices, cuda:1 and cuda:0"):
        x + on_device(np.ones(2))


def test_a_step_forward_and_backward_copies_nothing_between_host_and_device(double_only):
    x = leaf(np.ones((2, 3)))
    with double_only.forbid("h2d", "d2h", "sync"):
        (tg.softmax(x * x[0]) @ x.T).sum().backward()
        tg.grad(tg.sum(tg.tanh(x) * x), x, create_graph=True)
