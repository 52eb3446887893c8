"""What lessons 8, 9, 15 to 17, 21 and 22 claim: inference, what batch norm takes away and gives
back, what it does not see, and what couples the samples of a batch."""

import pytest
from lessons import lesson

RUNS = ("moving", "even", "again")


@lesson("08")
@pytest.mark.parametrize("momentum", ["α = 0.1", "α = 0.01", "even average"])
def test_the_running_mean_errs_as_the_formulas_say(found, momentum):
    assert found[f"data that stay, {momentum}: error / formula"] == pytest.approx(1, abs=0.15)
    assert found[f"data that move, {momentum}: error / formula"] == pytest.approx(1, abs=0.15)


@lesson("08")
def test_the_running_variance_is_that_of_the_data_not_of_a_batch(found):
    assert found["data that stay, even average: running variance"] == pytest.approx(4, abs=0.03)


@lesson("08")
def test_an_average_over_one_more_epoch_finds_the_true_moments(found):
    off = {name: found[f"{name}: distance from the true moments, mean over seeds"] for name in RUNS}
    assert found["largest difference of the weights, moving and even"] == 0
    assert off["again"] <= 0.002
    assert 5 * off["again"] < off["moving"] < off["even"]


@lesson("08")
def test_moments_of_the_first_epochs_cost_accuracy(found):
    error = {name: found[f"{name}: test error, mean over seeds"] for name in RUNS}
    assert found["test error, even minus again, mean over seeds"] > 0
    for name in RUNS:
        lowest, highest = (
            found[f"{name}: test error, lowest"],
            found[f"{name}: test error, highest"],
        )
        assert 0 < lowest <= error[name] <= highest < 0.5


@lesson("08")
def test_batch_norm_in_evaluation_is_an_affine_map_and_folds_away(found):
    assert found["entries of the Jacobian off the diagonal that are not zero"] == 0
    for what in ("s x + t and the layer", "one Conv2d folded", "network folded"):
        assert found[f"{what}: relative difference"] <= 1e-6
    assert (found["layers"], found["layers, folded"]) == (9, 7)
    assert found["test error, network and folded"] == 0


@lesson("09")
def test_gamma_and_beta_recover_the_input_to_rounding(found):
    assert found["γ = √(σ² + ε), float64: relative difference"] <= 1e-15
    assert found["γ = √(σ² + ε), float32: relative difference"] <= 5e-7
    assert found["γ = √σ²: relative difference of the shortfall from ε/2σ²"] <= 1e-4
    assert found["evaluation: relative difference"] <= 1e-15


@lesson("09")
def test_gradient_descent_finds_the_gamma_and_beta_that_recover_the_input(found):
    assert found["learned γ and β: relative difference"] <= 1e-15


@lesson("09")
def test_a_normalized_input_uses_little_of_the_bend_of_a_sigmoid(found):
    straight = "sigmoid, γ = {}, β = {}: not on a straight line"
    assert found[straight.format(1, 0)] <= 0.02
    assert found[straight.format(3, 0)] >= 0.1
    assert found[straight.format(3, 3)] >= 0.2


@lesson("09")
@pytest.mark.parametrize("m", [16, 64, 256])
def test_other_batches_are_off_as_one_over_the_root_of_their_size(found, m):
    off = found[f"other batches, √m times how far y is off, m = {m}"]
    assert off == pytest.approx(1.5**0.5, rel=0.1)


@lesson("15")
def test_a_step_that_ignores_the_mean_moves_b_and_nothing_else(found):
    assert found["μ detached: growth of b in each step"] == pytest.approx(0.4, rel=1e-12)
    assert found["μ detached: change of the output, largest"] <= 1e-13
    assert found["μ detached: change of the loss, largest"] <= 1e-13


@lesson("15")
def test_the_true_gradient_at_b_is_zero(found):
    assert found["whole graph: gradient at b, largest"] <= 1e-15
    assert found["whole graph: change of b"] <= 1e-15


@lesson("15")
@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_a_network_that_ignores_its_statistics_grows_and_learns_worse(found, rate):
    whole, detached = (
        f"whole graph, learning rate {rate}",
        f"μ and σ² detached, learning rate {rate}",
    )
    norm = "norm of the weights, mean over seeds"
    assert found[f"{detached}: {norm}"] >= 1.5 * found[f"{whole}: {norm}"]
    assert (
        found[f"{detached}: loss at the end, lowest"] > found[f"{whole}: loss at the end, highest"]
    )


@lesson("15")
def test_at_a_high_learning_rate_it_blows_up(found):
    guessing = 2.303
    assert found["μ and σ² detached, learning rate 2.0: loss at the end, lowest"] > guessing
    assert found["whole graph, learning rate 2.0: loss at the end, highest"] < 0.5


@lesson("16")
def test_whitening_removes_the_correlations_that_batch_norm_leaves(found):
    assert found["whitened: largest difference of the covariance from 1"] <= 1e-13
    assert found["batch norm: largest difference of a variance from 1"] <= 1e-14
    assert found["batch norm: largest correlation that stays"] >= 0.5


@lesson("16")
def test_the_two_jacobians_of_norm_add_up_to_the_whole_derivative(found):
    assert found["∂Norm/∂x + ∂Norm/∂X: largest difference from the whole derivative"] <= 1e-13
    assert found["size of ∂Norm/∂X"] >= 0.2 * found["size of ∂Norm/∂x"]


@lesson("16")
def test_batch_norm_leaves_one_derivative_in_c(found):
    m, c = 12, 4
    assert found["entries that are not zero, whitening"] == c * m * c
    assert found["entries that are not zero, batch norm"] == c * m


@lesson("16")
def test_few_samples_have_variances_but_no_covariance_of_full_rank(found):
    assert found["8 samples of 10 features: rank of Σ"] == 7
    assert found["8 samples of 10 features: batch norm, smallest variance"] == pytest.approx(1)


@lesson("16")
def test_whitening_costs_the_more_the_wider_the_layer(found):
    narrow, wide = (found[f"width {c}: time of whitening / batch norm"] for c in (8, 128))
    assert wide >= 2 * narrow


@lesson("17")
@pytest.mark.parametrize("a", [0.001, 0.1, 0.125, 3, 32, 1000])
def test_batch_norm_does_not_see_the_scale_of_the_weights(found, a):
    power_of_two = a in (0.125, 32)
    for what in ("output", "Jacobian by u", "a times the Jacobian by aW"):
        assert found[f"{what}, a = {a:g}: relative difference"] <= (0 if power_of_two else 1e-14)
    assert found["size of the Jacobian by aW against a, log-log slope"] == pytest.approx(-1)


@lesson("17")
def test_eps_sets_an_end_to_the_scale_invariance(found):
    assert found["ε = 1e-5, a = 1e-5: size of the output, relative"] <= 0.1


@lesson("17")
def test_a_step_of_gradient_descent_stands_at_a_right_angle_to_the_weights(found):
    assert found["largest cosine between weights and gradient"] <= 1e-12
    assert found["largest relative error of Pythagoras"] <= 1e-14


@lesson("17")
def test_short_weights_grow_fast_and_long_ones_hardly(found):
    grown = {a: found[f"started × {a}: growth, smallest factor"] for a in (0.1, 1, 10)}
    assert all(found[f"started × {a}: smallest growth in a step"] > 0 for a in grown)
    assert grown[0.1] >= 3
    assert found["started × 1: growth, largest factor"] <= 1.2
    assert found["started × 10: growth, largest factor"] <= 1.001
    loss = "loss of the last quarter, mean over seeds"
    assert found[f"started × 10: {loss}"] > 1.2 * found[f"started × 1: {loss}"]


@lesson("21")
def test_batch_norm_couples_samples_and_layer_norm_features(found):
    m, c = 6, 4
    shares = {
        ("batch norm", "samples"): 1 / c,
        ("batch norm", "features"): 0,
        ("layer norm", "samples"): 0,
        ("layer norm", "features"): 1 / m,
        ("batch norm in evaluation", "samples"): 0,
        ("batch norm in evaluation", "features"): 0,
    }
    for (norm, between), share in shares.items():
        assert found[f"{norm}, share not zero between {between}"] == pytest.approx(share, abs=1e-12)
    assert found["batch norm, largest difference from the formula"] <= 1e-14


@lesson("21")
def test_batch_norm_takes_two_directions_from_every_feature(found):
    assert all(found[f"rank of a feature, {m} samples"] == m - 2 for m in (2, 3, 4, 8, 16))


@lesson("21")
def test_the_companions_part_is_two_in_m(found):
    for m in (4, 16, 64):
        assert found[f"m times the part of the companions, m = {m}"] == pytest.approx(2, rel=1e-10)


@lesson("22")
def test_the_spread_over_companions_falls_as_one_over_the_root_of_their_number(found):
    assert found["first norm: spread / formula, lowest"] >= 0.9
    assert found["first norm: spread / formula, highest"] <= 1.1
    assert found["first norm: log-log slope of the spread from m = 16"] == pytest.approx(
        -0.5, abs=0.05
    )
    assert found["output: log-log slope of the spread from m = 16"] == pytest.approx(-0.5, abs=0.08)


@lesson("22")
def test_moderate_noise_lowers_the_test_loss_and_the_gap_and_much_noise_hurts(found):
    test_loss = {m: found[f"groups of {m}: test loss, mean over seeds"] for m in (128, 16, 4)}
    assert test_loss[16] < test_loss[128] < test_loss[4]
    gap = "test minus training loss, mean"
    assert found[f"groups of 16: {gap}"] < found[f"groups of 128: {gap}"]
    loss = "training loss, mean over seeds"
    assert found[f"groups of 16: {loss}"] < found[f"groups of 128: {loss}"]  # unlike a penalty
    assert found[f"groups of 4: {loss}"] > 1.5 * found[f"groups of 128: {loss}"]
