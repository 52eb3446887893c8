"""Pictures: what is recorded, what is drawn, and that a name is only ever a name."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from html import escape

import numpy as np
import pytest
from helpers import host, leaf
from hostile import HOSTILE

import tinygrad_bn as tg
from tinygrad_bn import Scalar, diagram, nn, recording
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import VIEWS, draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.text import clean, summary
from tinygrad_bn.diagram.recorded.record import UNTRACED

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


def places(diagram):
    """The outputs of all nodes, by name."""
    return {o.name: o for node in diagram.graph.nodes for o in node.outputs if o.name}


def assert_numbers(got, wanted):
    np.testing.assert_allclose(np.ravel(got), wanted, rtol=0, atol=1e-12)


# --- The worked example ---------------------------------------------------------------------------

X = [0.5, 3.5, 4.5, 7.5]
VALUES = {"x": X, "μ_B": [4], "σ²_B": [6.25], "y": [-1.8, 0.6, 1.4, 3.8], "ℓ": [3.4]}
GRADIENTS = {"x": [0.936, -1.752, 0.152, 0.664], "γ": [1.2], "β": [1], "y": [1, -2, 0.5, 1.5]}
# Inside the fused op these have no place.
COMPOSED_VALUES = {"x̂": [-1.4, -0.2, 0.2, 1.4]}
COMPOSED_GRADIENTS = {"μ_B": [-0.8], "σ²_B": [-0.192], "x̂": [2, -4, 1, 3]}


@pytest.mark.parametrize(
    ("implementation", "values", "gradients"),
    [
        ("composed", VALUES | COMPOSED_VALUES, GRADIENTS | COMPOSED_GRADIENTS),
        ("fused", VALUES, GRADIENTS),
    ],
)
def test_the_record_holds_the_numbers_of_the_worked_example(implementation, values, gradients):
    found = places(draw(worked_example(implementation)))
    for name, wanted in values.items():
        assert_numbers(found[name].value, wanted)
    for name, wanted in gradients.items():
        assert_numbers(found[name].gradient, wanted)


def test_the_numbers_stand_in_the_dot_text_and_in_the_listing():
    diagram = draw(worked_example("composed"))
    names = ["μ_B", "σ²_B", "x̂", "γ", "β", "ℓ"]
    numbers = ["▸ −1.4, −0.2, 0.2, 1.4", "◂ 0.936, −1.752, 0.152, 0.664", "◂ −0.192", "◂ −0.8"]
    for wanted in (*names, *numbers, "◂ 1.2"):
        assert wanted.replace("_B", "<SUB>B</SUB>") in diagram.dot()
        assert wanted in str(diagram)


def test_the_fused_op_is_one_node_whose_outputs_have_a_place_each():
    graph = draw(worked_example("fused")).graph
    (fused,) = [node for node in graph.nodes if node.label == "normalize"]
    assert [output.name for output in fused.outputs] == ["y", "μ_B", "σ²_B"]
    assert [edge.output for edge in graph.edges if edge.start == fused.id] == [0]


def test_the_same_program_gives_the_same_text():
    first, second = (draw(worked_example("fused")) for _ in range(2))
    assert first.dot() == second.dot()
    assert str(first) == str(second)


@needs_graphviz
@pytest.mark.parametrize("view", VIEWS)
def test_every_box_is_in_the_picture(view):
    diagram = draw(worked_example("fused"), view)
    groups = ElementTree.fromstring(diagram.svg()).iter("{http://www.w3.org/2000/svg}g")
    drawn = [group.get("id") for group in groups if group.get("class", "").startswith("box ")]
    assert sorted(drawn) == sorted(box.id for box in diagram.sketch.boxes)


@needs_graphviz
def test_png_and_pdf_begin_as_they_should(tmp_path):
    diagram = draw(worked_example("fused"))
    assert diagram.save(tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert diagram.save(tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


# --- Names are data -------------------------------------------------------------------------------


@needs_graphviz
def test_hostile_names_are_drawn_as_text(tmp_path):
    with tg.tracing():
        total = leaf(np.float32(1))
        for name in HOSTILE:
            with recording.scope(name):
                copy = tg.op(name, lambda g, _out, _x: g)(lambda xp, x: x + 0)
                total = tg.named(name, copy(total))
    elements = list(ElementTree.parse(draw(total).save(tmp_path / "a.svg")).iter())
    tags = [element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in elements]
    assert "script" not in tags
    kinds = [element.get("class", "").split()[:1] for element in elements]
    assert kinds.count(["box"]) == len(HOSTILE) + 1
    assert kinds.count(["wire"]) == len(HOSTILE)
    shown = {element.text for element, tag in zip(elements, tags) if tag == "text"}
    assert {clean(name) for name in HOSTILE} <= {*shown, ""}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cleaned_name_is_short_and_fit_for_a_line(name):
    text = clean(name)
    assert len(text) <= 40
    assert len(text.splitlines()) <= 1
    assert ElementTree.fromstring(f"<p>{escape(text)}</p>").text == (text or None)


# --- Numbers --------------------------------------------------------------------------------------


def test_up_to_eight_numbers_are_listed_and_more_are_summed_up():
    assert summary(np.arange(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert summary(np.full((3, 3), 2.0)) == "mean 2 ± 0"
    assert summary(np.full(9, 60000, np.float16)) == "mean 6e+04 ± 0"  # its sum is not a float16
    assert summary(np.array([np.inf, -np.inf, np.nan, -0.0])) == "inf, −inf, nan, 0"
    assert summary(np.full(9, np.inf)) == "mean inf ± nan"
    assert summary(np.array([1, -5.55e-17])) == "1, −5.55e−17"
    assert summary(np.zeros((0, 3))) == "empty"
    assert summary(np.array([True, False])) == "1, 0"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.1, 0.2 - 0.1, 0.3 - 0.2] * 3, "mean 0.1 ± 0"),
        ([0.7] * 100, "mean 0.7 ± 0"),  # NumPy says ± 2.2e-16
        ([0.1, 0.2, -0.3] * 3, "mean ≈ 0 ± 0.216"),
        ([1e-17] * 8 + [3e-17], "mean 1.222e−17 ± 6.285e−18"),
    ],
)
def test_what_is_only_rounding_beside_the_largest_number_has_no_digits(values, wanted):
    assert summary(np.array(values)) == wanted


# --- What can be drawn ----------------------------------------------------------------------------


def test_scalars_are_drawn_with_the_derivatives_that_backward_finds():
    a, b = Scalar(-4.0), Scalar(2.0)
    a.name, b.name = "a", "b"
    c = (a + b) * b + b**3 - a.relu()
    found = places(draw(c))
    assert (a.grad, b.grad) == (0.0, 0.0)  # drawing leaves them alone
    c.backward()
    assert (found["a"].gradient, found["b"].gradient) == (a.grad, b.grad)
    assert found["a"].value == -4.0


def test_without_tracing_the_structure_is_drawn_and_the_diagram_says_so():
    x, w = leaf(np.ones((2, 3), np.float32)), tg.tensor(np.ones((3, 1), np.float32))
    diagram = draw((x @ w + 1.0).sum())
    leaf_node, constant, matmul, one, plus, total = diagram.graph.nodes
    assert [n.kind for n in (leaf_node, constant, one)] == ["leaf", "constant", "constant"]
    shapes = [n.outputs[0].shape for n in (leaf_node, constant, matmul, plus, total)]
    assert shapes == [(2, 3), (3, 1), (2, 1), (2, 1), ()]
    assert all(o.value is None for node in diagram.graph.nodes for o in node.outputs)
    for text in (str(diagram), diagram.dot()):
        assert "values were not kept: record inside tracing()" in text


def test_an_op_of_the_users_own_is_drawn_by_its_label():
    @tg.op("x³", lambda g, _out, x: g * 3 * x * x)
    def cube(xp, x):
        return x * x * x

    with tg.tracing():
        y = cube(tg.named("x", leaf(np.float64(2))))
    x_node, op_node = draw(y).graph.nodes
    assert (op_node.label, op_node.outputs[0].value) == ("x³", 8)
    assert x_node.outputs[0].gradient == 12
    assert op_node.source.startswith("test_draw.py:")


def test_an_argument_that_was_left_out_is_no_node():
    with tg.tracing():
        y = F.linear(leaf(np.ones((2, 3))), leaf(np.ones((1, 3))))
    assert [node.kind for node in draw(y.sum()).graph.nodes] == ["leaf", "leaf", "op", "op"]


def test_a_constant_that_is_used_twice_is_one_node():
    with tg.tracing():
        w = tg.named("w", tg.tensor(np.ones(3)))
        y = (leaf(np.ones(3)) * w + w).sum()
    kinds = [node.kind for node in draw(y).graph.nodes]
    assert kinds.count("constant") == 1


def test_the_graph_of_a_network_knows_its_modules():
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    batch, classes = np.ones((16, 2), np.float32), np.arange(16) % 3
    with tg.tracing():
        loss = F.cross_entropy(net(tg.tensor(batch)), tg.tensor(classes))
    graph = draw(loss).graph
    assert len([node for node in graph.nodes if node.kind == "leaf"]) == 6
    scopes = [node.scope for node in graph.nodes if node.scope]
    assert [scope.split(":")[-1] for scope in scopes] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert scopes[0] == "Sequential.0:Linear"
    weight = next(net.parameters())
    loss.backward()  # drawing has not freed the graph
    drawn = next(node for node in graph.nodes if node.outputs[0].shape == (8, 2))
    np.testing.assert_array_equal(drawn.outputs[0].gradient, host(weight.grad))


def test_several_outputs_are_one_graph_and_a_constant_among_them_is_shown():
    x = leaf(np.float64(3))
    with tg.tracing():
        dx, dc = tg.grad([x * x, x * 5.0], [x, x], create_graph=True)[0], tg.tensor(7.0)
    diagram = draw([dx, tg.named("c", dc)])
    assert places(diagram)["c"].value == 7


def test_gradients_need_one_number():
    x = leaf(np.ones(3))
    with tg.tracing():
        y = x * x
    assert "no gradients: got shape (3,), wants a single number" in str(draw(y))
    assert "no gradients: got 2 outputs, wants" in str(draw([y.sum(), y.mean()]))


def test_a_value_that_was_changed_in_place_is_not_shown_for_the_recorded_one():
    weight = leaf(np.float64(2))
    with tg.tracing():
        loss = weight * weight
    before = draw(loss)
    with tg.no_grad():
        weight += 1.0
    after = draw(loss)
    assert before.graph.nodes[0].outputs[0].value == 2
    assert after.graph.nodes[0].outputs[0].value is None
    assert "changed in place" in str(after)


def test_a_name_is_text():
    with pytest.raises(TypeError, match=r"named: got float64\[\].* as the name, wants text"):
        tg.named(leaf(np.float64(2)), "x")


def test_a_freed_graph_is_drawn_without_gradients_and_says_so():
    x = leaf(np.float64(2))
    loss = x * x
    loss.backward()
    graph = draw(loss).graph
    (untraced, freed) = graph.notes
    assert untraced == UNTRACED
    assert freed.startswith("no gradients: mul: backward ran through this graph before")
    assert graph.nodes[0].outputs[0].gradient is None


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (np.ones(3), TypeError, "got ndarray, wants a Tensor"),
        ([None], TypeError, "got NoneType"),
        ([], ValueError, "got an empty sequence, wants at least one Tensor"),
        (lambda: tg.tensor([1.0]), ValueError, r"got float32\[1\].*requires_grad=True"),
    ],
)
def test_what_was_not_recorded_is_refused(wrong, error, message):
    with pytest.raises(error, match=f"^output: {message}"):
        draw(wrong() if callable(wrong) else wrong)


@pytest.mark.parametrize("call", [draw, diagram.explain, diagram.stepper])
def test_a_notation_is_a_known_word(call):
    with pytest.raises(ValueError, match=r"^notation: got \[1\], wants one of 'ioffe', 'fleuret'"):
        call(worked_example("composed"), notation=[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda loss: draw(loss, ["ops"]), ValueError, r"view: got \['ops'\], wants one of 'sym"),
        (lambda loss: draw(loss, theme=np.ones(3)), ValueError, r"theme: got array\(.*, wants one"),
        (lambda loss: diagram.stepper(loss, title=3), TypeError, "title: got int, wants text"),
        (
            lambda loss: draw(loss).save(None),
            TypeError,
            "path: got NoneType, wants a str or a Path",
        ),
        (lambda loss: draw(loss).save(b"x.svg"), TypeError, "path: got bytes, wants a str"),
        (lambda loss: draw(loss).save("/a\0.svg"), ValueError, "path: got .*without a null char"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(worked_example("composed"))


# --- Hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        *(lambda loss, x, view=view: draw(loss, view) for view in VIEWS if view != "fused"),
        lambda loss, x: diagram.explain(loss),
        lambda loss, x: diagram.stepper(loss),
        lambda loss, x: diagram.paths(loss, to=x),
    ],
)
def test_hooks_run_once_a_call(call):
    seen, x = [], leaf(np.array([1.0, 2.0]))
    x.register_hook(seen.append)
    with tg.tracing():
        loss = (x * x).sum()
    call(loss, x)
    assert len(seen) == 1
