"""What each path adds to a gradient: the numbers of the worked example, and that they add up."""

import functools
import operator

import numpy as np
import pytest
from formula_values import assert_near
from helpers import host, leaf, vector
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import losses

import tinygrad_bn as tg
from tinygrad_bn import Scalar, diagram, nn
from tinygrad_bn.diagram import draw, paths
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.recorded.paths import contributions, edges_into
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.diagram.recorded.symbols import symbols_of


def leaves_of(loss):
    """The leaves that a Tensor depends on, by name."""
    graph = record(loss)
    return {
        node.outputs[0].name: tg.graph.at_place(None, node.origin)
        for node in graph.nodes
        if node.kind == "leaf"
    }


def check_sums(loss):
    """What reaches a place from all that is named adds up to its gradient, up to the rounding of
    what was added up anywhere."""
    graph = record(loss)
    added = [e.contribution for e in graph.edges if e.contribution is not None]
    largest = max((np.max(np.abs(share), initial=0) for share in added), default=0)
    _, written = symbols_of(graph, "ioffe")
    reached: dict = {}
    for end in written:
        for start, share in contributions(graph, edges_into(graph), end, written).items():
            reached.setdefault(start, []).append(share)
    for number, index in written:
        (output,) = [o for o in graph.nodes[number].outputs if o.index == index]
        if (number, index) not in graph.drawn and output.gradient is not None:
            total = functools.reduce(operator.add, reached[number, index])
            np.testing.assert_allclose(total, output.gradient, rtol=1e-12, atol=1e-12 * largest)


# --- The worked example ---------------------------------------------------------------------------


def test_the_paths_of_the_worked_example_have_the_listed_numbers_and_add_up():
    loss = worked_example("composed")
    x = leaves_of(loss)["x"]
    found = diagram.paths(loss, to=x)
    wanted = {
        "μ_B": (-0.2, -0.2, -0.2, -0.2),
        "σ²_B": (0.336, 0.048, -0.048, -0.336),
        "x̂": (0.8, -1.6, 0.4, 1.2),
    }
    assert [*found] == [*wanted]
    for name, numbers in wanted.items():
        np.testing.assert_allclose(np.ravel(found[name]), numbers, rtol=0, atol=1e-15)
    (gradient,) = tg.grad(loss, x)
    assert np.abs(sum(found.values()) - host(gradient)).max() <= 4e-16


@pytest.mark.parametrize(
    ("to", "wanted"),
    [("γ", {"y": 1.2}), ("β", {"y": 1.0})],
)
def test_a_parameter_is_reached_by_one_path(to, wanted):
    loss = worked_example("composed")
    found = diagram.paths(loss, to=leaves_of(loss)[to])
    assert {
        name: pytest.approx(float(np.ravel(v)[0]), abs=1e-15) for name, v in found.items()
    } == wanted


def test_the_path_from_the_variance_to_the_mean_adds_nothing_on_paper():
    graph = record(worked_example("composed"))
    names, written = symbols_of(graph, "ioffe")
    place = {name: place for place, name in names.items()}
    added = contributions(graph, edges_into(graph), place["σ²_B"], written)[place["μ_B"]]
    assert np.abs(added).max() <= 5e-16


def test_all_of_a_fused_gradient_comes_by_one_path():
    loss = worked_example("fused")
    x = leaves_of(loss)["x"]
    found = diagram.paths(loss, to=x)
    np.testing.assert_allclose(np.ravel(found["y"]), (0.936, -1.752, 0.152, 0.664), atol=1e-15)
    assert [*found] == ["y"]


# --- Any graph ------------------------------------------------------------------------------------


@given(losses())
def test_paths_add_up_to_the_gradients_of_random_graphs(loss):
    check_sums(loss)


@pytest.mark.parametrize("impl", ["composed", "fused"])
@pytest.mark.parametrize("name", ["layer_norm", "group_norm"])
def test_paths_through_statistics_that_are_used_themselves_add_up(name, impl):
    x = tg.named("x", leaf(np.random.default_rng(0).standard_normal((2, 4, 3))))
    norm = getattr(tg.functional, name)
    with tg.tracing():
        y = norm(x, 2, impl=impl) if name == "group_norm" else norm(x, (4, 3), impl=impl)
        loss = tg.sum(y * x) + tg.sum(tg.named("y₂", y * y * 0.5))
    check_sums(loss)


def test_several_outputs_of_one_op_are_paths_of_their_own():
    x = tg.named("x", leaf(np.random.default_rng(0).standard_normal((5, 2))))
    with tg.tracing():
        y, mu, var = tg.norm.fused.normalize(x, None, None, axes=(0,), eps=0.1)
        for name, tensor in (("y", y), ("μ", mu), ("σ²", var)):
            tg.named(name, tensor)
        loss = tg.sum(y**3) + tg.sum(mu * var)
    found = diagram.paths(loss, to=x)
    assert [*found] == ["y", "μ", "σ²"]
    check_sums(loss)


SCALAR_OPS = {
    "+": lambda x, y: x + y,
    "×": lambda x, y: x * y,
    "−": lambda x, y: x - y,
    "÷": lambda x, y: x / (y * y + 0.5),
    "tanh": lambda x, _: x.tanh(),
    "exp": lambda x, _: x.tanh().exp(),
    "²": lambda x, _: x**2,
    "Σ": lambda x, y: Scalar.sum([x, y, x, 1.5]),
}


@given(st.lists(st.sampled_from([*SCALAR_OPS]), max_size=12), st.data())
def test_paths_of_scalars_add_up(ops, data):
    made = [tg.named(name, Scalar(value)) for name, value in (("a", 0.7), ("b", -1.3))]
    for op in ops:
        x, y = (data.draw(st.sampled_from(made)) for _ in range(2))
        made.append(SCALAR_OPS[op](x, y))
        if data.draw(st.booleans()):
            made[-1].name = data.draw(st.sampled_from(["c", "d"]))
    loss = Scalar.sum(made).tanh()
    check_sums(loss)
    a, *_ = made
    found = diagram.paths(loss, to=a)
    loss.backward()
    assert sum(found.values()) == pytest.approx(a.grad, rel=1e-12, abs=1e-15)


def test_the_paths_to_a_place_in_between():
    x = vector(2.0, 3.0)
    with tg.tracing():
        z = x * x
        u, v = tg.named("u", z * 3.0), tg.named("v", tg.exp(z))
        loss = tg.sum(u * v)
    found = diagram.paths(loss, to=z)
    (gradient,) = tg.grad(loss, z)
    assert [*found] == ["u", "v"]
    assert_near(found["u"] + found["v"], host(gradient))


def test_names_that_come_twice_are_told_apart():
    x = vector(2.0)
    with tg.tracing():
        loss = tg.named("h", x * x) + tg.named("h", tg.exp(x))
    assert [*diagram.paths(loss, to=x)] == ["h", "h^{(2)}"]


def test_hooks_and_grad_are_left_alone():
    x, seen = vector(2.0), []
    x.register_hook(seen.append)
    with tg.tracing():
        loss = tg.named("y", x * x) * 3.0
    before = len(seen)
    diagram.paths(loss, to=x)
    assert x.grad is None
    assert len(seen) - before == 1  # of the pass that finds the gradients


@pytest.mark.parametrize(
    ("loss", "to", "error", "message"),
    [
        (lambda x: x * x, lambda x, _: x, ValueError, "loss: no gradients: .* a single number"),
        (lambda x: tg.sum(x * x), lambda _, loss: loss, ValueError, "to: wants something else"),
        (lambda x: tg.sum(x), lambda *_: vector(1.0), ValueError, "to: wants something else"),
        (lambda x: tg.sum(x), lambda *_: tg.tensor(1.0), ValueError, "to: wants something else"),
        (lambda x: tg.sum(x), lambda *_: 1.0, TypeError, "to: got float, wants a Tensor"),
        (lambda x: [tg.sum(x)], lambda x, _: x, TypeError, "loss: got list, wants a Tensor"),
        (lambda x: Scalar(1.0) * 2.0, lambda x, _: x, ValueError, "to: wants something else"),
    ],
)
def test_what_has_no_paths_is_refused(loss, to, error, message):
    x = vector(1.0, 2.0)
    with tg.tracing():
        loss = loss(x)
    with pytest.raises(error, match=message):
        diagram.paths(loss, to(x, loss))


def test_a_freed_graph_has_no_paths():
    x = vector(2.0)
    with tg.tracing():
        loss = tg.sum(x * x)
    loss.backward()
    with pytest.raises(ValueError, match="loss: no gradients: sum: backward ran through"):
        diagram.paths(loss, to=x)


# --- Hooks ----------------------------------------------------------------------------------------


def test_paths_add_up_where_hooks_change_gradients():
    """A place with a hook is one of those at which paths begin, named or not."""
    with tg.tracing():
        x = leaf(np.array([1.0, 2.0]))
        h = x * 3.0
        h.register_hook(lambda g: g * 10.0)
        loss = (h * h).sum() + (x * x).sum()
    assert list(paths(loss, to=x)) == ["u", "ℓ"]
    np.testing.assert_allclose(sum(paths(loss, to=x).values()), host(tg.grad(loss, x)[0]))


@pytest.mark.parametrize("change", [None, 10.0])
@pytest.mark.parametrize("view", ["symbols", "ops", "scalars", "butterfly", "collapsed"])
def test_backward_hooks_of_modules_are_called_in_the_pass_alone(view, change):
    seen = []

    def hook(module, grad_input, grad_output):
        seen.append(module)
        return None if change is None else tuple(g * change for g in grad_input)

    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(hook)
    with tg.tracing():
        x = tg.named("x", leaf(np.ones((1, 2), np.float32)))
        loss = layer(x * 2.0).sum()
    draw(loss, view)
    assert len(seen) == 1
    found = paths(loss, to=x)
    np.testing.assert_allclose(sum(found.values()), host(tg.grad(loss, x, retain_graph=True)[0]))
