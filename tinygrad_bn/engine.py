"""The engine: backward runs through the graph in topological order.

One loop, `run_backward`, is behind `Tensor.backward` and `grad`. Its rules compute on arrays; under
`create_graph=True` they are fed Tensors, and the backward pass is itself a recorded graph.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import backend, recording
from .backend import Setting, array_module, as_array, describe, device_of, on_device_of
from .graph import Leaf, Like, Node, Tensor, at_place, youngest_first
from .kernels.cuda_copy import copy_all
from .memory import owned
from .primitive import op
from .reduction import accumulator


def run_backward(
    seeds: Sequence[tuple[Tensor, Any]],
    targets: Sequence[Tensor] | None = None,
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> dict:
    """One backward pass, from pairs of an output and the gradient at it.

    Returns the finished sums {node: gradient}: at the nodes of `targets`, and then no work is done
    that leads to none of them; or, without targets, wherever a `.grad` is kept. The gradient at a
    node of many outputs is a list, None where nothing arrived. With `create_graph` the rules are
    fed Tensors, and the gradients are Tensors.
    """
    order = youngest_first([output.node for output, _ in seeds])
    ends = None if targets is None else {target.node for target in targets}
    useful = None if ends is None else _leading_to(ends, order)
    sums: dict = {}  # node -> the sum so far of what arrives there
    finished: dict = {}
    guard, plus = recording.guard.get(), operator.add
    if backend.imported_cupy():
        guard, plus = _WhereItIs(guard), add

    def give(node, index, g):
        if node.many:
            slots = sums.setdefault(node, [None] * node.many)
            slots[index] = g if slots[index] is None else plus(slots[index], g)
        else:
            sums[node] = plus(sums[node], g) if node in sums else g

    for output, seed in seeds:
        give(output.node, output.index, seed)
    records, told = Setting(recording.recording, create_graph), Setting(recording.told, {})
    with records, told:
        for node in order:
            g = sums.pop(node, None)
            if g is None or (useful is not None and node not in useful):
                continue
            if node.hooks:
                g = _run_hooks(node, g)
            # A Leaf has `grads`, and so has a Node for which retain_grad was called.
            if node.grads is not None if ends is None else node in ends:
                finished[node] = g
            needs, parents = node.needs, node.parents
            if useful is not None:
                needs = [need and parent in useful for need, parent in zip(needs, parents)]
            if True not in needs:
                continue
            likes = node.likes
            gradients = (guard or node.op).gradients(node, g, needs, create_graph)
            for k, (gi, parent) in enumerate(zip(gradients, parents)):
                if gi is None or not needs[k]:
                    continue
                if gi is not g or likes is not None:
                    if isinstance(gi, Tensor) and not create_graph:
                        gi = gi.data  # a rule may have made its own
                    like = g if likes is None else likes[k]
                    if getattr(gi, "shape", None) != like.shape or gi.dtype is not like.dtype:
                        gi = fit(gi, like, node, k)
                if parent in sums or parent.many:
                    give(parent, node.indices[k], gi)
                else:
                    sums[parent] = gi  # what `give` would do, most of the time
            if not retain_graph:
                node.arrays = node.outputs = node.refill = None
    return finished


class _WhereItIs(NamedTuple):
    """Runs gradient rules on the device of what arrives: a graph may lead over several."""

    guard: Any

    def gradients(self, node: Node, g: Any, needs: Sequence[bool], create_graph: bool) -> Sequence:
        with on_device_of(backend.array_of(next(gi for gi in listed(g) if gi is not None))):
            return (self.guard or node.op).gradients(node, g, needs, create_graph)


def _leading_to(ends: set, order: list) -> set:
    """The nodes in `order` from which backward reaches one of `ends`, which included."""
    useful = set(ends)
    for node in reversed(order):
        if not useful.isdisjoint(node.parents):
            useful.add(node)
    return useful


def fit(g: Any, like: Like, node: Node, k: int) -> Any:
    """A gradient summed to the shape of the argument that was broadcast, and cast to its dtype."""
    shape = getattr(g, "shape", None)
    lead = -1 if shape is None else len(shape) - len(like.shape)
    if lead < 0 or any(n not in (1, m) for n, m in zip(like.shape, shape[lead:])):
        what = f"{node.op.name}: the gradient rule for argument {k} returned {describe(g)}"
        raise RuntimeError(f"{what}, wants {like.dtype}{list(like.shape)}")
    if shape != like.shape:
        g = sum_to(g, shape=like.shape)
    return g if g.dtype == like.dtype else astype(g, dtype=like.dtype)


def _run_hooks(node: Node | Leaf, g: Any) -> Any:
    """What the hooks on the outputs of a node make of the finished gradients there."""

    def run(g, index):
        for hook in list(node.hooks.get(index, ())) if g is not None else ():
            seen = g if isinstance(g, Tensor) else at_place(read_only(g))
            answer = hook(seen)
            if answer is not None:
                if not isinstance(answer, Tensor) or answer.shape != g.shape:
                    raise ValueError(f"a hook returned {describe(answer)}, wants {describe(g)}")
                answer = answer if answer.dtype == g.dtype else astype(answer, dtype=g.dtype)
                g = answer if isinstance(g, Tensor) else answer.data
        return g

    return [run(gi, i) for i, gi in enumerate(g)] if node.many else run(g, 0)


def read_only(array: Any) -> Any:
    """A view that cannot be written into (CuPy has none: there, the array)."""
    view = np.asarray(array).view() if device_of(array) == "cpu" else array
    if view is not array:
        view.setflags(False)
    return view


def _seed(output: Tensor, gradient: Any, argument: str, create_graph: bool) -> Any:
    """The gradient at an output from which a pass starts, checked."""
    if not isinstance(output, Tensor):
        raise TypeError(f"got {type(output).__name__} as an output, wants a Tensor")
    if output.node is None:
        what = "the output does not depend on any Tensor with requires_grad=True"
        raise RuntimeError(f"{what}: no gradient")
    data = output.data
    if gradient is None:
        if data.size != 1:
            what = f"{argument}: the output {describe(data)} is not a scalar"
            raise RuntimeError(f"{what}, so the gradient at it must be given")
        with on_device_of(data):
            gradient = array_module((data,)).ones_like(data)
    tensor = gradient if isinstance(gradient, Tensor) else at_place(as_array(gradient))
    if tensor.data.shape != data.shape or device_of(tensor.data) != device_of(data):
        raise ValueError(f"{argument}: got {describe(tensor.data)}, wants {describe(data)}")
    if tensor.data.dtype != data.dtype:
        tensor = astype(tensor, dtype=data.dtype)
    return tensor if create_graph else tensor.data


def backward(output: Tensor, gradient: Any = None, *, retain_graph: bool = False) -> None:
    """Add d(output)/d(leaf), times `gradient`, to `.grad` of every leaf that output depends on.

    `gradient` (shape of output) may be left out for a scalar. The pass frees the graph unless
    `retain_graph`; it records nothing (`grad(…, create_graph=True)` does).
    """
    seeds, arrivals = [(output, _seed(output, gradient, "gradient", create_graph=False))], []
    for node, g in run_backward(seeds, retain_graph=retain_graph).items():
        arrived = [(i, g[i]) for i in node.grads if g[i] is not None] if node.many else [(0, g)]
        for index, one in arrived:
            if (home := node.add_grad(index, one)) is not None:
                arrivals.append((home, one))
    copy_all(arrivals)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` at `inputs` (leaves or intermediate results), as a tuple.

    `grad_outputs`: the gradient at each output (None for scalars). `create_graph` records the pass,
    so that the answers can be differentiated again. `retain_graph` (default: as create_graph) keeps
    the graph for another pass. An input on which no output depends is a RuntimeError, or None with
    `allow_unused`.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor(3.0, requires_grad=True)
    >>> (dx,) = tg.grad(x * x * x, x, create_graph=True)
    >>> (ddx,) = tg.grad(dx, x)
    >>> dx.item(), ddx.item()
    (27.0, 18.0)
    """
    outputs, inputs = listed(outputs), listed(inputs)
    if not outputs:
        raise ValueError("outputs: got none, wants at least one Tensor")
    gradients = [None] * len(outputs) if grad_outputs is None else listed(grad_outputs)
    if len(gradients) != len(outputs):
        wants = f"wants {len(outputs)}, one an output"
        raise ValueError(f"grad_outputs: got {len(gradients)} of them, {wants}")
    for k, x in enumerate(inputs):
        if not isinstance(x, Tensor) or x.node is None:
            got = "a constant" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"inputs[{k}]: got {got}, wants a Tensor that requires a gradient")
    names = [f"grad_outputs[{k}]" for k in range(len(outputs))]
    given = zip(outputs, gradients, names)
    seeds = [(output, _seed(output, g, name, create_graph)) for output, g, name in given]
    retain = create_graph if retain_graph is None else retain_graph
    finished = run_backward(seeds, inputs, retain_graph=retain, create_graph=create_graph)
    answers, last = [], {x.node: k for k, x in enumerate(inputs)}
    for k, x in enumerate(inputs):
        g = finished.pop(x.node, None) if last[x.node] == k else finished.get(x.node)
        if g is not None and x.node.many:
            g = g[x.index]
        if g is None and not allow_unused:
            what = f"inputs[{k}]: no output depends on it"
            raise RuntimeError(f"{what}; allow_unused=True gives None for it")
        if g is not None and not isinstance(g, Tensor):
            g = at_place(owned(g))  # a rule may return a view, or an array twice
        answers.append(g)
    return tuple(answers)


def listed(tensors: Any) -> list:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


# The ops that the engine itself needs.


@op("+", lambda g, _out, _x, _y: g, lambda g, _out, _x, _y: g)
def add(xp, x, y):
    """x + y"""
    return x + y


@op("cast", lambda g, _out, _x, dtype: g)
def astype(xp, x, *, dtype):
    """x converted to `dtype`. The gradient comes back in the dtype of x."""
    return x.astype(dtype)


@op("broadcast", lambda g, _out, _x, shape: g)
def broadcast_to(xp, x, *, shape):
    """x repeated to `shape` (a view). The engine sums the gradient back."""
    return xp.broadcast_to(x, shape)


@op("Σ to", lambda g, _out, _x, shape: broadcast_to(g, shape=_x.shape))
def sum_to(xp, x, *, shape):
    """The sum of x over the axes along which `shape` was broadcast to it: the way back."""
    lead = len(x.shape) - len(shape)
    if xp is np and x.ndim == 2 and x.shape[1:] == shape and x.dtype == accumulator(x.dtype):
        return xp.dot(xp.ones(len(x), x.dtype), x)  # of a matrix to a row: quicker than its sum
    stretched = tuple(
        i for i, n in enumerate(x.shape) if i < lead or (shape[i - lead] == 1 and n != 1)
    )
    total = xp.sum(x, axis=stretched, dtype=accumulator(x.dtype))
    return total.astype(x.dtype, copy=False).reshape(shape)
