"""Every lesson in examples/ runs without a warning, and finds the numbers that it claims."""

import contextlib
import functools
import io
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import complaints

from tinygrad_bn.norm.axes import FAMILY

REPOSITORY = Path(__file__).resolve().parent.parent
LESSONS = sorted((REPOSITORY / "examples").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_as_a_program(lesson, tmp_path):
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error", lesson],
        cwd=tmp_path,  # a lesson may not depend on where it is started
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert complaints(run.stderr) == []
    assert re.search(r"\d", run.stdout.splitlines()[-1]), "the closing line states a number"


def test_every_lesson_is_listed_in_the_readme():
    readme = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    assert [lesson.name for lesson in LESSONS if f"({lesson.name})" not in readme] == []


@functools.cache
def numbers_of(number):
    """What `main()` of the lesson with this number returns, which is also what it prints last."""
    (path,) = (REPOSITORY / "examples").glob(f"{number}_*.py")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        numbers = runpy.run_path(str(path))["main"]()
    closing = out.getvalue().splitlines()[-len(numbers) :]
    assert closing == [f"{name}: {value:.7g}" for name, value in numbers.items()]
    return numbers


@pytest.fixture
def found(request, cpu_only):
    return numbers_of(request.param)


def lesson(number):
    """Give a test the numbers that this lesson finds."""
    return pytest.mark.parametrize("found", [number], indirect=True, ids=[f"lesson {number}"])


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


@lesson("05")
def test_simplified_gradient_is_the_same_gradient(found):
    assert found["difference, the lecture's three terms and the simplified one"] <= 1e-14
    for order, bound in {1: 1e-12, 2: 1e-12, 3: 1e-10, 4: 1e-10}.items():
        assert found[f"difference, order {order}"] <= bound


@lesson("05")
def test_simplified_gradient_is_one_op_and_holds_a_few_numbers_a_channel(found):
    assert found["ops recorded, composed"] == 9
    assert found["ops recorded, fused"] == 1
    assert found["bytes held, composed"] >= 2 * found["bytes of x"]
    assert found["bytes held, fused"] <= 32 * 4 * 8  # 32 channels, four numbers of float64
    # How much faster depends on the machine, and is for the benchmarks to claim.
    assert 0 < found["time of composed / time of fused"] < math.inf


@lesson("07")
def test_outputs_have_mean_beta_and_std_gamma(found):
    assert found["√(1000/999) − 1"] == pytest.approx(5.0037e-4, rel=1e-4)
    assert found["largest difference, mean of y and β, float32"] <= 2e-6
    assert found["largest difference, std of y / γ and √(1000/999), float32"] <= 1e-5
    # What is left in float64 is ε, and with ε in the formula only rounding.
    assert 1e-6 <= found["largest difference, std of y / γ and √(1000/999), float64"] <= 2e-6
    assert found["largest difference, std of y / γ and the formula with ε, float64"] <= 1e-14


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
