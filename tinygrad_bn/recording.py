"""What is recorded: `no_grad`, `enable_grad`, `tracing`, journals, and the clock of writes.

All switches are context variables, so they hold for one thread and not for its neighbours.
"""

import itertools
import math
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from .backend import Setting, assign, describe
from .memory import extent, storage_of

recording: ContextVar[bool] = ContextVar("recording", default=True)
statistics_move: ContextVar[bool] = ContextVar("statistics_move", default=True)
scopes: ContextVar[tuple[str, ...] | None] = ContextVar("scopes", default=None)  # None: no tracing
journals: ContextVar[tuple[Callable, ...]] = ContextVar("journals", default=())
# What the hooks of one backward pass tell each other.
told: ContextVar[dict | None] = ContextVar("told", default=None)
guard: ContextVar[Any] = ContextVar("guard", default=None)  # runs gradient rules in an op's stead
capturing: ContextVar[Any] = ContextVar("capturing", default=None)  # is told of what a step writes


def no_grad() -> Setting:
    """Ops inside compute and record nothing. A context manager and a decorator.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    return Setting(recording, False)


def enable_grad() -> Setting:
    """Record again, inside a `no_grad` block."""
    return Setting(recording, True)


def still_statistics() -> Setting:
    """Inside, batch norm does not move running statistics: a step is checked, not made."""
    return Setting(statistics_move, False)


def tracing() -> Setting:
    """Nodes recorded inside also keep their values, names, module and source line, for pictures.

    It costs memory (no intermediate value is freed) and time (a look at the stack for every op).
    """
    return Setting(scopes, scopes.get() or ())


def journal(note: Callable) -> Setting:
    """Inside, `note(node, arguments, outputs)` is called for every op that is recorded (arrays)."""
    return Setting(journals, (*journals.get(), note))


def guarded_by(runner: Any) -> Setting:
    """Inside, a backward pass calls `runner.gradients` instead of each op's (None: the op's)."""
    return Setting(guard, runner)


def scope(name: str) -> Setting:
    """Inside `tracing`, nodes recorded in this block belong to `name` (a module, say)."""
    return Setting(scopes, (*scopes.get(), name))


class Trace:
    """What a node recorded under `tracing` knows besides: its values, their names, its origin."""

    def __init__(self, inputs: tuple, input_names: tuple, outputs: tuple, scope: tuple) -> None:
        self.inputs = inputs  # the arrays that went in
        self.input_names = input_names  # their Tensors' names, None where there is none
        self.outputs = outputs  # the arrays that came out
        self.names: dict[int, str] = {}  # output number -> the name that `named` gave
        self.scope = ".".join(scope)  # the modules it ran in
        self.source = _user_line()


_PACKAGE = os.path.dirname(__file__) + os.sep


def _user_line() -> str:
    """The file and line, outside this package, from which the op was called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# A node remembers when it was recorded. If the library wrote into an array that the node kept after
# that (an optimizer's step, `load_state_dict`), its gradient would be wrong, and the engine raises.
# One clock serves all arrays, so that a graph to which nothing was written is checked by comparing
# two integers.

ticks = itertools.count(1)
now = 0


class _Writes:
    """When a storage was written into last, and when which parts of it were."""

    def __init__(self, storage: Any) -> None:
        key = id(storage)
        self.last, self.parts = 0, {}  # (first, last) address written -> when
        self.storage = weakref.ref(storage, lambda _: _writes.pop(key, None))


_writes: dict[int, _Writes] = {}  # by the id of the storage


def write(array: Any, value: Any) -> None:
    """`array[...] = value`, the one way in which the library changes an array that others see."""
    assign(array, value)
    mark_written(array)


def mark_written(array: Any) -> None:
    """Note that `array`, and so every view that overlaps it, has just changed."""
    global now
    if (capture := capturing.get()) is not None:
        capture.written.append(array)
    storage = array if array.base is None else storage_of(array)
    writes = _writes.get(id(storage))
    if writes is None:
        writes = _writes[id(storage)] = _Writes(storage)
    now = writes.last = next(ticks)
    if storage is array or array.nbytes == storage.nbytes:
        writes.parts = {_ALL: now}
        return
    first, last = extent(array)
    for a, b in [(a, b) for a, b in writes.parts if first <= a and b <= last]:
        del writes.parts[a, b]  # what this write covers
    writes.parts[first, last] = now


_ALL = 0, math.inf  # all addresses


def written_since(array: Any, time: int) -> bool:
    """Whether the library wrote into what `array` looks at after `time`."""
    writes = _writes.get(id(storage_of(array)))
    if writes is None or writes.last <= time:
        return False
    first, last = extent(array)
    return any(w > time and a <= last and first <= b for (a, b), w in list(writes.parts.items()))


def raise_if_written(op: str, arrays: Sequence, time: int) -> None:
    """A RuntimeError if one of the arrays that an op kept was written into after `time`."""
    # Of arrays that look at one memory, as an optimizer's parameters do, one speaks for all.
    distinct = {}
    for array in arrays:
        base = getattr(array, "base", None)  # it may be no array (of shared memory, say)
        distinct[id(base if type(base) is np.ndarray else array)] = array
    writes = [_writes.get(id(storage_of(array))) for array in distinct.values()]
    if all([w is None or w.last <= time for w in writes]):
        return
    for array in arrays:
        if array is not None and written_since(array, time):
            what = f"{op}: {describe(array)}, which its gradient needs, was changed in place"
            by = "an optimizer, load_state_dict, += and the like, or batch norm in training"
            raise RuntimeError(f"{what} after it was recorded (by {by}); repeat the forward pass")
