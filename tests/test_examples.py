"""Every lesson in examples/ runs without a warning, and finds the numbers that it claims."""

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert run.stderr == ""
    assert re.search(r"\d", run.stdout.splitlines()[-1]), "the closing line states a number"


def test_every_lesson_is_listed_in_the_readme():
    readme = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    assert [lesson.name for lesson in LESSONS if f"({lesson.name})" not in readme] == []


@pytest.fixture
def found(request, capsys, cpu_only):
    """What `main()` of the lesson with this number returns, which is also what it prints last."""
    (path,) = (REPOSITORY / "examples").glob(f"{request.param}_*.py")
    numbers = runpy.run_path(str(path))["main"]()
    closing = capsys.readouterr().out.splitlines()[-len(numbers) :]
    assert closing == [f"{name}: {value:.7g}" for name, value in numbers.items()]
    return numbers


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
