"""Who records: `no_grad` and `enable_grad`, nested, as decorators, again, and in threads."""

import contextlib
import threading

import pytest
from helpers import assert_values, vector

import tinygrad_bn as tg


def test_no_grad_and_enable_grad_nest():
    x = vector(1.0)
    records = lambda: (x * 2.0).requires_grad  # noqa: E731
    assert records()
    with tg.no_grad():
        assert not records()
        with tg.enable_grad():
            assert records()
            with tg.no_grad():
                assert not records()
            assert records()
        assert not records()
    assert records()


@pytest.mark.parametrize("switch", [tg.no_grad, tg.enable_grad])
def test_the_switches_are_decorators(switch):
    x = vector(1.0)

    @switch()
    def double(again):
        return double(again - 1) if again else x * 2.0

    for again in (0, 2):
        with tg.no_grad() if switch is tg.enable_grad else tg.enable_grad():
            assert double(again).requires_grad == (switch is tg.enable_grad)
    assert double.__name__ == "double"


def test_an_exception_leaves_the_switch_as_it_was():
    x = vector(1.0)
    with contextlib.suppress(ZeroDivisionError), tg.no_grad():
        raise ZeroDivisionError
    assert (x * 2.0).requires_grad

    def fail(g):
        raise ZeroDivisionError

    y = x * 2.0
    y.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert (x * 2.0).requires_grad


def test_no_grad_holds_for_one_thread_only():
    x = vector(1.0)
    inside, outside = threading.Event(), threading.Event()
    seen = {}

    def neighbour():
        assert inside.wait(10)
        seen["neighbour"] = (x * 2.0).requires_grad
        outside.set()

    thread = threading.Thread(target=neighbour)
    thread.start()
    with tg.no_grad():
        inside.set()
        assert outside.wait(10)
        seen["here"] = (x * 2.0).requires_grad
    thread.join()
    assert seen == {"neighbour": True, "here": False}


def test_backward_runs_inside_no_grad_for_what_was_recorded_outside():
    x = vector(3.0)
    y = x * x
    with tg.no_grad():
        y.backward()
    assert_values(x.grad, 6.0)
    assert not x.grad.requires_grad


def test_results_of_constants_are_constants():
    assert not (tg.tensor([1.0]) * tg.tensor([2.0])).requires_grad


def test_no_grad_can_be_used_again():
    off, x = tg.no_grad(), vector(1.0)
    for _ in range(2):
        with off:
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad
