"""Formulas: what is 0 on paper, what must stay apart, graphs that are not whole or unusual."""

import time
import warnings

import numpy as np
import pytest
from formula_values import (
    check,
    derivatives,
    factors,
    loss_of,
    read,
    said,
)
from helpers import grid, host, leaf, on_device, vector
from hypothesis import given
from random_graphs import losses
from test_ops import DIFFERENTIABLE, leaves

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.formulas.formula import Apply, within
from tinygrad_bn.diagram.recorded.paths import contributions
from tinygrad_bn.diagram.recorded.symbols import is_plain_number
from tinygrad_bn.diagram.steps import backward_steps

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
        added = contributions(reading.graph, reading.edges, place, reading.lecture)
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


def definition(y):
    """What is said of how a Tensor was computed from leaves; "" if constants took part."""
    reading = read(tg.sum(tg.named("Q", y)))
    (place,) = [place for place, name in reading.names.items() if name == "Q"]
    known = all(node.kind != "constant" or is_plain_number(node) for node in reading.graph.nodes)
    return characters(reading.definition(reading.of_symbols, place)) if known else ""


def test_calls_of_ops_that_make_other_values_do_not_print_alike():
    made = {}
    for case in DIFFERENTIABLE:
        with tg.tracing():
            inputs = [tg.named(name, x) for name, x in zip("xyz", leaves(case.inputs()))]
            outputs = [y for y in case.ours(*inputs) if y.requires_grad]
            texts = [definition(y) for y in outputs]
        for y, text in zip(outputs, texts):
            if text and "…" not in text:
                first, values = made.setdefault((text, *case[1:]), (case, np.ravel(host(y))))
                found = np.ravel(host(y))
                if found.size != values.size:  # broadcasting repeats entries, and is not said
                    found, values = np.unique(found), np.unique(values)
                same = np.array_equal(found, values)
                assert same, f"{case} and {first} are both {text}"
    assert len(made) > 300


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: tg.sum(x, axis=0), "Σ_i x_{ij}"),
        (lambda x: tg.sum(x, axis=1), "Σ_j x_{ij}"),
        (lambda x: tg.sum(x), "Σ x_{ij}"),
        (lambda x: tg.mean(x, axis=0), "1/m Σ_i x_{ij}"),
        (lambda x: tg.mean(x, axis=1, keepdims=True), "1/m Σ_j x_{ij}"),
        (lambda x: tg.max(x, axis=1), "max(x, axis=1)"),
        (lambda x: tg.max(x), "max(x)"),
        (lambda x: tg.cumsum(x, axis=0), "cumsum(x, axis=0)"),
        (lambda x: tg.softmax(x, 0), "softmax(x, axis=0)"),
        (lambda x: tg.softmax(x), "softmax(x, axis=-1)"),
        (lambda x: tg.sum(tg.softmax(x), axis=0), "Σ_i softmax(x, axis=-1)_{ij}"),
        (lambda x: tg.leaky_relu(x, 0.2), "leaky_relu(x, slope=0.2)"),
        (lambda x: tg.clip(x, 0.5), "clip(x, ½)"),
        (lambda x: tg.clip(x, None, 0.5), "clip(x, None, ½)"),
        (lambda x: tg.stack([x, x]), "stack(x, x, axis=0)"),
        (lambda x: tg.stack([x, x], axis=-1), "stack(x, x, axis=-1)"),
        (lambda x: tg.concatenate([x, x]), "concatenate(x, x, axis=0)"),
        (lambda x: tg.einsum("ij,kj->ik", x, x), "einsum(x, x, subscripts=ij,kj->ik)"),
        (lambda x: x[[0, 0, 1]], "x[[0, 0, 1]]"),
        (lambda x: tg.pad(x, ((1, 1), (1, 1))), "pad(x, widths=1)"),
        (lambda x: tg.pad(x, (0, 1), value=2.5), "pad(x, widths=(0, 1), value=2.5)"),
        (lambda x: tg.softmax(tg.reshape(x, (4, 3))), "softmax(reshape(x, (4, 3)), axis=-1)"),
        (lambda x: tg.mean(x[:, :0], axis=1), "nan"),
    ],
)
def test_what_decides_about_the_values_is_printed(function, said):
    x = tg.named("x", leaf(grid((3, 4))))
    with tg.tracing(), warnings.catch_warnings(action="ignore"):
        assert definition(function(x)) == said


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: tg.clip(x, -1.0, 1.0), "clip′(x, −1, 1)"),
        (lambda x: tg.leaky_relu(x, 0.2), "leaky_relu′(x, slope=0.2)"),
        (lambda x: tg.minimum(x, 1.0), "minimum′(x, 1)"),
        (lambda x: tg.gelu(x), "½(1+erf(0.7071x)) + 0.3989x·exp(−0.5x^2)"),
        (lambda x: tg.erf(x), "1.128exp(−x^2)"),
        (lambda x: tg.exp(x) ** x, None),
        (lambda x: tg.max(x, axis=1), None),
        (lambda x: tg.cholesky(x @ x.T), None),
        (lambda x: tg.eigh(x @ x.T)[0], None),
        (lambda x: tg.eigh(x @ x.T)[1], None),
        (lambda x: tg.prod(x), None),
        (lambda x: tg.sort(x), None),
        (lambda x: x[1:], None),
    ],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_only_rules_know_is_in_no_formula(function, said, sign):
    x = tg.named("x", leaf(sign * grid((3, 4), 0.3, 0.9)))  # masks with one value everywhere
    with tg.tracing():
        loss = loss_of([tg.named("y", function(x))])
    (found,) = derivatives(loss, "y", of="symbols").values()
    if said is not None:
        assert factors(loss, "y", of="symbols") == {"x": said}
    names = {part.name for part in within(found.gradient) if isinstance(part, Apply)}
    assert not names & {"where", "mask", "const", "…", "phi", "lyapunov", "scatter_add", "pad"}


def test_what_cannot_be_written_is_the_derivative_as_a_symbol():
    x = tg.named("x", leaf(grid((3, 4))))
    with tg.tracing():
        loss = loss_of([tg.named("y", tg.max(x, axis=1))])
    (found,) = derivatives(loss, "y").values()
    assert said(found.gradient) == "∂ℓ/∂y · ∂y/∂x"
    assert found.factor is None


def test_a_mask_is_not_taken_for_a_constant_of_the_same_values():
    """A mask of the rule of `maximum` has the values of the c that the user gave."""
    x = tg.named("x", vector(1.0, -1.0))
    with tg.tracing():
        c = tg.named("c", tg.tensor(np.array([1.0, 0.0])))
        loss = loss_of([tg.named("y", tg.maximum(x, c))])
    (found,) = derivatives(loss, "y").values()
    assert said(found.gradient) == "∂ℓ/∂y · ∂y/∂x"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tg.sort(x, axis=1),
        lambda x: tg.take_along_axis(x, on_device(np.array([[0], [1], [2]])), axis=1),
        lambda x: F.max_pool2d(tg.reshape(x, (1, 1, 3, 4)), 2),
        lambda x: x[on_device(np.array([0, 2])), on_device(np.array([1, 1]))],
    ],
)
def test_arrays_of_indices_are_options_like_others(function):
    x = tg.named("x", leaf(grid((3, 4))))
    with tg.tracing():
        drawn = draw(loss_of([function(x)]), "butterfly")
    assert drawn.sketch.boxes  # and no error


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
