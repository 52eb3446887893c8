"""The view `fused`: composed beside fused norms, and the facts that set them apart."""

import importlib.util
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers import leaf
from pictures import SVG, shown

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.check import graph_nodes, held_bytes
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.diagram.views import twins
from tinygrad_bn.diagram.views.fused import facts
from tinygrad_bn.norm import composed

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


def reading_of(loss):
    return Reading(record(loss), "ioffe")


def table(loss):
    """The facts as {name: (of composed, of fused)}."""
    head, *rows = [
        [characters(cell) for cell in row] for row in facts(twins.twins(reading_of(loss)))
    ]
    assert head == ["", "composed", "fused"]
    return {name: tuple(cells) for name, *cells in rows}


def notes(loss):
    """What the box of the fused norm says of its gradients."""
    (box,) = [
        box for box in draw(loss, "fused").sketch.boxes if getattr(box, "kind", "") == "fused"
    ]
    return [characters(row.label) for row in box.columns[0].rows if row.role == "note"]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def leaves(shapes):
    """x, γ and β of these shapes."""
    named = enumerate(zip(("x", "γ", "β"), shapes))
    return [tg.named(name, leaf(numbers(*shape, seed=k))) for k, (name, shape) in named]


def loss_of(norm, *shapes):
    """Σ w·y, where y is a fused norm of x, γ and β."""
    with tg.tracing():
        y = norm(*leaves(shapes))
        return tg.named("ℓ", (y * tg.tensor(numbers(*y.shape, seed=9))).sum())


def batch_norm(x, *affine, **impl):
    return F.batch_norm(x, None, None, *affine, training=True, **impl)


def layer_norm(x, *affine, **impl):
    return F.layer_norm(x, 4, *affine, **impl)


def instance_norm(x, *affine, **impl):
    return F.instance_norm(x, None, None, *affine, **impl)


def group_norm(x, *affine, **impl):
    return F.group_norm(x, 2, *affine, **impl)


def rms_norm(x, *affine, **impl):
    return F.rms_norm(x, 4, *affine, **impl)


FAMILY = [
    (batch_norm, (5, 4), (4,), (4,)),
    (layer_norm, (3, 4), (4,), (4,)),
    (instance_norm, (2, 4, 5), (4,), (4,)),
    (group_norm, (2, 4, 5), (4,), (4,)),
    (rms_norm, (3, 4), (4,)),
]


# --- The worked example ---------------------------------------------------------------------------

COMPOSED = {
    "x": ["0.5", "3.5", "4.5", "7.5", "0.936", "−1.752", "0.152", "0.664"],
    "μB": ["4", "−0.8"],
    "d": ["−3.5", "−0.5", "0.5", "3.5", "1.136", "−1.552", "0.352", "0.864"],
    "q": ["12.25", "0.25", "0.25", "12.25", "−0.048", "−0.048", "−0.048", "−0.048"],
    "σ²B": ["6.25", "−0.192"],
    "ε": ["0"],
    "v": ["6.25", "−0.192"],
    "s": ["2.5", "−0.96"],
    "x̂": ["−1.4", "−0.2", "0.2", "1.4", "2", "−4", "1", "3"],
    "γ": ["2", "1.2"],
    "u": ["−2.8", "−0.4", "0.4", "2.8", "1", "−2", "0.5", "1.5"],
    "β": ["1", "1"],
    "y": ["−1.8", "0.6", "1.4", "3.8", "1", "−2", "0.5", "1.5"],
}
FUSED = [
    "fused, 1 op",
    *["▸ μB = 1/m Σ xi =", "4"],
    *["▸ σ²B = 1/m Σ (xi−μB)2 =", "6.25"],
    "▸ x̂i = (xi−μB)/√(σ²B+ε)",
    *["▸ yi = γ·x̂i + β =", "−1.8", "0.6", "1.4", "3.8"],
    "saved for backward: x (4), γ (1), μB (1), σ²B (1) = 7 numbers",
    *["◂ ∂ℓ/∂y =", "1", "−2", "0.5", "1.5"],
    "ε = 0",
    "r = 1/√(σ²B+ε)",
    "∂ℓ/∂xi = r(γ·∂ℓ/∂yi−x̂i/m Σj γ·x̂j·∂ℓ/∂yj−1/m Σj γ·∂ℓ/∂yj)",
    "∂ℓ/∂γ = Σ x̂i·∂ℓ/∂yi",
    "∂ℓ/∂β = Σ ∂ℓ/∂yi",
]
TABLE = [
    *["composed", "fused"],
    *["ops recorded", "9", "1"],
    *["kernels launched, forward + backward", "9 + 20", "1 + 1"],
    *["numbers saved for backward", "10 (d, s, x̂, γ)", "7 (x, γ, μB, σ²B)"],
    *["largest |difference| in y, ∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β", "–", "≤ 1e−15"],
]


def told(svg, prefix):
    """What the boxes say whose ids begin with `prefix`, by their headings."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if group.get("class", "").startswith("box ") and group.get("id").startswith(prefix):
            heading, *rest = shown(group)
            assert heading not in found
            found[heading] = rest
    return found


@needs_graphviz
def test_both_graphs_stand_side_by_side_with_the_numbers_of_the_example():
    diagram = draw(worked_example("fused"), "fused")
    svg = diagram.svg()
    left, right = told(svg, "cn"), told(svg, "fn")
    after = {name: texts[texts.index("▸") :] for name, texts in left.items()}
    marks = ("▸", "◂")
    assert {n: [t for t in texts if t not in marks] for n, texts in after.items()} == COMPOSED
    assert right.pop("normalize") == FUSED
    assert right == {name: left[name] for name in ("x", "γ", "β")}
    titles = [characters(frame.title) for frame in diagram.sketch.frames]
    assert titles == ["composed: 9 ops", "fused: 1 op, analytic gradient"]


@needs_graphviz
def test_below_stands_what_sets_them_apart():
    (heading, rest) = told(draw(worked_example("fused"), "fused").svg(), "facts").popitem()
    assert [heading, *rest] == TABLE


@needs_graphviz
def test_the_same_program_gives_the_same_picture():
    first, second = (draw(worked_example("fused"), "fused") for _ in range(2))
    assert first.svg() == second.svg()
    assert first.dot() == second.dot()


# --- The facts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", FAMILY, ids=lambda member: member[0].__name__)
def test_ops_and_saved_numbers_are_those_of_the_two_norms(member):
    norm, *shapes = member
    found = table(loss_of(norm, *shapes))
    for column, impl in enumerate(("composed", "fused")):
        y = [norm(*leaves(shapes), impl=impl)]
        ops = [node for node in graph_nodes(y) if node.op.name != "reshape"]
        assert found["ops recorded"][column] == str(len(ops))
        saved = found["numbers saved for backward"][column].split()[0]
        assert int(saved) == held_bytes(y) / 8


@pytest.mark.parametrize("member", FAMILY, ids=lambda member: member[0].__name__)
def test_a_member_of_the_family_differs_by_rounding_only(member):
    (cells,) = [v for k, v in table(loss_of(*member)).items() if k.startswith("largest")]
    assert cells[0] == "–"
    assert float(cells[1].removeprefix("≤ ").replace("−", "-")) <= 1e-14


def test_a_difference_is_told(monkeypatch):
    def wrong(*arguments, **options):
        y, mu, var = composed.normalize(*arguments, **options)
        return y * 1.0005, mu, var

    monkeypatch.setitem(twins._COMPOSED, tg.norm.fused.normalize, wrong)
    found = table(worked_example("fused"))
    # The largest value is y_4 = 3.8 and the largest gradient ∂ℓ/∂x_2 = −1.752.
    assert found["largest |difference| in y, ∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β"][1] == "≤ 0.01"
    assert found["ops recorded"] == ("10", "1")


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        *[(0.0, "0"), (1e-15, "≤ 1e−15"), (np.nextafter(1e-15, 1), "≤ 1e−14")],
        *[(9.99e-16, "≤ 1e−15"), (2.0, "≤ 10"), (9e-300, "≤ 1e−299"), (1e300, "≤ 1e+300")],
        *[(np.inf, "inf"), (np.nan, "nan")],
    ],
)
def test_a_difference_is_rounded_up_to_a_power_of_ten(difference, text):
    assert twins.bound(difference) == text


def test_kernels_of_inference_are_counted_as_they_are():
    """It has no kernel of its own: its gradient is a formula, and composed ops launch fewer."""
    mean, variance = (tg.tensor(np.array(v)) for v in ([0.5, 0.25], [1.0, 2.0]))

    def inference(x, *affine):
        return F.batch_norm(x, mean, variance, *affine)

    found = table(loss_of(inference, (3, 2), (2,), (2,)))
    assert found["kernels launched, forward + backward"] == ("6 + 5", "1 + 10")


def test_several_norms_are_counted_together():
    def twice(x, *affine):
        return batch_norm(layer_norm(x, *affine) * 2.0, *affine)

    found = table(loss_of(twice, (3, 4), (4,), (4,)))
    assert found["ops recorded"] == ("18", "2")
    assert found["kernels launched, forward + backward"] == ("18 + 40", "2 + 2")
    assert "largest |difference| in outputs and gradients" in found


# --- What the box of a fused norm says ------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "gradient"),
    [
        (
            FAMILY[0],
            "r_j(γ_j·∂ℓ/∂y_{ij}−x̂_{ij}/m Σ_k γ_j·x̂_{kj}·∂ℓ/∂y_{kj}−1/m Σ_k γ_j·∂ℓ/∂y_{kj})",
        ),
        (
            FAMILY[1],
            "r_i(γ_j·∂ℓ/∂y_{ij}−x̂_{ij}/m Σ_k γ_k·x̂_{ik}·∂ℓ/∂y_{ik}−1/m Σ_k γ_k·∂ℓ/∂y_{ik})",
        ),
        (FAMILY[4], "r_i(γ_j·∂ℓ/∂y_{ij}−x̂_{ij}/m Σ_k γ_k·x̂_{ik}·∂ℓ/∂y_{ik})"),
    ],
    ids=["batch_norm", "layer_norm", "rms_norm"],
)
def test_the_gradient_is_the_formula_of_its_rule(member, gradient):
    assert f"∂ℓ/∂x_{{ij}} = {gradient}" in notes(loss_of(*member))


def test_a_gradient_to_which_others_add_is_said_to_be_a_part():
    said = notes(loss_of(lambda x, *affine: x + layer_norm(x, *affine), (3, 4), (4,), (4,)))
    (of_x,) = [note for note in said if note.startswith("∂ℓ/∂x")]
    assert of_x.startswith("∂ℓ/∂x_{ij} += r_i(")
    assert "∂ℓ/∂β_j = Σ_i ∂ℓ/∂y_{ij}" in said


@pytest.mark.parametrize(
    ("output", "saved", "compared"),
    [
        (0, ("20 (d, s, x̂, γ)", "14 (x, γ, output 1, output 2)"), "z, ∂ℓ/∂x, ∂ℓ/∂γ"),
        (1, ("0", "14 (x, γ, z, output 2)"), "∂ℓ/∂x"),
        (2, ("8 (d)", "14 (x, γ, output 1, z)"), "∂ℓ/∂x"),
    ],
)
def test_outputs_that_nobody_names_or_uses(output, saved, compared):
    x, gamma = leaves([(4, 2), (2,)])
    with tg.tracing():
        outputs = tg.norm.fused.normalize(x, gamma, None, axes=(0,), eps=0.1)
        loss = (outputs[output] ** 3).sum()
    found = table(loss)
    assert found["numbers saved for backward"] == saved
    assert f"largest |difference| in {compared}" in found


def test_all_that_the_gradient_of_a_fused_norm_is_made_of_is_defined():
    with tg.tracing():
        y = F.layer_norm(leaf(numbers(2, 3)), 3)
        loss = (y * tg.tensor(numbers(2, 3))).sum()
    boxes = draw(loss, "fused").sketch.boxes
    (box,) = (box for box in boxes if characters(getattr(box, "symbol", ())) == "normalize")
    notes = [characters(row.label) for row in box.columns[0].rows if row.role == "note"]
    assert [note.partition(" = ")[0] for note in notes[:4]] == ["ε", "r_i", "d_{ij}", "x̂_{ij}"]
