"""Two streams that reach the same memory in no order are an error of the double's."""

import double
import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import optim
from tinygrad_bn.kernels import cuda_blas

HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


ORDERED = {
    "an event": lambda c, s: s.wait_event(c.cuda.get_current_stream().record()),
    "a wait for an event": lambda c, s: c.cuda.get_current_stream().record().synchronize(),
    "a wait for the stream": lambda c, s: c.cuda.get_current_stream().synchronize(),
    "a wait for the device": lambda c, s: c.cuda.Device().synchronize(),
    "a copy to the host": lambda c, s: c.zeros(1).get(),
}


@pytest.mark.parametrize("how", ORDERED)
def test_streams_that_meet_in_memory_are_ordered(how, cupy, stream, x):
    x += 1
    with (
        stream,
        pytest.raises(double.Race, match=r"multiply on stream .* got memory that cupy_add"),
    ):
        x * 2
    ORDERED[how](cupy, stream)
    with stream:
        y = x * 2
    assert (x * 3).tolist() == (3 * HOST + 3).tolist()  # as they both read
    for too_early in (lambda: x.fill(0), y.get):
        with pytest.raises(double.Race, match="wants to come after it"):
            too_early()
    cupy.cuda.get_current_stream().wait_event(stream.record())
    assert y.tolist() == (2 * HOST + 2).tolist()
    x.fill(0)


@pytest.mark.parametrize("name", ["gemm", "cuda"])
def test_what_a_library_or_a_cuda_kernel_only_reads_others_may_read(name, cupy, stream):
    code = 'extern "C" __global__ void copy(const float* x, float* y) { y[0] = x[0]; }'
    copy = cupy.RawModule(code=code).get_function("copy")
    x, y, other = (cupy.ones((2, 2), np.float32) for _ in range(3))
    compute = {
        "gemm": lambda out: cuda_blas.product(x, x, out),
        "cuda": lambda out: copy((1,), (1,), (x, out)),
    }[name]
    compute(y)  # (and cuBLAS has what it keeps)
    cupy.cuda.Device().synchronize()
    compute(y)
    with stream:
        compute(other)
        with pytest.raises(Exception, match=r"Race|got memory that (gemm|copy)"):
            compute(y)


def test_an_event_orders_what_came_before_it_alone(cupy, stream, x):
    event = cupy.cuda.get_current_stream().record()
    x += 1
    stream.wait_event(event)
    with stream, pytest.raises(double.Race):
        x * 2


def test_the_default_stream_and_blocking_streams_wait_for_each_other(cupy, x):
    with cupy.cuda.Stream():
        x += 1
    x += 1
    with cupy.cuda.Stream():
        x += 1
    assert x.tolist() == (HOST + 3).tolist()
    one, two = cupy.cuda.Stream(), cupy.cuda.Stream()
    with one:
        x += 1
    with two, pytest.raises(double.Race):
        x += 1


def test_memory_that_is_free_is_taken_again_in_the_order_of_its_stream(cupy, stream):
    x = cupy.zeros(3)
    cupy.cuda.Device().synchronize()
    with stream:
        y = x + 1
        del x
        cupy.zeros(3)  # which is other memory
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        cupy.zeros(3)  # and this
    with pytest.raises(
        double.Race, match=r"allocation on the default stream .* cupy_add on stream"
    ):
        cupy.zeros(3)
    stream.synchronize()
    cupy.zeros(3)
    assert y.tolist() == [1, 1, 1]


def test_a_launch_comes_after_the_last_one_but_not_after_what_it_reads(cupy, stream, x):
    total, pool = cupy.zeros(3, np.float32), cupy.cuda.MemoryPool()
    cupy.cuda.Device().synchronize()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        np.add(total, x.sum(0), out=total)
        graph = stream.end_capture()
    graph.launch(stream)
    with pytest.raises(double.Race, match="got memory that a graph on stream"):
        x += 0
    graph.launch()
    assert total.tolist() == (2 * HOST.sum(0)).tolist()
    x.fill(1)
    with pytest.raises(double.Race, match=r"a graph on stream .* got memory that fill"):
        graph.launch(stream)


# --- The library's captured steps -----------------------------------------------------------------


def train_on_two_streams(cupy):
    """The weight after three steps of which the first two are called on different streams."""
    weight = tg.tensor(HOST, device="cuda", requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.5)

    def step(x):
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()

    function = tg.capture(step, (HOST,), optimizer)
    for stream in [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]:
        with stream:
            function(HOST)
    function(HOST)
    return weight.data.get()


def test_calls_of_a_captured_step_on_several_streams_come_after_each_other(cupy):
    np.testing.assert_array_equal(train_on_two_streams(cupy), HOST - 1.5 * HOST)


@pytest.mark.parametrize("wait", ["Stream.wait_event", "Device.synchronize", "Stream.synchronize"])
def test_without_one_of_the_waits_of_a_captured_step_there_is_a_race(wait, cupy, monkeypatch):
    kind, name = wait.split(".")
    monkeypatch.setattr(getattr(cupy.cuda, kind), name, lambda *args: None)
    with pytest.raises(double.Race):
        train_on_two_streams(cupy)
