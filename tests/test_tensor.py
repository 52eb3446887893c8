"""Tensor as a Python object: operators, numbers, comparisons, in-place changes, creation."""

import enum
import operator

import numpy as np
import pytest
from helpers import assert_close, assert_values, host, leaf, on_device, share_memory, vector

import tinygrad_bn as tg
from tinygrad_bn import nn

ARITHMETIC = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow),
]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
FLOATS = (np.float16, np.float32, np.float64)


class Two(enum.IntEnum):
    VALUE = 2


# --- Operators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", [2, 2.0, True, 1000], ids=repr)
@pytest.mark.parametrize("function", ARITHMETIC)
def test_a_python_number_leaves_the_dtype(function, other, dtype):
    x = np.array([1.0, 1.25], dtype)
    with np.errstate(over="ignore"):
        for got, wanted in (
            (function(leaf(x), other), function(x, other)),
            (function(other, leaf(x)), function(other, x)),
        ):
            assert isinstance(got, tg.Tensor)
            assert got.dtype == wanted.dtype == dtype
            np.testing.assert_array_equal(host(got), wanted)


def test_an_enumeration_of_integers_counts_as_its_value():
    x = vector(1.0, 3.0)
    assert_values(x * Two.VALUE, 2.0, 6.0)
    assert_values(tg.grad(tg.sum(Two.VALUE / x), x)[0], -2.0, -2.0 / 9.0)


@pytest.mark.parametrize("function", ARITHMETIC)
@pytest.mark.parametrize("dtype", [*FLOATS, np.int64])
@pytest.mark.parametrize(
    "other",
    [
        *(np.float16(2), np.float32(2), np.float64(2), np.int64(2)),
        *(np.array([2.0, 3.0]), np.array([2, 3], np.float16), np.array([[2], [3]])),
    ],
    ids=lambda other: f"{type(other).__name__}-{other.dtype}{other.shape}",
)
def test_numpy_scalars_and_arrays_on_both_sides_promote_as_in_numpy(function, other, dtype):
    x = np.array([1, 2], dtype)
    beside = on_device(other) if isinstance(other, np.ndarray) else other
    for got, wanted in (
        (function(tg.tensor(x), beside), function(x, other)),
        (function(beside, tg.tensor(x)), function(other, x)),
        (function(tg.tensor(x), tg.tensor(other)), function(x, np.asarray(other))),
    ):
        assert isinstance(got, tg.Tensor)
        assert_close(got, wanted, ulps=2)


@pytest.mark.parametrize("function", ARITHMETIC)
def test_an_array_on_the_left_is_recorded_with_its_gradient(function):
    x = leaf(np.array([1.5, 2.5]))
    array = np.array([2.0, 3.0])
    (g,) = tg.grad(tg.sum(function(on_device(array), x)), x)
    (wanted,) = tg.grad(tg.sum(function(tg.tensor(array), x)), x)
    np.testing.assert_array_equal(host(g), host(wanted))


def test_matmul_with_an_array_on_either_side():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    for got in (leaf(a) @ on_device(b), on_device(a) @ leaf(b), leaf(a) @ leaf(b)):
        assert_values(got, *(a @ b))
        assert got.requires_grad


def test_what_is_computed_from_a_parameter_is_no_parameter():
    parameter = nn.Parameter([1.0])
    assert type(parameter * 2.0) is type(parameter.detach()) is tg.Tensor


def test_unary_operators():
    x = vector(-1.0, 2.0)
    assert_values(-x, 1.0, -2.0)
    assert_values(abs(x), 1.0, 2.0)
    assert +x is x


def test_lists_beside_a_tensor_are_arrays():
    assert_values(vector(1.0, 2.0) - [1, 2], 0.0, 0.0)
    assert_values([1, 2] * vector(1.0, 2.0), 1.0, 4.0)


@pytest.mark.parametrize("other", ["text", {}, object()], ids=["str", "dict", "object"])
def test_what_is_no_number_is_a_type_error(other):
    for call in (lambda: vector(1.0) + other, lambda: other * vector(1.0)):
        with pytest.raises(TypeError, match="wants real numbers"):
            call()


def test_where_of_none_is_a_type_error():
    with pytest.raises(TypeError, match=r"where\("):
        tg.where(True, vector(1.0), None)


# --- Comparisons, identity ------------------------------------------------------------------------


@pytest.mark.parametrize("function", COMPARISONS)
def test_comparisons_are_elementwise_constants(function):
    x, y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    for left, right in ((leaf(x), leaf(y)), (leaf(x), 2), (leaf(x), on_device(y))):
        got = function(left, right)
        assert_close(got, function(x, y))
        assert not got.requires_grad
    for left in (on_device(y), 2):
        assert_close(function(left, leaf(x)), function(y, x))


@pytest.mark.parametrize("function", [operator.lt, operator.eq])
def test_a_numpy_number_may_stand_on_either_side_of_a_comparison(function):
    x = np.array([1.0, 2.0, 3.0])
    assert_close(function(leaf(x), np.float64(2)), function(x, 2))
    assert_close(function(np.float64(2), leaf(x)), function(2, x))


def test_tensors_are_hashed_by_identity():
    x, y = vector(1.0), vector(1.0)
    assert len({x, y, x}) == 2
    assert {x: "x", y: "y"}[y] == "y"
    assert hash(x) != hash(y)


def test_truth_is_that_of_the_only_element():
    assert vector(2.0)
    assert not vector(0.0)
    assert vector(1.0) == vector(1.0)
    for x in (vector(1.0, 2.0), leaf(np.zeros(0))):
        with pytest.raises(ValueError, match=r"item: wants one element, got float64"):
            bool(x)


# --- In-place operators ---------------------------------------------------------------------------

IN_PLACE = [
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow),
]


@pytest.mark.parametrize("function", IN_PLACE)
def test_on_a_result_or_a_constant_the_name_is_bound_anew(function):
    for old in (vector(1.0, 2.0) * 1.0, tg.tensor([1.0, 2.0])):
        before = host(old)
        new = function(old, 2.0)
        assert new is not old
        np.testing.assert_array_equal(host(old), before)
        assert new.requires_grad == old.requires_grad
        np.testing.assert_array_equal(host(new), function(before, 2.0))


@pytest.mark.parametrize("function", IN_PLACE)
def test_a_leaf_is_changed_in_place_inside_no_grad_only(function):
    x = vector(1.0, 2.0)
    array, node = x.data, x.node
    with pytest.raises(RuntimeError, match=rf"{function.__name__}: .* only inside no_grad"):
        function(x, 2.0)
    assert_values(x, 1.0, 2.0)
    with tg.no_grad():
        assert function(x, 2.0) is x
    assert x.data is array
    assert x.node is node
    np.testing.assert_array_equal(host(x), function(np.array([1.0, 2.0]), 2.0))


def test_a_leaf_cannot_grow_in_place():
    x = vector(1.0, 2.0)
    with tg.no_grad(), pytest.raises(ValueError, match="broadcast"):
        x += tg.ones((3, 2))
    assert_values(x, 1.0, 2.0)


def test_in_place_addition_in_a_loop_sums():
    x = vector(1.0, 2.0)
    total = 0.0
    for k in range(3):
        total += x * k
    assert_values(tg.grad(total.sum(), x)[0], 3.0, 3.0)


def test_an_array_cannot_take_a_tensor_in(cpu_only):
    array = np.ones(1)
    with pytest.raises(TypeError, match=r"numpy.add was called on a Tensor"):
        array += vector(1.0)


# --- requires_grad, detach, grad ------------------------------------------------------------------


def test_requires_grad_of_leaves_constants_and_results():
    x, c = vector(1.0), tg.tensor([1.0])
    y = x * c
    assert [t.requires_grad for t in (x, c, y)] == [True, False, True]
    assert [t.is_leaf for t in (x, c, y)] == [True, True, False]
    assert c.requires_grad_() is c
    assert c.requires_grad
    c.requires_grad = False
    assert not c.requires_grad
    with pytest.raises(RuntimeError, match=r"requires_grad: wants a leaf, .* use detach\(\)"):
        y.requires_grad = False


def test_asking_twice_keeps_the_gradient():
    x = vector(2.0)
    (x * x).backward()
    x.requires_grad_()
    assert_values(x.grad, 4.0)


def test_detach_shares_the_array_and_leaves_the_graph():
    x = vector(2.0)
    y = (x * x).detach()
    assert not y.requires_grad
    assert x.detach().data is x.data
    assert_values(tg.grad(x * x.detach(), x)[0], 2.0)


def test_grad_can_be_set_to_a_tensor_like_the_leaf():
    x = vector(1.0, 2.0)
    x.grad = tg.tensor(np.array([3.0, 4.0]))
    assert_values(x.grad, 3.0, 4.0)
    (x * 1.0).sum().backward()
    assert_values(x.grad, 4.0, 5.0)
    x.grad = x.grad * x  # a result is detached
    assert not x.grad.requires_grad


@pytest.mark.parametrize("shape_and_dtype", [((3,), np.float64), ((2,), np.float32), ((), float)])
def test_grad_of_another_shape_or_dtype_is_refused(shape_and_dtype):
    x = vector(1.0, 2.0)
    with pytest.raises(ValueError, match=r"grad: got float.*wants float64\[2\]"):
        x.grad = tg.tensor(np.ones(*shape_and_dtype))
    assert x.grad is None


def test_grad_is_a_tensor_at_a_leaf():
    x = vector(1.0)
    for target, value in ((x, np.ones(1)), (x * 1.0, x.detach()), (tg.tensor([1.0]), x.detach())):
        with pytest.raises(TypeError, match="grad: got"):
            target.grad = value
    tg.tensor([1.0]).grad = None


# --- Creation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        *[(1.0, np.float32), ([1.0, 2.0], np.float32), ([[1, 2.0]], np.float32), ([], np.float32)],
        *[(1, np.int64), ([1, 2], np.int64), (True, bool), ([True], bool)],
        *[(np.float64(1), np.float64), (np.float16(1), np.float16), (np.int8(1), np.int8)],
        *[(np.ones(2), np.float64), (np.ones(2, np.float16), np.float16)],
    ],
    ids=repr,
)
def test_python_floats_become_float32_integers_int64_and_arrays_keep_their_dtype(data, dtype):
    t = tg.tensor(data)
    assert t.dtype == dtype
    assert t.shape == np.shape(data)
    np.testing.assert_array_equal(host(t), data)
    assert tg.tensor(data, dtype=np.float16).dtype == np.float16


def test_new_tensors_are_on_the_device_of_the_run(request):
    device = "cpu" if request.config.getoption("--device") == "cpu" else "cuda:0"
    made = [tg.tensor(1.0), tg.tensor(np.ones(2)), tg.zeros(2), tg.ones(2), tg.full(2, 3)]
    made += [tg.arange(3), tg.rand(2), tg.randn(2), tg.zeros_like(made[0]), vector(1.0)]
    made += [tg.Tensor([1.0]), nn.Linear(1, 1).weight, made[0] * 2.0 + [1.0]]
    assert {t.device for t in made} == {device}


def test_a_tensor_of_a_buffer_owns_a_copy_and_keeps_its_dtype(cpu_only):
    array = np.ones(2)
    t = tg.tensor(memoryview(array))
    array[0] = 7.0
    assert_values(t, 1.0, 1.0)
    assert t.dtype == np.float64


def test_a_tensor_owns_a_copy():
    array = np.ones(2)
    t = tg.tensor(array)
    array[0] = 5.0
    assert_values(t, 1.0, 1.0)
    assert not share_memory(tg.tensor(t), t)
    with pytest.raises(RuntimeError, match=r"copy its detach\(\)"):
        tg.tensor(vector(1.0))  # which would leave the graph


def test_filled_tensors():
    assert_close(tg.zeros((2, 3)), np.zeros((2, 3), np.float32))
    assert_close(tg.ones(2, dtype=np.int64), np.ones(2, np.int64))
    assert_close(tg.full((), 2.5), np.array(2.5, np.float32))
    assert tg.ones(2, requires_grad=True).requires_grad
    like = tg.tensor(np.ones((2, 0), np.float16))
    assert_close(tg.zeros_like(like), np.zeros((2, 0), np.float16))
    assert_close(tg.ones_like(like), np.ones((2, 0), np.float16))


def test_arange():
    assert_close(tg.arange(3), np.arange(3))
    assert_close(tg.arange(1, 7, 2), np.array([1, 3, 5]))
    assert_close(tg.arange(5, step=2), np.array([0, 2, 4]))
    assert_close(tg.arange(0.0, 1.0, 0.25), np.array([0, 0.25, 0.5, 0.75], np.float32))
    assert tg.arange(3, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("make", [tg.randn, tg.rand])
def test_a_seed_gives_the_same_numbers_on_every_device(make):
    tg.manual_seed(3)
    first, second = make(2, 3), make((2, 3))
    tg.manual_seed(3)
    again = make(2, 3, device="cpu")
    np.testing.assert_array_equal(host(first), host(again))
    assert not np.array_equal(host(first), host(second))
    assert first.dtype == np.float32
    assert make(2, dtype=np.float64).dtype == np.float64
    assert make(2, requires_grad=True).requires_grad
    assert make().shape == ()


@pytest.mark.parametrize("values", ["text", ["a"], [None], np.array(["a"]), np.array([None])])
def test_data_that_is_no_number_is_refused(values):
    with pytest.raises(TypeError, match=r"data: got .*, wants real numbers"):
        tg.tensor(values)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CPU"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=r'device: got .*, wants "cpu", "cuda" or "cuda:N"'):
        tg.zeros(1, device=name)
    with pytest.raises(ValueError, match=r'device: got .*, wants "cpu", "cuda" or "cuda:N"'):
        tg.zeros(1).to(name)
