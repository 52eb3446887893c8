"""The training loop, its data and its progress."""

import builtins
import math
import sys

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn, train
from tinygrad_bn.train.models import Between, mlp


def small_network():
    tg.manual_seed(0)
    return mlp((2,), 2, Between("batch"), width=16, depth=2)


def quick_fit(model, x, y, **changes):
    options = {"epochs": 5, "batch_size": 20, "lr": 0.1, "momentum": 0.9, "seed": 0, **changes}
    return train.fit(model, x, y, **options)


@pytest.fixture
def missing(monkeypatch):
    """Makes imports of a package fail as if it were not installed."""

    def block(package):
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name.split(".")[0] == package:
                raise ImportError(f"No module named {name!r}")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return block


# --- Data -----------------------------------------------------------------------------------------


def test_disc_is_half_of_the_square_standardized():
    x, labels = train.disc(20_000, seed=1)
    assert x.shape == (20_000, 2)
    assert (x.dtype, labels.dtype) == (np.float32, np.int64)
    assert abs(x.mean()) < 1e-6
    assert abs(x.std() - 1) < 1e-6
    assert abs(labels.mean() - 0.5) < 0.02
    radius_squared = (x.astype(float) ** 2).sum(1) / 3  # the square's variance is 1/3
    apart = abs(radius_squared - 2 / math.pi) > 0.02  # its sample's mean is not quite 0
    np.testing.assert_array_equal(labels[apart], (radius_squared < 2 / math.pi)[apart])


def test_disc_is_its_seed():
    first, again, other = (train.disc(50, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_disc_of_no_points_is_refused():
    with pytest.raises(ValueError, match="n: got 0"):
        train.disc(0, seed=0)


def test_digits_are_all_there_once():
    (x, labels), (x_test, labels_test) = train.digits(seed=0)
    assert (x.shape, x_test.shape) == ((1437, 64), (360, 64))
    assert (x.dtype, labels.dtype) == (np.float32, np.int64)
    assert (x.min(), x.max()) == (0, 1)
    assert np.bincount(np.concatenate([labels, labels_test])).sum() == 1797
    assert set(labels) == set(labels_test) == set(range(10))
    np.testing.assert_array_equal(train.digits(seed=0)[0][0], x)
    assert not np.array_equal(train.digits(seed=1)[0][0], x)


def test_digits_without_scikit_learn_say_how_to_get_it(missing):
    missing("sklearn")
    with pytest.raises(RuntimeError, match=r'pip install "tinygrad_bn\[train\]"'):
        train.digits(seed=0)


def test_batches_hold_every_row_once_in_a_new_order_each_epoch():
    x, generator = np.arange(37), np.random.default_rng(0)
    epochs = [list(train.batches(x, -x, 10, generator)) for _ in range(2)]
    for epoch in epochs:
        assert [len(inputs) for inputs, _ in epoch] == [9, 9, 9, 10]  # no small last one
        assert all(np.array_equal(inputs, -targets) for inputs, targets in epoch)
        assert sorted(np.concatenate([inputs for inputs, _ in epoch])) == list(x)
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])


def test_batches_refuse_what_does_not_pair():
    with pytest.raises(ValueError, match="y: got 2 rows, wants 3"):
        next(train.batches(np.zeros(3), np.zeros(2), 1, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="size: got 0"):
        next(train.batches(np.zeros(3), np.zeros(3), 0, np.random.default_rng(0)))


# --- The loop -------------------------------------------------------------------------------------


def test_fit_learns_the_disc():
    x, y = train.disc(600, seed=0)
    model = small_network()
    before = train.error_rate(model, x[400:], y[400:])
    history = quick_fit(model, x[:400], y[:400], epochs=20)
    assert history.diverged_in is None
    assert len(history.losses) == 20
    assert history.losses[-1] < 0.6 * history.losses[0]
    assert train.error_rate(model, x[400:], y[400:]) < 0.1 < before


def test_fit_is_its_seed():
    x, y = train.disc(100, seed=0)
    first, again, other = (quick_fit(small_network(), x, y, seed=s).losses for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_fit_takes_tensors():
    x, y = train.disc(100, seed=0)
    arrays = quick_fit(small_network(), x, y)
    assert quick_fit(small_network(), tg.tensor(x), tg.tensor(y)) == arrays


def test_a_diverged_run_stops_and_has_no_error_rate():
    x, y = train.disc(100, seed=0)
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    for parameter in model.parameters():
        parameter.data = (tg.ones(parameter.shape) * 1e8).data
    history = quick_fit(model, x, y)  # and no warning of overflow, which would be an error here
    assert history == train.History((), diverged_in=1)
    assert train.error_rate(model, x, y) is None


def test_error_rate_counts_in_evaluation_mode():
    model = nn.Sequential(nn.BatchNorm1d(2))
    x, y = np.float32([[3, 1], [0, 1], [5, 2]]), np.int64([0, 1, 1])
    assert train.error_rate(model, x, y) == pytest.approx(1 / 3)
    assert model.training
    np.testing.assert_array_equal(host(model[0].running_mean), [0, 0])


X, LABELS = train.disc(40, seed=0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS[:1], r"y: got .*1.*, wants .*40"),
        (LABELS[:, None], r"y: got int64\[40, 1\], wants integers of shape \(40,\)"),
        (LABELS + 0.5, r"y: got float64\[40\], wants integers"),
        (LABELS == 1, r"y: got bool\[40\], wants integers"),
        (LABELS + 1, "^y: got class 2, wants 0 … 1$"),
        (LABELS - 1, "^y: got class -1, wants 0 … 1$"),
        (np.int64(1), r"y: got int64\[\].*, wants at least one row"),
    ],
)
@pytest.mark.parametrize("use", [quick_fit, train.error_rate])
def test_labels_that_are_none_are_refused(use, y, message):
    with pytest.raises(ValueError, match=message):
        use(small_network(), X, y)


@pytest.mark.parametrize("use", [quick_fit, train.error_rate])
def test_data_and_models_that_name_nothing_are_refused(use):
    with pytest.raises(ValueError, match=r"x: got float32\[0, 2\], wants at least one row"):
        use(small_network(), X[:0], LABELS[:0])
    with pytest.raises(ValueError, match="model: got ReLU without parameters, wants some"):
        use(nn.ReLU(), X, LABELS)
    model = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"model: got outputs float32.*, wants \(n, classes\)"):
        use(model, X, LABELS)


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_a_count_that_is_no_whole_number_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: got {value!r}, wants a whole number ≥ 1"):
        quick_fit(small_network(), X, LABELS, **{name: value})


def test_data_in_float64_is_cast_for_a_model_that_has_none():
    wide = X.astype(np.float64)
    assert quick_fit(small_network(), wide, LABELS) == quick_fit(small_network(), X, LABELS)
    assert train.error_rate(small_network(), wide, LABELS) is not None
    seen = []
    model = nn.Linear(2, 2, dtype=np.float64)
    model.register_forward_hook(lambda _module, args, _output: seen.append(args[0].dtype))
    quick_fit(model, wide, LABELS, epochs=1)
    assert set(seen) == {np.dtype(np.float64)}


def test_no_step_waits_for_the_device(double_only):
    x, y = train.disc(60, seed=0)
    waits = []
    for batch_size in (60, 10):
        double_only.stats.clear()
        quick_fit(small_network(), x, y, epochs=3, batch_size=batch_size)
        waits.append((double_only.stats["d2h"], double_only.stats["sync"]))
    assert waits == [(3, 3), (3, 3)]  # the loss, once an epoch, however many steps it has


# --- Progress -------------------------------------------------------------------------------------


def test_fit_is_silent_unless_progress_has_a_name(capsys):
    x, y = train.disc(40, seed=0)
    quick_fit(small_network(), x, y)
    assert capsys.readouterr() == ("", "")


def test_progress_is_plain_lines_when_stdout_is_no_terminal(capsys, monkeypatch):
    x, y = train.disc(40, seed=0)
    history = quick_fit(small_network(), x, y, progress="disc")
    assert capsys.readouterr() == (f"disc: 5/5, loss {history.losses[-1]:.4f}\n", "")
    monkeypatch.setattr(train.Progress, "seconds_between_lines", 0.0)
    quick_fit(small_network(), x, y, progress="disc")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"disc: {k}/5" for k in range(1, 6)]


def test_progress_says_that_a_run_diverged(capsys):
    x, y = train.disc(40, seed=0)
    quick_fit(small_network(), x, y * 0 + np.int64(1), lr=1e30, progress="disc")
    assert capsys.readouterr().out.endswith("diverged\n")


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_on_a_terminal_is_a_bar_if_there_is_tqdm(tqdm, capsys, monkeypatch, missing):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    if not tqdm:
        missing("tqdm")
    progress = train.Progress("disc", 2)
    progress.advance("loss 1")
    progress.advance("loss 0.5")
    out = capsys.readouterr().out
    assert ("\r" in out, "loss 0.5" in out) == (tqdm, True)
