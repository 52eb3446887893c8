"""Formulas on paper: their three printings, the letters of indices, and names that stay names."""

import re
import xml.etree.ElementTree as ElementTree
from fractions import Fraction

import numpy as np
import pytest
from helpers import grid, leaf
from hostile import HOSTILE
from hypothesis import given
from matplotlib.mathtext import MathTextParser
from random_graphs import losses

import tinygrad_bn as tg
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.drawing.text import clean
from tinygrad_bn.diagram.formulas.computed import Call
from tinygrad_bn.diagram.formulas.formula import (
    Apply,
    Gradient,
    Reshaped,
    Sigma,
    Symbol,
    minus,
    number,
    plus,
    power,
    reshaped,
    times,
)
from tinygrad_bn.diagram.formulas.latex import as_latex
from tinygrad_bn.diagram.formulas.typeset import as_mathml, as_text, indexed, marks, symbol_marks
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import record

X, MU = Symbol("x", (4, 1)), Symbol("μ_B", (1, 1))
VAR, EPS, S, M = Symbol("σ²_B", (1, 1)), Symbol("ε"), Symbol("s", ()), Symbol("m")
GAMMA, XHAT = Symbol("γ", (1, 1)), Symbol("x̂", (4, 1))
G = Gradient("ℓ", "y", (4, 1))
SUM = Symbol("a+b", ())  # a name that looks like a sum
D = plus(X, minus(MU))
V = plus(VAR, EPS)


def text(formula, index=None):
    return characters(as_text(marks(formula, indexed([formula]) if index is None else index)))


def latex(formula):
    return as_latex(marks(formula, indexed([formula])))


def is_math(tex):
    """Whether the LaTeX has balanced braces, and matplotlib can set it."""
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", tex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, tex
    assert depth == 0, tex
    if tex:  # matplotlib has no \&
        MathTextParser("path").parse(f"${tex}$".replace(r"\&", "+"))


def read_at(index):
    return Apply("getitem", (X,), (), Call(vars(tg.ops.index)["_getitem"], {"index": index}))


USERS = tg.op("pow", lambda g, _out, x, y: g, lambda g, _out, x, y: g)(lambda xp, x, y: x + y)

# --- Formulas -------------------------------------------------------------------------------------

FORMULAS = [
    (times(power(M, -1), Sigma(X, (-2,))), "1/m Σ x_i", r"\frac{1}{m} \sum_{i} x_{i}"),
    (D, "x_i − μ_B", r"x_{i}-\mu _{B}"),
    (power(D, 2), "(x_i−μ_B)^2", r"{\left(x_{i}-\mu _{B}\right)}^{2}"),
    (times(number(2), D, power(M, -1)), "2(x_i−μ_B)/m", r"\frac{2\left(x_{i}-\mu _{B}\right)}{m}"),
    (power(V, 0.5), "√(σ²_B+ε)", r"\sqrt{\sigma _{B}^{2}+\epsilon }"),
    (power(V, -0.5), "1/√(σ²_B+ε)", r"\frac{1}{\sqrt{\sigma _{B}^{2}+\epsilon }}"),
    (
        times(number(-0.5), D, power(V, -1.5)),
        "−½(x_i−μ_B)(σ²_B+ε)^{−3/2}",
        r"-\frac{1}{2}\left(x_{i}-\mu _{B}\right){\left(\sigma _{B}^{2}+\epsilon \right)}^{-3/2}",
    ),
    (
        times(number(0.5), power(V, -0.5)),
        "1/(2√(σ²_B+ε))",
        r"\frac{1}{2\sqrt{\sigma _{B}^{2}+\epsilon }}",
    ),
    (power(VAR, 2), "(σ²_B)^2", r"{\left(\sigma _{B}^{2}\right)}^{2}"),
    (times(GAMMA, XHAT, G), "γ·x̂_i·∂ℓ/∂y_i", None),
    (times(number(0.25), G), "0.25∂ℓ/∂y", r"0.25\frac{\partial \ell }{\partial y}"),
    (times(number(-1), XHAT, power(S, -1)), "−x̂_i/s", r"-\frac{\hat{x}_{i}}{s}"),
    (power(plus(X, number(1)), -1), "1/(x+1)", r"\frac{1}{\left(x+1\right)}"),
    (power(Sigma(X, (-2,)), 2), "(Σ x_i)^2", None),
    (power(Sigma(X, (-2,)), -1), "1/(Σ x_i)", None),
    (power(times(S, EPS), 0.5), "√(s·ε)", None),
    (power(G, 2), "(∂ℓ/∂y)^2", None),
    (power(G, -1), "1/(∂ℓ/∂y)", None),
    (times(number(Fraction(1, 3)), S), "s/3", r"\frac{s}{3}"),
    (number(Fraction(2, 7)), "2/7", r"\frac{2}{7}"),
    (number(-0.5), "−½", r"-\frac{1}{2}"),
    (number(0.1), "0.1", "0.1"),
    (times(power(M, -1), G), "(1/m)·∂ℓ/∂y", r"\frac{1}{m}\cdot \frac{\partial \ell }{\partial y}"),
    (times(number(-1), XHAT, power(S, -1), G), "−(x̂_i/s)·∂ℓ/∂y_i", None),
    (times(number(float("inf")), X), "inf·x", r"\infty \cdot x"),
    (times(number(1e-9), X), "1e−09·x", r"1\cdot 10^{-9}\cdot x"),
    (power(SUM, 2), "(a+b)^2", r"{\left(\text{a+b}\right)}^{2}"),
    (power(SUM, 0.5), "√(a+b)", None),
    (times(X, power(SUM, -1)), "x_i/(a+b)", None),
    (plus(S, minus(SUM)), "s − (a+b)", None),
    (Gradient("a+b", "c-d", ()), "∂(a+b)/∂(c-d)", None),
    (times(S, Symbol("c-d", (4,))), "s·(c-d)_i", None),
    (number(1e-9), "1e−09", r"1\cdot 10^{-9}"),
    (number(float("inf")), "inf", r"\infty "),
    (times(S, power(S, 0.3)), "s^{1.3}", "{s}^{1.3}"),
    (times(number(3), Symbol("my weight", ())), "3(my weight)", r"3\left(\text{my weight}\right)"),
    (Apply("exp", (minus(S),), ()), "exp(−s)", r"\exp\left(-s\right)"),
    (power(Apply("exp", (S,), ()), 2), "exp(s)^2", None),
    (Apply("pow", (plus(S, EPS), S), ()), "(s+ε)^s", None),
    (Apply("@", (X, Apply("ᵀ", (XHAT,), (1, 4))), (4, 4)), "x @ x̂^T", r"x \, {\hat{x}}^{T}"),
    (Apply("ᵀ", (Apply("@", (X, X), ()),), ()), "(x @ x)^T", None),
    (Apply("@", (times(X, XHAT), MU), (4, 1)), "(x·x̂) @ μ_B", None),
    (Apply("…", (), ()), "…", r"\dots "),
    (Apply("eigh", (X,), (4,), Call(tg.eigh, {}, 1)), "eigh(x)[1]", None),
    (read_at(slice(1, None)), "x[1:]", r"x[1:]"),
    (read_at((..., slice(None, None, -2), None, 0)), "x[…, ::-2, None, 0]", None),
    (read_at(np.array([0, 1])), "x[[0, 1]]", None),
    (read_at(np.arange(100)), "x[·]", r"x[\cdot ]"),
    (Apply("pow", (S, EPS), (), Call(USERS, {})), "pow(s, ε)", None),
    (Apply("gelu′", (S,), ()), "gelu′(s)", r"\text{gelu}'\left(s\right)"),
    (
        Apply("max", (X,), (), Call(tg.max, {"axis": 1})),
        "max(x, axis=1)",
        r"\max\left(x, axis=1\right)",
    ),
]


@pytest.mark.parametrize(("formula", "said", "tex"), FORMULAS, ids=[row[1] for row in FORMULAS])
def test_a_formula_in_three_printings(formula, said, tex):
    assert text(formula) == said
    assert tex is None or latex(formula) == tex
    is_math(latex(formula))
    ElementTree.fromstring(f"<math>{as_mathml(marks(formula, indexed([formula])))}</math>")


def test_mathml_has_fractions_powers_and_roots_without_a_radical():
    formula = times(power(D, 2), power(V, -0.5))
    mathml = as_mathml(marks(formula, indexed([formula])))
    assert mathml.startswith("<mfrac><msup>")
    assert "<msub><mi>x</mi><mi>i</mi></msub>" in mathml
    assert "<msubsup><mi>σ</mi><mi>B</mi><mn>2</mn></msubsup>" in mathml
    assert "msqrt" not in mathml
    table = as_mathml(symbol_marks("h_1", "ij"))
    assert "".join(ElementTree.fromstring(table).itertext()) == "h1,ij"
    assert table.endswith("<mi>i</mi><mi>j</mi></mrow></msub>")  # <mi>ij</mi> would stand upright
    summed = as_mathml(marks(Sigma(X, (-2,)), indexed([X])))
    assert summed.startswith("<mrow><munder><mo>∑</mo><mi>i</mi></munder>")


# --- Indices --------------------------------------------------------------------------------------

ROWS, BATCH = Symbol("r", (5, 1)), Symbol("x", (5, 3))
WEIGHT, CHANNEL = Symbol("γ", (3,)), Symbol("c", (1, 3))
WEIGHTS, STACK = Symbol("W", (3, 2)), Symbol("W", (2, 4, 5))
ENTIRE = "reshape(x, (6, 4)) @ γ"
IMAGES, GATE = Symbol("x", (2, 3, 4)), Symbol("g", (2, 1, 4))


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (times(BATCH, BATCH), "x^2"),  # entry by entry: no index
        (times(WEIGHT, BATCH), "γ_j·x_{ij}"),
        (times(ROWS, BATCH), "r_i·x_{ij}"),
        (times(ROWS, WEIGHT, BATCH), "r_i·γ_j·x_{ij}"),
        (times(WEIGHT, CHANNEL), "γ·c"),
        (plus(IMAGES, GATE), "x_{ijk} + g_{ik}"),  # each axis has a letter of its own
        (Sigma(IMAGES, (-2,)), "Σ_j x_{ijk}"),
        (Sigma(IMAGES, (-2, -1)), "Σ_{jk} x_{ijk}"),
        (Sigma(IMAGES, (-3, -2)), "Σ_{ij} x_{ijk}"),
        (reshaped(Sigma(IMAGES, (-2,)), (2, 1, 4), (2, 4)), "Σ_j x_{ijk}"),
        (Sigma(Apply("@", (BATCH, WEIGHTS), (5, 2)), (-2,)), "Σ_i (x @ W)_{ij}"),
        (Sigma(Apply("@", (IMAGES, STACK), (2, 3, 5)), (-3,)), "Σ x_i @ W_i"),
        (Apply("@", (Reshaped(IMAGES, (2, 3, 4), (6, 4)), WEIGHT), (6, 3)), ENTIRE),
        (times(EPS, BATCH), "ε·x"),  # a number is no array
        (times(S, BATCH), "s·x_{ij}"),
        (Sigma(BATCH, (-2, -1)), "Σ x_{ij}"),
        (Sigma(times(WEIGHT, BATCH), (-2,)), "Σ_i γ_j·x_{ij}"),
        (Sigma(times(WEIGHT, BATCH), (-2, -1)), "Σ γ_j·x_{ij}"),
        (Sigma(times(WEIGHT, BATCH), (-1,)), "Σ_j γ_j·x_{ij}"),
        (plus(BATCH, minus(Sigma(BATCH, (-1,)))), "x_{ij} − Σ_k x_{ik}"),
        (times(BATCH, Sigma(times(BATCH, CHANNEL), (-2,))), "x_{ij} Σ_k x_{kj}·c_j"),
        (plus(Sigma(BATCH, (-2,)), Sigma(CHANNEL, (-1,))), "Σ_i x_{ij} + Σ c_i"),
        (Sigma(plus(BATCH, minus(Sigma(BATCH, (-1,)))), (-2,)), "Σ_i (x_{ij}−Σ_k x_{ik})"),
        (times(WEIGHT, reshaped(WEIGHT, (3,), (3, 1))), "γ_j·γ_i"),
        (Sigma(Reshaped(Symbol("x", (2, 6)), (2, 6), (2, 2, 3)), (-1,)), "Σ_k x_{ijk}"),
        (Apply("softmax", (BATCH,), (5, 3)), "softmax(x)"),
        (Sigma(Apply("softmax", (BATCH,), (5, 3)), (-1,)), "Σ_j softmax(x)_{ij}"),
        (times(WEIGHT, Apply("tanh", (BATCH,), (5, 3))), "γ_j·tanh(x_{ij})"),
    ],
)
def test_letters_are_at_the_symbols_that_have_several_entries(formula, said):
    assert text(formula) == said


def test_the_left_side_and_what_stands_beside_a_formula_decide_about_letters():
    slope = Gradient("ℓ", "x", (4, 1))
    assert text(slope, indexed([slope, Gradient("ℓ", "s", ())])) == "∂ℓ/∂x_i"
    assert text(XHAT, indexed([XHAT], [(1, 1)])) == "x̂_i"
    assert text(XHAT, indexed([XHAT], [(4, 1)])) == "x̂"
    for shape in [(7, 1), (2, 1, 1)]:  # which do not fit beside it
        assert text(XHAT, indexed([XHAT], [shape])) == "x̂"


@pytest.mark.parametrize(("norm", "near"), [(0, (1, 4)), (1, (3, 1))])
def test_a_letter_means_one_axis_in_all_lines_of_a_picture(norm, near):
    """i the samples and j the features, in batch norm and in layer norm."""
    x, mu, gamma = Symbol("x", (3, 4)), Symbol("μ", near), Symbol("γ", (4,))
    y, r = Gradient("ℓ", "y", (3, 4)), Symbol("r", near)
    letter = "ij"[1 - norm]
    mean = Sigma(x, (norm - 2,))
    lines = [
        ([mu, mean], [f"μ_{letter}", f"Σ_{'ij'[norm]} x_{{ij}}"]),
        ([x, times(gamma, x)], ["x_{ij}", "γ_j·x_{ij}"]),
        (
            [Gradient("ℓ", "γ", (4,)), Sigma(times(x, y), (-2,))],
            ["∂ℓ/∂γ_j", "Σ_i x_{ij}·∂ℓ/∂y_{ij}"],
        ),
    ]
    for formulas, wanted in lines:
        assert [text(formula, indexed(formulas)) for formula in formulas] == wanted
    assert text(r, indexed([r], [(3, 4)])) == f"r_{letter}"
    assert text(gamma, indexed([gamma], [(3, 4), (3, 4)])) == "γ_j"  # on the arrow from x̂ to y


def letters_of(mark):
    """The letters i, j, … at symbols that no Σ inside the mark binds, and all that it binds."""
    kind, *inside = mark
    if kind == "sigma":
        free, bound = letters_of(inside[0])
        assert not {*inside[1]} & bound, "a letter is bound twice"
        return free - {*inside[1]}, bound | {*inside[1]}
    if kind == "symbol":
        return {*inside[4]}, set()
    found = [letters_of(part) for part in inside if isinstance(part, tuple)]
    free, bound = (set().union(*sets) for sets in zip(*found)) if found else (set(), set())
    for k, (_, binds) in enumerate(found):
        others = set().union(*[f for n, (f, _) in enumerate(found) if n != k])
        assert not binds & others, f"{mark}: a letter is bound and means something outside"
    return free, bound


def check_letters(loss):
    reading = Reading(record(loss), "ioffe")
    for node in reading.graph.nodes:
        for output in node.outputs if node.kind == "op" else ():
            place = node.id, output.index
            if output.gradient is None:
                continue
            for formulas in (reading.of_ops, reading.of_symbols):
                for start, derivative in reading.derivatives(formulas, node, output.index).items():
                    sides = [reading.gradient(start), derivative.gradient]
                    index = indexed(sides)
                    free, _ = letters_of(("row", *[marks(side, index) for side in sides]))
                    left, _ = letters_of(marks(sides[0], index))
                    assert free == left, place  # every letter on the right is on the left


@given(losses())
def test_no_letter_of_a_sum_means_something_outside_of_it(loss):
    check_letters(loss)


def test_a_sum_in_the_argument_of_a_function_takes_no_letter_from_outside():
    with tg.tracing():
        x = leaf(grid((2, 3)))
        row = tg.reshape(tg.sum(x, -1, keepdims=True), (2,))
        check_letters(tg.sum(row * tg.var(row) * tg.tensor(grid((2,), 0.5, seed=9))))


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said", "tex"),
    [
        ("x", "x", "x"),
        ("x_1", "x_1", "x_{1}"),
        ("σ²_B", "σ²_B", r"\sigma _{B}^{2}"),
        ("W_out", "W_{out}", "W_{out}"),
        ("x_{i+1}", "x_{i+1}", "x_{i+1}"),
        ("x̂^{(2)}", "x̂^{(2)}", r"\hat{x}^{(2)}"),
        ("ŷ", "ŷ", r"\hat{y}"),
        ("λ", "λ", r"\lambda "),
        ("Λ_k", "Λ_k", r"\Lambda _{k}"),
        ("ο", "ο", "ο"),  # omicron has no command
        ("𝓛", "𝓛", r"\mathcal{L}"),
        ("my_weight", "my_weight", r"\text{my}\_\text{weight}"),
        ("fc1.weight", "fc1.weight", r"\text{fc1.weight}"),
        ("μ-layer", "μ-layer", r"\mu \text{-layer}"),
        (r"a\b", r"a\b", r"\text{a}\backslash \text{b}"),
        ("50%", "50%", r"\text{50}\%"),
        ("x_", "x_", r"\text{x}\_"),
        ("x_{a{b}}", "x_{a{b}}", r"\text{x}\_\{\text{a}\{\text{b}\}\}"),
        ("<b>", "<b>", r"{<}\text{b}{>}"),
    ],
)
def test_a_name_is_a_symbol_or_stays_as_it_is(name, said, tex):
    mark = symbol_marks(name)
    assert characters(as_text(mark)) == said
    assert as_latex(mark) == tex
    is_math(as_latex(mark))


@pytest.mark.parametrize(
    "name", [*HOSTILE, "$x$", "x_{$}", "x^{\x00}", "}{", "\\input{a}", "a&b#c~d^e"]
)
@pytest.mark.parametrize("index", ["", "i"])
def test_hostile_names_are_no_markup(name, index):
    mark = symbol_marks(name, index)
    tree = ElementTree.fromstring(f"<math>{as_mathml(mark)}</math>")
    tags = {element.tag for element in tree.iter()}
    assert tags <= {"math", "mrow", "mtext", "mi", "mo", "msub", "msup", "msubsup", "mover"}
    shown = "".join(tree.itertext())
    said = "".join(run for run, _ in as_text(mark))
    as_they_are = [clean(name) + index, f"({clean(name)}){index}"]
    as_symbol = re.sub(r"[_^{}]", "", clean(name)) + index
    for printed in (shown, said):
        assert printed in as_they_are or printed.replace(",", "") == as_symbol
    is_math(as_latex(mark).encode("ascii", "replace").decode())
    commands = set(re.findall(r"\\([a-zA-Z]+)", as_latex(mark)))
    assert commands <= {
        "text",
        "backslash",
        "sim",
        "wedge",
        "sigma",
        "gamma",
        "dots",
        "left",
        "right",
    }
