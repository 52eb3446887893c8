"""Losses (their numbers are held against PyTorch's in test_golden_losses): derivatives by finite
differences, extreme and bad input, losses as modules."""

import functools

import numpy as np
import pytest
from helpers import grid, host, leaf, on_device

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import gradcheck, gradgradcheck

bce = F.binary_cross_entropy_with_logits
LOGITS = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 0.0]])


def test_an_ignored_target_gives_no_gradient_even_where_the_logits_are_infinite():
    logits = LOGITS.copy()
    logits[0, 1] = -np.inf
    x = leaf(logits)
    loss = F.cross_entropy(x, tg.tensor([0, -100]))
    loss.backward()
    assert np.isfinite(host(loss))
    assert host(x.grad)[1].tolist() == [0, 0, 0]
    assert np.isfinite(host(x.grad)).all()


def test_large_logits_neither_overflow_nor_lose_the_loss():
    x = leaf(np.array([[1000.0, 0.0], [-1000.0, 0.0]], np.float32))
    loss = F.cross_entropy(x, tg.tensor([1, 0]))
    loss.backward()
    assert host(loss) == 1000
    np.testing.assert_allclose(host(x.grad), [[0.5, -0.5], [-0.5, 0.5]])


def test_the_loss_keeps_the_dtype_of_the_logits():
    for dtype in (np.float16, np.float32, np.float64):
        x = leaf(LOGITS.astype(dtype))
        for options in ({}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
            assert F.cross_entropy(x, tg.tensor([0, 2]), **options).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"target": [0, 3]}, ValueError, r"^target: got class 3, wants 0 … 2"),
        ({"target": [0, -1]}, ValueError, r"target: got class -1"),
        ({"target": [0]}, ValueError, r"target: got int64\[1\], wants integers of shape \(2,\)"),
        ({"target": [True, False]}, ValueError, "target: got bool"),
        (
            {"target": [[0.5, 0.5]]},
            ValueError,
            r"target: got float.*probabilities of shape",
        ),
        ({"weight": [1.0, 2.0]}, ValueError, r"weight: got shape \(2,\), wants \(3,\)"),
        ({"reduction": "average"}, ValueError, "reduction: got 'average'"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: got 1.5"),
        ({"label_smoothing": float("nan")}, ValueError, "label_smoothing: got nan"),
        ({"input": [[1, 2, 3], [4, 5, 6]]}, TypeError, "input: got int64"),
        ({"input": 1.0}, TypeError, "input: got float32"),
    ],
)
def test_cross_entropy_names_the_bad_argument(changes, error, message, cpu_only):
    arguments = {"input": LOGITS, "target": [0, 2]} | changes
    tensors = ("input", "target", "weight")
    arguments = {k: tg.tensor(v) if k in tensors else v for k, v in arguments.items()}
    with pytest.raises(error, match=message):
        F.cross_entropy(**arguments)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.kl_div])
@pytest.mark.parametrize("value", [None, "ab", [None]])
def test_what_is_no_array_is_named(loss, value):
    given = {"input": tg.tensor(LOGITS), "target": tg.tensor([0, 2])}
    for name in given:
        with pytest.raises(TypeError, match=rf"^{name}: got .*, wants real numbers"):
            loss(**given | {name: value})


def test_a_label_out_of_range_on_a_gpu_is_nan_without_waiting(request):
    if request.config.getoption("--device") == "cpu":
        pytest.skip("on the CPU it raises: see test_cross_entropy_names_the_bad_argument")
    loss = F.cross_entropy(tg.tensor(LOGITS), tg.tensor([0, 3]))
    assert np.isnan(host(loss))


def test_classes_on_a_device_that_is_not_the_current_one(double_only):
    logits = tg.tensor(LOGITS, device="cuda:1", requires_grad=True)
    loss = F.cross_entropy(logits, tg.tensor([0, 2], device="cuda:1"))
    loss.backward()
    assert loss.device == logits.grad.device == "cuda:1"


PAIRS = {
    "mse_loss": F.mse_loss,
    "l1_loss": F.l1_loss,
    "smooth_l1_loss": F.smooth_l1_loss,
    "smooth_l1_loss beta": lambda x, y: F.smooth_l1_loss(x, y, beta=0.3),
    "bce": bce,
    "bce weights": lambda x, y: bce(x, y, on_device(WEIGHTS), "sum", on_device(WEIGHTS) * 2),
    "kl_div": lambda x, y: F.kl_div(x, y, "batchmean"),
    "kl_div log": lambda x, y: F.kl_div(x, y, "sum", log_target=True),
    "cross_entropy": F.cross_entropy,
}
WEIGHTS = np.array([0.5, 1.0, 2.0])
every_pair = pytest.mark.parametrize("loss", PAIRS.values(), ids=PAIRS)


@every_pair
def test_both_orders_are_those_of_finite_differences_to_input_and_target(loss):
    inputs = [leaf(grid((2, 3))), leaf(grid((2, 3), 0.2, 0.9, seed=1))]
    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


@every_pair
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_on_arrays_a_loss_is_the_same_number_and_has_their_dtype(loss, dtype):
    x, y = grid((2, 3)).astype(dtype), grid((2, 3), 0.2, 0.9, seed=1).astype(dtype)
    recorded = loss(leaf(x), tg.tensor(y))
    computed = loss(on_device(x), on_device(y))
    assert not isinstance(computed, tg.Tensor)
    assert host(computed) == host(recorded)
    if loss is not PAIRS["bce weights"]:  # whose weights are float64
        assert computed.dtype == recorded.dtype == dtype


@every_pair
def test_input_and_target_want_one_shape(loss):
    with pytest.raises(ValueError, match=r"target: got .*\(2, 3\)"):
        loss(tg.ones(2, 3), tg.ones(2, 1))


PAIRED = [F.mse_loss, F.l1_loss, F.smooth_l1_loss, bce, F.kl_div]
MODULES = [nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss, nn.KLDivLoss]


@pytest.mark.parametrize("loss", PAIRED)
def test_an_unknown_reduction_is_named(loss):
    with pytest.raises(ValueError, match=r"reduction: got 'max', wants one of .*mean, sum, none"):
        loss(tg.ones(2), tg.ones(2), reduction="max")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
@pytest.mark.parametrize("loss", PAIRED)
def test_the_input_of_two_arrays_is_floating_point(loss, dtype):
    x = tg.tensor(np.array([1, 0], dtype))
    with pytest.raises(TypeError, match=r"input: got .*\[2\].*, wants floating point"):
        loss(x, x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_whole_weights_of_binary_cross_entropy_are_numbers_of_the_inputs_dtype(dtype):
    x, y = tg.tensor(grid((2, 3)).astype(np.float32)), tg.ones(2, 3)
    weight = np.array([0, 1, 3])
    whole, wanted = tg.tensor(weight.astype(dtype)), tg.tensor(weight.astype(np.float32))
    loss = bce(x, y, whole, pos_weight=whole)
    assert loss.dtype == np.float32
    assert host(loss) == host(bce(x, y, wanted, pos_weight=wanted))


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, F.l1_loss])
def test_float16_differences_are_rounded_once(loss):
    x = np.array([300, -0.37, 0.1234, 4e-4], np.float16)
    y = np.array([-1, 0.11, -0.77, 1e-4], np.float16)
    options = {"beta": 1000.0} if loss is F.smooth_l1_loss else {}
    wide = [tg.tensor(array.astype(np.float32)) for array in (x, y)]
    for reduction in ("none", "mean"):
        with np.errstate(over="ignore"):  # the first square is no float16
            got = host(loss(leaf(x), tg.tensor(y), reduction, **options))
            wanted = host(loss(*wide, reduction, **options)).astype(np.float16)
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("target", [np.array([[0.5, 0.5]]), np.array([0.0]), np.array([True])])
def test_the_target_of_nll_loss_is_no_probabilities(target):
    with pytest.raises(TypeError, match=r"target: got .*, wants integers"):
        F.nll_loss(tg.zeros(1, 2), tg.tensor(target))


@pytest.mark.parametrize("labels", [[1, 0], [True, False]])
def test_whole_labels_are_numbers_of_the_inputs_dtype(labels):
    logits = tg.tensor([0.5, -1.0])
    loss = bce(logits, tg.tensor(labels))
    assert loss.dtype == np.float32
    assert host(loss) == host(bce(logits, tg.tensor([1.0, 0.0])))


def test_the_mean_of_many_float16_losses_is_finite():
    x = tg.tensor(np.full((70_000, 2), -2, np.float16))
    y, labels = tg.ones_like(x), tg.tensor(np.zeros(70_000, np.int64))
    assert host(F.mse_loss(x, y)) == 9
    assert host(F.l1_loss(x, y)) == 3
    assert host(F.nll_loss(x, labels)) == 2
    assert host(F.cross_entropy(x, labels)) == np.float16(np.log(2))


def test_binary_cross_entropy_of_large_logits_neither_overflows_nor_loses_the_loss():
    x = leaf(np.array([1000.0, -1000.0, 1000.0, -1000.0], np.float32))
    losses = bce(x, tg.tensor([0, 1, 1, 0]), reduction="none")
    losses.sum().backward()
    assert host(losses).tolist() == [1000, 1000, 0, 0]
    assert host(x.grad).tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_weights_that_do_not_fit_the_input_are_refused(name):
    column = tg.ones(3, 1)
    with pytest.raises(ValueError, match=r"weight: made of \(3,\) a loss of \(3, 3\)"):
        bce(tg.ones(3), tg.ones(3), **{name: column})


def test_smooth_l1_of_large_differences_and_its_curvature_at_zero():
    x = leaf(np.array([0.0, 1e30, -np.inf], np.float32))
    losses = F.smooth_l1_loss(x, tg.zeros(3), reduction="none", beta=0.5)
    (slope,) = tg.grad(losses.sum(), x, create_graph=True)
    (curvature,) = tg.grad(slope.sum(), x)
    assert host(losses).tolist() == [0, np.float32(1e30), np.inf]
    assert host(slope).tolist() == [0, 1, -1]
    assert host(curvature).tolist() == [2, 0, 0]


@pytest.mark.parametrize("beta", [-1, float("nan"), float("inf"), "1"])
def test_smooth_l1_names_a_bad_beta(beta):
    with pytest.raises(ValueError, match="beta: got"):
        F.smooth_l1_loss(tg.ones(2), tg.ones(2), beta=beta)


@pytest.mark.parametrize("log_target", [False, True])
def test_a_probability_of_zero_adds_nothing_to_kl_div_even_where_the_model_agrees(log_target):
    q = leaf(np.array([[-np.inf, 0.0], [-np.inf, np.log(0.5)]]))
    p = leaf(
        np.array([[0.0, 1.0], [0.0, 1.0]]) if not log_target else np.array([[-np.inf, 0.0]] * 2)
    )
    loss = F.kl_div(q, p, reduction="batchmean", log_target=log_target)
    loss.backward()
    assert host(loss) == pytest.approx(np.log(2) / 2)
    assert host(q.grad).tolist() == [[0, -0.5], [0, -0.5]]
    assert np.isfinite(host(p.grad)).all()


def test_kl_div_of_a_distribution_the_model_rules_out_is_infinite():
    assert host(F.kl_div(tg.tensor([-np.inf, 0.0]), tg.tensor([0.5, 0.5]), "sum")) == np.inf


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll_loss_of_log_softmax_is_cross_entropy(reduction):
    logits, target, weight = (
        leaf(grid((4, 3, 2))),
        [[0, 2], [1, -1], [2, 2], [0, 1]],
        [1.0, 2.0, 0.5],
    )
    options = {"weight": tg.tensor(weight), "ignore_index": -1, "reduction": reduction}
    log_probabilities = F.log_softmax(logits, 1)
    np.testing.assert_allclose(
        host(F.nll_loss(log_probabilities, tg.tensor(target), **options)),
        host(F.cross_entropy(logits, tg.tensor(target), **options)),
        rtol=1e-14,
    )


# --- Losses as modules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (functools.partial(module, reduction="max"), "reduction: got 'max'")
            for module in MODULES
        ],
        (lambda: nn.MSELoss("batchmean"), "reduction: got 'batchmean', wants one of mean, sum, no"),
        (lambda: nn.CrossEntropyLoss(reduction="max"), "reduction: got 'max'"),
        (lambda: nn.NLLLoss(reduction="max"), "reduction: got 'max'"),
        (lambda: nn.SmoothL1Loss(beta=-1), "beta: got -1, wants a number ≥ 0"),
        (
            lambda: nn.CrossEntropyLoss(label_smoothing=2),
            "label_smoothing: got 2, wants a number in",
        ),
    ],
)
def test_a_module_names_the_bad_argument_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.MSELoss(reduction="sum"), lambda x, y: F.mse_loss(x, y, "sum")),
        (nn.L1Loss(reduction="none"), lambda x, y: F.l1_loss(x, y, "none")),
        (nn.SmoothL1Loss(beta=0.25), lambda x, y: F.smooth_l1_loss(x, y, beta=0.25)),
        (nn.KLDivLoss(reduction="batchmean"), lambda x, y: F.kl_div(x, y, "batchmean")),
        (nn.KLDivLoss(log_target=True), lambda x, y: F.kl_div(x, y, log_target=True)),
        (nn.BCEWithLogitsLoss(reduction="sum"), lambda x, y: bce(x, y, reduction="sum")),
        (
            nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1),
            lambda x, y: F.cross_entropy(x, y, reduction="sum", label_smoothing=0.1),
        ),
    ],
)
def test_a_module_computes_its_function(module, wanted):
    x, y = leaf(grid((2, 3))), tg.tensor(grid((2, 3), 0.2, 0.9))
    assert (host(module(x, y)) == host(wanted(x, y))).all()
    assert module.state_dict() == {}


@pytest.mark.parametrize(
    ("module", "function"), [(nn.CrossEntropyLoss, F.cross_entropy), (nn.NLLLoss, F.nll_loss)]
)
def test_class_weights_are_buffers(module, function):
    weight = tg.tensor(WEIGHTS)
    layer = module(weight, ignore_index=1)
    x, y = leaf(grid((2, 3))), tg.tensor([1, 2])
    assert host(layer(x, y)) == host(function(x, y, weight, ignore_index=1))
    assert list(layer.state_dict()) == ["weight"]
    assert list(layer.parameters()) == []


def test_the_weights_of_binary_cross_entropy_are_buffers():
    layer = nn.BCEWithLogitsLoss(tg.tensor(WEIGHTS), pos_weight=tg.tensor(WEIGHTS * 2))
    x, y = leaf(grid((2, 3))), tg.tensor(grid((2, 3), 0.2, 0.9))
    assert host(layer(x, y)) == host(bce(x, y, tg.tensor(WEIGHTS), "mean", tg.tensor(WEIGHTS * 2)))
    assert list(layer.state_dict()) == ["weight", "pos_weight"]
    with pytest.raises(TypeError, match="pos_weight: got list, wants a Tensor or None"):
        nn.BCEWithLogitsLoss(pos_weight=[1.0])
