"""The second call of a checkpoint: what it leaves alone, and what must be as in the first."""

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, vector
from test_checkpoint import BOTH, assert_the_same, nested, plainly

import tinygrad_bn as tg
from tinygrad_bn import nn, recording
from tinygrad_bn.check import graph_nodes, held_bytes
from tinygrad_bn.random_numbers import generator


def test_backward_a_second_time_raises_as_ever_or_computes_again_if_retained():
    calls = []

    def function(x):
        calls.append(1)
        return tg.exp(x * x)

    x = vector(2.0)
    y = tg.checkpoint(function, x)
    for times in (2, 3):
        assert_close(tg.grad(y, x, retain_graph=True)[0], 4.0 * np.exp([4.0]))
        assert len(calls) == times
        assert held_bytes([y], [x]) == 0
    y.backward()
    with pytest.raises(RuntimeError, match=r"exp: backward ran .* retain_graph=True"):
        y.backward()


def test_a_pass_that_frees_one_branch_leaves_the_other():
    x, p = vector(2.0), vector(3.0)
    inner = tg.checkpoint(lambda x: tg.exp(x), x)
    outer = tg.checkpoint(lambda h: tg.exp(h * p * 0.1), inner)
    tg.grad(outer, p)
    assert_close(tg.grad(inner, x)[0], np.exp([2.0]))


def test_running_statistics_move_once_and_the_numbers_drawn_are_the_same():
    def trained(checkpoint):
        tg.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=None), nn.Tanh())

        def dropped(x):
            y = net(x)
            return y * (tg.rand(*y.shape) < 0.5)

        x = tg.randn(6, 3)
        for _ in range(2):
            y = checkpoint(dropped, checkpoint(dropped, x)[:, :3])
            drawn = tg.rand(3)
            tg.sum(y * y).backward()
            drawn = [*host(drawn), *host(tg.rand(3))]  # the stream goes on as if nothing had been
        state = [host(t) for t in net.state_dict().values()]
        return [*state, drawn, *(host(p.grad) for p in net.parameters())]

    assert_the_same(trained(tg.checkpoint), trained(plainly))
    assert_the_same(trained(nested), trained(plainly))


def test_the_random_stream_goes_on_also_after_an_error_in_the_second_call():
    calls = []

    def function(x):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return tg.exp(x * tg.rand(1))

    tg.manual_seed(0)
    y = tg.checkpoint(function, vector(1.0))
    state = generator().bit_generator.state
    with pytest.raises(ZeroDivisionError):
        y.backward(retain_graph=True)
    assert generator().bit_generator.state == state
    y.backward()  # the third call


def test_hooks_and_retain_grad_inside_are_those_of_the_first_call():
    seen, inside = [], []

    def function(x):
        x.register_hook(lambda g: g * 10.0)
        h = x * x
        h.register_hook(seen.append)
        h.retain_grad()
        inside.append(h)
        return tg.exp(h)

    x = vector(1.0)
    tg.checkpoint(function, x).backward()
    assert_close(x.grad, 20.0 * np.exp([1.0]))
    assert [host(g).tolist() for g in seen] == [[np.e]]
    assert_values(inside[0].grad, np.e)


def test_backward_hooks_of_modules_inside_are_called_once():
    calls = []
    layer = nn.Tanh()
    layer.register_forward_hook(lambda *_: calls.append("forward"))
    layer.register_full_backward_hook(lambda *_: calls.append("backward"))
    tg.checkpoint(layer, vector(1.0)).backward()
    assert calls == ["forward", "forward", "backward"]


def test_the_second_call_runs_in_the_surroundings_of_the_first(double_only):
    seen = []

    def function(x):
        seen.append((tg.ones(1).device, tg.exp(x).requires_grad))
        return tg.exp(x * tg.ones(1))

    with tg.device("cuda:1"):
        x = vector(1.0)
        y = tg.checkpoint(function, x)
    with tg.no_grad():
        y.backward()
    assert seen == [("cuda:1", True)] * 2


def test_the_second_call_has_the_error_state_of_numpy_of_the_first():
    x = vector(1000.0)
    with np.errstate(over="ignore"):
        y = tg.checkpoint(lambda x: tg.tanh(tg.exp(x)), x)
        with np.errstate(over="raise", invalid="ignore"):
            y.backward()
    assert np.isnan(host(x.grad)).all()  # 0 · ∞


def test_the_second_call_is_neither_traced_nor_noted():
    x = vector(1.0)
    noted = []
    with tg.tracing(), recording.journal(lambda node, *_: noted.append(node.op.name)):
        y = tg.checkpoint(lambda x: tg.exp(x * x), x)
        y.backward(retain_graph=True)
    assert noted == ["mul", "exp"]
    assert [node.trace.outputs[0].item() for node in graph_nodes([y])] == [np.e, 1.0]
    assert [node.label for node in tg.draw(y).graph.nodes if node.kind == "op"] == ["×", "exp"]


# --- What must not change between the calls -------------------------------------------------------


def plus_one(tensor):
    with tg.no_grad():
        tensor += 1.0


@pytest.mark.parametrize("checkpoint", BOTH)
@pytest.mark.parametrize(
    "function",
    [
        lambda x, b: tg.exp(x * b),  # a rule reads b
        lambda x, b: tg.exp(x + b),  # none does, but the second call
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_write_between_forward_and_backward_raises(checkpoint, function, which):
    x, b = vector(1.0, 2.0), vector(3.0, 4.0)
    y = checkpoint(lambda x: function(x, b), x)
    plus_one((x, b)[which])
    with pytest.raises(RuntimeError, match=r"float64\[2\].* was changed in place"):
        y.sum().backward()
    assert x.grad is None


def test_a_write_into_running_statistics_raises_if_the_second_call_reads_them():
    layer = nn.BatchNorm1d(2).eval()
    x = leaf(np.arange(6, dtype=np.float32).reshape(3, 2))
    y = tg.checkpoint(layer, x).sum()
    layer.train()(x)
    layer.eval()
    with pytest.raises(RuntimeError, match="was changed in place"):
        y.backward()


@pytest.mark.parametrize(
    "values",
    [
        [vector(1.0, 2.0), vector(3.0, 4.0)],
        [tg.tensor(np.array([1.0, 2.0])), tg.tensor(np.array([3.0, 4.0]))],  # constants too
        [2.0, 3.0],
    ],
    ids=["parameters", "constants", "numbers"],
)
def test_a_variable_that_a_loop_binds_anew_is_found(values):
    h = vector(1.0, 2.0)
    for value in values:
        h = tg.checkpoint(lambda x: tg.tanh(x * value), h)  # noqa: B023
    with pytest.raises(RuntimeError, match=r"checkpoint: .* gave mul another argument 1, .* loop"):
        h.sum().backward()


def test_an_option_that_a_loop_binds_anew_is_found():
    h = leaf(grid((2, 2)))
    for axis in (0, 1):
        h = tg.checkpoint(lambda x: tg.softmax(x, axis=axis), h)  # noqa: B023
    with pytest.raises(RuntimeError, match=r"softmax\(axis=1\) .* before softmax\(axis=0\) -> fl"):
        h.backward(tg.ones_like(h))


def test_what_a_function_makes_anew_in_each_call_need_not_be_the_same_array():
    kept = []

    def function(x):
        kept.append(tg.arange(2, dtype=np.float64) + np.nan)  # alive, and made again
        return tg.where(kept[-1] > 0, kept[-1], tg.exp(x * 2.0))

    x = vector(1.0, 2.0)
    tg.checkpoint(function, x).sum().backward()
    assert_close(x.grad, 2.0 * np.exp([2.0, 4.0]))


def test_a_tensor_of_the_closure_that_was_given_other_data_is_found():
    x, p = vector(1.0), vector(2.0)
    y = tg.checkpoint(lambda x: tg.exp(x * p), x)
    p.data = p.data.copy()  # the same values
    assert_close(tg.grad(y, x, retain_graph=True)[0], 2.0 * np.exp([2.0]))
    p.data = p.data * 2.0
    with pytest.raises(
        RuntimeError, match=r"gave mul another argument 1, float64\[1\].*other data"
    ):
        y.backward()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (tg.exp, tg.tanh, r"tanh\(\) -> float64\[2\] as op 1, and before exp\(\) -> fl"),
        (
            tg.sum,
            lambda x: x[:1],
            r"getitem\(.*\) -> float64\[1\] as op 1, and before sum\(",
        ),
        (tg.exp, lambda x: tg.exp(tg.exp(x)), r"exp\(\) -> float64\[2\] as op 2, and before none;"),
        (lambda x: tg.exp(tg.exp(x)), tg.exp, "2 ops, and before 3; it must do the same twice"),
    ],
)
def test_a_function_that_does_not_do_the_same_twice_is_found(first, second, message):
    calls = []

    def function(x):
        calls.append(1)
        return (first if len(calls) == 1 else second)(x * x)

    x = vector(1.0, 2.0)
    y = tg.checkpoint(function, x).sum()
    with pytest.raises(RuntimeError, match="checkpoint: called again .* recorded " + message):
        y.backward()
    assert x.grad is None


def test_a_module_that_changed_its_mode_is_found():
    layer = nn.BatchNorm1d(2)
    y = tg.checkpoint(layer, leaf(np.eye(2, dtype=np.float32))).sum()
    layer.eval()
    with pytest.raises(RuntimeError, match="it must do the same twice"):
        y.backward()


def test_an_error_in_the_function_leaves_no_trace():
    def fail(x):
        tg.exp(x * x)
        raise ZeroDivisionError

    x = vector(1.0)
    with pytest.raises(ZeroDivisionError):
        tg.checkpoint(fail, x)
    y = x * x
    assert y.node.refill is None
    assert_values(tg.grad(y, x)[0], 2.0)


def test_another_index_the_second_time_is_an_error(cpu_only):
    x = leaf(np.arange(6.0))
    random = np.random.default_rng(0)

    def permuted(x):
        y = x[random.permutation(6)]
        return tg.exp(y) * y * y

    y = tg.sum(tg.checkpoint(permuted, x) * np.arange(6.0))
    with pytest.raises(RuntimeError, match="recorded getitem"):
        y.backward()
