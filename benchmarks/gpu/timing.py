"""Time on the device: between two events of one stream, for CuPy and PyTorch alike.

A step is called with its number, to take another set of buffers each time: more than the cache
holds. In a graph one call follows the other, without a gap in which the host launches.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import cupy

from ..speed.measure import quartiles
from .rival import PyTorch

Step = Callable[[int], Any]
ROUNDS, BURST = 7, 0.01  # BURST: seconds


@contextlib.contextmanager
def one_stream(rival: PyTorch | None) -> Iterator[Any]:
    """A stream that is the current one of CuPy and of PyTorch."""
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, contextlib.nullcontext() if rival is None else rival.on(stream):
        yield stream
        stream.synchronize()


def seconds(
    steps: dict[str, Step], dry: bool, parts: int = 1, burst: float = BURST
) -> dict[str, list[float]]:
    """The quartiles of what a call takes, or one of its equal parts, of steps that take turns for
    a burst of so many seconds."""
    rounds, burst = (1, 0.0) if dry else (ROUNDS, burst)
    calls = {}
    for name, step in steps.items():
        for k in range(1 if dry else 3):  # what is compiled or looked up at first
            step(k)
        calls[name] = 1 + int(burst / max(between_events(step, 1 if dry else 3), 1e-7))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(between_events(step, calls[name]))
    return {name: quartiles(times, parts) for name, times in found.items()}


def between_events(step: Step, calls: int) -> float:
    """Seconds a call."""
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for k in range(calls):
        step(k)
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1e3 / calls


def graphed(step: Step, turns: int) -> Step:
    """A step that is the calls 0 to `turns` − 1 of this one, as a CUDA graph."""
    stream, pool = cupy.cuda.get_current_stream(), cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        step(0)
        stream.synchronize()
        stream.begin_capture()
        try:
            answers = [step(k) for k in range(turns)]
        except Exception:
            with contextlib.suppress(Exception):  # it tells less than the first
                stream.end_capture()
            raise
        graph = stream.end_capture()

    def launch(_: int, holds: Any = (pool, answers)) -> None:  # as long as the graph is there
        graph.launch()

    return launch


def free_memory(rival: PyTorch | None) -> None:
    """Give back what neither library uses any more."""
    cupy.get_default_memory_pool().free_all_blocks()
    if rival is not None:
        rival.torch.cuda.empty_cache()


def made(name: str, makers: dict[str, Callable]) -> tuple[dict[str, Any], list[dict]]:
    """What the makers make; and for each that raises a row with the problem."""
    found, problems = {}, []
    for who, make in makers.items():
        row = tried(f"{name}: {who}", lambda make=make, who=who: found.update({who: make()}) or {})
        problems += [row] if "problem" in row else []
    return found, problems


def tried(name: str, measure: Callable[..., dict], *args: Any) -> dict:
    """A row of this name with what was measured, or with the problem: the next may do better."""
    try:
        return {"name": name, **measure(*args)}
    except Exception as error:
        return {"name": name, "problem": f"{type(error).__name__}: {error}"}
