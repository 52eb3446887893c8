"""The experiments that lessons and tour show: what they train, and what they measure."""

import json

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import train
from tinygrad_bn.experiments import disc, learning_rates, sigmoids
from tinygrad_bn.experiments.steps import inputs_of, steps
from tinygrad_bn.train.models import Between, mlp
from tinygrad_bn.train.summary import summarized

pytestmark = pytest.mark.usefixtures("cpu_only")


def small_network():
    tg.manual_seed(0)
    return mlp((2,), 2, Between("batch"), width=8, depth=2)


def test_steps_train_as_fit_does():
    x, y = train.disc(60, seed=0)
    by_steps, by_fit = small_network(), small_network()
    assert list(steps(by_steps, x, y, 6, lr=0.1, batch_size=20, seed=3)) == [1, 2, 3, 4, 5, 6]
    train.fit(by_fit, x, y, epochs=2, batch_size=20, lr=0.1, seed=3)
    for key, value in by_fit.state_dict().items():
        np.testing.assert_array_equal(by_steps.state_dict()[key].numpy(), value.numpy())


def test_what_is_measured_between_steps_does_not_change_the_training():
    x, y = train.disc(60, seed=0)
    watched, alone = small_network(), small_network()
    for _ in steps(watched, x, y, 4, lr=0.1, batch_size=20, seed=3):
        train.evaluate(watched, x, y)
        inputs_of(watched, 3, x)
    assert list(steps(alone, x, y, 4, lr=0.1, batch_size=20, seed=3))[-1] == 4
    for key, value in alone.state_dict().items():
        np.testing.assert_array_equal(watched.state_dict()[key].numpy(), value.numpy())


def test_inputs_behind_batch_norm_have_the_mean_and_std_of_this_batch():
    x, _ = train.disc(60, seed=0)
    relu = 3  # behind Flatten, Linear and BatchNorm1d
    inputs = inputs_of(small_network(), relu, 5 * x + 2)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize(("start", "kept"), [("with", True), ("overwritten", False)])
def test_gamma_and_beta_are_kept_or_overwritten(start, kept):
    norm = disc.network(start, std=3.0)[2]
    assert (set(norm.weight.tolist()) == {1.0}) is kept
    assert (set(norm.bias.tolist()) == {0.0}) is kept


def test_only_the_starts_that_are_asked_for_are_trained():
    trained = disc.train((0.2,), networks=2, epochs=1, seed=0, starts=("without",))
    assert list(trained) == ["without"]
    assert len(trained["without"][0.2]) == 2


def test_no_network_of_which_one_diverged_has_learned():
    assert summarized([0.1, 0.2], learned_below=0.25)["learns"]
    assert not summarized([0.1, None], learned_below=0.25)["learns"]
    assert not summarized([None, None], learned_below=0.25)["learns"]
    assert not summarized([0.1, 0.5], learned_below=0.25)["learns"]


def test_the_table_has_a_row_for_each_network_and_json_holds_it():
    table = learning_rates.run(networks=1, baseline_steps=20, other_steps=10, seed=0)
    assert [row["name"] for row in table["rows"]] == [row.name for row in learning_rates.ROWS]
    assert [len(row["curves"][0]) for row in table["rows"]] == [2, 1, 1, 1, 1, 1, 1]
    baseline = table["rows"][0]
    assert baseline["best"]["each"] == [max(baseline["curves"][0])]
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_the_sigmoids_are_watched_at_each_moment_and_json_holds_it():
    seen = sigmoids.run(networks=1, count=4, every=2, seed=0)
    assert seen["steps"] == [0, 2, 4]
    for side in ("without", "with"):
        (unit,) = seen[side]["unit"]
        assert [len(percentiles) for percentiles in unit] == [3, 3, 3]
        assert all(low <= median <= high for low, median, high in unit)
        assert seen[side]["moved"][0][0] == 0
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
