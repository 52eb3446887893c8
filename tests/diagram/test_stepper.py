"""The stepper's page as text; `browser/` has it in a browser."""

import importlib.util
import re

import numpy as np
import pytest
from helpers import leaf
from test_page import Reader

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.pages.stepper import stepper

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


@pytest.fixture(scope="module")
def worked():
    return stepper(worked_example("composed"), title="Batch normalization").html


def scenes(html):
    """The attributes of every scene, and its numbers: what each is -> what it says."""
    found = []
    for attributes, content in re.findall(
        r'<article class="scene"(.*?)>(.*?)</article>', html, re.S
    ):
        found.append(
            (dict(re.findall(r'data-(\w+)="(.*?)"', attributes)), dict(Reader(content).rows))
        )
    return found


def test_it_is_small_and_asks_for_nothing(worked):
    assert len(worked.encode()) < 150_000
    assert set(re.findall(r"\w+://[^\"']*", worked)) == {"http://www.w3.org/2000/svg"}
    assert "<msqrt" not in worked
    assert "Noto Sans Math" in worked


def test_it_is_the_same_every_time():
    first, second = (stepper(worked_example("composed")).html for _ in range(2))
    assert first == second


def test_the_heading_says_what_is_given(worked):
    assert "<h1>Batch normalization</h1>" in worked
    assert "m = 4, γ = 2, ε = 0, β = 1" in worked


def test_there_is_a_scene_for_the_start_each_op_the_turn_and_each_op_again(worked):
    halves = [facts["half"] for facts, _ in scenes(worked)]
    assert halves == ["start", *["forward"] * 11, *["backward"] * 12]
    assert scenes(worked)[0][1] == {
        **{"x": "(0.5, 3.5, 4.5, 7.5)", "w": "(1, −2, 0.5, 1.5)"},
        **{"γ": "2", "β": "1", "ε": "0"},
    }


def test_backward_through_the_square_is_added_to_what_was_there(worked):
    facts, numbers = scenes(worked)[21]
    assert numbers == {
        "∂ℓ/∂q arrives": "(−0.048, −0.048, −0.048, −0.048)",
        "∂q/∂d = 2d": "(−7, −1, 1, 7)",
        "d receives": "(0.336, 0.048, −0.048, −0.336)",
        "∂ℓ/∂d so far": "(1.136, −1.552, 0.352, 0.864)",
    }
    assert facts["writes"].endswith(".0.1")  # the only column of its box, the second sum


@pytest.mark.parametrize("notation", ["ioffe", "fleuret", "hat"])
def test_the_gradients_that_arrive_at_last_are_those_of_the_example(notation):
    *_, (_, last) = scenes(stepper(worked_example("composed"), notation).html)
    assert [text for what, text in last.items() if what.endswith("/∂x so far")] == [
        "(0.936, −1.752, 0.152, 0.664)"
    ]


def test_a_fused_op_is_one_step_to_each_of_its_arguments():
    facts, numbers = scenes(stepper(worked_example("fused")).html)[-1]
    assert numbers["x receives"] == "(0.936, −1.752, 0.152, 0.664)"
    assert (numbers["γ receives"], numbers["β receives"]) == ("1.2", "1")
    assert len(facts["wires"].split()) == 3


def test_scalars_step_too():
    a, b = tg.named("a", Scalar(2.0)), tg.named("b", Scalar(-3.0))
    *_, (_, last) = scenes(stepper(tg.named("ℓ", a * b + a)).html)
    assert last["∂ℓ/∂a so far"] == "−2"
    assert last["b receives"] == "2"


def test_a_network_with_a_loss():
    tg.manual_seed(0)
    with tg.tracing():
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
        loss = F.cross_entropy(net(tg.randn(6, 2)), tg.tensor(np.arange(6) % 2))
    html = stepper(loss).html
    assert len(scenes(html)) == 2 + 2 * html.count("<li>")


def test_a_matrix_has_its_rows():
    x = tg.named("x", leaf(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    with tg.tracing():
        html = stepper((x * x).sum()).html
    (_, start), *_, (_, last) = scenes(html)
    assert start["x"] == "(1, 2, 3; 4, 5, 6)"
    assert last["∂q/∂x = 2x"] == "(2, 4, 6; 8, 10, 12)"
    assert last["x receives"] == "(2, 4, 6; 8, 10, 12)"


def test_a_rule_that_works_on_arrays_only_has_no_formula_but_numbers():
    @tg.op("odd", lambda g, _out, x: g * np.cos(x))  # refuses Tensors
    def odd(xp, x):
        return xp.sin(x)

    x = tg.named("x", tg.tensor(np.array([0.0, 0.0]), requires_grad=True, device="cpu"))
    with tg.tracing():
        html = stepper(odd(x).sum()).html
    *_, (_, last) = scenes(html)
    assert last == {"∂ℓ/∂z arrives": "(1, 1)", "x receives": "(1, 1)"}


def test_what_is_infinite_is_shown():
    with np.errstate(all="ignore"):
        *_, (_, last) = scenes(stepper(tg.named("ℓ", tg.named("x", Scalar(0.0)) ** 0.5)).html)
    assert last["x receives"] == "inf"


def test_each_formula_and_each_line_is_in_the_page_once(worked):
    formulas = re.findall("<math.*?</math>", worked)
    assert len(formulas) == len(set(formulas)) == 11 + 1 + 15
    assert worked.count("xhat = d / s") == 1


def test_names_are_escaped():
    with tg.tracing():
        x = tg.named("<script>alert(1)</script>", leaf(np.array([np.inf, 2.0])))
        y = tg.named('"><img src=x>\ud800', x * x)
        html = stepper(y.sum(), title="</title><b>").html
    assert html.count("<script>") == 1
    assert not re.search("<img|<b>", html)
    html.encode()


def test_a_leaf_cannot_be_stepped_through():
    with pytest.raises(ValueError, match="loss: got a leaf, wants the result of an op"):
        stepper(leaf(np.array(1.0)))


def test_an_unknown_notation_is_refused():
    with pytest.raises(ValueError, match="notation: got 'x'"):
        stepper(worked_example("fused"), "x")
