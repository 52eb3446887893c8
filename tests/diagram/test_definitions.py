"""What a box says that its place is computed as, read as mathematics."""

import numpy as np
import pytest
from helpers import grid, leaf

import tinygrad_bn as tg
from tinygrad_bn import Scalar
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.drawing.sketch import characters


def definition(y):
    """Of y, in the picture of named places."""
    drawn = draw(y, "symbols")
    return characters(drawn.sketch.boxes[-1].definition).removeprefix("= ")


@pytest.mark.parametrize(
    ("function", "shapes", "wanted"),
    [
        # Axes that meet by broadcasting have one letter, others have not.
        (lambda a, b: a * b.sum(axis=1), [(5, 4), (4, 3)], "a_{ij} Σ_k b_{jk}"),
        (lambda a, b: a * b.sum(axis=0), [(5, 3), (4, 3)], "a_{ij} Σ_k b_{kj}"),
        (lambda a, b: a * b - a.mean(axis=1), [(3, 3), (3, 1)], "a_{ij}·b_i − 1/m Σ_k a_{jk}"),
        # @ is of what stands beside it, and no more.
        (lambda a, b: a * (a @ b), [(3, 3), (3, 3)], "a(a @ b)"),
        (lambda a, b: (a @ b) / a, [(3, 3), (3, 3)], "(a @ b)/a"),
        (lambda a, b: 0.5 * (a @ b), [(3, 3), (3, 3)], "½(a @ b)"),
        # Arrays in another shape are not multiplied as they are.
        (lambda a, b: a.squeeze(axis=1) * b, [(3, 1, 4), (3, 4)], "a_{ij}·b_{ij}"),
        (lambda a, b: a.reshape(4) * b, [(4, 1), (4,)], "a_i·b_i"),
        (lambda a, b: tg.exp(a.reshape(6)) * b, [(2, 3), (6,)], "exp(a_i)·b_i"),
        # What was computed is shown, also where it cancels on paper.
        (lambda a, b: a / a + b, [(3,), (3,)], "div(a, a) + b"),
        (lambda a, b: a * 0.0 + b, [(3,), (3,)], "mul(a, 0) + b"),
        (lambda a, b: b - b + a, [(3,), (3,)], "sub(b, b) + a"),
    ],
)
def test_a_definition_says_what_is_computed(function, shapes, wanted):
    a, b = (tg.named(name, leaf(grid(shape))) for name, shape in zip("ab", shapes))
    with tg.tracing():
        y = tg.named("y", function(a, b))
    assert definition(y) == wanted


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda a, _b: a - a, "sub(a, a)"),
        (lambda a, b: a / a + b, "div(a, a) + b"),
        (lambda a, b: a * 0.0 + b, "mul(a, 0) + b"),
        (lambda a, b: Scalar.dot([a, 2.0], [b, a]), "dot(a, b, a)"),
        (lambda a, b: Scalar.dot([a, b], [b, a]), "2a·b"),
    ],
)
def test_a_definition_of_scalars_too(function, wanted):
    a, b = tg.named("a", Scalar(2.0)), tg.named("b", Scalar(np.inf))
    assert definition(tg.named("y", function(a, b))) == wanted
