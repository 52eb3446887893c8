"""A formula in a picture is right: it comes to the numbers that the engine finds."""

import time

import numpy as np
import pytest
from formula_values import check_definitions, check_derivatives, evaluate
from helpers import grid, leaf, vector
from hypothesis import given
from norm_members import CALLS, parameters
from random_graphs import losses
from test_ops import DIFFERENTIABLE, leaves, seeds
from test_paths import SCALAR_OPS

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.paths import contributions
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.record import record
from tinygrad_bn.diagram.sketch import characters
from tinygrad_bn.diagram.steps import backward_steps
from tinygrad_bn.diagram.typeset import as_text, indexed, marks


def loss_of(outputs):
    """One number that depends on all outputs, each entry with a weight of its own."""
    return sum((tg.sum(y * weight) for y, weight in zip(outputs, seeds(outputs))), 0.0)


def read(loss, notation="ioffe"):
    return Reading(record(loss), notation)


def check(loss, notation="ioffe"):
    """The formulas of single ops and those between the lecture's symbols. Returns how many."""
    reading = read(loss, notation)
    with np.errstate(all="ignore"):
        return [
            check_definitions(reading, formulas)
            + check_derivatives(reading, formulas, set(written))
            for formulas, written in (
                (reading.of_ops, reading.names),
                (reading.of_symbols, reading.lecture),
            )
        ]


def said(formula):
    return characters(as_text(marks(formula, indexed([formula]))))


def derivatives(loss, end, of="ops", notation="ioffe"):
    """What is said of the place called `end`, by the names of those it was computed from."""
    return {name: derivative for name, derivative, _ in _derivatives(loss, end, of, notation)}


def factors(loss, end, of="ops", notation="ioffe"):
    """The local derivatives as they stand on arrows."""
    return {name: said for name, _, said in _derivatives(loss, end, of, notation)}


def _derivatives(loss, end, of, notation):
    reading = read(loss, notation)
    formulas = reading.of_ops if of == "ops" else reading.of_symbols
    (place,) = [place for place, name in reading.names.items() if name == end]
    node = reading.graph.nodes[place[0]]
    for start, found in reading.derivatives(formulas, node, place[1]).items():
        factor = found.factor
        mark = None if factor is None else reading.marks_of(factor, start, place)
        yield reading.names[start], found, mark and characters(as_text(mark))


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
        (lambda x: tg.maximum(x, 0.0), "1"),  # nowhere is x below 0
        (lambda x: tg.where(tg.greater(x, 2.0), x, 0.0), "where(c, 1, 0)"),
        (lambda x: tg.var(x, keepdims=True), "2(x_i−1/m Σ_j x_j)/m"),
        (lambda x: tg.var(x, correction=1), "2(x_i−1/m Σ_j x_j)/(m−1)"),
        (lambda x: tg.logsumexp(x), "exp(x_i−y)/(Σ_j exp(x_j−y))"),
        (lambda x: tg.reshape(x, (3, 1)), "1"),
        (lambda x: tg.softmax(x), None),
        (lambda x: tg.cumsum(x), None),
        (lambda x: x[1:], None),
        (lambda x: x @ x, None),
    ],
)
def test_the_local_derivative_of_an_op(function, factor):
    x = tg.named("x", vector(1.0, 2.0, 4.0))
    with tg.tracing():
        loss = loss_of([tg.named("y", function(x))])
    assert factors(loss, "y") == {"x": factor}


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


# --- What vanishes on paper -----------------------------------------------------------------------


def vanishing(function, shape=(4, 3)):
    """Which derivatives of `function`, from μ to it, are said to be 0 on paper."""
    x, w = tg.named("x", leaf(grid(shape))), tg.named("w", leaf(grid(shape, 0.5, seed=1)))
    with tg.tracing():
        mu = tg.named("μ", tg.mean(x, axis=0, keepdims=True))
        loss = loss_of([tg.named("y", function(x, mu, w))])
    found = derivatives(loss, "y", of="symbols")["μ"]
    return found.vanishes


@pytest.mark.parametrize(
    ("function", "vanishes"),
    [
        (lambda x, mu, _: tg.mean((x - mu) ** 2, axis=0), True),
        (lambda x, mu, _: tg.sum((x - mu) ** 2, axis=0, keepdims=True) * 0.3, True),
        (lambda x, mu, _: tg.sum((mu - x) ** 2), True),  # over more axes than the mean
        (lambda x, mu, _: tg.sum((x - mu) ** 2, axis=0) * tg.tensor(np.array([1.0, 2, 3])), True),
        (lambda x, mu, w: tg.sum(w * (x - mu) ** 2, axis=0), False),  # weighted
        (lambda x, mu, _: tg.sum((x - mu) ** 2, axis=1), False),  # over another axis
        (lambda x, mu, w: tg.sum((w - mu) ** 2, axis=0), False),  # another variable
        (lambda x, mu, _: tg.sum((x - mu) ** 3, axis=0), False),  # Σ (x − μ)²
        (lambda x, mu, _: tg.sum((x * 2.0 - mu) ** 2, axis=0), False),
        (lambda x, mu, _: tg.sum((x - mu * 2.0) ** 2, axis=0), False),
        (lambda x, mu, _: x - mu, False),
    ],
)
def test_only_a_sum_of_deviations_from_their_own_mean_is_0_on_paper(function, vanishes):
    assert vanishing(function) is vanishes


@given(losses())
def test_nothing_is_said_to_vanish_or_to_be_0_that_does_not(loss):
    reading = read(loss)
    for place in sorted(reading.lecture):
        node = reading.graph.nodes[place[0]]
        if node.kind != "op" or reading.output(place).gradient is None:
            continue
        added = contributions(reading.graph, place, reading.lecture)
        found = reading.derivatives(reading.of_symbols, node, place[1])
        for start, derivative in found.items():
            if derivative.vanishes or said(derivative.gradient) == "0":
                scale = np.max(np.abs(reading.output(place).gradient), initial=0.0)
                assert np.max(np.abs(added[start]), initial=0.0) <= 1e-12 * (1 + scale)


def test_a_mean_that_lost_its_axis_and_got_it_back_is_the_mean():
    x = tg.named("x", leaf(grid((4, 3))))
    with tg.tracing():
        mu = tg.named("μ", tg.mean(x, axis=1))
        var = tg.mean((x - tg.expand_dims(mu, axis=1)) ** 2, axis=1)
        loss = loss_of([tg.named("σ²", var)])
    assert derivatives(loss, "σ²", of="symbols")["μ"].vanishes
    assert min(check(loss)) > 0


# --- What differs stays apart ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x[0] - x[1],
        lambda x, y: tg.sum(x, axis=0) * tg.sum(x, axis=1),
        lambda x, y: x * tg.transpose(x),
        lambda x, y: tg.reshape(x, (9,)) * tg.reshape(tg.transpose(x), (9,)),
        lambda x, y: tg.softmax(x, 0) - tg.softmax(x, 1),
        lambda x, y: tg.flip(x, 0) - tg.flip(x, 1),
        lambda x, y: tg.maximum(x, 0.3) - tg.maximum(x, 0.5),
        lambda x, y: x * y,  # both are called x
        lambda x, y: tg.sum(x * 1.0, axis=1, keepdims=True) + tg.expand_dims(tg.sum(x, axis=0), 1),
        lambda x, y: tg.clip(x, None, 0.5) - tg.clip(x, 0.5),
        lambda x, y: tg.where(tg.greater(x, 0.1), x, 0.0) - tg.where(tg.greater(x, 0.6), x, 0.0),
    ],
)
def test_two_results_of_one_kind_do_not_cancel(function):
    x, y = tg.named("x", leaf(grid((3, 3)))), tg.named("x", leaf(grid((3, 3), seed=4)))
    with tg.tracing():
        loss = loss_of([tg.named("z", function(x, y))])
    assert min(check(loss)) > 0
    assert said(derivatives(loss, "z", of="symbols")["x"].gradient) != "0"


def test_two_formulas_that_are_too_long_do_not_cancel():
    x = tg.named("x", vector(0.5, 1.5))
    with tg.tracing():
        terms = [
            sum((tg.exp(x * float(k)) for k in range(start, 45 + start)), 0.0) for start in (1, 2)
        ]
        loss = loss_of([tg.named("y", terms[0] - terms[1])])
    reading = read(loss)
    (place,) = [place for place, name in reading.names.items() if name == "y"]
    assert said(reading.of_symbols.definitions[place]).count("…") == 2


def test_an_op_of_the_users_own_is_not_taken_for_the_librarys_of_that_name():
    @tg.op("×", lambda g, _out, x: g * 2.0 * x)
    def mul(xp, x):
        return x * x + 1.0

    @tg.op("mean", lambda g, _out, x: g * 3.0)
    def mean(xp, x):
        return 3.0 * x

    x = tg.named("x", vector(0.5, 1.5))
    with tg.tracing():
        loss = loss_of([tg.named("y", mul(x)), tg.named("z", mean(x))])
    assert factors(loss, "y") == {"x": "2x"}
    assert factors(loss, "z") == {"x": "3"}
    assert min(check(loss)) > 0
    assert read(loss).of_ops.m is None


# --- Graphs that are not whole, or unusual --------------------------------------------------------


def test_a_rule_that_works_on_arrays_only_has_no_formula():
    @tg.op("odd", lambda g, _out, x: g * np.cos(x))  # refuses Tensors
    def odd(xp, x):
        return xp.sin(x)

    x = tg.named("x", tg.tensor(np.array([0.5, 1.0]), requires_grad=True, device="cpu"))
    with tg.tracing():
        loss = tg.sum(tg.named("y", odd(x)) * 2.0)
    assert derivatives(loss, "y") == {}
    assert derivatives(loss, "y", of="symbols") == {}
    (share,) = [s for step in backward_steps(read(loss)) for s in step.shares][-1:]
    assert share.derivative is None
    np.testing.assert_allclose(share.amount, 2 * np.cos([0.5, 1.0]))


def test_a_checkpointed_graph_has_the_formulas_of_the_one_without():
    def function(x):
        u = tg.named("u", x * tg.tensor(grid((3,), 0.5)))
        return tg.named("y", tg.tanh(u) * tg.maximum(u, 0.2))

    x = tg.named("x", leaf(grid((2, 3))))
    found = []
    for call in (function, lambda x: tg.checkpoint(function, x)):
        with tg.tracing():
            loss = loss_of([call(x)])
        assert min(check(loss)) > 0
        found.append([factors(loss, name) for name in ("u", "y")])
    assert found[0] == found[1]


def test_a_graph_that_was_written_into_is_read_without_derivatives():
    weight = tg.named("w", leaf(np.float64(2)))
    with tg.tracing():
        loss = tg.named("y", weight * weight) * 3.0
    with tg.no_grad():
        weight += 1.0
    assert derivatives(loss, "y") == {}
    assert said(read(loss).of_ops.definitions[1, 0]) == "w^2"


def test_without_tracing_there_are_definitions_of_what_is_known():
    x = tg.named("x", leaf(grid((2, 3))))
    reading = read(tg.sum(x * x + 1.0))
    assert reading.names  # and no error
    assert all(d is not None for d in reading.of_ops.definitions.values())
    assert derivatives(tg.sum(x * x), "ℓ") == {}


def test_integers_and_masks_are_constants_in_formulas():
    x = tg.named("x", vector(1.0, 2.0, 3.0))
    with tg.tracing():
        mask = tg.named("M", tg.tensor(np.array([True, False, True])))
        steps = tg.named("n", tg.tensor(np.array([1, 2, 3])))
        loss = loss_of([tg.named("y", tg.where(mask, x * steps, 0.0))])
    assert min(check(loss)) > 0
    assert factors(loss, "y") == {"u": "where(M, 1, 0)"}
    assert factors(loss, "u") == {"x": "n"}


def test_values_that_are_no_numbers_are_no_error():
    x = tg.named("x", vector(np.nan, np.inf, 0.0))
    with tg.tracing(), np.errstate(all="ignore"):
        loss = tg.sum(tg.named("y", tg.sqrt(x) / x))
        assert factors(loss, "y") == {"s": "1/x", "x": "−y/x"}


def test_a_graph_of_300_nodes_is_read_in_well_under_a_second():
    tg.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16, impl="composed"), nn.Tanh())] * 24
    x = tg.tensor(grid((8, 16)).astype(np.float32))
    with tg.tracing():
        loss = tg.sum(nn.Sequential(*blocks)(x))
    reading = read(loss)
    assert len(reading.graph.nodes) > 280
    start = time.process_time()
    backward_steps(reading)
    for place in reading.lecture:
        node = reading.graph.nodes[place[0]]
        if node.kind == "op":
            reading.derivatives(reading.of_symbols, node, place[1])
    assert time.process_time() - start < 0.9
