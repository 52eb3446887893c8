"""The test double against CuPy on a GPU: each line in which they differ is a bug of the double.

The lines are those of tests/test_double.py. There most are held against CuPy as it is without a
GPU, or against NumPy; here what comes out of a kernel is compared, and what a capture refuses.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cupy
import double
import numpy as np
import test_double

CLOSE = 1e-6  # of results of kernels: the two round differently
# Beside what test_double counts as events.
IN_CAPTURES = """
cupy.linalg.norm(x); cupy.einsum("ij->j", x); cupy.einsum("ij,kj->ik", x, x); x.dot(x.T)
cupy.random.default_rng(0).random(3); x.argmax(axis=1); x.cumsum(axis=0); cupy.arange(5)
cupy.take(x, cupy.arange(2)); cupy.add.at(x, cupy.arange(2), 1.0); cupy.full((3,), 2.0); x.var()
cupy.cuda.Device().synchronize(); cupy.cuda.get_current_stream().synchronize(); x.mean(axis=0)
cupy.pad(x, 1); cupy.sort(x); cupy.split(x, 3, 1); cupy.clip(x, 1, 2); cupy.repeat(x, 2)
"""


def rows(dry: bool) -> Iterator[dict]:
    groups = {
        "calls": (test_double.WITHOUT_A_KERNEL, test_double.outcome),
        "refusals": (test_double.REFUSED, test_double.outcome),
        "captures": (capturable(), captured),
        "values": (test_double.SAME_AS_NUMPY, value),
    }
    yield {"expected": list(groups)}
    for what, (expressions, answer) in groups.items():
        different = 0
        for expression in expressions:
            answers = [answer(expression, xp, on(xp)) for xp in (double.cupy, cupy)]
            if not same(*answers):
                different += 1
                told = [repr(one)[:200] for one in answers]
                yield {"name": f"differs: {expression}", "double": told[0], "cupy": told[1]}
        compared = {"compared": "the double with itself"} if dry else {}
        yield {"name": what, "lines": len(expressions), "different": different, **compared}


def on(xp: ModuleType) -> Any:
    return xp.asarray(test_double.HOST)


def value(expression: str, xp: ModuleType, x: Any) -> Any:
    """A NumPy array and where it lay; or what was raised."""
    names = {"xp": xp, "np": np, "x": x, "y": xp.asarray(test_double.HOST[::-1] + 1)}
    try:
        found = eval(expression, names)
        return found.get(), str(found.dtype), found.strides
    except Exception as error:
        return f"raises {type(error).__name__}"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    (a, *layout), (b, *other_layout) = one, other
    return layout == other_layout and np.allclose(a, b, rtol=CLOSE, atol=CLOSE, equal_nan=True)


def capturable() -> list[str]:
    """Expressions to be tried in a capture, each once."""
    lines = [line.partition(": ")[2] for line in test_double.EVENTS.strip().split("\n")]
    listed = [e for line in lines for e in test_double.expressions(line)]
    return list(dict.fromkeys(listed + test_double.expressions(IN_CAPTURES)))


def captured(expression: str, xp: ModuleType, x: Any) -> str:
    """What a capture makes of it, once it has run outside."""
    stream = xp.cuda.Stream(non_blocking=True)
    xp.cuda.Device().synchronize()
    with stream:
        with contextlib.suppress(Exception):
            test_double.evaluated(expression, xp, x)
        stream.synchronize()
        stream.begin_capture()
        said = "is captured"
        try:
            kept = test_double.evaluated(expression, xp, x)  # noqa: F841 (its memory may be reached)
        except Exception:
            said = "raises"
        try:
            stream.end_capture()
        except Exception:
            said += ", and the capture is lost"
    return said
