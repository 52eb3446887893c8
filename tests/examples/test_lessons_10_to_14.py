"""What lessons 10 to 14 claim: what batch norm does to training.

The bounds hold for other seeds and machines, too, on which a training goes another way.
"""

from lessons import lesson

# --- 10: the initial scale ------------------------------------------------------------------------


@lesson("10")
def test_with_batch_norm_every_initial_scale_trains(found):
    assert found["values of s that learn, BN, γ = 1, β = 0"] == found["values of s"] == 3
    assert found["error with BN over all s, highest"] < 0.25
    assert found["diverged, with BN"] == 0


@lesson("10")
def test_without_batch_norm_only_one_initial_scale_trains(found):
    assert found["values of s that learn, without BN"] <= 1
    assert found["diverged, without BN"] >= 1


@lesson("10")
def test_with_gamma_and_beta_overwritten_too_the_smallest_scale_is_lost(found):
    assert found["values of s that learn, BN, γ, β overwritten"] == 2


@lesson("10")
def test_without_batch_norm_the_gradient_of_the_first_layer_vanishes(found):
    ratio = "gradient of the first hidden layer over that of the last, "
    assert found[ratio + "without BN, s = 0.1"] < 1e-4
    for s in ("0.1", "1"):
        assert 1 < found[ratio + f"BN, γ = 1, β = 0, s = {s}"] < 1e4  # it grows, as said there


# --- 11: before or after --------------------------------------------------------------------------


@lesson("11")
def test_both_places_train_and_hardly_differ(found):
    for name in ("ReLU, 3 layers", "ReLU, 6 layers", "sigmoid, 3 layers"):
        assert found[f"{name}: accuracy, before"] > 0.85
        assert found[f"{name}: accuracy, after"] > 0.85
        assert abs(found[f"{name}: accuracy, after − before"]) < 0.05


@lesson("11")
def test_after_sigmoids_batch_norm_is_faster_at_first(found):
    assert found["sigmoid, 3 layers: pairs in which after is there sooner"] == found["pairs"]


# --- 12: learning rates ---------------------------------------------------------------------------


@lesson("12")
def test_batch_norm_at_a_higher_rate_needs_at_most_half_the_steps(found):
    assert found["BN ×5: as good as the baseline's best"] == found["networks for each row"]
    assert found["BN ×5: share of the baseline's steps, highest"] <= 0.5


@lesson("12")
def test_thirty_times_the_rate_is_too_much_without_batch_norm_only(found):
    assert found["baseline ×30: accuracy in the end, highest"] < 0.15  # guessing is 0.1
    assert found["BN ×30: accuracy in the end, mean"] > 0.2


@lesson("12")
def test_batch_norm_is_better_than_the_baseline_ever_is(found):
    assert found["BN: best accuracy, mean"] > found["baseline: best accuracy, mean"]


# --- 13: sigmoids ---------------------------------------------------------------------------------


@lesson("13")
def test_without_batch_norm_sigmoids_saturate_and_with_it_they_do_not(found):
    assert found["without BN: largest share beyond ±4, lowest"] > 0.2
    assert found["with BN: largest share beyond ±4, highest"] < 0.1


@lesson("13")
def test_batch_norm_spreads_the_inputs_of_the_sigmoids(found):
    width = "15th to 85th percentile after 100 steps"
    assert found[f"without BN: {width}, highest"] < 0.5
    assert found[f"with BN: {width}, lowest"] > 2


@lesson("13")
def test_sigmoids_learn_early_with_batch_norm_only(found):
    assert found["without BN: accuracy after 100 steps, highest"] < 0.5
    assert found["with BN: accuracy after 100 steps, lowest"] > 0.8


# --- 14: internal covariate shift -----------------------------------------------------------------


@lesson("14")
def test_with_batch_norm_distributions_shift_less(found):
    shift = "shift in one step, mean"
    assert found[f"BN: {shift}"] < 0.02 * found[f"without BN, He: {shift}"]


@lesson("14")
def test_the_network_with_the_steadiest_gradients_is_the_slowest(found):
    others = ("without BN, He", "BN")
    for name in others:
        assert found["without BN: cosine, mean"] > found[f"{name}: cosine, mean"]
        accuracy = "accuracy after 100 steps, mean"
        assert found[f"without BN: {accuracy}"] < found[f"{name}: {accuracy}"] - 0.2


@lesson("14")
def test_with_more_shift_than_without_batch_norm_it_learns_as_fast(found):
    shift, accuracy = "shift in one step, mean", "accuracy after 100 steps, mean"
    assert found[f"BN and noise: {shift}"] > found[f"without BN, He: {shift}"]
    assert found[f"BN and noise: {accuracy}"] > found[f"BN: {accuracy}"] - 0.04
