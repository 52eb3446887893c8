"""Hooks: what they change is in the picture, and a note says that the sums are those before."""

import numpy as np
import pytest
from helpers import host, vector

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.diagram import draw, explain, paths, stepper
from tinygrad_bn.diagram.recorded.hooks import HOOKED


def on_a_tensor(hook):
    x = tg.named("x", vector(1.0, 2.0))
    with tg.tracing():
        y = tg.named("y", x * 3.0)
        y.register_hook(hook)
        return (y * y).sum()


def on_a_leaf(hook):
    x = tg.named("x", vector(1.0, 2.0))
    x.register_hook(hook)
    with tg.tracing():
        return ((x * 3.0) * x).sum()


def on_the_loss(hook):
    with tg.tracing():
        loss = (tg.named("x", vector(1.0, 2.0)) ** 2).sum()
    loss.register_hook(hook)
    return loss


def on_a_small_entry(hook):
    x = tg.named("x", vector(1.0, 2.0))
    with tg.tracing():
        y = tg.named("y", x * 3.0)
        y.register_hook(lambda g: tg.stack([g[0], hook(g)[1]]))
        return (y * tg.tensor(np.array([1e6, 0.5]))).sum()


def on_a_module(hook):
    tg.manual_seed(0)
    module = nn.Linear(2, 2)
    module.register_full_backward_hook(lambda _module, given, _came: tuple(map(hook, given)))
    x = tg.named("x", tg.randn(3, 2, requires_grad=True))
    with tg.tracing():
        return module(x).sum()


@pytest.mark.parametrize(
    "record", [on_a_tensor, on_a_leaf, on_the_loss, on_a_small_entry, on_a_module]
)
def test_a_note_says_where_sums_are_those_before_hooks(record):
    tripled, seen = record(lambda g: g * 3.0), record(lambda g: g)
    for view in ("symbols", "ops", "collapsed", "scalars"):
        assert HOOKED in draw(tripled, view).sketch.notes
        assert HOOKED not in draw(seen, view).sketch.notes
    for page in (str(explain(tripled)), stepper(tripled).html):
        assert HOOKED in page
    for page in (str(explain(seen)), stepper(seen).html):
        assert HOOKED not in page


def test_paths_add_up_to_what_the_hook_of_their_end_is_given():
    given = []
    x = tg.named("x", vector(1.0, 2.0, 5.0))
    x.register_hook(lambda g: given.append(host(g)) or g * 3.0)
    with tg.tracing():
        loss = tg.named("ℓ", (x * x).sum())
    added = paths(loss, to=x)
    np.testing.assert_array_equal(sum(added.values()), given[0])


def test_a_gradient_that_is_not_a_number_is_not_changed():
    tg.manual_seed(0)
    module = nn.Linear(2, 2)
    module.register_full_backward_hook(lambda _module, _given, _came: None)
    x = vector(1.0, 2.0).astype(np.float32)
    with np.errstate(all="ignore"), tg.tracing():
        loss = module(x).sum() * float("nan")
    assert HOOKED not in draw(loss, "symbols").sketch.notes
