"""Streams, captured graphs and memory pools of the double: they do what CUDA and CuPy 14.2 do."""

import inspect
import json
from pathlib import Path

import double
import numpy as np
import pytest

SNAPSHOT = json.loads(
    (Path(__file__).parent.parent / "data/cupy_signatures.json").read_text(encoding="utf-8")
)
HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


def parameters(function):
    plain = [
        p.replace(default=p.empty if p.default is p.empty else ...)
        for p in inspect.signature(function).parameters.values()
    ]
    return str(inspect.Signature(plain))[1:-1].replace("=Ellipsis", "=...")


@pytest.mark.parametrize("path", SNAPSHOT["classes"])
def test_the_classes_have_cupys_signatures_and_no_other_names(path):
    kind, described = getattr(double.cupy.cuda, path.split(".")[-1]), SNAPSHOT["classes"][path]
    methods = {
        name: function for name, function in vars(kind).items() if inspect.isroutine(function)
    }
    public = {name: f for name, f in methods.items() if name in described["methods"]}
    assert {n: parameters(f) for n, f in public.items()} == {
        name: described["methods"][name] for name in public
    }
    names = {*methods, *(vars(kind()) if path != "cupy.cuda.Graph" else ())}
    attributes = {"ptr", "device_id"}  # which CuPy sets in __init__
    assert {n for n in names if n[0] != "_"} <= {*described["names"], *attributes}


def test_the_functions_have_cupys_signatures(cupy):
    for name, wanted in SNAPSHOT["modules"]["cupy.cuda"]["functions"].items():
        assert parameters(getattr(cupy.cuda, name)) == wanted


def captured(cupy, stream, compute, pool):
    """The graph of what is computed with memory of a pool, and the answer."""
    cupy.cuda.Device().synchronize()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        answer = compute()
        return stream.end_capture(), answer


# --- Capturing ------------------------------------------------------------------------------------


def test_a_captured_kernel_runs_when_the_graph_is_launched_on_the_same_memory(cupy, stream, x):
    total, pool = cupy.zeros(3, np.float32), cupy.cuda.MemoryPool()

    def compute():
        assert stream.is_capturing()
        double.stats.clear()
        y = (x * 2)[:, ::-1]  # a view is no kernel
        z = y.T.reshape(-1)  # a copy is
        np.add(total, y.sum(0), out=total)
        assert not double.stats
        return z

    graph, z = captured(cupy, stream, compute, pool)
    assert not stream.is_capturing()
    assert double.nodes(graph) == ["cupy_multiply", "reshape", "sum", "cupy_add"]
    assert graph.debug_dot_str().count("graph_1_node_") == 4
    assert total.tolist() == [0, 0, 0]
    assert np.isnan(z.get()).all()  # nobody has written it
    for times in (1, 2):
        graph.launch()
        assert total.tolist() == (times * HOST.sum(0)[::-1] * 2).tolist()
    x[...] = 1
    stream.wait_event(cupy.cuda.get_current_stream().record())
    graph.launch(stream)
    stream.synchronize()
    assert z.tolist() == [2] * 6
    assert double.stats["graph"] == 3


def test_an_index_is_read_when_the_graph_is_launched(cupy, stream, x):
    index, y = cupy.asarray([0, 4]), cupy.zeros((2, 3), np.float32)

    def compute():
        y[index] = x
        return x[index]

    graph, rows = captured(cupy, stream, compute, cupy.cuda.MemoryPool())
    index[...] = cupy.asarray([1, 2])
    graph.launch()
    assert rows.tolist() == y.tolist() == [HOST[1].tolist(), HOST[0].tolist()]


def test_a_generators_state_moves_when_its_kernels_run(cupy, stream):
    drawn = cupy.random.default_rng(3).random((3, 4), dtype=np.float32).tolist()
    generator, pool = cupy.random.default_rng(3), cupy.cuda.MemoryPool()
    draw = lambda: generator.random(4, dtype=np.float32)  # noqa: E731
    graph, numbers = captured(cupy, stream, draw, pool)
    for wanted in drawn[:2]:
        graph.launch()
        assert numbers.tolist() == wanted
    assert draw().tolist() == drawn[2]


REFUSED = {
    RuntimeError: """x.get(); float(x[0, 0]); x.tolist(); x[x > 1]; cupy.nonzero(x); bool(x[0, 0])
        cupy.asarray(host); cupy.array([1.0]); x[[0, 1]]; cupy.concatenate([x] * 9)""",
    NotImplementedError: """x @ x.T; x.dot(x.T); cupy.matmul(x, x.T); cupy.tensordot(x, x.T, 1)
        cupy.einsum("ij,kj->ik", x, x); cupy.linalg.inv(x[:, :2]); cupy.linalg.svd(x)
        cupy.linalg.solve(x[:, :2], x)""",
}


@pytest.mark.parametrize(
    ("expression", "error"),
    [(e.strip(), k) for k, es in REFUSED.items() for e in es.replace("\n", ";").split(";")],
)
def test_what_cupy_refuses_in_a_capture_leaves_the_capture_valid(
    expression, error, cupy, stream, x
):
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(error, match="captur"):
            eval(expression, {"x": x, "cupy": cupy, "host": HOST})
        y = x + 1
        stream.end_capture().launch()
        assert y.tolist() == (HOST + 1).tolist()
        eval(expression, {"x": x, "cupy": cupy, "host": HOST})


def test_integers_and_single_numbers_need_no_cublas(cupy, stream, x):
    whole = cupy.asarray([[1, 2], [3, 4]])
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        found = whole @ whole, x[0].dot(x[1]), x[:1] @ x[:1].T
        stream.end_capture().launch()
        stream.synchronize()
    assert [a.tolist() for a in found] == [[[7, 10], [15, 22]], 14, [[5]]]


INVALIDATING = {
    "stream.synchronize()": "StreamCaptureUnsupported",
    "cupy.cuda.Device().synchronize()": "StreamCaptureUnsupported",
    "stream.wait_event(before)": "StreamCaptureIsolation",
    "stream.record().synchronize()": "CapturedEvent",
}


@pytest.mark.parametrize("expression", INVALIDATING)
def test_what_cuda_prohibits_invalidates_the_capture(expression, cupy, stream, x):
    before = stream.record()
    stream.synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(double.CUDARuntimeError, match=INVALIDATING[expression]):
            eval(expression, {"stream": stream, "cupy": cupy, "before": before})
        for use in (lambda: x + 1, stream.is_capturing, stream.end_capture):
            with pytest.raises(RuntimeError, match=r"[Ii]nvalidated"):
                use()
        assert (x + 1).tolist() == (HOST + 1).tolist()  # as it is over


def test_a_capture_begins_once_and_not_on_the_default_stream(cupy, stream):
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cupy.cuda.Stream.null.begin_capture()
    with pytest.raises(double.CUDARuntimeError, match="IllegalState"):
        stream.end_capture()
    stream.begin_capture()
    with pytest.raises(double.CUDARuntimeError, match="IllegalState"):
        stream.begin_capture()
    stream.end_capture()
    with pytest.raises(NotImplementedError, match="cannot be initiated"):
        cupy.cuda.Graph()


def test_the_default_stream_disturbs_the_capture_of_a_blocking_stream_alone(cupy, x):
    for non_blocking in (True, False):
        stream = cupy.cuda.Stream(non_blocking=non_blocking)
        stream.begin_capture()
        if non_blocking:
            assert (x + 1).shape == x.shape  # computed on the default stream, and not captured
            assert double.nodes(stream.end_capture()) == []
        else:
            with pytest.raises(double.CUDARuntimeError, match="StreamCaptureImplicit"):
                x + 1
            with pytest.raises(double.CUDARuntimeError):
                stream.end_capture()


# --- Streams and memory ---------------------------------------------------------------------------


def test_the_current_stream_belongs_to_the_device(cupy, stream):
    null = cupy.cuda.Stream.null
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream(null=True) == null
    with stream:
        assert cupy.cuda.get_current_stream() is stream
        assert cupy.cuda.get_current_stream(1) is null
        with cupy.cuda.Stream() as inner:
            assert cupy.cuda.get_current_stream() is inner
        assert cupy.cuda.get_current_stream() is stream
        with cupy.cuda.Device(1):
            assert cupy.cuda.get_current_stream() is null
            with pytest.raises(RuntimeError, match=r"stream is created on \(0\) does not match"):
                stream.use()
    assert cupy.cuda.get_current_stream() is null


def test_a_graph_must_not_reach_memory_that_others_may_have(cupy, stream, x):
    twice = lambda: (x + 1) * 2  # noqa: E731 (where the memory of x + 1 is free again at once)
    for pool in (cupy.get_default_memory_pool(), cupy.cuda.MemoryPool()):
        graph, y = captured(cupy, stream, twice, pool)
        graph.launch()
        assert y.tolist() == (2 * (HOST + 1)).tolist()
        with cupy.cuda.using_allocator(pool.malloc):
            cupy.zeros(3)
        with pytest.raises(double.CUDARuntimeError, match="memory that others may have"):
            graph.launch()
    graph, _ = captured(cupy, stream, twice, cupy.cuda.MemoryPool())  # which nobody keeps
    with pytest.raises(double.CUDARuntimeError, match="memory that others may have"):
        graph.launch()


def test_a_graph_does_not_keep_what_it_reads(cupy, stream):
    x, pool = cupy.asarray(HOST), cupy.cuda.MemoryPool()
    graph, _ = captured(cupy, stream, x.sum, pool)
    graph.launch()
    del x
    cupy.zeros(1)  # as if it were where x was
    with pytest.raises(double.CUDARuntimeError, match="memory that others may have"):
        graph.launch()


def test_a_pool_grows_in_a_relaxed_capture_alone(cupy, stream, x):
    pool, (whole, relaxed) = cupy.cuda.MemoryPool(), (0, 2)  # cudaStreamCaptureMode
    with stream, cupy.cuda.using_allocator(pool.malloc):
        x + 1  # which the pool keeps
        assert (pool.used_bytes(), pool.total_bytes(), pool.free_bytes()) == (0, 24, 24)
        for mode, compute in ((whole, lambda: x + 1), (relaxed, lambda: x[0] + x)):
            stream.begin_capture(mode)
            compute()
            stream.end_capture()
        stream.begin_capture(whole)
        kept = x + 1
        with pytest.raises(double.CUDARuntimeError, match="StreamCaptureUnsupported"):
            cupy.zeros(100)
        with pytest.raises(double.CUDARuntimeError, match="Invalidated"):
            stream.end_capture()
    assert (kept.shape, pool.used_bytes()) == ((2, 3), 24)
    assert cupy.cuda.get_current_stream().ptr == 0
