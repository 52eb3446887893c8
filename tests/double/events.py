"""What happens on the device, counted; and what must not happen, forbidden."""

import collections
import contextlib

from .runtime import runtime

stats = collections.Counter()
_forbidden = collections.Counter()


class ForbiddenTransfer(RuntimeError):
    """Something happened that `forbid` forbids."""


@contextlib.contextmanager
def forbid(*events):
    assert set(events) <= {"h2d", "d2h", "sync", "kernel", "graph", "upload"}, events
    _forbidden.update(events)
    try:
        yield
    finally:
        _forbidden.subtract(events)


def happens(event, what):
    if event in ("h2d", "d2h", "sync") and runtime.capture:
        kind = "H2D" if event == "h2d" else "D2H"
        raise RuntimeError(f"the current stream is capturing, so {kind} transfers are disallowed")
    if _forbidden[event] > 0:
        raise ForbiddenTransfer(f"{event}: {what}")
    stats[event] += 1
