"""`detect_anomaly`: which op, or gradient rule, made the first NaN or infinity, recorded where."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import recording
from .backend import describe, is_array, to_device
from .graph import Node, Tensor

__all__ = ["detect_anomaly"]


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, the first recorded op that makes a NaN or an infinity raises a FloatingPointError,
    and so does the first gradient rule, in a backward pass that runs inside.

    An infinity that was put in, such as that of a mask, passes; a NaN that was put in raises, and
    the error says so. Nodes are traced (see `tracing`), so that the error can tell the module and
    the line where the op was recorded. It looks at every value: for debugging.

    >>> import numpy as np, tinygrad_bn as tg
    >>> x = tg.tensor([1.0, 0.0], requires_grad=True)
    >>> with np.errstate(divide="ignore"), tg.detect_anomaly():  # doctest: +ELLIPSIS
    ...     tg.log(x)
    Traceback (most recent call last):
    FloatingPointError: log(float32[2]): its result is -inf at [1], though its arguments are finite
      recorded at ...
    """
    guard = _Guard()
    note = recording.journal(guard.check_result)
    with recording.tracing(), note, recording.guarded_by(guard):
        yield


class _Guard:
    """Looks at what ops and gradient rules make of what they are given."""

    def check_result(self, node: Node, arguments: Sequence, outputs: Sequence) -> None:
        """Called when an op is recorded."""
        if recording.guard.get() is None:
            return  # it is part of a gradient rule, which is judged by what it returns
        found, came_in = _made(arguments, outputs), _first(arguments, np.isnan)
        if found:
            which = f"result {found[0]}" if node.many else "its result"
            why = "no argument has a NaN" if found[1] == "nan" else "its arguments are finite"
            raise _error(f"{_call(node)}: {which} is {found[1]} at {found[2]}, though {why}", node)
        if came_in and _first(outputs, np.isnan):
            k, _, place = came_in
            raise _error(f"{_call(node)}: a NaN came in with argument {k}, at {place}", node)

    def gradients(self, node: Node, g: Any, needs: Sequence[bool], create_graph: bool) -> Sequence:
        """Runs the rules of a node in its op's stead."""
        with recording.guarded_by(None):
            gradients = node.op.gradients(node, g, needs, create_graph)
        wanted = [gi if need else None for gi, need in zip(gradients, needs)]
        found = _made(g if node.many else [g], wanted)
        if found:
            k, value, place = found
            why = "has no NaN" if value == "nan" else "is finite"
            raise _error(
                f"the gradient rule of {_call(node)}: the gradient at argument {k} is {value} at "
                f"{place}, though that at its result {why}",
                node,
            )
        return gradients


def _made(before: Sequence, after: Sequence) -> tuple | None:
    """The first NaN in `after` if there is none before; else the first infinity, if all is finite
    before: as of `_first`."""
    if _first(before, np.isnan):
        return None
    return _first(after, np.isnan) or (not _first(before, np.isinf) and _first(after, np.isinf))


def _first(values: Sequence, test: Callable) -> tuple | None:
    """The first element for which `test` holds: (which of the values, it as text, its place)."""
    for k, value in enumerate(values):
        array = value.data if isinstance(value, Tensor) else value
        if is_array(array) or isinstance(array, (float, np.floating)):
            host = to_device(array, "cpu") if is_array(array) else np.asarray(array)
            hits = np.argwhere(test(host)).tolist()
            if hits:
                return k, f"{host[tuple(hits[0])]}", hits[0]
    return None


def _call(node: Node) -> str:
    arguments = ", ".join(map(describe, node.trace.inputs)) if node.trace else "…"
    return f"{node.op.name}({arguments})"


def _error(what: str, node: Node) -> FloatingPointError:
    if node.trace is None:
        return FloatingPointError(f"{what}\n  (it was recorded outside, so its line is not known)")
    scope = f", in {node.trace.scope}" if node.trace.scope else ""
    return FloatingPointError(f"{what}\n  recorded at {node.trace.source}{scope}")
