"""What is recorded: `no_grad`, `enable_grad`, `tracing`, and the clock of writes into arrays.

All switches are context variables, so they hold for one thread and not for its neighbours.
"""

import contextlib
import itertools
import os
import sys
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from .backend import on_device_of, storage

recording: ContextVar[bool] = ContextVar("recording", default=True)
scopes: ContextVar[tuple[str, ...] | None] = ContextVar("scopes", default=None)  # None: no tracing


@contextlib.contextmanager
def _set(variable: ContextVar, value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def no_grad():
    """Ops inside compute and record nothing. A context manager and a decorator.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """
    return _set(recording, False)


def enable_grad():
    """Record again, inside a `no_grad` block."""
    return _set(recording, True)


def set_recording(on: bool):
    """`enable_grad()` or `no_grad()`, by a value."""
    return _set(recording, on)


def tracing():
    """Nodes recorded inside also keep their values, names, module and source line, for pictures.

    It costs memory (no intermediate value is freed) and time (a look at the stack for every op).
    """
    return _set(scopes, scopes.get() or ())


def scope(name: str):
    """Inside `tracing`, nodes recorded in this block belong to `name` (a module, say)."""
    return _set(scopes, (*scopes.get(), name))


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
_last_write: dict[int, tuple[weakref.ref, int]] = {}  # id of a storage -> (it, time of last write)
now = 0


def write(array: Any, value: Any) -> None:
    """`array[...] = value`, the one way in which the library changes an array that others see."""
    with on_device_of(array):
        array[...] = value
    mark_written(array)


def mark_written(array: Any) -> None:
    """Note that the storage of `array`, which all its views share, has just changed."""
    global now
    now = next(_ticks)
    owner = storage(array)
    key = id(owner)
    known = _last_write.get(key)
    reference = known[0] if known else weakref.ref(owner, lambda _: _last_write.pop(key, None))
    _last_write[key] = (reference, now)


def written_since(array: Any, time: int) -> bool:
    """Whether the library wrote into the storage of `array` after `time`."""
    known = _last_write.get(id(storage(array)))
    return known is not None and known[1] > time
