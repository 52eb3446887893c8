"""Gradients held against finite differences, and two implementations held against each other."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import is_array, to_device
from .creation import zeros_like
from .engine import grad, listed
from .graph import Leaf, Tensor, parents, toposort
from .memory import storage_of
from .ops import sum as sum_
from .recording import no_grad, still_statistics
from .transforms import jacobian

__all__ = ["Comparison", "compare", "gradcheck", "gradgradcheck", "graph_nodes", "held_bytes"]

_SEED = 1502_03167  # unlike a caller's: random numbers equal to the inputs would cancel


def gradcheck(
    function: Callable,
    inputs: Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """True if the gradients of `function(*inputs)` equal central differences; else an
    AssertionError that names the output, the input, the elements and both numbers.

    Every element of the float64 inputs that require a gradient is moved by ±`eps`. The function may
    return one Tensor or several; one that lost its history has the gradient 0. Running statistics
    stay where they are.
    """
    inputs = _listed(inputs)
    moved = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not moved:
        raise ValueError("inputs: got none that requires a gradient")
    for k in moved:
        if inputs[k].dtype != np.float64:
            raise ValueError(f"inputs[{k}]: got {inputs[k].dtype}, wants float64")
    with still_statistics():
        return _check_gradients(function, inputs, moved, eps, atol, rtol)


def _check_gradients(function, inputs, moved, eps, atol, rtol) -> bool:
    def outputs_of(*values):
        arguments = dict(enumerate(inputs)) | dict(zip(moved, values))
        return listed(function(*arguments.values()))

    with no_grad():  # the Jacobian itself needs no history
        blocks = jacobian(outputs_of, [inputs[k] for k in moved])
    for i, k in enumerate(moved):
        for o, wanted in enumerate(_difference_quotients(function, inputs, k, eps)):
            got = np.reshape(to_device(blocks[o][i].data, "cpu"), wanted.shape)
            close = np.abs(got - wanted) <= atol + rtol * np.abs(wanted)
            if not close.all():
                element, *at = map(int, np.argwhere(~close)[0])
                raise AssertionError(
                    f"output {o}, element {element}, by inputs[{k}]{at}: the gradient is "
                    f"{got[element][tuple(at)]:.8g}, the difference quotient "
                    f"{wanted[element][tuple(at)]:.8g}"
                )
    return True


def _difference_quotients(function: Callable, inputs: list, k: int, eps: float) -> list[np.ndarray]:
    """For each output, how its elements (first axis) move with those of inputs[k] (the rest)."""
    host = np.array(to_device(inputs[k].data, "cpu"))
    slopes = [np.zeros((y.size, *host.shape)) for y in listed(function(*inputs))]
    for at in np.ndindex(host.shape):
        ends = []
        for step in (eps, -eps):
            changed = host.copy()
            changed[at] += step
            moved = Tensor(to_device(changed, inputs[k].device), requires_grad=True)
            values = listed(function(*inputs[:k], moved, *inputs[k + 1 :]))
            ends.append([np.array(to_device(v.data, "cpu"), np.float64).ravel() for v in values])
        for slope, plus, minus in zip(slopes, *ends):
            slope[(slice(None), *at)] = (plus - minus) / (2 * eps)
    return slopes


def gradgradcheck(
    function: Callable,
    inputs: Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """`gradcheck` of the gradients of `function`, for random gradients at its outputs."""
    inputs = _listed(inputs)
    random = np.random.default_rng(_SEED)
    with still_statistics():
        outputs = [y for y in listed(function(*inputs)) if y.requires_grad]
    cotangents = [
        Tensor(to_device(random.standard_normal(y.shape), y.device), requires_grad=True)
        for y in outputs
    ]

    def gradients(*arguments):
        xs, gs = arguments[: len(inputs)], arguments[len(inputs) :]
        ys = [y for y in listed(function(*xs)) if y.requires_grad]
        wanted = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
        found = grad(ys, wanted, list(gs), create_graph=True, allow_unused=True)
        return [zeros_like(x) if g is None else g for g, x in zip(found, wanted)]

    return gradcheck(gradients, [*inputs, *cotangents], eps, atol, rtol)


def _listed(inputs: Any) -> list:
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def graph_nodes(outputs: Sequence[Tensor]) -> list:
    """The recorded ops that the outputs depend on, each before those it was computed from."""
    order = toposort([y.node for y in outputs if y.node is not None], parents)
    return [node for node in order if not isinstance(node, Leaf)]


def held_bytes(outputs: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> int:
    """The bytes of the arrays that a graph keeps for backward, each storage counted once, those of
    `inputs` (which the caller holds anyway) not at all."""
    theirs = {id(storage_of(x.data)) for x in inputs}
    kept = {}
    for node in graph_nodes(outputs):
        options = [v for o in node.kwargs.values() for v in (o if type(o) is tuple else (o,))]
        again = node.refill[0].arrays() if node.refill else ()  # a checkpoint holds them
        for array in (*(node.arrays or ()), *(node.outputs or ()), *options, *again):
            if is_array(array) and id(storage_of(array)) not in theirs:
                kept[id(storage_of(array))] = storage_of(array).nbytes
    return sum(kept.values())


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `str()` of it is a table. `differences[k]` is of order k: 0 the values,
    k the k-th gradients; the largest, relative to the largest value of the first function."""

    differences: tuple[float, ...]
    ops: tuple[int, int]
    held: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How many times faster the second function is, forward and backward."""
        return self.seconds[0] / self.seconds[1]

    def __str__(self) -> str:
        rows = [f"{'':34}{'composed':>14}{'fused':>14}"]
        rows.append(f"{'ops recorded':34}{self.ops[0]:>14}{self.ops[1]:>14}")
        rows.append(f"{'bytes held for backward':34}{self.held[0]:>14,}{self.held[1]:>14,}")
        ms = [f"{1e3 * s:.3f} ms" for s in self.seconds]
        rows.append(f"{'forward + backward':34}{ms[0]:>14}{ms[1]:>14}   ratio {self.ratio:.2f}")
        for order, difference in enumerate(self.differences):
            what = "value" if order == 0 else f"gradient of order {order}"
            rows.append(f"{'difference, ' + what:34}{'':14}{difference:>14.1e}")
        return "\n".join(rows)


def compare(
    composed: Callable, fused: Callable, *inputs: Tensor, order: int = 4, repeat: int = 7
) -> Comparison:
    """Hold two functions of the same inputs against each other; print and return the result.

    The values, then the gradients up to `order` (each the gradient of a random combination of the
    last), the ops recorded, the bytes held for backward beyond the inputs, and the median time of
    forward and backward over `repeat` interleaved runs. A function may return several Tensors.
    """
    if not any(x.requires_grad for x in inputs):
        raise ValueError("inputs: got none that requires a gradient")
    with still_statistics():
        return _compare((composed, fused), inputs, order, repeat)


def _compare(functions: tuple, inputs: Sequence[Tensor], order: int, repeat: int) -> Comparison:
    values = [listed(f(*inputs)) for f in functions]
    ops = tuple(len(graph_nodes(v)) for v in values)
    held = tuple(held_bytes(v, inputs) for v in values)
    chains = [_gradient_chain(f, inputs, order) for f in functions]
    differences = tuple(map(_difference, *chains))
    times = ([], [])
    for _ in range(repeat):
        for function, seconds in zip(functions, times):
            start = time.perf_counter()
            y = listed(function(*inputs))[0]
            grad(sum_(y), [x for x in inputs if x.requires_grad], allow_unused=True)
            seconds.append(time.perf_counter() - start)
    result = Comparison(differences, ops, held, tuple(map(statistics.median, times)))
    print(result)
    return result


def _gradient_chain(function: Callable, inputs: Sequence[Tensor], order: int) -> list[list]:
    """[values, first gradients, …]: each the gradients of a random combination of the last."""
    random = np.random.default_rng(_SEED)
    wanted = [x for x in inputs if x.requires_grad]
    current = listed(function(*inputs))
    chain = [[np.array(to_device(t.data, "cpu")) for t in current]]
    for k in range(order):
        total = 0.0
        for t in current:
            c = random.standard_normal(t.shape).astype(t.dtype)
            if t.requires_grad:
                total = total + sum_(t * to_device(c, t.device))
        found = [None] * len(wanted)  # no dependence on the inputs is left, unless …
        if isinstance(total, Tensor):
            found = grad(total, wanted, create_graph=k < order - 1, allow_unused=True)
        current = [zeros_like(x) if g is None else g for g, x in zip(found, wanted)]
        chain.append([np.array(to_device(t.data, "cpu")) for t in current])
    return chain


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest |a − b| over the largest |a|, of two lists of arrays of the same shapes.

    One scale for all: a gradient that vanishes but for rounding has none of its own. Infinite if a
    difference is infinite or NaN.
    """
    shapes = [[a.shape for a in arrays] for arrays in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the functions return shapes {shapes[0]} and {shapes[1]}")
    largest = max(np.abs(a).max(initial=0.0) for a in ours)
    apart = [np.abs(a - b).max(initial=0.0) for a, b in zip(ours, theirs)]
    if not np.isfinite(apart).all():  # NaN compares as smaller than any bound
        return math.inf
    return float(max(apart) / (largest or 1))
