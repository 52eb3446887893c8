"""The algebra of formulas: what it rearranges has the same value, and what it may not, stays."""

import math
from fractions import Fraction

import numpy as np
import pytest
from formula_values import assert_near, assert_same_values, evaluate, in_shape
from helpers import grid
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_bn.diagram.formulas.factors import factor_of
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
    segments,
    shape_of,
    sigma,
    substituted,
    times,
    varies,
)

X, Y, MU, W = Symbol("x", (4, 3)), Symbol("y", (3,)), Symbol("μ", (1, 3)), Symbol("w", (4, 1))
S, G = Symbol("s", ()), Gradient("ℓ", "x", (4, 3))
SYMBOLS = (X, Y, MU, W, S, G)
VALUES = {s: grid(s.shape or (), 0.3, 1.7, seed) for seed, s in enumerate(SYMBOLS)}


def assert_value(formula, wanted):
    with np.errstate(all="ignore"):
        assert_near(in_shape(np.asarray(evaluate(formula, VALUES)), np.shape(wanted)), wanted)


# --- Every operation has the value of NumPy's -----------------------------------------------------

SMALL = st.sampled_from([-2, -1, -0.5, 0.5, 1, 2, 3, Fraction(1, 3), 1.7])


@st.composite
def pairs(draw, depth=4):
    """A formula and its value."""
    if depth == 0 or draw(st.booleans()):
        if draw(st.booleans()):
            value = draw(SMALL)
            return number(value), np.float64(value)
        symbol = draw(st.sampled_from(SYMBOLS))
        return symbol, VALUES[symbol]
    a, x = draw(pairs(depth - 1))
    kind = draw(st.sampled_from(["times", "plus", "minus", "power", "sigma", "row"]))
    if kind in ("times", "plus"):
        b, y = draw(pairs(depth - 1))
        assume(np.broadcast_shapes(x.shape, y.shape) in ((), (3,), (1, 3), (4, 1), (4, 3)))
        return (times(a, b), x * y) if kind == "times" else (plus(a, b), x + y)
    if kind == "minus":
        return minus(a), -x
    if kind == "power":
        exponent = draw(SMALL)
        return power(a, exponent), x ** float(exponent)
    if kind == "sigma" and x.ndim == 2:
        axes = draw(st.sampled_from([(-1,), (-2,), (-2, -1)]))
        return sigma(a, axes, x.shape), np.sum(x, axis=axes, keepdims=True)
    if x.ndim == 1:
        return reshaped(a, (3,), (1, 3)), x.reshape(1, 3)
    return a, x


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(pairs())
def test_a_formula_has_the_value_of_what_it_was_made_by(pair):
    formula, wanted = pair
    known = np.isfinite(wanted)  # it may be simpler where it is not real: (√a)² is a
    assume(known.any() and np.abs(wanted[known]).max() < 1e9)
    got = in_shape(np.asarray(evaluate(formula, VALUES)), np.shape(wanted))
    assert_near(np.where(known, got, 0), np.where(known, wanted, 0), rtol=1e-9)
    shapes = zip(reversed(shape_of(formula)), reversed(wanted.shape))
    assert all(n in (1, m) for n, m in shapes)


# --- What is simplified, and what is not ----------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        (times(X, X), power(X, 2)),
        (times(X, power(X, -1)), number(1)),
        (times(power(X, 0.5), power(X, -2)), power(X, -1.5)),
        (power(minus(X), 2), power(X, 2)),
        (power(times(number(2), X), 3), times(number(8), power(X, 3))),
        (power(power(X, 0.5), 2), X),
        (times(power(plus(X, Y), 0.5), power(plus(X, Y), 0.5)), plus(X, Y)),
        (times(power(times(X, Y), 0.5), power(times(X, Y), 0.5)), times(X, Y)),
        (plus(X, Y, minus(X)), Y),
        (plus(times(X, Y), times(Y, X)), times(number(2), X, Y)),
        (plus(X, minus(X)), number(0)),
        (plus(X, number(0)), X),
        (times(X, number(0)), number(0)),
        (power(X, 0), number(1)),
        (power(number(1), 0.5), number(1)),
        (power(number(2), -2), number(0.25)),
        (plus(number(0.1), number(0.2)), number(0.1 + 0.2)),
        (minus(plus(X, Y)), plus(minus(X), minus(Y))),
        (sigma(MU, (-2,), (4, 3)), times(number(4), MU)),
        (sigma(S, (-2, -1), (4, 3)), times(number(12), S)),
        (sigma(X, (), (4, 3)), X),
        (sigma(MU, (-2, -1), (4, 3)), times(number(4), Sigma(MU, (-1,)))),
        (sigma(MU, (-2,), (0, 3)), number(0)),
        (reshaped(Y, (3,), (1, 1, 3)), Y),
        (reshaped(reshaped(Y, (3,), (3, 1)), (3, 1), (3,)), Y),
        (reshaped(S, (2, 3), (6,)), S),
    ],
)
def test_this_is_written_more_simply(formula, wanted):
    assert formula == wanted


SQUARED = power(X, 2)


@pytest.mark.parametrize(
    "formula",
    [
        power(SQUARED, 0.5),  # |x| is not x
        power(times(number(4), X), 0.5),
        power(times(X, Y), 0.5),
        power(power(X, 2), 1.5),
        power(X, 1e9),
        power(number(0), -1),
        plus(X, Symbol("x", (3,))),  # another array of that name
        times(Y, reshaped(Y, (3,), (3, 1))),  # xᵢ xⱼ is not x²
        plus(W, minus(reshaped(W, (4, 1), (1, 4)))),
        plus(Apply("f", (X,), (), "a"), minus(Apply("f", (X,), (), "b"))),
        plus(Apply("…", (), (), object()), minus(Apply("…", (), (), object()))),
    ],
)
def test_this_stays_as_it_is(formula):
    assert formula not in (X, Y, number(0), SQUARED, times(number(2), X))
    assert formula == times(formula)


@pytest.mark.parametrize("value", [0.1, 1e300, -1e-300, 2**70, math.inf, Fraction(1, 3)])
def test_a_number_stays_the_number_that_it_is(value):
    assert float(number(value).coefficient) == float(value)


def test_numbers_that_grow_without_end_become_floats():
    big = number(1e300)
    assert times(big, big) == number(math.inf)
    assert power(times(big, X), 3).coefficient == math.inf
    assert power(times(minus(big), X), 3).coefficient == -math.inf
    assert isinstance(times(*[number(Fraction(1, 3))] * 50).coefficient, float)


def test_a_number_that_is_not_one_stays_one():
    product = times(number(math.nan), X)
    assert math.isnan(product.coefficient)
    assert plus(product, product) != number(0)


def test_symbols_are_replaced_wherever_they_stand():
    a, b = Symbol("a", ()), Symbol("b", ())
    formula = plus(times(number(2), a, power(b, -1)), Apply("exp", (a,), ()))
    assert substituted(formula, {a: plus(b, b), b: S}) == plus(
        times(number(4), b, power(S, -1)), Apply("exp", (times(number(2), b),), ())
    )


# --- Shapes ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), max_size=4), st.randoms())
def test_axes_are_followed_through_a_reshape(shape, random):
    """By the entries themselves: which of them differ along which axes."""
    size = math.prod(shape)
    after = []
    left = size
    while left > 1:
        n = random.choice([k for k in range(1, left + 1) if left % k == 0])
        after.append(n)
        left //= n
    before, after = tuple(shape), tuple(after)
    pairs = segments(before, after)
    assert sorted(a for old, _ in pairs for a in old) == list(range(-len(before), 0))
    assert sorted(a for _, new in pairs for a in new) == list(range(-len(after), 0))
    for old, new in pairs:
        assert math.prod(before[a] for a in old) == math.prod(after[a] for a in new)
        positions = np.indices(before).reshape(len(before), -1)[list(old)]
        changed = positions.T.reshape(*after, len(old))
        for axis in set(range(-len(after), 0)) - set(new):
            assert (np.diff(changed, axis=axis - 1) == 0).all()


def test_a_formula_varies_along_the_axes_of_what_is_in_it():
    assert shape_of(plus(MU, W)) == (4, 3)
    assert shape_of(times(MU, S)) == (1, 3)
    assert shape_of(Sigma(X, (-2,))) == (1, 3)
    assert shape_of(Reshaped(Y, (3,), (3, 1, 1))) == (3, 1, 1)
    assert shape_of(Reshaped(MU, (4, 3), (2, 2, 3))) == (1, 1, 3)
    assert [varies(MU, (axis,)) for axis in (-1, -2, -3)] == [True, False, False]
    assert varies(Symbol("x", (0, 3)), (-2,))


# --- Factors --------------------------------------------------------------------------------------

ROW = Gradient("ℓ", "μ", (1, 3))
VALUES[ROW] = grid((1, 3), 0.4, 1.3, 17)


@pytest.mark.parametrize(
    ("formula", "symbol", "wanted"),
    [
        (times(number(2), X, G), G, times(number(2), X)),
        (plus(times(X, G), times(MU, G)), G, plus(X, MU)),
        (Sigma(times(X, G), (-2,)), G, X),  # one entry of the Σ
        (Sigma(times(X, ROW), (-2,)), ROW, Sigma(X, (-2,))),
        (Sigma(times(X, ROW), (-2, -1)), ROW, Sigma(X, (-2,))),
        (times(power(MU, -1), Sigma(times(X, G), (-2,))), G, times(power(MU, -1), X)),
        (
            Apply("where", (X, G, number(0)), (4, 3)),
            G,
            Apply("where", (X, number(1), number(0)), (4, 3)),
        ),
        (number(0), G, number(0)),
    ],
)
def test_the_factor_of_a_gradient(formula, symbol, wanted):
    factor = factor_of(formula, symbol).formula
    assert factor == wanted
    if not isinstance(factor, Apply) and factor != number(0):
        units = np.eye(VALUES[symbol].size).reshape(-1, *VALUES[symbol].shape)
        jacobian = [evaluate(formula, VALUES | {symbol: unit}) for unit in units]
        assert_same_values(np.concatenate(jacobian), evaluate(factor, VALUES))


@pytest.mark.parametrize(
    "formula",
    [
        X,  # it is not in it
        power(G, 2),
        times(G, plus(G, X)),
        plus(G, X),
        Apply("f", (G,), (4, 3)),
        Apply("where", (G, G, number(0)), (4, 3)),
        times(X, Sigma(times(X, G), (-2,))),  # xᵢ Σⱼ xⱼ gⱼ
        plus(G, Sigma(G, (-2,))),
        plus(G, times(X, Sigma(times(X, G), (-2,)))),
        plus(G, reshaped(G, (4, 3), (3, 4))),
        Sigma(times(X, Sigma(times(W, G), (-2,))), (-1,)),
    ],
)
def test_what_is_more_than_multiplied_has_no_factor(formula):
    assert factor_of(formula, G) is None


def test_a_factor_is_followed_through_a_reshape_after_the_sum():
    """γ (3,) beside an image (2, 3, 5) is seen as (3, 1); its gradient is summed, then reshaped."""
    g, image = Gradient("ℓ", "y", (2, 3, 5)), Symbol("x̂", (2, 3, 5))
    total = reshaped(Sigma(times(image, g), (-3, -1)), (1, 3, 1), (3,))
    assert factor_of(total, g).formula == image
    twice = times(Y, total)
    assert factor_of(twice, g).formula == times(reshaped(Y, (3,), (1, 3, 1)), image)
