"""What a captured step takes and gives is the same on the CPU and on a GPU."""

import collections
import functools
import inspect

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn, optim

Losses = collections.namedtuple("Losses", "sum parts")


@pytest.fixture(params=["cpu", "cuda"])
def place(request, cupy):
    """Where Tensors are made: the CPU, or the double of CuPy."""
    with tg.device(request.param):
        yield request.param


# --- Inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i4", "?", "u1"])
def test_a_number_of_numpy_is_an_input_without_axes(kind, place):
    number = np.dtype(kind).type(1)
    function = tg.capture(lambda x, by: x * by, (tg.ones(3), number), ())
    for by in (number, np.asarray(number), tg.tensor(number)):
        np.testing.assert_array_equal(host(function(tg.ones(3), by)), np.ones(3))
    with pytest.raises(tg.CaptureError, match=r"inputs\[1\]: got complex64\[\], wants \w+\[\]$"):
        function(tg.ones(3), np.complex64(1))


@pytest.mark.parametrize(
    ("example", "got"),
    [
        (np.ones(2, "c8"), r"an array of complex64\[2\]"),
        (np.complex128(1), r"an array of complex128\[\]"),
        (np.array(["a"]), r"an array of <U1\[1\]"),
        (np.array([None]), r"an array of object\[1\]"),
        (np.ones(2, "m8[s]"), r"an array of timedelta64\[s\]\[2\]"),
    ],
)
def test_what_is_no_real_number_is_refused_at_once(example, got, place):
    with pytest.raises(TypeError, match=rf"^example_inputs\[1\]: got {got}, wants real numbers$"):
        tg.capture(lambda x, y: x, (tg.ones(2), example), ())
    with pytest.raises(TypeError, match="wants real numbers"):
        tg.tensor(example)


def test_without_a_state_a_step_is_captured_where_an_input_is(cupy):
    on_gpu = [tg.ones(2, device=f"cuda:{k}") for k in range(2)]
    function = tg.capture(lambda x, y: x * y, (np.ones(2, "f4"), on_gpu[0]), ())
    assert function(on_gpu[0], np.ones(2, "f4")).device == "cuda:0"
    with pytest.raises(
        tg.CaptureError, match=r"example_inputs\[1\]: got .* on cuda:1, wants it on"
    ):
        tg.capture(lambda x, y: x, on_gpu, ())


# --- The function ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "got"), [(None, "None"), (3, "an int"), ([print], "a list")])
def test_a_step_that_cannot_be_called_is_refused_at_once(step, got, place):
    with pytest.raises(TypeError, match=f"^step: got {got}, wants a function$"):
        tg.capture(step, tg.ones(2), ())


def test_the_function_has_the_name_and_the_docs_of_the_step_and_says_what_it_takes(place):
    def evaluate(x, labels):
        """Whether it was right.

        Of each of some points.
        """
        return x.argmax(axis=1) == labels

    function = tg.capture(evaluate, (tg.ones(4, 3), np.zeros(4, "i8")), ())
    assert (function.__name__, function.__wrapped__) == ("evaluate", evaluate)
    assert list(inspect.signature(function).parameters) == ["x", "labels"]
    where = "cpu" if place == "cpu" else "cuda:0"
    takes = f"Captured on {where}. Takes, by position, Tensors or arrays: float32[4, 3], int64[4]."
    docs = "Whether it was right.\n\nOf each of some points."
    assert inspect.getdoc(function) == f"{docs}\n\n{takes}"


def test_a_step_without_name_or_docs_may_be_captured(place):
    twice = tg.capture(functools.partial(tg.mul, tg.tensor(2.0)), tg.ones(2), ())
    assert twice.__name__ == "partial"
    assert tg.capture(lambda: None, (), ()).__doc__.endswith("Tensors or arrays: none.")
    np.testing.assert_array_equal(host(twice(tg.ones(2))), [2, 2])


def test_a_module_is_a_step_whose_attributes_are_not_the_functions(place):
    net = nn.Linear(2, 2)
    net.answer, net.xp = "mine", "mine"
    function = tg.capture(net, tg.ones(3, 2), net)
    assert function.__name__ == "Linear"
    np.testing.assert_array_equal(host(function(tg.ones(3, 2))), host(net(tg.ones(3, 2))))


def test_a_named_tuple_comes_out_as_one(place):
    function = tg.capture(lambda x: Losses(x.sum(), [x * 2, (x,)]), tg.ones(2), ())
    losses = function(tg.ones(2) * 3)
    assert type(losses) is Losses
    assert losses.sum.item() == 6
    np.testing.assert_array_equal(host(losses.parts[1][0]), [3, 3])


def test_an_array_that_a_step_returns_is_told_from_a_tensor(place):
    with pytest.raises(tg.CaptureError, match=r"the step returned an array of float32\[2\]"):
        tg.capture(lambda x: [x, (x * 2).data], tg.ones(2), ())(tg.ones(2))


# --- The state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [iter, list, tuple, lambda parts: (part for part in parts)])
def test_state_is_one_part_or_any_number_of_them(listed, place):
    nets = [nn.Linear(2, 1), nn.Linear(2, 1)]
    optimizers = [optim.SGD(net.parameters(), lr=0.1) for net in nets]

    def step(which, x):
        optimizers[which].zero_grad()
        loss = nets[which](x).sum()
        loss.backward()
        optimizers[which].step()
        return loss

    parts = listed([*nets[0].parameters(), optimizers[0]])
    nets[1].load_state_dict(nets[0].state_dict())
    function = tg.capture(functools.partial(step, 0), tg.ones(3, 2), parts)
    for _ in range(2):
        assert function(tg.ones(3, 2)).item() == step(1, tg.ones(3, 2)).item()


def test_the_parameters_of_a_network_are_a_state(place):
    net = nn.Linear(2, 1)
    function = tg.capture(lambda x: net(x), tg.ones(3, 2), net.parameters())
    np.testing.assert_array_equal(host(function(tg.ones(3, 2))), host(net(tg.ones(3, 2))))
    net.weight.data = net.weight.data.copy()
    if place == "cuda":
        with pytest.raises(tg.CaptureError, match=r"state\[0\], Tensor: its array was replaced"):
            function(tg.ones(3, 2))


# --- What the docs say ----------------------------------------------------------------------------


def test_a_list_of_losses_keeps_numbers_or_copies(place, request):
    function = tg.capture(lambda x: x.sum(), tg.ones(2), ())
    scales = (1.0, 2.0, 3.0)
    assert [function(tg.ones(2) * scale).item() for scale in scales] == [2, 4, 6]
    assert [c.item() for c in [tg.tensor(function(tg.ones(2) * s)) for s in scales]] == [2, 4, 6]
    kept = [function(tg.ones(2) * scale) for scale in scales]
    assert not any(loss.requires_grad for loss in kept)
    assert [loss.item() for loss in kept] == ([2, 4, 6] if place == "cpu" else [6, 6, 6])


def test_a_copy_of_a_loss_waits_for_nothing(cupy):
    import double

    with tg.device("cuda"):
        function = tg.capture(lambda x: x.sum(), tg.ones(2), ())
        x = tg.ones(2)
        with double.forbid("h2d", "d2h", "sync"):
            assert tg.tensor(function(x)).device == "cuda:0"


def test_a_step_is_not_captured_within_a_captured_step(place):
    def step(x):
        return tg.capture(lambda x: x, x, ())(x)

    with pytest.raises(tg.CaptureError, match="capture: called within a step that is being captu"):
        tg.capture(step, tg.ones(2), ())(tg.ones(2))
    function = tg.capture(lambda x: x * 2, tg.ones(2), ())  # and afterwards it can be
    assert function(tg.ones(2)).sum().item() == 4


def test_what_a_wrong_step_moved_stays_moved_on_the_cpu_only(place):
    """As the docs say: on a GPU all steps are tried, and taken back, before."""
    weight = tg.ones(1, requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.25)

    def step(x):
        (weight * x).sum().backward()
        optimizer.step()
        return "done"

    with pytest.raises(tg.CaptureError, match="the step returned a str, wants Tensors, or None"):
        tg.capture(step, tg.ones(1), optimizer)(tg.ones(1))
    assert weight.item() == (0.75 if place == "cpu" else 1)


def test_on_the_cpu_capture_calls_nothing():
    calls = []
    with tg.device("cpu"):
        tg.capture(calls.append, tg.ones(2), ())
    assert calls == []
