"""A step as a CUDA graph: how it is captured, tested and replayed."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..backend import Setting, assign, copied, describe, module_on, to_device
from ..graph import at_place
from ..memory import storage_of
from ..random_numbers import random_state
from ..recording import capturing, journal, mark_written
from .fitting import CaptureError, Fitting, constants, tensors
from .outside import Outside
from .state import Snapshot, State

# Of a replay and the step: of how far a value moves, and of its size in units in the last place.
_TOLERANCE, _ULPS = 1e-5, 4
_EPSILON = {"e": 2.0**-10, "E": 2.0**-7, "f": 2.0**-23, "d": 2.0**-52}


class _Watch:
    """Is told by the library what a step writes, and which numbers of an optimizer it reads."""

    def __init__(self, known: set[int]) -> None:
        self.known = known  # the storages of the state
        self.written: list[Any] = []

    def numbers(self, compute: Callable, like: Any) -> Sequence:
        """Numbers that are others in the next step, for arrays like `like`."""
        if id(storage_of(like)) not in self.known:
            raise CaptureError("the step moves an optimizer that is not in `state`")
        return compute()


class _OnDevice(_Watch):
    """The same, with those numbers on the device: so all kernels of the graph have run before."""

    def __init__(self, known: set[int], xp: ModuleType) -> None:
        super().__init__(known)
        self.xp = xp

    def numbers(self, compute, like):
        return [self.xp.full((), n, like.dtype) for n in super().numbers(compute, like)]


class _Renewed(_Watch):
    """The same while the step is captured: their places, to be filled before each replay."""

    def __init__(self, known: set[int], xp: ModuleType) -> None:
        super().__init__(known)
        self.xp = xp
        self.held: list[tuple[Callable, list, list]] = []  # how computed, where, the last ones

    def numbers(self, compute, like):
        arrays = [self.xp.empty((), like.dtype) for _ in super().numbers(compute, like)]
        self.held.append((compute, arrays, [None] * len(arrays)))
        return arrays

    def renew(self) -> None:
        """Those of one more step. A number travels with the kernel that writes it."""
        for compute, arrays, last in self.held:
            for n, (array, number) in enumerate(zip(arrays, compute())):
                if number != last[n]:
                    array.fill(number)
                    last[n] = number


class Captured:
    """A step as a graph, and what this reaches."""

    def __init__(self, xp: ModuleType, step, state: State, fits: Fitting, examples: list) -> None:
        self.xp, self.fits, self.here = xp, fits, module_on(fits.device)[1]
        # Its kernels write where the step's did: so that memory must not come into other hands.
        self.pool, self.stream = xp.cuda.MemoryPool(), xp.cuda.Stream(non_blocking=True)
        self.inputs = [copied(to_device(array, fits.device)) for array in fits.arrays(examples)]
        moved = {id(s): s for s in map(storage_of, state.arrays())}
        saved = [(storage, copied(storage)) for storage in moved.values()]
        self.before = Snapshot(state)
        self.known = {*moved, *(id(storage_of(array)) for array in self.inputs)}
        leaves = [leaf for leaf, _, _ in self.before.gradients]
        self.outside = Outside(leaves), Outside(leaves)  # in the first step, and in the second
        self.done = xp.cuda.Event(disable_timing=True)  # the last replay
        xp.cuda.Device().synchronize()  # for which a non_blocking stream does not wait
        xp.get_default_memory_pool().free_all_blocks()  # or they would be missing in this one

        def restore():
            for storage, content in saved:
                assign(storage, content)
            self.before.restore()
            self.outside[0].restore()

        with self.stream:
            try:
                start = state.on_host()
                wanted = self._watched(step, state)
                restore()
                self._record(step)
                restore()
                for _ in range(2):
                    self._replay()
                _raise_if_different(state.on_host(self.answer), wanted, start)
            finally:
                restore()
                self.before.gradients.clear()  # which need not last
                del self.outside
                self.stream.synchronize()

    def _watched(self, step, state) -> dict[str, np.ndarray]:
        """What two steps make, in which nothing happens that a replay could not do."""
        watches = _Watch(self.known), _OnDevice(self.known, self.xp)
        self.before.forget_gradients()
        with self.xp.cuda.using_allocator(self.pool.malloc):
            for watch, outside in zip(watches, self.outside):
                with Setting(capturing, watch), journal(outside.note):
                    answer = constants(step(*map(at_place, self.inputs)))
                self.before.raise_if_changed("by the step")
        if random_state()[0] != self.before.random[0]:
            wants = "draw them outside, and hand them to it"
            raise CaptureError(f"the step draws random numbers on the host (randn, rand): {wants}")
        first, second = ({id(storage_of(a)): a for a in watch.written} for watch in watches)
        for key in first.keys() & second.keys() - self.known:
            what = f"{describe(first[key])}, which is not in `state`"
            raise CaptureError(f"the step wrote into {what}: add what this belongs to")
        # (What was made in the step itself is in one of them alone.)
        for leaf in self.outside[0].moved() & self.outside[1].found.keys():
            what = f"the gradient of a Tensor of shape {list(leaf.grad(0).shape)}"
            raise CaptureError(f"the step moves {what}, which is not in `state`: add it")
        return state.on_host(answer)

    def _record(self, step) -> None:
        """Call the step while its kernels are noted down."""
        self.numbers, problem = _Renewed(self.known, self.xp), None
        self.before.forget_gradients()
        with self.xp.cuda.using_allocator(self.pool.malloc):
            self.stream.begin_capture()
            try:
                with Setting(capturing, self.numbers):
                    self.answer = constants(step(*map(at_place, self.inputs)))
            except Exception as error:
                problem = error
            finally:
                try:
                    self.graph = self.stream.end_capture()
                except Exception as error:
                    problem = problem or error
        if isinstance(problem, CaptureError):
            raise problem
        if problem is not None:
            what = f"the step cannot be captured: {type(problem).__name__}: {problem}"
            why = "in a capture no value is read on the host or copied from it, and nothing waits"
            raise CaptureError(f"{what} ({why})") from problem
        self.gradients = self.before.new_gradients()
        left = [gradient for _, gradient, _ in self.gradients if gradient is not None]
        self.written = self.numbers.written + [t.data for t in (*left, *tensors(self.answer))]

    def _replay(self) -> None:
        """One more step, on the current stream."""
        self.numbers.renew()
        self.graph.launch()
        for leaf, gradient, is_at_home in self.gradients:
            leaf.gradient, leaf.is_at_home = gradient, is_at_home
        for array in self.written:
            mark_written(array)

    def __call__(self, *inputs: Any) -> Any:
        """What the step returns, for other inputs: the same Tensors every time."""
        arrays = self.fits.arrays(inputs)
        self.before.raise_if_changed("since it was captured", but_for=("lr", "initial_lr"))
        with self.here:
            stream = self.xp.cuda.get_current_stream()
            if stream.is_capturing():
                raise CaptureError("a captured step was called in a step that is being captured")
            stream.wait_event(self.done)  # that of the last call may have been another
            for static, array in zip(self.inputs, arrays):
                assign(static, to_device(array, self.fits.device))
            self._replay()
            self.done.record()
        return self.answer


def _raise_if_different(got: dict, wanted: dict, start: dict) -> None:
    """A CaptureError unless two replays made what two steps did. (To the last digits: where atomic
    additions come in another order, they round otherwise.)"""
    for name, value in wanted.items():
        if name not in got or _differ(got[name], value, start.get(name, np.zeros_like(value))):
            causes = "a number of Python's that differs from step to step, gradients that it does "
            causes += "not clear, or what is not in `state`"
            raise CaptureError(f"{name}: replays do not make what the step does; it has {causes}")


def _differ(got: np.ndarray, wanted: np.ndarray, start: np.ndarray) -> bool:
    """Whether by more than rounding, of values that were `start` before."""
    if wanted.dtype.char not in _EPSILON:
        return not np.array_equal(got, wanted)
    epsilon = _EPSILON[wanted.dtype.char]
    got, wanted, start = (array.astype(np.float64) for array in (got, wanted, start))
    with np.errstate(invalid="ignore"):
        sizes = np.abs(wanted), np.abs(wanted - start)
    size, way = (np.max(a, initial=0, where=np.isfinite(a)) for a in sizes)
    close = {"rtol": 0, "atol": _TOLERANCE * way + _ULPS * epsilon * size, "equal_nan": True}
    return not np.allclose(got, wanted, **close)
