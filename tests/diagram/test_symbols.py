"""What places are called: notations, letters for what has no name, and that none comes twice."""

import numpy as np
import pytest
from helpers import leaf, vector
from hostile import HOSTILE
from hypothesis import given
from random_graphs import losses

import tinygrad_bn as tg
from tinygrad_bn import Scalar
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.text import clean
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.diagram.recorded.symbols import NOTATIONS, symbols_of


def symbols(loss, notation="ioffe"):
    """The symbols in the order of computation, and those of the lecture."""
    names, lecture = symbols_of(record(loss), notation)
    return list(names.values()), {names[place] for place in lecture}


@pytest.mark.parametrize(
    ("notation", "named", "between"),
    [
        ("ioffe", {"x", "μ_B", "σ²_B", "x̂", "γ", "β", "y", "ℓ"}, {"d", "q", "v", "s", "u"}),
        ("fleuret", {"x", "m̂", "v̂", "z", "γ", "β", "y", "𝓛"}, {"d", "q", "v", "s", "u"}),
        ("hat", {"x", "μ̂", "σ̂²", "x̂", "γ", "β", "y", "ℓ"}, {"d", "q", "σ²_B", "s", "u"}),
    ],
)
def test_each_notation_has_its_symbols(notation, named, between):
    names, lecture = symbols(worked_example("composed"), notation)
    assert named <= lecture
    assert between <= {*names} - lecture
    assert len(names) == len({*names})


def test_an_unknown_notation_names_the_known_ones():
    with pytest.raises(ValueError, match="notation: got 'greek', wants one of 'ioffe', 'fleuret'"):
        symbols(worked_example("fused"), "greek")


def test_what_has_no_name_gets_a_letter_that_tells_what_made_it():
    x = vector(1.5, 2.5)
    with tg.tracing():
        d = x - 1.0
        loss = tg.mean(tg.exp(tg.sqrt(d * d + 0.5)) / (x * d)) + tg.sum(-d)
    names, lecture = symbols(loss)
    assert names[0] == "x"
    assert {"d", "q", "v", "s", "e", "u", "r", "a", "d_2", "t", "ℓ"} <= {*names}
    assert lecture == {"x", "ℓ"}


def test_a_notation_renames_what_has_an_index_too():
    x = tg.named("x̂_1", vector(1.5, 2.5))
    with tg.tracing():
        loss = tg.sum(tg.named("μ_B^2", x * 2.0))
    assert symbols(loss, "fleuret")[0][:1] == ["z_1"]
    assert "m̂^2" in symbols(loss, "fleuret")[0]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_loss_without_a_name_is_the_loss_whatever_it_is_the_sum_of(notation):
    var, eps = tg.named("σ²_B", leaf(np.array(2.0))), tg.named("ε", leaf(np.array(0.5)))
    with tg.tracing():
        names, _ = symbols(var + eps, notation)
    assert names[-1] == ("𝓛" if notation == "fleuret" else "ℓ")


def test_a_number_times_a_scalar_is_no_square():
    a = tg.named("a", Scalar(2.0))
    assert symbols(a * 3.0 + 1.0)[0] == ["a", "u", "ℓ"]
    assert symbols(a * a + 1.0)[0] == ["a", "q", "ℓ"]


def test_letters_that_users_have_taken_are_left_to_them():
    with tg.tracing():
        x, y = tg.named("d", vector(1.0)), tg.named("u", vector(2.0))
        names, _ = symbols((x - y) * (x * y))
    assert names == ["d", "u", "d_2", "p", "u_2"]


def test_a_name_that_comes_again_is_numbered():
    with tg.tracing():
        x = tg.named("x̂", vector(2.0))
        y = tg.named("weight", tg.named("x̂", x * x) * x)
        names, lecture = symbols(tg.named("weight", y + x))
    assert names == ["x̂", "x̂^{(2)}", "weight", "weight_2"]
    assert lecture == {*names}


def test_a_symbol_of_the_notation_is_no_second_time_a_users_name():
    with tg.tracing():
        x = tg.named("z", vector(2.0))
        names, _ = symbols(tg.named("x̂", x * x), "fleuret")
    assert names == ["z", "z^{(2)}"]


def test_numbers_of_one_name_and_value_are_one_symbol():
    x = vector(1.0, 3.0)
    with tg.tracing():
        for eps in (0.5, 0.5, 0.25):
            x = tg.functional.layer_norm(x, 2, eps=eps, impl="composed")
    names, _ = symbols(tg.sum(x))
    assert [name for name in names if name.startswith("ε")] == ["ε", "ε", "ε^{(2)}"]


def test_a_name_that_cannot_be_seen_is_none():
    with tg.tracing():
        x = tg.named("\u202e", vector(2.0))
        names, lecture = symbols(tg.named(" ", x * x) + x)
    assert names == ["x", "q", "v"]
    assert lecture == {"x", "v"}


def test_hostile_names_are_told_apart_as_they_are_shown():
    with tg.tracing():
        x = leaf(np.float64(2))
        for name in (*HOSTILE, *HOSTILE):
            x = tg.named(name, tg.exp(x * 0.1))
    names, _ = symbols(x)
    assert len({clean(name) for name in names}) == len(names)
    assert all(clean(name) == name for name in names)


def test_scalars_have_symbols_too():
    a, b = tg.named("a", Scalar(2.0)), Scalar(3.0)
    assert symbols(a * b + b) == (["a", "x", "u", "ℓ"], {"a", "x", "ℓ"})


@pytest.mark.parametrize("notation", NOTATIONS)
@given(losses())
def test_no_two_places_have_one_symbol(notation, loss):
    names, _ = symbols(loss, notation)
    assert len({*names}) == len(names)


def test_thousands_of_one_name_are_named_in_a_moment():
    x = leaf(np.float64(1))
    with tg.tracing():
        for _ in range(3000):
            x = tg.named("y", -x)
    names, _ = symbols(x)
    assert names[-1] == "y^{(3000)}"
