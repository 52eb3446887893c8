"""What is recorded: `no_grad`, `enable_grad`, `tracing`, journals, and the clock of writes.

All switches are context variables, so they hold for one thread and not for its neighbours.
"""

import contextlib
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from .backend import describe, extent, on_device_of, storage_of

recording: ContextVar[bool] = ContextVar("recording", default=True)
statistics_move: ContextVar[bool] = ContextVar("statistics_move", default=True)
scopes: ContextVar[tuple[str, ...] | None] = ContextVar("scopes", default=None)  # None: no tracing
journals: ContextVar[tuple[Callable, ...]] = ContextVar("journals", default=())
told: ContextVar[dict | None] = ContextVar("told", default=None)  # in a backward pass, by hooks
guard: ContextVar[Any] = ContextVar("guard", default=None)  # runs gradient rules in an op's stead


class _Set(contextlib.ContextDecorator):
    """A context variable set inside a `with` block, or a decorated function; usable again."""

    def __init__(self, variable: ContextVar, value: Any) -> None:
        self._variable, self._value, self._tokens = variable, value, []

    def __enter__(self) -> None:
        self._tokens.append(self._variable.set(self._value))

    def __exit__(self, *exception: object) -> None:
        self._variable.reset(self._tokens.pop())

    def _recreate_cm(self) -> "_Set":  # for each call of a decorated function, whatever the thread
        return _Set(self._variable, self._value)


def no_grad() -> _Set:
    """Ops inside compute and record nothing. A context manager and a decorator.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    return _Set(recording, False)


def enable_grad() -> _Set:
    """Record again, inside a `no_grad` block."""
    return _Set(recording, True)


def set_recording(on: bool) -> _Set:
    """`enable_grad()` or `no_grad()`, by a value."""
    return _Set(recording, on)


def still_statistics() -> _Set:
    """Inside, batch norm does not move running statistics: a step is checked, not made."""
    return _Set(statistics_move, False)


def tracing() -> _Set:
    """Nodes recorded inside also keep their values, names, module and source line, for pictures.

    It costs memory (no intermediate value is freed) and time (a look at the stack for every op).
    """
    return _Set(scopes, scopes.get() or ())


def journal(note: Callable) -> _Set:
    """Inside, `note(node, arguments, outputs)` is called for every op that is recorded (arrays)."""
    return _Set(journals, (*journals.get(), note))


def guarded_by(runner: Any) -> _Set:
    """Inside, a backward pass calls `runner.gradients` instead of each op's (None: the op's)."""
    return _Set(guard, runner)


def notes() -> _Set:
    """A new dict `told`, for what the hooks that run in one backward pass tell each other."""
    return _Set(told, {})


def scope(name: str) -> _Set:
    """Inside `tracing`, nodes recorded in this block belong to `name` (a module, say)."""
    return _Set(scopes, (*scopes.get(), name))


class Trace:
    """What a node recorded under `tracing` knows besides: its values, their names, its origin."""

    __slots__ = ("inputs", "input_names", "outputs", "names", "scope", "source")

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

_ticks = itertools.count(1)
# id of a storage -> (it, {(first, last) address written: when})
_writes: dict[int, tuple[weakref.ref, dict[tuple[int, int], int]]] = {}
now = 0


def write(array: Any, value: Any) -> None:
    """`array[...] = value`, the one way in which the library changes an array that others see."""
    with on_device_of(array):
        array[...] = value
    mark_written(array)


def mark_written(array: Any) -> None:
    """Note that `array`, and so every view that overlaps it, has just changed."""
    global now
    now = next(_ticks)
    storage = storage_of(array)
    key = id(storage)
    if key not in _writes:
        _writes[key] = weakref.ref(storage, lambda _: _writes.pop(key, None)), {}
    writes = _writes[key][1]
    first, last = extent(array)
    for a, b in [(a, b) for a, b in writes if first <= a and b <= last]:
        del writes[a, b]  # what this write covers
    writes[first, last] = now


def written_since(array: Any, time: int) -> bool:
    """Whether the library wrote into what `array` looks at after `time`."""
    _, writes = _writes.get(id(storage_of(array)), (None, {}))
    if all(written <= time for written in writes.values()):
        return False
    first, last = extent(array)
    return any(w > time and a <= last and first <= b for (a, b), w in list(writes.items()))


def raise_if_written(op: str, arrays: Iterable, time: int) -> None:
    """A RuntimeError if one of the arrays that an op kept was written into after `time`."""
    for array in arrays:
        if array is not None and written_since(array, time):
            raise RuntimeError(
                f"{op}: {describe(array)}, which its gradient needs, was changed in place after it "
                "was recorded (by an optimizer, load_state_dict, an operator such as += or a "
                "training step of batch norm); run the forward pass again"
            )
