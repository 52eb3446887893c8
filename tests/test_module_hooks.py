"""Hooks on modules: what they are given, what their answers replace, as in PyTorch."""

import collections
import copy
import weakref

import numpy as np
import pytest
from helpers import assert_values, host, vector
from libraries import LIBRARIES
from test_engine_memory import cyclic_garbage

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes, held_bytes

# --- What PyTorch does too ------------------------------------------------------------------------


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param()


def module(library, forward):
    """A module that computes `forward`."""

    class Made(library.nn.Module):
        def forward(self, *args, **kwargs):
            return forward(*args, **kwargs)

    return Made()


def logged(library, log):
    """A full backward hook that writes down what it is given."""

    def hook(module, grad_input, grad_output):
        shown = [
            tuple(g if isinstance(g, float) else library.values(g) for g in gs)
            for gs in (grad_input, grad_output)
        ]
        log.append(tuple(shown))

    return hook


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    ("forward", "call", "wanted"),
    [
        (lambda x: x * 2, lambda m, x, y: m(x), [(([2, 2],), ([1, 1],))]),
        (lambda x: x, lambda m, x, y: m(x), [(([1, 1],), ([1, 1],))]),
        # the module's share, and not what x gets from elsewhere
        (lambda x: x * 2, lambda m, x, y: m(x) + x * 10, [(([2, 2],), ([1, 1],))]),
        # two calls, each its own
        (
            lambda x, k: x * k,
            lambda m, x, y: m(x, 2.0) + m(x, 3.0),
            [(([3, 3], None), ([1, 1],)), (([2, 2], None), ([1, 1],))],
        ),
        # of two outputs one is used; an input without a share has zeros
        (
            lambda x, y: (x * 2, y * 3),
            lambda m, x, y: m(x, y)[0],
            [(([2, 2], [0, 0]), ([1, 1], None))],
        ),
        (
            lambda x, y: (x * 2, y * 3),
            lambda m, x, y: m(x, y.detach())[0],
            [(([2, 2], [0, 0]), ([1, 1], None))],
        ),
        (lambda x: (x * 2, None, 5), lambda m, x, y: m(x)[0], [(([2, 2],), ([1, 1], None, None))]),
        # no input requires a gradient, or none is positional
        (lambda x, y: x, lambda m, x, y: m(x.detach(), 1.0) * y, []),
        (
            lambda x, k, y=None: x * y,
            lambda m, x, y: m(x.detach(), 1, y=y),
            [((None, None), ([1, 1],))],
        ),
        (lambda x: x * 2, lambda m, x, y: m(x=x), [((), ([1, 1],))]),
        # the output does not depend on the input
        (lambda x: x.detach() * 2, lambda m, x, y: m(x) + y, []),
    ],
)
def test_a_backward_hook_is_given_the_modules_share(library, forward, call, wanted):
    log = []
    made = module(library, forward)
    made.register_full_backward_hook(logged(library, log))
    x, y = (library.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0, 5.0]))
    call(made, x, y).sum().backward()
    assert log == wanted


def test_answers_of_backward_hooks_replace_the_gradients_one_after_the_other(library):
    log, x = [], library.tensor([1.0, 2.0], requires_grad=True)
    made = module(library, lambda x, k: x * k)
    made.register_full_backward_pre_hook(lambda module, grads: (grads[0] * 10,))
    made.register_full_backward_pre_hook(lambda module, grads: None)
    made.register_full_backward_hook(logged(library, log))
    made.register_full_backward_hook(lambda module, given, got: (given[0] * 2, None))
    made.register_full_backward_hook(logged(library, log))
    made(x, 3.0).sum().backward()
    assert log == [(([30, 30], None), ([10, 10],)), (([60, 60], None), ([10, 10],))]
    assert library.values(x.grad) == [60, 60]


def test_an_answer_of_none_stops_the_gradient(library):
    x = library.tensor([1.0, 2.0], requires_grad=True)
    made = module(library, lambda x: x * 3)
    made.register_full_backward_hook(lambda module, given, got: (None,))
    made(x).sum().backward()
    assert x.grad is None


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_a_backward_pre_hook_alone_reaches_what_the_module_closes_over(library):
    w = library.tensor([1.0, 2.0], requires_grad=True)
    made = module(library, lambda x: x * w)
    made.register_full_backward_pre_hook(lambda module, grads: (grads[0] * 5,))
    made(library.tensor([3.0, 4.0])).sum().backward()
    assert library.values(w.grad) == [15, 20]


def test_forward_hooks_are_given_and_replace_arguments_and_output(library):
    log = []
    made = module(library, lambda x, k, *, shift=0.0: x * k + shift)

    def note(word):
        def hook(module, args, *output):
            values = [v if isinstance(v, float) else library.values(v) for v in (*args, *output)]
            log.append((word, values))

        return hook

    made.register_forward_pre_hook(note("before"))
    made.register_forward_pre_hook(lambda module, args: (args[0] + 1, args[1]))
    made.register_forward_pre_hook(note("changed"))
    made.register_forward_hook(note("after"))
    made.register_forward_hook(lambda module, args, output: output * 100)
    made.register_forward_hook(note("at last"))
    made(library.tensor([1.0, 2.0]), 2.0, shift=1.0)
    assert log == [
        ("before", [[1, 2], 2.0]),
        ("changed", [[2, 3], 2.0]),
        ("after", [[2, 3], 2.0, [5, 7]]),
        ("at last", [[2, 3], 2.0, [500, 700]]),
    ]


def test_a_forward_pre_hook_may_return_the_only_argument_itself(library):
    made = module(library, lambda x: x * 2)
    made.register_forward_pre_hook(lambda module, args: args[0] + 1)
    assert library.values(made(library.tensor([1.0]))) == [4]


def test_a_call_has_the_backward_hooks_that_were_there_when_it_was_made(library):
    log, x = [], library.tensor([1.0], requires_grad=True)
    made = module(library, lambda x: x * 2)
    early = made.register_full_backward_hook(lambda *_: log.append("early"))
    y = made(x)
    early.remove()
    made.register_full_backward_hook(lambda *_: log.append("late"))
    y.backward()
    assert log == ["early"]
    made(x).backward()
    assert log == ["early", "late"]


def test_a_removed_hook_is_not_called(library):
    log = []
    made = module(library, lambda x: x * 2)
    handles = [
        made.register_forward_pre_hook(lambda *_: log.append("before")),
        made.register_forward_hook(lambda *_: log.append("after")),
        made.register_full_backward_pre_hook(lambda *_: log.append("back")),
        made.register_full_backward_hook(lambda *_: log.append("through")),
    ]
    x = library.tensor([1.0], requires_grad=True)
    made(x).backward()
    assert log == ["before", "after", "back", "through"]
    for handle in handles:
        handle.remove()
        handle.remove()
    made(x).backward()
    assert len(log) == 4


def test_a_second_pass_and_a_second_derivative(library):
    log, x = [], library.tensor([1.0, 2.0], requires_grad=True)
    made = module(library, lambda x: x * x * x)
    made.register_full_backward_hook(logged(library, log))
    (g,) = library.grad(made(x).sum(), x, create_graph=True)
    assert log == [(([3, 12],), ([1, 1],))]
    assert library.values(library.grad(g.sum(), x, retain_graph=True)[0]) == [6, 12]
    assert len(log) == 1  # that gradient did not come through the module's output
    (made(x).sum() + g.sum()).backward()
    assert log[1:] == [(([3, 12],), ([1, 1],))]
    assert library.values(x.grad) == [9, 24]


def test_what_a_hook_answers_is_differentiated_again(library):
    x = library.tensor([1.0, 2.0], requires_grad=True)
    made = module(library, lambda x: x * x)
    made.register_full_backward_hook(lambda module, given, got: (given[0] * x,))
    (g,) = library.grad(made(x).sum(), x, create_graph=True)  # 2x · x
    assert library.values(g) == [2, 8]
    assert library.values(library.grad(g.sum(), x)[0]) == [4, 8]


@pytest.mark.parametrize(
    "answer", [lambda g: (g, g), lambda g: (), lambda g: (g[:1],), lambda g: (g[None],)]
)
@pytest.mark.parametrize("kind", ["full_backward", "full_backward_pre"])
def test_an_answer_of_another_number_or_shape_is_refused(library, answer, kind):
    made = module(library, lambda x: x * 2)
    getattr(made, f"register_{kind}_hook")(lambda module, grads, *_: answer(grads[0]))
    with pytest.raises(RuntimeError):
        made(library.tensor([1.0, 2.0], requires_grad=True)).sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_an_answer_where_no_input_requires_a_gradient_is_refused(library):
    w = library.tensor([1.0], requires_grad=True)
    made = module(library, lambda x: x * w)
    made.register_full_backward_hook(lambda module, given, got: got)
    with pytest.raises(RuntimeError):
        made(library.tensor([1.0])).sum().backward()


def test_without_recording_a_module_is_given_the_tensors_themselves(library):
    given, x = [], library.tensor([1.0], requires_grad=True)
    made = module(library, lambda x: given.append(x) or x * 2)
    made.register_full_backward_hook(lambda *_: None)
    with library.no_grad():
        assert not made(x).requires_grad
    assert given[0] is x


# --- What is ours ---------------------------------------------------------------------------------


class Double(nn.Module):
    def forward(self, x):
        return x * 2.0


class Returns(nn.Module):
    def forward(self, x):
        return self.make(x)


Pair = collections.namedtuple("Pair", "first second")


def test_a_named_tuple_stays_one():
    made = Returns()
    made.make = lambda x: Pair(x * 2.0, x * 3.0)
    made.register_full_backward_hook(lambda module, given, got: (got[0] * 10.0,))
    x = vector(1.0)
    answer = made(x)
    assert type(answer) is Pair
    answer.first.backward()
    assert_values(x.grad, 10.0)


@pytest.mark.parametrize("output", [lambda x: [x], lambda x: {"x": x}, lambda x: None])
def test_a_backward_hook_wants_a_tensor_or_a_tuple(output):
    made = Returns()
    made.make = output
    handle = made.register_full_backward_hook(print)
    with pytest.raises(
        TypeError, match=r"Returns: got .* from forward; with a backward hook it wa"
    ):
        made(vector(1.0))
    handle.remove()
    made(vector(1.0))


def test_the_error_of_a_hook_names_the_module_and_what_it_wants():
    for answer, message in (
        (lambda g: g, "backward hook of Double: it returned Tensor, wants a tuple of 1"),
        (lambda g: (g[:1],), r"hook of Double: it returned float64\[1\].*, wants float64\[2\]"),
        (lambda g: (1.0,), r"hook of Double: it returned 1.0, wants float64\[2\]"),
    ):
        made = Double()
        made.register_full_backward_hook(lambda _module, given, _got, a=answer: a(given[0]))
        x = vector(1.0, 2.0)
        with pytest.raises(RuntimeError, match=message):
            made(x).sum().backward()
        assert x.grad is None


def test_a_hook_cannot_write_into_what_others_see(cpu_only):
    def spoil(module, given, got):
        given[0].data[...] = 0.0

    made, x = Double(), vector(1.0)
    made.register_full_backward_hook(spoil)
    with pytest.raises(ValueError, match="read-only"):
        made(x).backward()


def test_a_module_without_hooks_records_nothing_more_and_has_no_more_state():
    plain, hooked = Double(), Double()
    handle = hooked.register_full_backward_hook(lambda *_: None)
    x = vector(1.0)
    assert len(graph_nodes([plain(x)])) == 1
    assert len(graph_nodes([hooked(x)])) == 3
    handle.remove()
    assert len(graph_nodes([hooked(x)])) == 1
    assert vars(plain).keys() == vars(Double()).keys()
    assert list(hooked.state_dict()) == []
    assert "hook" not in repr(hooked)


def test_backward_hooks_keep_no_array_alive():
    hooked = Double()
    hooked.register_full_backward_hook(lambda *_: None)
    x = vector(1.0) + 0.0
    there = weakref.ref(x.data)
    y = hooked(x)
    assert held_bytes([y]) == 0
    del x
    assert there() is None


def test_a_deep_copy_has_hooks_of_its_own():
    log = []
    net = nn.Sequential(Double())
    handle = net[0].register_forward_hook(lambda *_: log.append(1))
    twin = copy.deepcopy(net)
    handle.remove()
    x = vector(1.0)
    net(x)
    assert log == []
    twin(x)
    assert log == [1]


def test_hooks_inside_tracing_belong_to_the_module():
    made = Double()
    made.register_forward_hook(lambda module, args, output: tg.exp(output))
    with tg.tracing():
        y = made(vector(1.0))
    assert y.node.trace.scope == "Double"


def test_a_float16_gradient_stays_one_whatever_a_hook_answers():
    made, x = Double(), tg.tensor(np.ones(2, np.float16), requires_grad=True)
    made.register_full_backward_hook(lambda module, given, got: (tg.tensor([3.0, 5.0]),))
    made(x).sum().backward()
    assert x.grad.dtype == np.float16
    assert_values(x.grad, 3.0, 5.0)


def test_hooks_of_all_layers_of_a_net_see_the_gradients_of_a_plain_pass():
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    x, seen = tg.randn(5, 3), []
    values = [x]
    for layer in net:
        values.append(layer(values[-1]))
    wanted = tg.grad(values[-1].sum(), values[1:])
    for layer in net:
        layer.register_full_backward_hook(lambda _m, given, got: seen.append((given, got)))
    net(x).sum().backward()
    for k, (given, got) in enumerate(reversed(seen)):
        np.testing.assert_array_equal(host(got[0]), host(wanted[k]))
        if k:
            np.testing.assert_array_equal(host(given[0]), host(wanted[k - 1]))
    assert seen[-1][0] == (None,)


def test_a_pass_that_ends_inside_a_module_leaves_nothing_for_the_next():
    calls, w, x = [], vector(3.0), vector(2.0)
    made = Returns()
    made.make = lambda x: x * x * w
    made.register_full_backward_hook(lambda *_: calls.append(1))
    (g,) = tg.grad(made(x), w, create_graph=True)  # x², through the output only
    g.backward()  # through the input only
    assert calls == []
    assert_values(x.grad, 4.0)


def test_there_are_no_reference_cycles():
    def function():
        made, x, w = Returns(), vector(1.0), vector(2.0)
        made.make = lambda x: tg.exp(x * w)
        for kind in ("forward_pre", "forward", "full_backward_pre", "full_backward"):
            getattr(made, f"register_{kind}_hook")(lambda *_: None)
        made(x).backward()
        (g,) = tg.grad(made(x * x), x, create_graph=True)
        tg.grad(g, x)
        y = made(x)
        tg.grad(y * y, w, create_graph=True)  # does not reach the input

    assert cyclic_garbage(function) == []
