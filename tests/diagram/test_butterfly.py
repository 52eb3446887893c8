"""The view `butterfly`: the forward pass, and beside it the backward pass that was recorded."""

import importlib.util
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers import assert_values, leaf
from pictures import SVG, shown

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.diagram.views.butterfly import backward_pass
from tinygrad_bn.diagram.views.twins import saved
from tinygrad_bn.norm.fused import normalize

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


def groups(svg):
    """The group of every box by its id."""
    found = ElementTree.fromstring(svg).iter(f"{SVG}g")
    return {g.get("id"): g for g in found if g.get("class", "").startswith("box ")}


def half(diagram, letter):
    """What the boxes of a half say, by their symbols; n: forward, b: backward."""
    drawn, found = groups(diagram.svg()), {}
    for box in diagram.sketch.boxes:
        if box.id.startswith(letter) and box.symbol:
            heading, *rest = shown(drawn[box.id])
            assert heading not in found
            found[heading] = rest
    return found


def numbers(texts, sign):
    """What stands after a sign."""
    return texts[texts.index(sign) + 1 :]


def middle(group):
    """How far down the middle of a box is."""
    y = group.get("transform", "translate(0,0)").split(",")[1].rstrip(")")
    return float(y) + float(group.find(f"{SVG}rect").get("height")) / 2


def network():
    """Two layers with batch norm between them, in float64."""
    random = np.random.default_rng(0)
    x, *weights = (random.standard_normal(shape) for shape in ((8, 2), (4, 2), (4,), (3, 4), (3,)))
    first, gamma, second, bias = map(leaf, weights)
    with tg.tracing():
        h = F.batch_norm(F.linear(tg.tensor(x), first), None, None, gamma, training=True)
        return F.cross_entropy(F.linear(F.relu(h), second, bias), tg.tensor(np.arange(8) % 3))


def sums():
    """A place with several uses, one that is broadcast, and a maximum."""
    x = tg.named("x", leaf(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    b = tg.named("b", leaf(np.array([1.0, 2.0, 3.0])))
    with tg.tracing():
        y = x * b + x * x + b
        return tg.named("ℓ", (y.max(axis=1) + y.sum(axis=1)).sum())


# --- The worked example ---------------------------------------------------------------------------

VALUES = {
    "x": ["0.5", "3.5", "4.5", "7.5"],
    "μB": ["4"],
    "d": ["−3.5", "−0.5", "0.5", "3.5"],
    "q": ["12.25", "0.25", "0.25", "12.25"],
    "σ²B": ["6.25"],
    "ε": ["0"],
    "v": ["6.25"],
    "s": ["2.5"],
    "x̂": ["−1.4", "−0.2", "0.2", "1.4"],
    "γ": ["2"],
    "u": ["−2.8", "−0.4", "0.4", "2.8"],
    "β": ["1"],
    "y": ["−1.8", "0.6", "1.4", "3.8"],
    "w": ["1", "−2", "0.5", "1.5"],
    "p": ["−1.8", "−1.2", "0.7", "5.7"],
    "ℓ": ["3.4"],
}
GRADIENTS = {
    "∂ℓ/∂ℓ": ["1"],
    "∂ℓ/∂pi": ["1", "1", "1", "1"],
    "∂ℓ/∂y = ∂ℓ/∂u": ["1", "−2", "0.5", "1.5"],  # a sum hands on what it gets
    "∂ℓ/∂β": ["1"],
    "∂ℓ/∂γ": ["1.2"],
    "∂ℓ/∂x̂i": ["2", "−4", "1", "3"],
    "∂ℓ/∂s": ["−0.96"],
    "∂ℓ/∂v = ∂ℓ/∂σ²B": ["−0.192"],
    "∂ℓ/∂qi": ["−0.048", "−0.048", "−0.048", "−0.048"],
    "∂ℓ/∂di": ["1.136", "−1.552", "0.352", "0.864"],
    "∂ℓ/∂μB": ["−0.8"],
    "∂ℓ/∂xi": ["0.936", "−1.752", "0.152", "0.664"],
}


def test_values_go_forward_and_gradients_back():
    diagram = draw(worked_example("composed"), "butterfly")
    forward, backward = half(diagram, "n"), half(diagram, "b")
    assert {heading: numbers(texts, "▸") for heading, texts in forward.items()} == VALUES
    assert {heading: numbers(texts, "◂") for heading, texts in backward.items()} == GRADIENTS
    assert not any("◂" in texts for texts in forward.values())


def test_each_gradient_says_how_it_follows_from_those_before_it():
    backward = half(draw(worked_example("composed"), "butterfly"), "b")
    assert {heading: texts[0] for heading, texts in backward.items()} == {
        "∂ℓ/∂ℓ": "◂",
        "∂ℓ/∂pi": "= ∂ℓ/∂ℓ",
        "∂ℓ/∂y = ∂ℓ/∂u": "= w·∂ℓ/∂p",
        "∂ℓ/∂β": "= Σ ∂ℓ/∂yi",
        "∂ℓ/∂γ": "= Σ x̂i·∂ℓ/∂yi",
        "∂ℓ/∂x̂i": "= γ·∂ℓ/∂yi",
        "∂ℓ/∂s": "= Σ −(x̂i/s)·∂ℓ/∂x̂i",
        "∂ℓ/∂v = ∂ℓ/∂σ²B": "= (1/(2s))·∂ℓ/∂s",
        "∂ℓ/∂qi": "= 0.25∂ℓ/∂v",
        "∂ℓ/∂di": "= (1/s)·∂ℓ/∂x̂i + 2di·∂ℓ/∂qi",
        "∂ℓ/∂μB": "= Σ −∂ℓ/∂di",
        "∂ℓ/∂xi": "= ∂ℓ/∂di + 0.25∂ℓ/∂μB",
    }


def test_the_fused_rule_is_recorded_as_the_formula_that_it_is():
    backward = half(draw(worked_example("fused"), "butterfly"), "b")
    formula = "= r(γ·∂ℓ/∂yi−x̂i/m Σj γ·x̂j·∂ℓ/∂yj−1/m Σj γ·∂ℓ/∂yj)"
    assert backward["∂ℓ/∂xi"][0] == formula
    assert backward["∂ℓ/∂γ"][0] == "= Σ x̂i·∂ℓ/∂yi"
    for name in ("xi", "γ", "β"):
        assert numbers(backward[f"∂ℓ/∂{name}"], "◂") == GRADIENTS[f"∂ℓ/∂{name}"]
    # What does not depend on the gradient is a value, which the backward pass computes anew.
    assert backward["r"] == ["= 1/√(σ²B+ε)", "÷ (1, 1)", "▸", "0.4"]
    assert numbers(backward["x̂i"], "▸") == VALUES["x̂"]


# --- How it is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [lambda: worked_example("composed"), network, sums])
def test_gradients_stand_beside_values_and_wires_run_as_the_passes_do(loss):
    sketch = (diagram := draw(loss(), "butterfly")).sketch
    drawn = groups(diagram.svg())
    middles = {key: middle(group) for key, group in drawn.items()}
    for value, gradient in sketch.level:
        assert middles[value] == pytest.approx(middles[gradient], abs=1)
    for wire in sketch.wires:
        if wire.role == "forward":
            assert middles[wire.start] < middles[wire.end]
        elif wire.role == "backward":
            assert middles[wire.start] > middles[wire.end]
    halves = [set(frame.boxes) for frame in sketch.frames]
    assert [characters(frame.title) for frame in sketch.frames] == [
        "forward ▾",
        "recorded backward ▴",
    ]
    assert halves[0] | halves[1] == set(drawn)
    for wire in sketch.wires:
        across = (wire.start in halves[0]) and (wire.end in halves[1])
        assert (wire.role == "saved") == across == (not wire.ranked)
        assert not (wire.start in halves[1] and wire.end in halves[0])


def test_wires_across_begin_at_what_is_saved_for_backward():
    loss = worked_example("composed")
    sketch = draw(loss, "butterfly").sketch
    reading = Reading(record(loss), "ioffe")
    kept = saved(reading, [node.id for node in reading.graph.nodes if node.kind == "op"])
    starts = {wire.start for wire in sketch.wires if wire.role == "saved"}
    assert starts == {f"n{number}" for number, _ in kept}
    assert {reading.names[place] for place in kept} == {"d", "s", "x̂", "γ", "w"}


def test_the_same_program_gives_the_same_picture():
    first, second = (draw(worked_example("fused"), "butterfly") for _ in range(2))
    assert first.svg() == second.svg()
    assert first.dot() == second.dot()


# --- Any graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [lambda: worked_example("composed"), lambda: worked_example("fused"), network, sums],
)
def test_the_recorded_gradients_are_those_that_grad_finds(loss):
    reading = Reading(record(loss(), create_graph=True), "ioffe")
    recorded = backward_pass(reading)
    outputs = {(n.id, o.index): o for n in recorded.graph.nodes for o in n.outputs}
    met = set()
    for place, of in recorded.gradients.items():
        for here in of:
            wanted = reading.output(here).gradient
            np.testing.assert_allclose(outputs[place].value, wanted, rtol=1e-12, atol=1e-15)
            met.add(here)
    wanted = {
        (node.id, o.index)
        for node in reading.graph.nodes
        for o in node.outputs
        if o.gradient is not None
    }
    assert met == wanted


def test_uses_of_a_place_add_up_and_what_was_broadcast_is_summed():
    backward = half(draw(sums(), "butterfly"), "b")
    assert numbers(backward["∂ℓ/∂bj"], "◂") == ["7", "9", "22"]
    assert numbers(backward["∂ℓ/∂xij"], "◂") == ["3", "6", "18", "9", "12", "30"]
    assert backward["∂ℓ/∂bj"][0] == "= Σi ∂ℓ/∂v2,ij + Σi xij·∂ℓ/∂v2,ij"


def test_constants_of_the_backward_pass_have_names_of_their_own():
    reading = Reading(record(network()), "ioffe")
    sketch = draw(network(), "butterfly").sketch
    constants = [b for b in sketch.boxes if b.kind == "constant" and b.id.startswith("b")]
    names = [characters(box.symbol) for box in constants]
    assert len(set(names)) == len(names) > 1
    assert not set(names) & set(reading.names.values())


def test_a_constant_that_both_halves_read_is_one():
    """A linear layer's rule reads its input through a view."""
    layer = nn.Linear(2, 3)
    with tg.tracing():
        loss = layer(tg.named("x", tg.tensor(np.ones((4, 2), np.float32)))).sum()
    sketch = draw(loss, "butterfly").sketch
    assert [characters(b.symbol) for b in sketch.boxes if b.kind == "constant"] == ["x"]
    (x,) = [box.id for box in sketch.boxes if box.kind == "constant"]
    assert [w.role for w in sketch.wires if w.start == x] == ["forward", "saved"]


def test_what_only_the_backward_pass_reads_needs_no_name():
    """μ and σ² of a fused norm that is called without naming them."""
    x, gamma = leaf(np.arange(4.0).reshape(4, 1)), leaf(np.ones(1))
    with tg.tracing():
        y, _, _ = normalize(x, gamma, None, axes=(0,), eps=0.1)
        loss = (y * y * y).sum()
    backward = half(draw(loss, "butterfly"), "b")
    assert backward["r"][0] == "= 1/√(output 2+0.1)"


def test_drawing_changes_no_gradient_and_frees_nothing():
    x = leaf(np.array([1.0, 2.0]))
    with tg.tracing():
        loss = (x * x).sum()
    draw(loss, "butterfly")
    assert x.grad is None
    loss.backward()
    assert_values(x.grad, 2, 4)


def test_a_leaf_an_op_of_the_users_own_and_strange_numbers_draw_too():
    @tg.op("nothing", lambda g, _out, _x: g * 0)
    def nothing(xp, x):
        return x + 0

    x = leaf(np.array([np.nan, np.inf, 1.0]))
    empty = leaf(np.zeros((0, 3)))
    with tg.tracing():
        losses = [leaf(np.float64(3)), (nothing(x) + x * 2.0).sum(), (empty * 2.0).sum()]
    for loss in losses:
        assert draw(loss, "butterfly").svg().startswith("<svg")


def recorded(loss):
    with tg.tracing():
        return loss(leaf(np.ones(3)))


def freed():
    loss = recorded(lambda x: (x * x).sum())
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: Scalar(2.0) * 3.0, "got a Scalar, wants a Tensor"),
        (lambda: recorded(lambda x: x * x), r"got shape \(3,\), wants a single number"),
        (lambda: [recorded(lambda x: x.sum()), recorded(lambda x: x.sum())], "got 2 outputs"),
        (lambda: (leaf(np.ones(3)) * 2.0).sum(), r"record inside tracing\(\)"),
        (freed, "backward ran through this graph before"),
    ],
)
def test_what_has_no_recorded_backward_pass_is_refused(loss, message):
    with pytest.raises(ValueError, match=f"butterfly: .*{message}"):
        draw(loss(), "butterfly")
