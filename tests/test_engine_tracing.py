"""tracing(): nodes know their values, their names, their module and the line that made them."""

import inspect
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, assert_values, host, leaf, vector

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes


def here():
    """The file and line of the caller, as a trace gives them."""
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno}"


def traces(output):
    """The traces behind a Tensor by the name of the op."""
    return {node.op.name: node.trace for node in graph_nodes([output])}


def test_without_tracing_nothing_is_kept():
    y = tg.exp(vector(1.0))
    assert y.node.trace is None
    with tg.tracing():
        pass
    assert tg.exp(vector(1.0)).node.trace is None


def test_values_are_kept_also_those_that_no_rule_reads():
    x = vector(1.0, 2.0)
    with tg.tracing():
        y = x + 3.0
    trace = y.node.trace
    assert_values(trace.outputs[0], 4.0, 5.0)
    assert_values(trace.inputs[0], 1.0, 2.0)
    assert trace.inputs[1] == 3.0
    y.sum().backward()
    assert_values(trace.outputs[0], 4.0, 5.0)


def test_names_of_results_and_of_inputs():
    x = tg.named("x", vector(1.0, 2.0))
    with tg.tracing():
        y = tg.named("y", tg.exp(x))
        z = y * x
    assert (x.name, y.name, z.name) == ("x", "y", None)
    assert y.node.trace.names == {0: "y"}
    assert z.node.trace.names == {}
    assert z.node.trace.input_names == ("y", "x")


def test_each_output_has_a_name_of_its_own():
    x = leaf(np.arange(6.0).reshape(3, 2))
    with tg.tracing():
        y, mu, var = tg.norm.fused.normalize(x, None, None, axes=(0,), eps=0.0)
        tg.named("μ_B", mu)
        tg.named("y", y)
    assert var.node.trace.names == {0: "y", 1: "μ_B"}


def test_named_hands_an_array_through_untouched():
    array = np.ones(3)
    assert tg.named("x", array) is array
    assert tg.named("x", 1.0) == 1.0


def test_the_source_is_the_users_line():
    x = leaf(np.arange(6.0).reshape(3, 2))
    net = nn.Sequential(nn.Flatten(), nn.Sigmoid())
    with tg.tracing():
        y, line = x * 2.0, here()
        assert y.node.trace.source == line
        for call in (
            lambda: (tg.exp(x), here()),
            lambda: (2.0 - x, here()),
            lambda: (x.sum(axis=0), here()),
            lambda: (x[0], here()),
            lambda: (tg.stack([x, x]), here()),
            lambda: (F.batch_norm(x, None, None, training=True, impl="composed"), here()),
            lambda: (net(x), here()),
        ):
            output, line = call()
            assert {trace.source for trace in traces(output).values()} == {line}


def test_the_source_is_a_line_of_the_users_module_if_the_user_wrote_it():
    class Mine(nn.Module):
        def forward(self, x):
            self.line = here()
            return F.relu(x), here()

    mine = Mine()
    with tg.tracing():
        output, line = mine(vector(1.0))
    assert output.node.trace.source == line
    assert Path(line.rpartition(":")[0]).name == "test_engine_tracing.py"


def test_the_scope_is_the_path_of_modules():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
            self.head = nn.Linear(2, 1)

        def forward(self, x):
            return tg.exp(self.head(self.body(x)))

    with tg.tracing():
        y = tg.sum(Net()(tg.ones((3, 2))))
    scopes = {node.op.name + node.trace.scope for node in graph_nodes([y])}
    assert scopes == {
        "sum",
        "expNet",
        "linearNet.head:Linear",
        "tanhNet.body:Sequential.1:Tanh",
        "linearNet.body:Sequential.0:Linear",
    }


def test_an_error_in_a_module_leaves_its_scope():
    with tg.tracing():
        with pytest.raises(ValueError, match="linear"):
            nn.Linear(2, 2)(tg.ones((3, 5)))
        assert (vector(1.0) * 2.0).node.trace.scope == ""


def test_tracing_inside_tracing_keeps_the_scope():
    class Inner(nn.Module):
        def forward(self, x):
            with tg.tracing():
                return x * 2.0

    with tg.tracing():
        assert Inner()(vector(1.0)).node.trace.scope == "Inner"


def test_tracing_holds_for_one_thread_only():
    found = []
    with tg.tracing():
        thread = threading.Thread(target=lambda: found.append((vector(1.0) * 2.0).node.trace))
        thread.start()
        thread.join()
    assert found == [None]


def test_a_recorded_backward_pass_is_traced_with_the_names_of_the_forward_pass():
    x = tg.named("x", vector(2.0))
    with tg.tracing():
        y = tg.named("y", tg.exp(x))
        (dx,), line = tg.grad(y * x, x, create_graph=True), here()
    made_by_backward = [n for n in graph_nodes([dx]) if n.trace.source == line]
    names = {name for node in made_by_backward for name in node.trace.input_names}
    assert {"x", "y"} <= names
    assert_close(dx, np.exp(host(x)) * (1 + host(x)))


def test_gradients_are_the_same_with_and_without_tracing():
    x = leaf(np.arange(6.0).reshape(3, 2))
    plain = tg.grad(tg.sum(tg.softmax(x) * x), x)[0]
    with tg.tracing():
        traced = tg.grad(tg.sum(tg.softmax(x) * x), x)[0]
    np.testing.assert_array_equal(host(traced), host(plain))
