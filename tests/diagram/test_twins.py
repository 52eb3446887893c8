"""The twin: the same graph recorded again, with composed norms for fused ones."""

import numpy as np
import pytest
from helpers import host, leaf
from test_fused import FAMILY, loss_of, numbers, reading_of

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.views import twins


def everything_at_once():
    """Options, a list of Tensors, constants, a residual, a module; two norms."""
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU())
    x = tg.named("x", tg.randn(6, 4, requires_grad=True))
    with tg.tracing():
        h = x + F.layer_norm(net(x), 4)
        both = tg.stack([h.sum(axis=0), h.max(axis=0)], axis=1)
        loss = F.cross_entropy(both, tg.tensor(np.arange(4) % 2))
    return net, x, loss


def test_the_twin_has_the_same_leaves_values_and_loss():
    _, _, loss = everything_at_once()
    pair = twins.twins(reading_of(loss))
    fused, other = (
        {o.name for n in g.graph.nodes for o in n.outputs} for g in (pair.fused, pair.composed)
    )
    assert fused - {None} <= other
    leaves_of = [
        {id(n.origin) for n in g.graph.nodes if n.kind == "leaf"}
        for g in (pair.fused, pair.composed)
    ]
    assert leaves_of[0] == leaves_of[1]
    ends = [g.output(g.graph.drawn[0]).value for g in (pair.fused, pair.composed)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
    labels = {node.label for node in pair.composed.graph.nodes}
    assert "normalize" not in labels
    assert {node.source for node in pair.composed.graph.nodes} == {
        node.source for node in pair.fused.graph.nodes
    }
    assert {node.scope for node in pair.composed.graph.nodes} == {
        node.scope for node in pair.fused.graph.nodes
    }


def test_a_place_has_one_name_in_both_graphs():
    norm, *shapes = FAMILY[3]  # group norm reshapes x, γ and β, which gives them letters
    pair = twins.twins(reading_of(loss_of(norm, *shapes)))
    (here,) = pair.norms
    assert len(here.places) == 6
    for ours, theirs in here.places.items():
        assert pair.fused.names[ours] == pair.composed.names[theirs]


def test_drawing_moves_no_statistics_changes_no_gradient_and_frees_nothing():
    net, x, loss = everything_at_once()
    before = host(net[1].running_mean)
    draw(loss, "fused")
    np.testing.assert_array_equal(host(net[1].running_mean), before)
    assert x.grad is None
    loss.backward()
    assert np.isfinite(host(x.grad)).all()


def untraced():
    return F.layer_norm(leaf(numbers(3, 4)), 4).sum()


def several():
    with tg.tracing():
        return F.layer_norm(leaf(numbers(3, 4)), 4)


def changed():
    gamma = leaf(np.ones(4))
    with tg.tracing():
        loss = F.layer_norm(leaf(numbers(3, 4)), 4, gamma).sum()
    with tg.no_grad():
        gamma *= 2.0
    return loss


def hooked():
    x = leaf(numbers(3, 4))
    x.register_hook(lambda g: None)
    with tg.tracing():
        return F.layer_norm(x, 4).sum()


def hooked_module():
    norm = nn.LayerNorm(4)
    norm.register_full_backward_hook(lambda *_: None)
    with tg.tracing():
        return norm(leaf(numbers(3, 4).astype(np.float32))).sum()


def recomputed():
    with tg.tracing():
        return tg.checkpoint(lambda x: F.layer_norm(x, 4), leaf(numbers(3, 4))).sum()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: worked_example("composed"), 'wants one recorded with impl="fused"'),
        (lambda: Scalar(2.0) * 3.0, 'wants one recorded with impl="fused"'),
        (untraced, r"record inside tracing\(\)"),
        (several, r"got shape \(3, 4\), wants a single number"),
        (changed, "changed in place"),
        (recomputed, "inside a checkpoint"),
        (hooked, "with hooks, which would run for both norms"),
        (hooked_module, "with hooks, which would run for both norms"),
    ],
)
def test_what_cannot_be_compared_is_refused(loss, message):
    with pytest.raises(ValueError, match=f"fused: .*{message}"):
        draw(loss(), "fused")
