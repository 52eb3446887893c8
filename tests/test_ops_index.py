"""Indexing: what counts as an index, what repeats, and what leaves or enters through one."""

import numpy as np
import pytest
from helpers import host, leaf, on_device

import tinygrad_bn as tg

X = np.arange(1.0, 7.0).reshape(3, 2)


def times_read(read):
    """The gradient at X of the sum of what `read` reads: how often each element was read."""
    x = leaf(X)
    return host(tg.grad(tg.sum(read(x)), x)[0])


REPEATED = {
    "a list": lambda: [0, 0, 2],
    "an array": lambda: on_device(np.array([0, 0, 2])),
    "negative and positive": lambda: on_device(np.array([0, -3, 2])),
    "a Tensor": lambda: tg.tensor([0, 0, 2]),
    "a tuple with a list": lambda: ([0, 0, 2], slice(None)),
    "a tuple with a Tensor": lambda: (tg.tensor([0, 0, 2]), slice(None)),
    "a tuple in a tuple": lambda: ((0, 0, 2), slice(None)),
    "unsigned": lambda: on_device(np.array([0, 0, 2], np.uint8)),
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("read", ["x[index]", "getitem(x, index)"])
def test_a_place_that_is_read_twice_gets_both_gradients(name, read):
    index = REPEATED[name]()
    counts = times_read(lambda x: x[index] if read == "x[index]" else tg.getitem(x, index))
    np.testing.assert_array_equal(counts, [[2, 2], [0, 0], [1, 1]])


@pytest.mark.parametrize(
    "mask", [X[:, 0] > 2, X > 2, np.zeros(3, bool), np.ones((3, 2), bool)], ids=str
)
@pytest.mark.parametrize("kind", [on_device, tg.tensor, np.ndarray.tolist])
def test_a_mask_reads_each_of_its_places_once(mask, kind):
    x = leaf(X)
    np.testing.assert_array_equal(host(x[kind(mask)]), X[mask])
    wanted = np.broadcast_to(mask.reshape(3, -1), X.shape)
    np.testing.assert_array_equal(times_read(lambda x: x[kind(mask)]), wanted)


def test_a_comparison_of_the_tensor_is_a_mask_of_it():
    np.testing.assert_array_equal(times_read(lambda x: x[x > 2]), X > 2)


def test_several_index_arrays_are_broadcast_against_each_other():
    rows, columns = on_device(np.array([[0], [2]])), on_device(np.array([1, 1, 0]))
    np.testing.assert_array_equal(host(leaf(X)[rows, columns]), [[2, 2, 1], [6, 6, 5]])
    counts = times_read(lambda x: x[rows, columns])
    np.testing.assert_array_equal(counts, [[1, 2], [0, 0], [1, 2]])


def test_an_empty_list_reads_nothing():
    assert leaf(X)[[]].shape == (0, 2)
    np.testing.assert_array_equal(times_read(lambda x: x[[]]), np.zeros((3, 2)))


def test_numpy_integers_are_integers():
    np.testing.assert_array_equal(times_read(lambda x: x[np.int64(1)]), [[0, 0], [1, 1], [0, 0]])


def test_a_tensor_of_one_integer_is_an_integer():
    np.testing.assert_array_equal(host(leaf(X)[tg.tensor(1)]), X[1])


def test_the_second_derivative_of_what_is_read_twice():
    x = leaf(X)
    y = x[[0, 0, 2]]
    (dx,) = tg.grad(tg.sum(y * y * y), x, create_graph=True)
    (ddx,) = tg.grad(tg.sum(dx), x)
    np.testing.assert_array_equal(host(ddx), 6 * X * [[2], [0], [1]])


@pytest.mark.parametrize("index", [[1.0], np.array([1.0]), np.array(["a"])], ids=repr)
def test_an_index_that_is_no_number_is_refused(index, cpu_only):
    with pytest.raises(IndexError, match=r"getitem\(.*must be of integer \(or boolean\) type"):
        leaf(X)[index]


def test_an_index_on_another_device_is_refused(double_only):
    with pytest.raises(ValueError, match=r"index: got int64\[1\], wants it on cuda:0"):
        leaf(X)[np.array([0])]


def test_scatter_add_adds_what_is_put_in_one_place():
    values = leaf(np.array([1.0, 2.0, 4.0]))
    index = on_device(np.array([1, 1, 0]))
    total = tg.scatter_add(values, index=index, shape=(3,))
    np.testing.assert_array_equal(host(total), [4.0, 3.0, 0.0])
    (g,) = tg.grad(total, values, tg.tensor(np.array([10.0, 20.0, 30.0])))
    np.testing.assert_array_equal(host(g), [20.0, 20.0, 10.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scatter_add_keeps_the_dtype(dtype):
    values = leaf(np.ones(3, dtype))
    assert tg.scatter_add(values, index=on_device(np.array([0, 0, 1])), shape=(2,)).dtype == dtype


def test_split_is_the_inverse_of_concatenate():
    parts = tg.split(leaf(X), [1], axis=0)
    assert [part.shape for part in parts] == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(host(tg.concatenate(parts)), X)


def test_split_takes_a_numpy_integer():
    assert [part.shape for part in tg.split(leaf(X), np.int64(3))] == [(1, 2)] * 3


@pytest.mark.parametrize("sections", [0, -1, 2])
def test_split_into_what_does_not_divide_is_refused(sections):
    with pytest.raises(ValueError, match=f"split: sections: got {sections}, wants a divisor of 3"):
        tg.split(leaf(X), sections)


def test_concatenate_gives_each_array_its_part_and_constants_none():
    x, y = leaf(X), leaf(X + 10)
    joined = tg.concatenate([x, np.ones((1, 2)) if x.device == "cpu" else tg.ones((1, 2)), y])
    seed = np.arange(14.0).reshape(7, 2)
    gx, gy = tg.grad(joined, [x, y], tg.tensor(seed))
    np.testing.assert_array_equal(host(gx), seed[:3])
    np.testing.assert_array_equal(host(gy), seed[4:])


def test_an_index_that_is_changed_later_changes_no_gradient():
    x, index = leaf(np.arange(3.0)), np.array([0, 0])
    given = tg.tensor(index).data
    y = x[given]
    given[...] = 2
    assert host(tg.grad(y.sum(), x)[0]).tolist() == [2, 0, 0]
