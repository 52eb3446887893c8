"""A formula in a picture is right: it comes to the numbers that the engine finds."""

import numpy as np
import pytest
from formula_values import check_definitions, check_derivatives
from helpers import leaf
from hypothesis import given
from norm_members import CALLS, parameters
from random_graphs import losses
from test_ops import DIFFERENTIABLE, leaves, seeds

import tinygrad_bn as tg
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.record import record


def loss_of(outputs):
    """One number that depends on all outputs, each entry with a weight of its own."""
    return sum((tg.sum(y * weight) for y, weight in zip(outputs, seeds(outputs))), 0.0)


def check(loss, notation="ioffe"):
    """The formulas of single ops and those between the lecture's symbols."""
    reading = Reading(record(loss), notation)
    with np.errstate(all="ignore"):
        return [
            check_definitions(reading, formulas)
            + check_derivatives(reading, formulas, set(written))
            for formulas, written in (
                (reading.of_ops, reading.names),
                (reading.of_symbols, reading.lecture),
            )
        ]


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
    affine = [leaf(p) for p in parameters(name, shape, random)]
    for symbol, parameter in zip("γβ", affine):
        tg.named(symbol, parameter)
    with tg.tracing():
        y = CALLS[name](x, *affine, *[None] * (2 - len(affine)), eps=0.1, impl=impl)
        loss = loss_of([y])
    assert min(check(loss, notation)) > 0


@given(losses())
def test_formulas_of_random_graphs_are_right(loss):
    check(loss)
