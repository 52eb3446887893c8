"""What lessons 18 to 20 claim: channels of a convnet, layer norm, and the family of norms."""

import pytest
from lessons import lesson

from tinygrad_bn.norm.axes import FAMILY


@lesson("18")
@pytest.mark.parametrize("layer", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"])
def test_batch_norm_of_a_block_is_that_of_the_matrix_of_its_places(found, layer):
    assert found[f"{layer} and the matrix: relative difference"] <= 1e-14
    assert found["numbers learned by the norm of 4 channels"] == 2 * 4


@lesson("18")
def test_batch_norm_by_channel_moves_with_the_image_and_by_place_does_not(found):
    assert found["shift before and after, by channel: relative difference"] <= 1e-14
    assert found["shift before and after, by place: relative difference"] >= 0.1


@lesson("18")
def test_inside_a_convnet_each_channel_comes_out_with_mean_beta_and_std_gamma(found):
    assert found["share of new images that the convnet gets wrong"] <= 0.1
    assert found["mean after norm and β: relative difference"] <= 1e-6
    assert found["std after norm and γ: relative difference"] <= 1e-4  # ε


@lesson("18")
def test_batch_norm_in_inference_folds_into_the_convolution(found):
    assert found["layers"] - found["layers, folded"] == 2
    assert found["outputs of one convolution, folded: relative difference"] <= 1e-6
    assert found["outputs of the convnet, folded: relative difference"] <= 1e-6


@lesson("19")
def test_layer_norm_depends_on_nothing_but_the_sample(found):
    assert found["layer norm, every batch: largest of spread and training − test"] <= 1e-15


@lesson("19")
def test_batch_norm_depends_on_the_companions_the_more_the_fewer_they_are(found):
    sizes = (256, 64, 16, 8, 4, 2)
    spreads = [found[f"batch norm, batch of {m}: spread"] for m in sizes]
    distances = [found[f"batch norm, batch of {m}: training − test"] for m in sizes]
    assert spreads == sorted(spreads)
    assert distances == sorted(distances)
    assert spreads[1] / spreads[0] == pytest.approx(2, rel=0.05)  # as 1/√m
    assert found["batch norm, every batch: largest | spread / formula − 1 |"] <= 0.05


@lesson("19")
def test_batch_norm_of_two_samples_gives_one_and_minus_one(found):
    assert found["batch norm, batch of 2: largest | |x̂| − 1 |"] <= 1e-15


@lesson("20")
def test_the_norms_differ_in_who_shares_statistics(found):
    n, c, s = 4, 6, 5
    groups = {"batch": c, "layer": n, "instance": n * c, "group": n * 2, "rms": n}
    learned = {"batch": 2 * c, "layer": 2 * c * s, "instance": 2 * c, "group": 2 * c, "rms": c * s}
    assert {name: found[f"{name}_norm, values of σ²"] for name in groups} == groups
    assert {name: found[f"{name}_norm, numbers learned"] for name in learned} == learned
    assert found["entries that do not share with the other places of their channel"] == 0


@lesson("20")
def test_the_norms_meet_where_they_share_alike(found):
    for pair in (
        "group norm with G = 1 and layer norm",
        "group norm with G = C and instance norm",
        "batch norm with N = 1 and instance norm",
        "RMS norm of x − μ and layer norm of x",
    ):
        assert found[f"{pair}, largest difference"] <= 1e-14
    assert found["RMS norm of x and layer norm of x, largest difference"] >= 0.1


@lesson("20")
@pytest.mark.parametrize("name", FAMILY)
def test_every_norm_is_the_same_fused_and_composed_to_order_4(found, name):
    assert found[f"{name}, fused and composed, orders 1 and 2"] <= 1e-12
    assert found[f"{name}, fused and composed, orders 3 and 4"] <= 1e-10
