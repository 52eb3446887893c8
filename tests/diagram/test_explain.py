"""The backward pass as text: the worked example line by line, any graph, three printings."""

import re
import time

import numpy as np
import pytest
from helpers import grid, leaf, vector
from hostile import HOSTILE
from hypothesis import given
from matplotlib.mathtext import MathTextParser
from random_graphs import losses
from test_ops import DIFFERENTIABLE, leaves, seeds

import tinygrad_bn as tg
from tinygrad_bn import Scalar, diagram
from tinygrad_bn import functional as F
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.text import clean
from tinygrad_bn.diagram.recorded import record

COMPOSED = """\
ℓ = 3.4, m = 4, ε = 0, w = (1, −2, 0.5, 1.5)

ℓ = Σ pᵢ                          ◂ ∂ℓ/∂ℓ = 1
    ∂ℓ/∂pᵢ = ∂ℓ/∂ℓ = (1, 1, 1, 1)

p = w·y                           ◂ ∂ℓ/∂p = (1, 1, 1, 1)
    ∂ℓ/∂y = ∂ℓ/∂p · w = (1, 1, 1, 1) · (1, −2, 0.5, 1.5) = (1, −2, 0.5, 1.5)

yᵢ = uᵢ + β                       ◂ ∂ℓ/∂y = (1, −2, 0.5, 1.5)
    ∂ℓ/∂u = ∂ℓ/∂y = (1, −2, 0.5, 1.5)
    ∂ℓ/∂β = Σ ∂ℓ/∂yᵢ = 1

uᵢ = γ·x̂ᵢ                         ◂ ∂ℓ/∂u = (1, −2, 0.5, 1.5)
    ∂ℓ/∂γ  = Σ ∂ℓ/∂uᵢ · x̂ᵢ = Σ (1, −2, 0.5, 1.5) · (−1.4, −0.2, 0.2, 1.4) = 1.2
    ∂ℓ/∂x̂ᵢ = ∂ℓ/∂uᵢ · γ = (1, −2, 0.5, 1.5) · 2 = (2, −4, 1, 3)

x̂ᵢ = dᵢ/s                         ◂ ∂ℓ/∂x̂ = (2, −4, 1, 3)
    ∂ℓ/∂dᵢ += ∂ℓ/∂x̂ᵢ · 1/s = (2, −4, 1, 3) · 0.4 = (0.8, −1.6, 0.4, 1.2)
    ∂ℓ/∂s  =  Σ ∂ℓ/∂x̂ᵢ · (−x̂ᵢ/s) = Σ (2, −4, 1, 3) · (0.56, 0.08, −0.08, −0.56) = −0.96

s = √v                            ◂ ∂ℓ/∂s = −0.96
    ∂ℓ/∂v = ∂ℓ/∂s · 1/(2s) = −0.96 · 0.2 = −0.192

v = σ²_B + ε                      ◂ ∂ℓ/∂v = −0.192
    ∂ℓ/∂σ²_B = ∂ℓ/∂v = −0.192

σ²_B = 1/m Σ qᵢ                   ◂ ∂ℓ/∂σ²_B = −0.192
    ∂ℓ/∂qᵢ = ∂ℓ/∂σ²_B · 1/m = −0.192 · 0.25 = (−0.048, −0.048, −0.048, −0.048)

q = d²                            ◂ ∂ℓ/∂q = (−0.048, −0.048, −0.048, −0.048)
    ∂ℓ/∂d += ∂ℓ/∂q · 2d = (−0.048, −0.048, −0.048, −0.048) · (−7, −1, 1, 7)
          =  (0.336, 0.048, −0.048, −0.336)
    ∂ℓ/∂d =  (1.136, −1.552, 0.352, 0.864) in total

dᵢ = xᵢ − μ_B                     ◂ ∂ℓ/∂d = (1.136, −1.552, 0.352, 0.864)
    ∂ℓ/∂x   += ∂ℓ/∂d = (1.136, −1.552, 0.352, 0.864)
    ∂ℓ/∂μ_B =  Σ ∂ℓ/∂dᵢ · (−1) = Σ (1.136, −1.552, 0.352, 0.864) · (−1) = −0.8

μ_B = 1/m Σ xᵢ                    ◂ ∂ℓ/∂μ_B = −0.8
    ∂ℓ/∂xᵢ += ∂ℓ/∂μ_B · 1/m = −0.8 · 0.25 = (−0.2, −0.2, −0.2, −0.2)
    ∂ℓ/∂x  =  (0.936, −1.752, 0.152, 0.664) in total"""

FUSED = """\
y, μ_B, σ²_B = normalize(x, γ, β, axes=0, eps=0)  ◂ ∂ℓ/∂y = (1, −2, 0.5, 1.5)
    ∂ℓ/∂xᵢ = r(γ·∂ℓ/∂yᵢ−x̂ᵢ/m Σⱼ γ·x̂ⱼ·∂ℓ/∂yⱼ−1/m Σⱼ γ·∂ℓ/∂yⱼ) = (0.936, −1.752, 0.152, 0.664)
    ∂ℓ/∂γ  = Σ ∂ℓ/∂yᵢ · x̂ᵢ = 1.2
    ∂ℓ/∂β  = Σ ∂ℓ/∂yᵢ = 1
    where ε = 0, r = 1/√(σ²_B+ε), dᵢ = xᵢ − μ_B − 1/m Σⱼ (xⱼ−μ_B), x̂ᵢ = dᵢ·r"""


def paragraphs(loss, notation="ioffe"):
    """The paragraphs, by the first symbol of each; the first one is what is given."""
    given, *others = str(tg.explain(loss, notation)).split("\n\n")
    return given, {block.partition(" ")[0]: block for block in others}


# --- The worked example ---------------------------------------------------------------------------


def test_the_worked_example_is_explained_line_by_line():
    assert str(tg.explain(worked_example("composed"))) == COMPOSED


def test_the_fused_norm_is_explained_by_its_formula():
    assert str(tg.explain(worked_example("fused"))).endswith(FUSED)


def test_notations_change_the_symbols_and_nothing_else():
    said = str(tg.explain(worked_example("composed"), "fleuret"))
    for symbol, other in (("z", "x̂"), ("m̂", "μ_B"), ("v̂", "σ²_B"), ("𝓛", "ℓ")):
        said = said.replace(symbol, other)
    assert re.sub(" +", " ", said) == re.sub(" +", " ", COMPOSED)
    assert "σ̂² = σ²_B + ε" in str(tg.explain(worked_example("composed"), "hat"))


def test_markdown_has_the_formulas_as_latex_with_the_numbers_under_them():
    said = tg.explain(worked_example("composed")).markdown()
    assert said == tg.explain(worked_example("composed"))._repr_markdown_()
    block = said.partition(r"$\hat{x}_{i} = \frac{d_{i}}{s}$ receives ")[2].partition("\n\n$s")[0]
    assert block.splitlines() == [
        r"$\frac{\partial \ell }{\partial \hat{x}} = (2, -4, 1, 3)$ and hands on",
        "",
        "$$",
        r"\begin{aligned}",
        r"\frac{\partial \ell }{\partial d_{i}} &\mathrel{+}= "
        r"\frac{\partial \ell }{\partial \hat{x}_{i}} \cdot  \frac{1}{s} \\",
        r"&= (2, -4, 1, 3) \cdot  0.4 \\",
        r"&= (0.8, -1.6, 0.4, 1.2) \\",
        r"\frac{\partial \ell }{\partial s} &= \sum_{i} \frac{\partial \ell }"
        r"{\partial \hat{x}_{i}} \cdot  \left(-\frac{\hat{x}_{i}}{s}\right) \\",
        r"&= \sum_{i} (2, -4, 1, 3) \cdot  (0.56, 0.08, -0.08, -0.56) \\",
        "&= -0.96",
        r"\end{aligned}",
        "$$",
    ]


def test_latex_has_an_environment_a_node():
    said = tg.explain(worked_example("composed")).latex()
    assert said.count(r"\begin{align*}") == said.count(r"\end{align*}") == 11
    assert said.startswith(
        r"$\ell  = 3.4$, $m = 4$, $\epsilon  = 0$, $w = (1, -2, 0.5, 1.5)$" + "\n\n"
    )
    assert r"&= (0.936, -1.752, 0.152, 0.664)\text{ in total}" in said


# --- Any graph ------------------------------------------------------------------------------------


def test_scalars_are_explained_with_formulas_too():
    a, b = tg.named("a", Scalar(2.0)), tg.named("b", Scalar(-3.0))
    given, said = paragraphs((a * b + a).tanh() / b)
    assert given == "ℓ = 0.3331"
    assert said["u"].splitlines()[1:] == [
        "    ∂ℓ/∂a += ∂ℓ/∂u · b = −0.000447 · (−3) = 0.001341",
        "    ∂ℓ/∂a =  0.000894 in total",
        "    ∂ℓ/∂b += ∂ℓ/∂u · a = −0.000447 · 2 = −0.000894",
        "    ∂ℓ/∂b =  0.1101 in total",
    ]
    assert "∂ℓ/∂v = ∂ℓ/∂z · (1−z²) = " in said["z"]
    assert (a.grad, b.grad) == (0.0, 0.0)


def test_a_place_that_is_used_three_times_has_a_sum_so_far():
    x = tg.named("x", vector(2.0))
    with tg.tracing():
        loss = tg.sum(tg.exp(x) * x - x)
    said = str(tg.explain(loss))
    assert [line for line in said.splitlines() if "∂ℓ/∂x" in line] == [
        "    ∂ℓ/∂x += ∂ℓ/∂d · (−1) = 1 · (−1) = −1",
        "    ∂ℓ/∂x += ∂ℓ/∂u · e = 1 · 7.389 = 7.389",
        "    ∂ℓ/∂x =  6.389 so far",
        "    ∂ℓ/∂x += ∂ℓ/∂e · e = 2 · 7.389 = 14.78",
        "    ∂ℓ/∂x =  21.17 in total",
    ]


def test_many_numbers_are_summed_up_and_rows_stand_apart():
    x, w = tg.named("x", leaf(grid((2, 3)))), tg.named("w", leaf(grid((5, 4))))
    with tg.tracing():
        loss = tg.sum(x * x) * tg.mean(w * w)
    given, said = paragraphs(loss)
    assert given.endswith("m = 20")
    rows = r"\(\S+, \S+, \S+; \S+, \S+, \S+\)"
    assert re.search(rf"∂ℓ/∂x = ∂ℓ/∂q · 2x = {rows} · {rows}\n +· |= {rows}$", said["q"])
    assert re.search(r"∂ℓ/∂w = ∂ℓ/∂q_?₂ · 2w = mean \S+ ± \S+$", said["q₂"])


def test_rows_of_a_matrix_stand_below_each_other_where_a_line_is_too_long():
    x = tg.named("x", leaf(grid((4, 4))))
    with tg.tracing():
        _, said = paragraphs(tg.sum(tg.tanh(x)))
    number = r"0\.\d+"
    row = ", ".join([number] * 4)
    assert re.search(
        rf"∂ℓ/∂x = ∂ℓ/∂z · \(1−z²\)\n +=( )\({row};\n +{row};\n +{row};\n +{row}\)$", said["z"]
    )


def test_hooks_are_told_of():
    x = tg.named("x", vector(1.0, 2.0))
    with tg.tracing():
        y = tg.named("y", x * x)
        loss = tg.sum(y)
    y.register_hook(lambda g: g * 10.0)
    x.register_hook(lambda g: g + 1.0)
    said = str(tg.explain(loss))
    assert "    hooks were given ∂ℓ/∂y = (1, 1) and made (10, 10) of it" in said
    assert said.endswith("hooks were given ∂ℓ/∂x = (20, 40) and made (21, 41) of it")


def test_hooks_that_change_nothing_are_not_told_of():
    x = tg.named("x", vector(0.1, 0.7))
    with tg.tracing():
        loss = tg.sum(x * 0.3 + x * x + x / 3.0 + x * x)  # the order of the sum rounds it
    x.register_hook(lambda g: None)
    assert "hooks" not in str(tg.explain(loss))


def test_a_rule_without_a_formula_is_explained_by_its_numbers():
    @tg.op("odd", lambda g, _out, x: g * np.cos(x))  # refuses Tensors
    def odd(xp, x):
        return xp.sin(x)

    x = tg.named("x", tg.tensor(np.array([0.5, 1.0]), requires_grad=True, device="cpu"))
    with tg.tracing():
        loss = tg.sum(tg.named("y", odd(x)))
    assert paragraphs(loss)[1]["y"].splitlines()[1:] == ["    ∂ℓ/∂x = (0.8776, 0.5403)"]


def test_a_leaf_alone_needs_no_explanation():
    x = leaf(np.float64(3))
    assert str(tg.explain(x)) == "ℓ = 3"


@given(losses())
def test_every_gradient_of_a_random_graph_is_told(loss):
    told = str(tg.explain(loss))
    graph = record.record(loss)
    for node in graph.nodes:
        assert node.kind != "op" or node.outputs[0].gradient is None or "◂" in told
    assert told.count("◂") == sum(
        n.kind == "op" and n.outputs[0].gradient is not None for n in graph.nodes
    )
    assert max(map(len, told.splitlines())) <= 110


@pytest.mark.parametrize("case", DIFFERENTIABLE[::9], ids=str)
def test_every_op_is_explained_in_a_hundred_columns(case):
    with tg.tracing():
        outputs = [y for y in case.ours(*leaves(case.inputs())) if y.requires_grad]
        loss = sum((tg.sum(y * weight) for y, weight in zip(outputs, seeds(outputs))), 0.0)
    if outputs:
        explanation = tg.explain(loss)
        wide = [line for line in str(explanation).splitlines() if len(line) > 100]
        assert not [line for line in wide if "lyapunov" not in line]


@pytest.mark.parametrize("large", [1.0, 1e20])
def test_what_is_small_beside_what_is_large_is_a_number(large):
    x, b = leaf(np.array([[1e-20, large]] * 2)), vector(1.0, 1.0)
    with tg.tracing():
        loss = tg.sum(x * b)
    assert f"(2e−20, {tg.diagram.drawing.text.number(2 * large)})" in str(tg.explain(loss))


def test_small_numbers_that_are_no_rounding_are_said():
    x = vector(1.0, 2.0)
    with tg.tracing():
        loss = tg.sum(x * 1e-30)
    assert str(tg.explain(loss)).endswith("∂ℓ/∂x = ∂ℓ/∂u · 1e−30 = (1, 1) · 1e−30 = (1e−30, 1e−30)")


@pytest.mark.parametrize("tell", [tg.explain, diagram.stepper, diagram.comparison])
def test_what_is_not_finite_is_told_without_a_warning(tell):
    x = leaf(np.array([[1e300], [np.inf], [np.nan]]))
    with np.errstate(all="ignore"), tg.tracing():
        y = F.batch_norm(x, None, None, training=True)
        loss = tg.sum(y * np.inf - y * np.inf)
    assert "nan" in str(tell(loss))


def test_what_is_infinite_stands_as_it_is():
    with np.errstate(all="ignore"):
        said = str(tg.explain(Scalar(0.0) ** 0.5))
    assert said.endswith(" = 1 · inf = inf")


# --- Names, and what is refused -------------------------------------------------------------------


def assert_compiles(explanation):
    """Braces and environments are closed, and matplotlib can set each line."""
    for text in (explanation.markdown(), explanation.latex()):
        assert re.findall(r"\\begin\{(\w+\*?)\}", text) == re.findall(r"\\end\{(\w+\*?)\}", text)
        rows = re.sub(
            r"\\(?:begin|end)\{aligned\}|\\(?:begin|end)\{align\*\}|^\$\$$", "", text, flags=re.M
        )
        for row in re.split(r"\\\\\n|\n", rows):
            inline = re.findall(r"(?<!\\)\$((?:\\.|[^$\\])*)\$", row)
            for tex in inline or [row]:
                tex = tex.replace("&=", "=").replace(r"&\mathrel{+}=", "=").replace(r"\&", "+")
                if tex.strip() and tex.isascii():
                    MathTextParser("path").parse(f"${tex}$")
                depth = 0
                for brace in re.findall(r"(?<!\\)[{}]", tex):
                    depth += 1 if brace == "{" else -1
                    assert depth >= 0
                assert depth == 0


@pytest.mark.parametrize(("impl", "notation"), [("composed", "ioffe"), ("fused", "hat")])
def test_the_latex_of_the_worked_example_compiles(impl, notation):
    assert_compiles(tg.explain(worked_example(impl), notation))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_in_all_printings(name):
    with tg.tracing():
        x = tg.named(name, leaf(np.float64(2)))
        loss = tg.named(name, tg.exp(tg.named(name, x * x)) / x)
    explanation = tg.explain(loss)
    assert_compiles(explanation)
    for text in (str(explanation), explanation.markdown(), explanation.latex()):
        assert "<script" not in text.replace(clean(name), "")
        assert not re.search(r"<\w", explanation.markdown())
        assert all(c == "\n" or clean(c) == c for c in text)


@tg.tracing()
def squares():
    return vector(1.0, 2.0) ** 2.0


def freed():
    loss = worked_example("fused")
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda: np.ones(3), TypeError, "got ndarray, wants a Tensor or a Scalar"),
        (lambda: [squares()], TypeError, "got list, wants a Tensor or a Scalar"),
        (lambda: tg.tensor(1.0), ValueError, "got .* without a graph, wants"),
        (squares, ValueError, r"no gradients: got shape \(2,\), wants .* \.sum\(\) or \.mean\(\)$"),
        (lambda: vector(1.0, 2.0).sum(), ValueError, r".* not kept: record inside tracing\(\)$"),
        (freed, ValueError, ".* call this before backward.., or call backward.retain_graph=True.$"),
    ],
)
@pytest.mark.parametrize("tell", [tg.explain, diagram.stepper])
def test_what_cannot_be_told_is_refused(tell, loss, error, message):
    with pytest.raises(error, match=f"^loss: {message}"):
        tell(loss())


def test_an_unknown_notation_is_refused():
    with pytest.raises(ValueError, match="notation: got 'greek'"):
        tg.explain(worked_example("fused"), "greek")


@pytest.mark.parametrize("made_of", [leaf, lambda value: Scalar(float(value))])
@pytest.mark.parametrize(("tell", "most"), [(tg.explain, 1000), (diagram.stepper, 40)])
def test_a_graph_that_nobody_reads_is_refused_before_it_is_read(monkeypatch, tell, most, made_of):
    for reads in ("tensor_graph", "scalar_graph"):
        monkeypatch.setattr(record, reads, None)  # a call of it is a TypeError
    loss = made_of(np.float64(0.5))
    for _ in range(most + 1):
        loss = -loss
    message = (
        f"loss: got a graph of {most + 1:,} ops, wants up to {most:,}; take a part of it, or "
        'record it inside tracing() and draw it with view="collapsed"'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tell(loss)


def test_it_changes_nothing():
    x = vector(1.0, 2.0)
    with tg.tracing():
        loss = tg.sum(x * x)
    assert str(tg.explain(loss)) == str(tg.explain(loss))
    assert x.grad is None
    loss.backward()  # the graph is still whole


def test_the_time_is_linear_in_the_number_of_nodes():
    def seconds(count):
        x = leaf(np.float64(0.5))
        with tg.tracing():
            y = x
            for _ in range(count // 2):
                y = tg.tanh(y) + x
        start = time.process_time()
        str(tg.explain(y))
        return time.process_time() - start

    seconds(100)
    few, many = (min(seconds(count) for _ in range(2)) for count in (125, 1000))
    assert many < 24 * few  # of 8 times the nodes; quadratic, it would be 64 times
