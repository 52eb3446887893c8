"""Layers without statistics: linear, dropout, embedding; lists of modules."""

import numpy as np
import pytest
from helpers import grid, host, leaf, on_device

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.backend import is_array
from tinygrad_bn.check import gradcheck, gradgradcheck


def test_linear_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"linear\(float32\[2, 3\].*, None\): wants input"):
        F.linear(tg.ones((2, 3)), tg.ones((4, 2)))
    with pytest.raises(ValueError, match=r"weight \(m, n\), and bias \(m,\)"):
        F.linear(tg.ones((2, 3)), tg.ones((4, 3)), tg.ones(3))


WHOLE = {
    "Linear": lambda n: nn.Linear(n, n),
    "Embedding": lambda n: nn.Embedding(n, n, padding_idx=n - 1),
    "Conv1d": lambda n: nn.Conv1d(n, n, n, n, n, n, n),
    "MaxPool2d": lambda n: nn.MaxPool2d(n),
    "AvgPool1d": lambda n: nn.AvgPool1d((n,)),
    "AdaptiveAvgPool2d": lambda n: nn.AdaptiveAvgPool2d((n, None)),
    "GroupNorm": lambda n: nn.GroupNorm(n, n),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_sizes_are_whole_numbers_of_python_or_numpy_and_no_booleans(make):
    assert repr(make(np.int64(3))).replace("np.int64(3)", "3") == repr(make(3))
    with pytest.raises(ValueError, match=r"got True, wants a whole number ≥ \d"):
        make(True)


# --- Dropout --------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_drops_the_share_it_says():
    tg.manual_seed(0)
    y = host(F.dropout(tg.ones(100_000), p=0.2))
    assert set(y.tolist()) == {0.0, 1.25}
    assert (y == 0).mean() == pytest.approx(0.2, abs=0.01)


def test_in_evaluation_and_with_p_zero_dropout_is_the_input_itself():
    x = tg.ones(3)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert nn.Dropout().eval()(x) is x
    assert is_array(F.dropout([1.0, 2.0], training=False))


def test_with_p_one_dropout_leaves_nothing_and_no_gradient():
    x = leaf(np.array([1.0, np.inf, np.nan]))
    y = F.dropout(x, 1.0)
    y.sum().backward()
    assert host(y).tolist() == host(x.grad).tolist() == [0, 0, 0]


def test_dropouts_gradient_is_its_mask_and_its_second_derivative_zero():
    def dropped(x):
        tg.manual_seed(1)
        return F.dropout(x, 0.4)

    x = leaf(grid((4, 5)))
    assert gradcheck(dropped, [x])
    assert gradgradcheck(dropped, [x])
    (gradient,) = tg.grad(dropped(x).sum(), x)
    np.testing.assert_array_equal(host(gradient), (host(dropped(x)) != 0) / 0.6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)])
def test_dropout_keeps_dtype_and_shape_and_takes_arrays(dtype, shape):
    y = F.dropout(leaf(np.ones(shape, dtype)))
    assert (y.dtype, y.shape) == (dtype, shape)
    array = F.dropout(on_device(np.ones((2, 3), dtype)))
    assert is_array(array)
    assert array.dtype == dtype


def test_a_seed_drops_the_same_on_every_device(double_only):
    masks = []
    for device in ("cpu", "cuda:0", "cuda:1"):
        tg.manual_seed(4)
        masks.append(host(nn.Dropout(0.3)(tg.ones((5, 6), device=device))))
    assert (masks[0] == masks[1]).all()
    assert (masks[0] == masks[2]).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "half"])
def test_dropout_names_a_bad_p(p):
    for make in (nn.Dropout, lambda p: F.dropout(tg.ones(2), p)):
        with pytest.raises(ValueError, match=r"p: got .*, wants a number in \[0, 1\]"):
            make(p)


HALF = np.float64(0.5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x, HALF),
        lambda x: F.leaky_relu(x, HALF),
        lambda x: F.softplus(x, HALF),
        lambda x: F.smooth_l1_loss(x, x + 1, "none", HALF),
        lambda x: F.cross_entropy(x, tg.tensor([0, 1]), label_smoothing=HALF),
    ],
    ids=["dropout", "leaky_relu", "softplus", "smooth_l1_loss", "cross_entropy"],
)
def test_a_number_of_numpys_is_as_good_as_pythons_and_changes_no_dtype(function):
    x = leaf(grid((2, 3)).astype(np.float32))
    output = function(x)
    (gradient,) = tg.grad(tg.sum(output), x)
    assert output.dtype == gradient.dtype == np.float32


# --- Embedding ------------------------------------------------------------------------------------

INDICES = np.array([[2, 0, 2], [1, 1, 2]])


def test_embedding_is_the_product_with_one_hot_rows():
    weight, index = leaf(grid((4, 2))), tg.tensor(INDICES)
    rows = F.embedding(index, weight)
    one_hot = np.eye(4)[INDICES]
    np.testing.assert_array_equal(host(rows), one_hot @ host(weight))
    seed = grid((2, 3, 2))
    (gradient,) = tg.grad(rows, weight, tg.tensor(seed))
    np.testing.assert_allclose(host(gradient), np.einsum("abn,abd->nd", one_hot, seed))
    np.testing.assert_array_equal(host(F.embedding(on_device(INDICES), weight.data)), host(rows))
    assert F.embedding(tg.tensor(3), weight).shape == (2,)
    assert host(F.embedding([1], [[1.0, 2.0], [3.0, 4.0]], 1)).tolist() == [[3, 4]]


@pytest.mark.parametrize("padding_idx", [None, 2, -2])
def test_both_orders_of_embedding_are_those_of_finite_differences(padding_idx):
    weight = leaf(grid((4, 2)))

    def rows(w):  # the padding row is a constant: it is put back for the differences
        w = w if padding_idx is None else tg.concatenate([w[:2], weight[2:3].detach(), w[3:]])
        return F.embedding(tg.tensor(INDICES), w, padding_idx)

    assert gradcheck(rows, [weight])
    assert gradgradcheck(rows, [weight])


@pytest.mark.parametrize("padding_idx", [2, -2])
def test_the_padding_row_is_read_and_gets_no_gradient(padding_idx):
    weight = leaf(grid((4, 2)))
    rows = F.embedding(tg.tensor(INDICES), weight, padding_idx)
    np.testing.assert_array_equal(host(rows), host(weight)[INDICES])
    rows.sum().backward()
    assert host(weight.grad).tolist() == [[1, 1], [2, 2], [0, 0], [0, 0]]


@pytest.mark.parametrize("wrong", [4, -1])
def test_a_number_without_a_row(wrong, request):
    index = tg.tensor([0, wrong])
    if request.config.getoption("--device") == "cpu":
        with pytest.raises(IndexError, match=rf"input: got {wrong}, wants 0 … 3"):
            F.embedding(index, tg.ones(4, 2))
    else:  # where a check would wait
        rows = host(F.embedding(index, tg.ones(4, 2)))
        assert np.isnan(rows).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: F.embedding(tg.tensor([0.5]), tg.ones(2, 2)),
            TypeError,
            r"got float32\[1\].*, wants",
        ),
        (
            lambda: F.embedding(tg.tensor([True]), tg.ones(2, 2)),
            TypeError,
            r"got bool\[1\].*, wants",
        ),
        (
            lambda: F.embedding(tg.tensor([0]), tg.ones(2, 2), 2),
            ValueError,
            "padding_idx: got 2, wants one of 2",
        ),
        (lambda: F.embedding(tg.tensor([0]), tg.ones(2, 2), -3), ValueError, "padding_idx: got -3"),
        (
            lambda: nn.Embedding(2, 2, padding_idx=1.5),
            ValueError,
            "padding_idx: got 1.5, wants a w",
        ),
        (lambda: nn.Embedding(2, 2, padding_idx=-3), ValueError, "padding_idx: got -3"),
        (lambda: nn.Embedding(2.0, 2), ValueError, "num_embeddings: got 2.0"),
        (lambda: nn.Embedding(2, -1), ValueError, "embedding_dim: got -1"),
    ],
)
def test_embedding_names_the_bad_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_embedding_starts_normal_with_padding_at_zero_which_training_leaves():
    tg.manual_seed(0)
    layer = nn.Embedding(200, 50, padding_idx=-1, dtype=np.float64)
    start = host(layer.weight)
    assert layer.padding_idx == 199
    assert (start[199] == 0).all()
    assert start[:199].std() == pytest.approx(1, abs=0.05)
    optimizer = tg.optim.AdamW(layer.parameters(), lr=0.1)
    layer(tg.tensor([1, 199])).sum().backward()
    optimizer.step()
    assert (host(layer.weight)[199] == 0).all()
    assert (host(layer.weight)[1] != start[1]).all()
    assert list(layer.state_dict()) == ["weight"]
    assert repr(layer) == "Embedding(200, 50, padding_idx=199)"


# --- Modules in order -----------------------------------------------------------------------------


def test_identity_takes_any_arguments_and_hands_its_input_on():
    x = tg.ones(2)
    assert nn.Identity(3, bias=False)(x) is x


def test_a_module_list_holds_modules_and_runs_none():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Tanh()])
    assert layers.append(nn.ReLU()).extend([nn.Sigmoid()]) is layers
    assert [type(m) for m in layers] == [nn.Linear, nn.Tanh, nn.ReLU, nn.Sigmoid]
    assert (len(layers), layers[-1]) == (4, layers[3])
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    part = layers[1:3]
    assert isinstance(part, nn.ModuleList)
    assert [name for name, _ in part.named_children()] == ["0", "1"]
    assert repr(part) == "ModuleList(\n  (0): Tanh()\n  (1): ReLU()\n)"
    with pytest.raises(NotImplementedError, match="ModuleList does not define forward"):
        layers(tg.ones(2))
    with pytest.raises(TypeError, match="module 4: got function, wants a Module"):
        layers.append(lambda x: x)


def test_a_sequential_can_be_empty_and_names_are_not_taken_twice():
    x = tg.ones(2)
    assert nn.Sequential()(x) is nn.Sequential({})(x) is nn.Sequential(nn.Tanh())[1:](x) is x
    tail = nn.Sequential(nn.Tanh(), nn.ReLU())[1:]  # its only module is named "1"
    with pytest.raises(ValueError, match="module 1: there is one of this name"):
        tail.append(nn.Tanh())


@pytest.mark.parametrize("dtype", [int, "int32", bool])
def test_weights_are_floating_point(dtype):
    for make in (lambda: nn.Linear(2, 2, dtype=dtype), lambda: nn.Conv2d(1, 1, 2, dtype=dtype)):
        with pytest.raises(TypeError, match=r"dtype: got .*, wants floating point"):
            make()
