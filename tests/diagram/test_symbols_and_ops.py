"""The views `symbols` and `ops`: what is written in the saved picture of the worked example, and
that any graph draws."""

import importlib.util

import numpy as np
import pytest
from helpers import leaf, vector
from pictures import boxes, wires

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


def saved(loss, path, view, notation="ioffe"):
    return draw(loss, view, notation).save(path / "picture.svg")


# --- The signature picture ------------------------------------------------------------------------


def test_the_symbols_with_the_contribution_of_every_path(tmp_path):
    assert boxes(saved(worked_example("composed"), tmp_path, "symbols")) == {
        "x": [
            *["(4, 1)", "▸", "0.5", "3.5", "4.5", "7.5"],
            *["via μB", "−0.2", "−0.2", "−0.2", "−0.2"],
            *["+ via σ²B", "0.336", "0.048", "−0.048", "−0.336"],
            *["+ via x̂", "0.8", "−1.6", "0.4", "1.2"],
            *["◂ ∂ℓ/∂x =", "0.936", "−1.752", "0.152", "0.664"],
        ],
        "μB": [
            *["= 1/m Σ xi", "(1, 1)", "▸", "4"],
            *["via σ²B 0", "+ via x̂", "−0.8", "◂ ∂ℓ/∂μB =", "−0.8"],
        ],
        "σ²B": ["= 1/m Σ (xi−μB)2", "(1, 1)", "▸", "6.25", "◂ ∂ℓ/∂σ²B =", "−0.192"],
        "x̂": [
            *["= (xi−μB)/√(σ²B+ε)", "(4, 1)", "▸", "−1.4", "−0.2", "0.2", "1.4"],
            *["◂ ∂ℓ/∂x̂ =", "2", "−4", "1", "3"],
        ],
        "γ": ["(1,)", "▸", "2", "◂ ∂ℓ/∂γ =", "1.2"],
        "β": ["(1,)", "▸", "1", "◂ ∂ℓ/∂β =", "1"],
        "y": [
            *["= γ·x̂i + β", "(4, 1)", "▸", "−1.8", "0.6", "1.4", "3.8"],
            *["◂ ∂ℓ/∂y =", "1", "−2", "0.5", "1.5"],
        ],
        "ℓ": ["= Σ wi·yi", "▸", "3.4", "◂ ∂ℓ/∂ℓ =", "1"],
    }


def test_every_arrow_carries_the_local_derivative(tmp_path):
    assert wires(saved(worked_example("composed"), tmp_path, "symbols")) == {
        "x → μ_B": "1/m",
        "x → σ²_B": "2(xi−μB)/m",
        "x → x̂": "1/√(σ²B+ε)",
        "μ_B → σ²_B": "Σ −2(xi−μB)/m = 0",
        "μ_B → x̂": "−1/√(σ²B+ε)",
        "σ²_B → x̂": "−½(xi−μB)(σ²B+ε)−3/2",
        "x̂ → y": "γ",
        "γ → y": "x̂i",
        "β → y": "1",
        "y → ℓ": "wi",
    }


def test_the_path_that_adds_nothing_is_drawn_as_such():
    drawn = draw(worked_example("composed"), "symbols").sketch.wires
    roles = {characters(wire.label): wire.role for wire in drawn}
    assert roles.pop("Σ −2(x_i−μ_B)/m = 0") == "zero"
    assert set(roles.values()) == {"forward"}


@pytest.mark.parametrize(
    ("notation", "headings", "normalized"),
    [
        ("ioffe", {"x", "μB", "σ²B", "x̂", "γ", "β", "y", "ℓ"}, "= (xi−μB)/√(σ²B+ε)"),
        ("fleuret", {"x", "m̂", "v̂", "z", "γ", "β", "y", "𝓛"}, "= (xi−m̂)/√(v̂+ε)"),
        ("hat", {"x", "μ̂", "σ̂²", "x̂", "γ", "β", "y", "ℓ"}, "= (xi−μ̂)/√σ̂²"),
    ],
)
def test_three_notations(tmp_path, notation, headings, normalized):
    found = boxes(saved(worked_example("composed"), tmp_path, "symbols", notation))
    assert set(found) == headings
    assert found["z" if notation == "fleuret" else "x̂"][0] == normalized
    variance = {"ioffe": "σ²B", "fleuret": "v̂", "hat": "σ̂²"}[notation]
    assert "−0.192" in found[variance]


def test_what_is_0_on_paper_and_not_in_floating_point_is_said_to_be(tmp_path):
    x = tg.named("x", leaf(np.array([[0.1], [0.2], [0.7]])))
    with tg.tracing():
        y = F.batch_norm(x, None, None, training=True, impl="composed")
        loss = tg.named("ℓ", (y * tg.tensor([[1.0], [2.0], [4.0]])).sum())
    zero = next(row for row in boxes(saved(loss, tmp_path, "symbols"))["μB"] if "σ²" in row)
    size = float(zero.split("≈ 0 (")[1].split(";")[0].replace("−", "-"))
    assert zero.endswith("0 on paper)")
    assert 0 < size < 1e-15


def test_what_is_freed_or_untraced_keeps_its_arrows():
    def arrows(loss):
        wires = draw(loss, "symbols").sketch.wires
        return [(wire.start, wire.end, characters(wire.label)) for wire in wires]

    loss = worked_example("composed")
    ends = [arrow[:2] for arrow in arrows(loss)]
    loss.backward()
    assert [arrow[:2] for arrow in arrows(loss)] == ends
    assert ("n1_0", "n5_0", "∂x̂/∂μ_B") not in arrows(loss)
    assert {label for *_, label in arrows(loss)} >= {"∂μ_B/∂x", "∂x̂/∂σ²_B", "∂ℓ/∂y"}
    x = leaf(np.array([1.0, 2.0]))
    assert arrows((x * x).sum()) == [("n0_0", "n2_0", "∂ℓ/∂x")]


def test_a_fused_norm_says_what_the_letters_on_its_arrows_mean(tmp_path):
    drawn = draw(worked_example("fused"), "symbols")
    assert list(boxes(drawn.save(tmp_path / "fused.svg"))) == ["x", "γ", "β", "y", "ℓ"]
    notes = [note if isinstance(note, str) else characters(note) for note in drawn.sketch.notes]
    assert notes[-1] == "x̂_i = d_i·r"
    assert "r = 1/√(σ²_B+ε)" in notes


def test_only_batch_norm_has_statistics_of_a_batch():
    def statistics(norm, *arguments):
        x = leaf(np.arange(24.0).reshape(2, 4, 3))
        with tg.tracing():
            loss = norm(x, *arguments, impl="composed").sum()
        names = {output.name for node in draw(loss).graph.nodes for output in node.outputs}
        return names - {"x̂", "y", "ε", None}

    assert statistics(F.batch_norm, None, None, None, None, True) == {"μ_B", "σ²_B"}
    assert statistics(F.layer_norm, 3) == {"μ", "σ²"}
    assert statistics(F.group_norm, 2) == {"μ", "σ²"}
    assert statistics(F.instance_norm) == {"μ", "σ²"}
    assert statistics(F.rms_norm, 3) == {"RMS²"}


# --- Every op -------------------------------------------------------------------------------------

OPS = {
    "x": ["0.5", "3.5", "4.5", "7.5", "0.936", "−1.752", "0.152", "0.664"],
    "μB": ["4", "−0.8"],
    "d": ["−3.5", "−0.5", "0.5", "3.5", "1.136", "−1.552", "0.352", "0.864"],
    "q": ["12.25", "0.25", "0.25", "12.25", "−0.048", "−0.048", "−0.048", "−0.048"],
    "σ²B": ["6.25", "−0.192"],
    "v": ["6.25", "−0.192"],
    "s": ["2.5", "−0.96"],
    "x̂": ["−1.4", "−0.2", "0.2", "1.4", "2", "−4", "1", "3"],
    "γ": ["2", "1.2"],
    "u": ["−2.8", "−0.4", "0.4", "2.8", "1", "−2", "0.5", "1.5"],
    "β": ["1", "1"],
    "y": ["−1.8", "0.6", "1.4", "3.8", "1", "−2", "0.5", "1.5"],
    "w": ["1", "−2", "0.5", "1.5"],
    "p": ["−1.8", "−1.2", "0.7", "5.7", "1", "1", "1", "1"],
    "ℓ": ["3.4", "1"],
    "ε": ["0"],
}


def test_every_op_with_its_value_and_gradient(tmp_path):
    found = boxes(saved(worked_example("composed"), tmp_path, "ops"))
    assert {heading: numbers(texts) for heading, texts in found.items()} == OPS
    definitions = {"d": "= xi − μB", "q": "= d2", "v": "= σ²B + ε", "s": "= √v", "x̂": "= di/s"}
    assert definitions.items() <= {heading: texts[0] for heading, texts in found.items()}.items()


def numbers(texts):
    """What comes after ▸, without the marks."""
    after = texts[texts.index("▸") :]
    return [text for text in after if text not in ("▸", "◂")]


def test_wires_are_labelled_where_gradients_add_and_nowhere_else(tmp_path):
    found = wires(saved(worked_example("composed"), tmp_path, "ops"))
    assert {title: label for title, label in found.items() if label} == {
        "x → μ_B": "◂ −0.2, −0.2, −0.2, −0.2",
        "x → d": "◂ 1.136, −1.552, 0.352, 0.864",
        "d → q": "◂ 0.168, 0.024, −0.024, −0.168",
        "d → x̂": "◂ 0.8, −1.6, 0.4, 1.2",
    }


def test_the_outputs_of_a_fused_op_stand_side_by_side(tmp_path):
    found = boxes(saved(worked_example("fused"), tmp_path, "ops"))
    assert found["normalize"][:2] == ["y", "▸"]
    assert found["normalize"][found["normalize"].index("μB") :][:3] == ["μB", "▸", "4"]


# --- Any graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["symbols", "ops"])
def test_a_network_and_an_op_of_the_users_own_draw_too(tmp_path, view):
    @tg.op("x³", lambda g, _out, x: g * 3 * x * x)
    def cube(xp, x):
        return x * x * x

    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    with tg.tracing():
        hidden = tg.named("c", cube(net(tg.randn(8, 2))))
        loss = F.cross_entropy(hidden, tg.tensor(np.arange(8) % 3))
    diagram = draw(loss, view)
    drawn = {box.id for box in diagram.sketch.boxes}
    assert {end for wire in diagram.sketch.wires for end in (wire.start, wire.end)} <= drawn
    assert diagram.svg() == draw(loss, view).svg()
    definitions = ["".join(run for run, _ in box.definition) for box in diagram.sketch.boxes]
    assert any(definition.startswith("cube(") for definition in definitions)


def test_a_module_that_a_path_leaves_and_enters_again_has_no_frame():
    def frames(step):
        x = leaf(np.float64(2))
        with tg.tracing():
            return draw(step(x)).sketch.frames

    class Double(nn.Module):
        def forward(self, x):
            return x * 2.0

    double = Double()
    assert [frame.boxes for frame in frames(lambda x: double(x) + 1.0)] == [("n2",)]
    assert frames(lambda x: double(tg.exp(double(x)))) == ()


def test_unknown_names_are_refused_with_the_known_ones():
    loss = worked_example("composed")
    with pytest.raises(ValueError, match=r"view: got 'symbol', wants one of 'symbols', 'ops'"):
        draw(loss, "symbol")
    with pytest.raises(
        ValueError, match="notation: got 'pytorch', wants one of 'ioffe', 'fleuret'"
    ):
        draw(loss, notation="pytorch")
    with pytest.raises(ValueError, match="theme: got 'blue', wants one of 'auto', 'light', 'dark'"):
        draw(loss, theme="blue")


# --- What is computed, and no more ----------------------------------------------------------------


def symbols_boxes(loss, path):
    return boxes(draw(loss, "symbols").save(path / "picture.svg"))


def test_a_definition_shows_what_ran_though_it_cancels_on_paper(tmp_path):
    x = tg.named("x", vector(0.0, 2.0))
    with tg.tracing(), np.errstate(all="ignore"):
        one, none = tg.named("a", x / x), tg.named("b", x * 0.0)
        loss = tg.named("ℓ", (one - one + none).sum())
    found = symbols_boxes(loss, tmp_path)
    assert found["a"][0] == "= div(x, x)"
    assert found["b"][0] == "= mul(x, 0)"
    assert "sub(ai, ai)" in found["ℓ"][0]


def test_what_is_0_on_paper_and_is_no_number_is_not_called_0(tmp_path):
    x = tg.named("x", vector(1.0, 2.0, np.inf).reshape(3, 1))
    with tg.tracing(), np.errstate(all="ignore"):
        y = F.batch_norm(x, None, None, training=True, impl="composed")
        loss = (y * y).sum()
    assert "≈ 0" not in "".join(map("".join, symbols_boxes(loss, tmp_path).values()))


def test_no_numbers_are_no_zero():
    x = tg.named("x", leaf(np.zeros(0)))
    with tg.tracing():
        loss = (tg.named("y", x * 2.0) ** 2).sum()
    assert {wire.role for wire in draw(loss, "symbols").sketch.wires} == {"forward"}
