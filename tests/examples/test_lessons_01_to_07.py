"""What lessons 1 to 7 claim: the graph, the forward pass, and the backward pass."""

import math

import pytest
from lessons import lesson


@lesson("01")
def test_only_topological_order_makes_the_chain_rule_right(found):
    assert found["dc/da on paper, 8a"] == 24
    assert found["dc/da in topological order"] == 24
    assert found["dc/da by c.backward()"] == 24
    assert found["dc/da in the order of the program (wrong)"] == 0
    assert found["dc/da depth first (wrong)"] == 36


@lesson("01")
def test_every_path_is_right_but_their_number_doubles_with_each_node(found):
    assert found["dc/da by every path"] == 24
    assert found["edges crossed for 15 doublings, topological order"] == 2 * 15
    assert found["edges crossed for 15 doublings, every path"] == sum(2**k for k in range(1, 16))


@lesson("01")
def test_parents_as_a_set_lose_an_edge_of_x_plus_x(found):
    assert found["edges of b = a + a"] == 2
    assert found["edges of b = a + a, parents as a set"] == 1
    assert found["dc/da with parents as a set (wrong)"] == 6


@lesson("02")
def test_forward_gives_the_same_numbers_three_ways(found):
    expected = {"μ": 4, "σ²": 6.25, "y1": -1.8, "y2": 0.6, "y3": 1.4, "y4": 3.8, "ℓ": 3.4}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-15)
    assert found["largest difference, worked example"] <= 2e-15
    assert found["largest difference, 100 random samples"] <= 1e-13


@lesson("03")
def test_each_formula_of_the_backward_pass_is_what_the_engine_computes(found):
    expected = {"∂ℓ/∂γ": 1.2, "∂ℓ/∂β": 1, "∂ℓ/∂σ²": -0.192, "∂ℓ/∂μ": -0.8}
    expected |= {f"∂ℓ/∂x̂{i}": v for i, v in enumerate((2, -4, 1, 3), start=1)}
    expected |= {f"∂ℓ/∂x{i}": v for i, v in enumerate((0.936, -1.752, 0.152, 0.664), start=1)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-15)
    assert found["largest difference, worked example"] <= 5e-16
    assert found["largest difference, 256 random samples"] <= 1e-13


@lesson("04")
def test_what_goes_through_the_variance_into_the_mean_is_exactly_0(found):
    assert found["path via σ² into μ, exactly"] == 0
    assert found["path via x̂ into μ, exactly"] == -4
    assert found["batches of fractions with ∂σ²/∂μ ≠ 0, of 1000"] == 0


@lesson("04")
def test_in_float64_it_is_rounding_which_grows_with_the_mean(found):
    assert found["path via x̂ into μ, float64"] == pytest.approx(-4, rel=1e-15)
    assert abs(found["path via σ² into μ, float64"]) <= 2e-15  # beside a ∂ℓ/∂μ of -4
    assert found["largest share left at mean/std 0"] <= 5e-16
    assert found["largest share left at mean/std 1"] <= 5e-16
    assert 1e-13 <= found["largest share left at mean/std 10000"] <= 2e-11


@lesson("04")
def test_a_cut_path_is_missed_by_the_second_derivative_only(found):
    assert found["largest difference in ∂ℓ/∂x if the path is cut"] <= 2e-15
    for which in ("smallest", "largest"):
        difference = found[f"{which} difference in ∂²ℓ/∂x₁∂x if the path is cut"]
        assert difference == pytest.approx(-0.6, rel=1e-13)


@lesson("05")
def test_simplified_gradient_is_the_same_gradient(found):
    assert found["difference, the lecture's three terms and the simplified one"] <= 1e-14
    for order, bound in {1: 1e-12, 2: 1e-12, 3: 1e-10, 4: 1e-10}.items():
        assert found[f"difference, order {order}"] <= bound


@lesson("05")
@pytest.mark.parametrize("step", ["1, ∂ℓ/∂σ²", "2, ∂ℓ/∂μ", "3, three terms"])
def test_every_step_of_the_derivation_holds(found, step):
    assert found[f"difference after step {step}"] <= 1e-14


@lesson("05")
@pytest.mark.parametrize("direction", ["(1, …, 1)", "x̂"])
def test_no_gradient_points_where_normalization_undoes_the_move(found, direction):
    assert abs(found[f"part of ∂ℓ/∂x along {direction}, ε = 0"]) <= 1e-14


@lesson("05")
def test_simplified_gradient_is_one_op_and_holds_a_few_numbers_a_channel(found):
    assert found["ops recorded, composed"] == 9
    assert found["ops recorded, fused"] == 1
    assert found["bytes held, composed"] >= 2 * found["bytes of x"]
    assert found["bytes held, fused"] <= 32 * 4 * 8  # 32 channels, four numbers of float64
    # How much faster depends on the machine, and is for the benchmarks to claim.
    assert 0 < found["time of composed / time of fused"] < math.inf


@lesson("06")
def test_the_new_layer_has_batch_norm_as_a_member_and_right_gradients(found):
    assert found["largest difference from batch norm at p = 2"] <= 1e-14
    assert found["composed passes gradcheck and gradgradcheck"] == 1
    assert found["the op passes gradcheck and gradgradcheck"] == 1
    for order in range(5):
        assert found[f"largest difference of op and composed, order {order}"] <= 1e-12


@lesson("06")
@pytest.mark.parametrize("p", [1, 2, 4])
def test_powers_use_up_the_range_of_float16(found, p):
    low, high = (found[f"float16 fails {end} a std of, p = {p}"] for end in ("below", "above"))
    assert math.log10(high / low) == pytest.approx(10 / p, abs=1)


@lesson("06")
def test_the_new_layer_trains_like_batch_norm_and_better_than_no_norm(found):
    errors = {
        name: found[f"error on digits in %, {name}, mean over seeds"]
        for name in ("no norm", "p = 1", "p = 2", "p = 4")
    }
    assert max(errors["p = 1"], errors["p = 2"], errors["p = 4"]) <= 5
    assert errors["no norm"] >= errors["p = 1"] + 1
    assert abs(found["error of p = 1 − error of p = 2, mean over seeds"]) <= 1.5


@lesson("06")
def test_the_new_layer_as_one_op_holds_nothing_beyond_its_arguments(found):
    assert found["ops recorded, composed"] == 11
    assert found["ops recorded, the op"] == 1
    assert found["bytes held, composed"] >= 3 * found["bytes of x"]
    assert found["bytes held, the op"] == 0
    for p in (1, 2, 4):
        assert 0 < found[f"time of composed / time of the op, p = {p}"] < math.inf


@lesson("07")
def test_outputs_have_mean_beta_and_std_gamma(found):
    assert found["√(1000/999) − 1"] == pytest.approx(5.0037e-4, rel=1e-4)
    assert found["largest difference, mean of y and β, float32"] <= 2e-6
    assert found["largest difference, std of y / γ and √(1000/999), float32"] <= 1e-5
    # What is left in float64 is ε, and with ε in the formula only rounding.
    assert 1e-6 <= found["largest difference, std of y / γ and √(1000/999), float64"] <= 2e-6
    assert found["largest difference, std of y / γ and the formula with ε, float64"] <= 1e-14
