"""Loops that numba compiles: when, on how many threads, and for one Python thread at a time.

numba is optional. It takes a third of a second to import and seconds to compile, so it is imported
when the first loop is asked for, and what it compiles stays on disk for the next process. (It
compiles anew when the file of a loop has changed, but not for a change in a file that it imports:
who edits `vectors.py` or an `inner` function deletes `__pycache__/*.nb?`.)
"""

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import threading
import types
from collections.abc import Callable
from typing import Any

__all__ = ["Loop", "get_num_threads", "inner", "loops", "set_num_threads"]

_log = logging.getLogger("tinygrad_bn")
_lock = threading.Lock()  # numba's simplest pool of threads may be entered by one at a time
_threads: int | None = None  # what `set_num_threads` chose
_pool_started = False

ANNOUNCEMENT = (
    "tinygrad_bn compiles kernels with numba: this takes seconds for each kind of work and dtype, "
    "until they are all on disk"
)

# The compiler may reorder sums, but must not assume that there is no NaN and no Inf.
_OPTIONS = {
    "error_model": "numpy",  # x / 0 is Inf or NaN
    "fastmath": {"reassoc", "contract", "nsz", "arcp", "afn"},
    "nogil": True,
}


@functools.cache
def loops(name: str) -> types.ModuleType | None:
    """The module `kernels/<name>_loops.py`, or None where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        _log.debug("numba is not installed: NumPy computes what %s_loops.py would", name)
        return None
    return importlib.import_module(f".{name}_loops", __package__)


@functools.cache
def most_threads() -> int:
    """How many threads numba's pool has: NUMBA_NUM_THREADS, or one for each usable core."""
    asked = os.environ.get("NUMBA_NUM_THREADS")
    if asked and _whole(asked) is None:  # numba itself would stumble later
        raise ValueError(f"NUMBA_NUM_THREADS: got {asked!r}, wants a whole number ≥ 1")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _whole(asked) or usable or 1


def _whole(text: str | None) -> int | None:
    """The number ≥ 1 that begins an environment variable ("4,2" is OpenMP's for nested loops)."""
    first = (text or "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def get_num_threads() -> int:
    """On how many threads large arrays are worked on: what `set_num_threads` chose, else
    NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else one for each usable core."""
    if _threads is not None:
        return _threads
    asked = None if "NUMBA_NUM_THREADS" in os.environ else os.environ.get("OMP_NUM_THREADS")
    return min(_whole(asked) or most_threads(), most_threads())


def set_num_threads(n: int) -> None:
    """Work on large arrays with `n` threads from now on, in the whole process.

    This is about the compiled kernels; the BLAS library behind NumPy's matrix product reads
    OPENBLAS_NUM_THREADS or OMP_NUM_THREADS when it is loaded.
    """
    global _threads
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= n <= most_threads():
        raise ValueError(
            f"n: got {n!r}, wants a whole number from 1 to {most_threads()} "
            "(the number of usable cores, or NUMBA_NUM_THREADS)"
        )
    _threads = int(n)


def _in_forked_child() -> None:
    """GNU OpenMP ends a child that enters the pool of its parent: there, one thread does all."""
    global _lock, _threads
    _lock = threading.Lock()
    if _pool_started:
        _threads = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def inner(function: Callable) -> Callable:
    """A function to be called by loops, compiled by itself: so it can be made of vectors.

    It becomes a part of each loop. If it were called by its name, that would be what was loaded
    first under the name, by this loop or another, optimized in other ways; and last digits would
    depend on what was compiled when.
    """
    return _jit(function, inline="never", forceinline=True)


class Loop:
    """A function on arrays, compiled twice: its `prange` run by one thread, or shared by several.

    Calling it uses `get_num_threads()` threads; `alone` the caller's, which is faster when there is
    little to do.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self.alone, self._shared = _jit(_twin(function, "alone")), _jit(function, parallel=True)

    def inside(self) -> Callable:
        """The same by one thread, as a part of another loop."""
        return inner(_twin(self._function, "inside"))

    def __call__(self, *args: Any) -> Any:
        threads = get_num_threads()
        if threads == 1:
            return self.alone(*args)
        import numba

        global _pool_started
        with _lock:
            _pool_started = True
            numba.set_num_threads(threads)  # it forgets it from one Python thread to the next
            return self._shared(*args)


def _twin(function: types.FunctionType, suffix: str) -> types.FunctionType:
    """The same function by another name: numba's cache tells functions apart by name and line, but
    not by their options."""
    twin = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    twin.__qualname__, twin.__module__ = f"{function.__name__}_{suffix}", function.__module__
    return twin


def _jit(function: Callable, **options: Any) -> Callable:
    import numba

    _announce_compilation()
    dispatcher = numba.njit(**options, **_OPTIONS)(function)
    try:
        dispatcher._cache = _kept_on_disk()(function)  # as `cache=True` would, with numba's own
    except RuntimeError:
        _warn_of_no_cache("there is no folder that it can write into")
    return dispatcher


@functools.cache
def _kept_on_disk() -> type:
    """numba's cache, for which files that cannot be read or written are as good as missing."""
    from numba.core.caching import FunctionCache

    class Cache(FunctionCache):
        def load_overload(self, *args):
            try:
                return super().load_overload(*args)
            except Exception:  # reading what is damaged may raise anything
                _log.debug("%s cannot be read", self, exc_info=True)
                _warn_of_damage(self.cache_path)
                with contextlib.suppress(OSError):
                    self.flush()  # begins the function's list of files anew
                return None

        def save_overload(self, *args):
            try:
                super().save_overload(*args)
            except OSError as error:
                _warn_of_no_cache(error.strerror)

    return Cache


@functools.cache
def _warn_of_damage(folder: str) -> None:
    _log.warning(
        "numba cannot read what it compiled before, and compiles it anew: files in %s are damaged "
        "(if this comes again, delete the folder)",
        folder,
    )


@functools.cache
def _warn_of_no_cache(problem: str) -> None:
    _log.warning(
        "numba cannot keep compiled kernels on disk (%s): each process compiles them anew "
        "(set NUMBA_CACHE_DIR to a folder that can be written into)",
        problem,
    )


@functools.cache
def _announce_compilation() -> None:
    """Say so when the first kernel of this library is compiled in this process."""
    from numba.core import event

    class Announcer(event.Listener):
        told = False

        def on_start(self, occurred):
            function = occurred.data["dispatcher"].py_func
            if not self.told and function.__module__.startswith(__package__):
                self.told = True
                _log.warning(ANNOUNCEMENT)

        def on_end(self, occurred):
            pass

    event.register("numba:compile", Announcer())
