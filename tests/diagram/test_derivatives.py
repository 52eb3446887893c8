"""A formula in a picture is right: it comes to the numbers that the engine finds."""

import re

import numpy as np
import pytest
from formula_values import (
    check,
    derivatives,
    evaluate,
    factors,
    is_of_rounding,
    loss_of,
    read,
    said,
)
from helpers import grid, leaf, vector
from hypothesis import assume, given
from norm_members import CALLS, parameters
from random_graphs import losses
from test_ops import DIFFERENTIABLE, leaves
from test_paths import SCALAR_OPS

import tinygrad_bn as tg
from tinygrad_bn import Scalar
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.steps import backward_steps

# --- They come to the engine's numbers ------------------------------------------------------------


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_formulas_of_every_op_are_right(case):
    with tg.tracing():
        loss = loss_of([y for y in case.ours(*leaves(case.inputs())) if y.requires_grad])
    if loss.requires_grad:
        assert min(check(loss)) > 0


@pytest.mark.parametrize("notation", ["ioffe", "fleuret", "hat"])
@pytest.mark.parametrize("impl", ["composed", "fused"])
@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 5), (2, 4, 2, 3), (2, 2)])
@pytest.mark.parametrize("name", CALLS)
def test_formulas_of_the_norm_family_are_right(name, shape, impl, notation):
    if name == "instance_norm" and len(shape) == 2:
        return
    random = np.random.default_rng(0)
    x = tg.named("x", leaf(random.standard_normal(shape)))
    affine = [leaf(parameter) for parameter in parameters(name, shape, random)]
    for symbol, parameter in zip("γβ", affine):
        tg.named(symbol, parameter)
    with tg.tracing():
        y = CALLS[name](x, *affine, *[None] * (2 - len(affine)), eps=0.1, impl=impl)
        loss = loss_of([y])
    assert min(check(loss, notation)) > 0


@given(losses())
def test_formulas_of_random_graphs_are_right(loss):
    assume(not is_of_rounding(loss))
    check(loss)


@pytest.mark.parametrize("op", SCALAR_OPS)
@pytest.mark.parametrize("values", [(0.7, -1.3), (1.0, 1.0), (2, 3)])
def test_formulas_of_scalar_ops_are_right(op, values):
    a, b = (tg.named(name, Scalar(value)) for name, value in zip("ab", values))
    assert min(check(tg.named("ℓ", SCALAR_OPS[op](a, b)) * 2.5)) > 0


def test_formulas_of_scalars_are_right_and_not_only_numbers():
    a, b = tg.named("a", Scalar(1.5)), tg.named("b", Scalar(0.5))
    terms = [a**-2, a**b, a.log(), b.sqrt(), -a, a.sigmoid(), b.relu(), 3.0 - a, a / 4.0, 2.0**b]
    terms += [Scalar.dot([a, b], [b, a]), Scalar.dot([a, b], [2.0, 3.0]), Scalar.sum([a, b, 1.0])]
    assert min(check(Scalar.sum(terms))) > 0
    assert factors(a**-2 + 1.0, "z") == {"a": "−2/a^3"}
    assert factors(a / b + 1.0, "r") == {"a": "1/b", "b": "−r/b"}
    assert factors(Scalar.dot([a, b], [b, a]) + 1.0, "z") == {"a": "2b", "b": "2a"}
    assert said(read(Scalar.dot([a, b], [2.0, 3.0])).of_ops.definitions[2, 0]) == "2a + 3b"


def test_steps_have_the_formulas_of_several_gradients_that_arrive_at_once():
    x = tg.named("x", leaf(grid((5, 2))))
    with tg.tracing():
        y, mu, var = tg.norm.fused.normalize(x, None, None, axes=(0,), eps=0.1)
        for name, tensor in (("y", y), ("μ", mu), ("σ²", var)):
            tg.named(name, tensor)
        loss = loss_of([y, mu, var])
    reading = read(loss)
    (step,) = [step for step in backward_steps(reading) if len(step.arrived) == 3]
    (share,) = step.shares
    values = {reading.of_ops.symbol(p): reading.output(p).value for p in reading.names}
    values |= {reading.gradient(p): reading.output(p).gradient for p in step.arrived}
    values[type(next(iter(values)))("m")] = 5
    for symbol, meaning in share.derivative.where.items():
        values[symbol] = evaluate(meaning, values)
    assert share.derivative.factor is None
    np.testing.assert_allclose(
        evaluate(share.derivative.gradient, values), share.amount, rtol=1e-12
    )


# --- They read as a lecturer writes them ----------------------------------------------------------


def test_the_derivatives_between_the_lectures_symbols():
    loss = worked_example("composed")
    assert factors(loss, "μ_B", of="symbols") == {"x": "1/m"}
    assert factors(loss, "σ²_B", of="symbols") == {
        "x": "2(x_i−μ_B)/m",
        "μ_B": "Σ −2(x_i−μ_B)/m",
    }
    assert factors(loss, "x̂", of="symbols") == {
        "x": "1/√(σ²_B+ε)",
        "μ_B": "−1/√(σ²_B+ε)",
        "σ²_B": "−½(x_i−μ_B)(σ²_B+ε)^{−3/2}",
    }
    assert factors(loss, "y", of="symbols") == {"γ": "x̂_i", "x̂": "γ", "β": "1"}


def test_the_derivatives_of_single_ops():
    loss = worked_example("composed")
    assert factors(loss, "q") == {"d": "2d"}
    assert factors(loss, "s") == {"v": "1/(2s)"}
    assert factors(loss, "x̂") == {"d": "1/s", "s": "−x̂_i/s"}


def test_the_fused_rule_is_the_paper_s_and_says_what_its_symbols_are():
    found = derivatives(worked_example("fused"), "y", notation="fleuret")
    gradient = "r(γ·∂𝓛/∂y_i−z_i/m Σ_j γ·z_j·∂𝓛/∂y_j−1/m Σ_j γ·∂𝓛/∂y_j)"
    assert said(found["x"].gradient) == gradient
    where = {symbol.name: said(meaning) for symbol, meaning in found["x"].where.items()}
    assert where == {
        "ε": "0",
        "r": "1/√(v̂+ε)",
        "d": "x_i − m̂ − 1/m Σ_j (x_j−m̂)",
        "z": "d_i·r",
    }
    assert found["β"].where == {}


def test_what_a_rule_has_named_is_not_mixed_up_with_a_place_of_that_name():
    x = tg.named("x", leaf(np.random.default_rng(0).standard_normal((4, 2))))
    r = tg.named("r", vector(2.0, 3.0))
    with tg.tracing():
        y = tg.named("y", F.batch_norm(x * r, None, None, training=True, eps=0.5))
        loss = loss_of([y])
    assert [s.name for s in derivatives(loss, "y")["u"].where] == ["ε", "r^{(2)}", "d", "x̂"]
    assert min(check(loss)) > 0


@pytest.mark.parametrize(
    ("function", "factor"),
    [
        (lambda x: x**3, "3x^2"),
        (lambda x: tg.tanh(x), "1 − y^2"),
        (lambda x: tg.sigmoid(x), "y(1−y)"),
        (lambda x: tg.exp(x), "y"),
        (lambda x: tg.log(x), "1/x"),
        (lambda x: tg.relu(x), "step(x)"),
        (lambda x: tg.abs(x), "sign(x)"),
        (lambda x: tg.maximum(x, 0.0), "maximum′(x, 0)"),  # though x is above 0 everywhere
        (lambda x: tg.where(tg.greater(x, 2.0), x, 0.0), "where(c, 1, 0)"),
        (lambda x: tg.var(x, keepdims=True), "2(x_i−1/m Σ_j x_j)/m"),
        (lambda x: tg.var(x, correction=1), "2(x_i−1/m Σ_j x_j)/(m−1)"),
        (lambda x: tg.logsumexp(x), "exp(x_i−y)/(Σ_j exp(x_j−y))"),
        (lambda x: tg.reshape(x, (3, 1)), "1"),
        (lambda x: tg.softmax(x), None),
        (lambda x: tg.cumsum(x), None),
        (lambda x: x[1:], None),
        (lambda x: x @ x, "2x_i"),
    ],
)
def test_the_local_derivative_of_an_op(function, factor):
    x = tg.named("x", vector(1.0, 2.0, 4.0))
    with tg.tracing():
        loss = loss_of([tg.named("y", function(x))])
    assert factors(loss, "y") == {"x": factor}


def told(function, *shapes, names="xyz"):
    """The lines of `explain` about a function of arrays, without the numbers."""
    inputs = [tg.named(name, leaf(grid(shape))) for name, shape in zip(names, shapes)]
    with tg.tracing():
        loss = loss_of([tg.named("y", function(*inputs))])
    lines = [line.partition("◂")[0].strip() for line in str(tg.explain(loss)).splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize(
    ("axis", "computed", "handed_on"),
    [
        (0, "yⱼₖ = Σᵢ xᵢⱼₖ", "∂ℓ/∂xᵢⱼₖ = ∂ℓ/∂yⱼₖ"),
        (1, "yᵢₖ = Σⱼ xᵢⱼₖ", "∂ℓ/∂xᵢⱼₖ = ∂ℓ/∂yᵢₖ"),
        (2, "yᵢⱼ = Σₖ xᵢⱼₖ", "∂ℓ/∂xᵢⱼₖ = ∂ℓ/∂yᵢⱼ"),
        ((1, 2), "yᵢ = Σⱼₖ xᵢⱼₖ", "∂ℓ/∂xᵢⱼₖ = ∂ℓ/∂yᵢ"),
        ((0, 1), "yₖ = Σᵢⱼ xᵢⱼₖ", "∂ℓ/∂xᵢⱼₖ = ∂ℓ/∂yₖ"),
    ],
)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 3, 4)])
def test_each_sum_over_axes_has_a_formula_of_its_own(shape, keepdims, axis, computed, handed_on):
    lines = told(lambda x: tg.sum(x, axis=axis, keepdims=keepdims), shape)
    assert computed in lines
    assert any(line.startswith(handed_on) for line in lines)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mean_is_told_in_one_form_over_any_axis(axis):
    (line,) = [line for line in told(lambda x: tg.mean(x, axis=axis), (2, 2)) if "∂ℓ/∂x" in line]
    assert re.match(rf"∂ℓ/∂xᵢⱼ = ∂ℓ/∂y{'ⱼᵢ'[axis]} · 1/m = \(\S+, \S+\) · 0.5 = \(", line)


@pytest.mark.parametrize(
    ("function", "shapes", "wanted"),
    [
        (
            lambda x, W: F.linear(x, W),
            [(3, 4, 2), (5, 2)],
            ["∂ℓ/∂x = ∂ℓ/∂y @ W", "∂ℓ/∂W = reshape(∂ℓ/∂y, (12, 5))ᵀ @ reshape(x, (12, 2))"],
        ),
        (
            lambda x, W: x @ W,
            [(3, 4, 2), (2, 5)],
            ["∂ℓ/∂x = ∂ℓ/∂y @ Wᵀ", "∂ℓ/∂W = Σ xᵢᵀ @ ∂ℓ/∂yᵢ"],
        ),
        (lambda x, W: x @ W, [(4, 2), (2, 5)], ["∂ℓ/∂x = ∂ℓ/∂y @ Wᵀ", "∂ℓ/∂W = xᵀ @ ∂ℓ/∂y"]),
        (lambda x, W: x @ W, [(4, 2), (2,)], ["∂ℓ/∂xᵢⱼ = ∂ℓ/∂yᵢ · Wⱼ", "∂ℓ/∂W = xᵀ @ ∂ℓ/∂y"]),
        (
            lambda x, W: tg.solve(x, W),
            [(2, 2), (2,)],
            ["∂ℓ/∂xᵢⱼ = −solve(xᵀ, reshape(∂ℓ/∂y, (2, 1)))ᵢ·yⱼ"],
        ),
    ],
)
def test_products_of_matrices_say_what_is_summed(function, shapes, wanted):
    lines = [re.sub(" +", " ", line) for line in told(function, *shapes, names="xW")]
    for start in wanted:
        assert any(line.startswith(start + " = ") or line == start for line in lines), lines
    is_of_stacks = len(shapes[0]) > 2
    assert ("@ and ᵀ are of the last two axes" in lines) == is_of_stacks


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: tg.reshape(x, (3, 2)), "y = reshape(x, (3, 2))"),
        (lambda x: tg.reshape(x, -1), "y = reshape(x, (6,))"),
        (lambda x: tg.expand_dims(x, axis=1), "y = expand_dims(x, axis=1)"),
        (lambda x: tg.reshape(2 * x, (3, 2)), "y = reshape(u, (3, 2))"),
        (lambda x: tg.expand_dims(x, axis=0), "y = x"),
    ],
)
def test_another_shape_is_no_other_name_of_the_same_array(function, wanted):
    assert wanted in told(function, (2, 3))


def letters(mark, bound=""):
    """For each symbol with an index: its name, and the letters that no Σ binds, in their places."""
    kind, *inside = mark
    if kind == "symbol" and inside[4]:
        name = "".join(inside[:4])
        yield name, tuple(None if letter in bound else letter for letter in inside[4])
    bound += inside[1] if kind == "sigma" else ""
    for part in inside:
        if isinstance(part, tuple):
            yield from letters(part, bound)


@pytest.mark.parametrize("impl", ["composed", "fused"])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 3, 5)])
@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_a_letter_means_one_axis_in_a_whole_paragraph(name, shape, impl):
    random = np.random.default_rng(0)
    affine = [leaf(parameter) for parameter in parameters(name, shape, random)]
    with tg.tracing():
        x = tg.named("x", leaf(random.standard_normal(shape)))
        y = CALLS[name](x, *affine, eps=0.1, impl=impl)
        loss = loss_of([y])
    for paragraph in tg.explain(loss).paragraphs:
        rows = [paragraph.computed, *paragraph.handed_on, *paragraph.where]
        found = {}
        for row in rows:
            for symbol, index in letters(("row", row.left, *row.right)):
                places = found.setdefault(symbol, list(index))
                assert len(places) == len(index), symbol
                for k, letter in enumerate(index):
                    places[k] = places[k] or letter
                    assert letter in (None, places[k]), symbol
    sketch = draw(loss, "symbols").sketch
    said = [characters(wire.label) for wire in sketch.wires]
    said += [note if isinstance(note, str) else characters(note) for note in sketch.notes]
    of_x = {"instance_norm": "ijkl", "group_norm": "ijkln"}[name][: len(shape) + name.count("p_")]
    if impl == "composed":
        assert f"2(x_{{{of_x}}}−μ_{{ij}})/m" in said
    else:
        assert {"r_{ij} = 1/√(σ²_{ij}+ε)", f"x̂_{{{of_x}}} = d_{{{of_x}}}·r_{{ij}}"} <= {*said}


def test_a_number_that_happens_to_be_m_is_not_the_number_of_values():
    for size in (2, 3, 4):
        x = tg.named("x", leaf(grid((size,))))
        with tg.tracing():
            loss = tg.mean(x) + tg.sum(tg.named("y", x * float(size))) + tg.var(x, correction=1)
        assert factors(loss, "y") == {"x": str(size)}
        assert factors(loss, "z") == {"x": "2(x_i−1/m Σ_j x_j)/(m−1)"}


def test_m_is_a_letter_only_if_it_is_one_number_and_no_ones_name():
    x = tg.named("x", leaf(grid((4, 2))))
    with tg.tracing():
        one = loss_of([tg.mean(x, axis=0)])
        two = loss_of([tg.mean(x, axis=0), tg.mean(x, axis=1)])
        taken = loss_of([tg.mean(tg.named("m", x * 2.0), axis=0)])
    assert read(one).of_ops.m == 4
    assert read(two).of_ops.m is None
    assert read(taken).of_ops.m is None
