"""Losses and activations by PyTorch's names (their numbers are held against PyTorch's in
test_golden): bad input, and what PyTorch does not do."""

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F

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
        ({"target": [0, 3]}, ValueError, r"target: got class 3, wants 0 … 2"),
        ({"target": [0, -1]}, ValueError, r"target: got class -1"),
        ({"target": [0]}, ValueError, r"target: got int64\[1\], wants integers of shape \(2,\)"),
        ({"target": [True, False]}, ValueError, "target: got bool"),
        ({"target": [[0.5, 0.5]]}, ValueError, r"target: got shape \(1, 2\)"),
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


def test_mse_loss_wants_one_shape():
    with pytest.raises(ValueError, match=r"target: got shape \(3,\), wants that of input, \(2,\)"):
        F.mse_loss(tg.ones(2), tg.ones(3))
    with pytest.raises(ValueError, match="reduction: got 'max'"):
        F.mse_loss(tg.ones(2), tg.ones(2), reduction="max")


def test_linear_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"linear\(float32\[2, 3\].*, None\): weight"):
        F.linear(tg.ones((2, 3)), tg.ones((4, 2)))
    with pytest.raises(ValueError, match="bias: wants shape"):
        F.linear(tg.ones((2, 3)), tg.ones((4, 3)), tg.ones(3))


def test_a_label_out_of_range_on_a_gpu_is_nan_without_waiting(request):
    if request.config.getoption("--device") == "cpu":
        pytest.skip("on the CPU it raises: see test_cross_entropy_names_the_bad_argument")
    loss = F.cross_entropy(tg.tensor(LOGITS), tg.tensor([0, 3]))
    assert np.isnan(host(loss))
