"""Transforms of functions: `vjp`, `jvp`, `jacobian`, `hessian`.

The arguments and answers are those of `torch.autograd.functional`: `function` takes and returns one
Tensor or several, and the answer is built as they are. There is no `create_graph`, for the one rule
holds here too: **an answer is recorded if something that it depends on requires a gradient**, be it
an input, `v` or a parameter that the function closes over, and so it can be differentiated again;
else, and inside `no_grad`, it is a constant. Only the argument counts as the variable: where the
function finds the same Tensor in its closure, that is another one. What does not depend on an input
has zeros there. The function is evaluated once, and that is a step like any other: in training,
batch norm moves its running statistics.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import recording
from .backend import describe, to_device
from .creation import zeros, zeros_like
from .engine import grad, listed
from .graph import Tensor, at_place
from .ops import reshape, stack
from .primitive import op

__all__ = ["hessian", "jacobian", "jvp", "vjp"]

Tensors = Tensor | Sequence[Tensor]


@op("id", joint=lambda gs, _outs, *_xs, needs, back: back(gs), variadic=True)
def passing(xp, *arrays, back):
    """The arrays of a list as they are, at places of their own. On the way back, `back` makes of
    the list of the gradients there (None where none arrived) that of the gradients here."""
    return arrays


class _OwnGraph:
    """The graph of a transform: Tensors enter it, and answers leave it.

    Inside, an entry has no history, so a pass through this graph never walks on into what the
    caller recorded before. It is given back when the answers leave.
    """

    def __init__(self) -> None:
        self.is_recorded = recording.recording.get()  # else all answers are constants
        self.nodes: list = []  # each after those that it depends on
        self.entries: list = []  # (a node of ours, the place outside that it stands for)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        with recording.enable_grad(), recording.journal(lambda node, *_: self.nodes.append(node)):
            yield

    def enter(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        entered = []
        for tensor in tensors:
            own = Tensor(tensor.data, requires_grad=True)
            own.name = tensor.name
            entered += passing([own], back=list)
            self.entries.append((entered[-1].node, tensor.node, tensor.index))
        return entered

    def _constants(self) -> set[int]:
        """The ids of the places here that depend on nothing outside that requires a gradient."""
        found = {id(None)}
        found |= {id(entry.parents[0]) for entry, outside, _ in self.entries if outside is None}
        for node in self.nodes:
            if all(id(parent) in found for parent in node.parents):
                found.add(id(node))
        return found

    def depends(self, tensors: Sequence[Tensor | None] = ()) -> bool:
        """Whether what is computed from all that is here, and from `tensors`, is to be recorded."""
        if not self.is_recorded:
            return False
        constants = self._constants()
        return any(id(node) not in constants for node in self.nodes) or any(
            tensor is not None and tensor.node is not None for tensor in tensors
        )

    def leave(self, answers: Sequence[Tensor]) -> list[Tensor]:
        """The answers with the history that they have outside, if they have any."""
        if not self.is_recorded:
            return [answer.detach() for answer in answers]
        constants = self._constants()
        for node in self.nodes:
            node.come_from([None if id(p) in constants else p for p in node.parents], node.indices)
        for entry, outside, index in self.entries:
            entry.come_from([outside], [index])
        return [a.detach() if id(a.node) in constants else a for a in answers]


def vjp(function: Callable, inputs: Tensors, v: Tensors | None = None) -> tuple[Tensors, Tensors]:
    """The outputs of `function(*inputs)`, and vᵀJ: the gradients at the inputs for gradients `v` at
    the outputs (which may be left out for one output of one element).

    >>> import tinygrad_bn as tg
    >>> tg.vjp(lambda x: x * x, tg.tensor([1.0, 2.0]), tg.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    graph, xs = _OwnGraph(), _tensors("inputs", inputs)
    with graph.open():
        xs = graph.enter(xs)
        outputs = function(*xs)
        ys = _tensors("function's answer", outputs)
        if v is None and (len(ys) != 1 or ys[0].size != 1):
            got = ", ".join(describe(y) for y in ys)
            raise ValueError(f"function's answer: got {got}, wants one element if there is no v")
        vs = [None] if v is None else _matching("v", v, ys)
        gradients = _gradients(ys, xs, vs, graph.depends(vs))
    gradients = _with_zeros(gradients, xs)
    return _as(outputs, graph.leave(ys)), _as(inputs, graph.leave(gradients))


def jvp(function: Callable, inputs: Tensors, v: Tensors) -> tuple[Tensors, Tensors]:
    """The outputs of `function(*inputs)`, and Jv: how fast they move as the inputs move along `v`.

    vᵀJ is linear in v, so its own gradient is J: two gradients make one tangent (J. Townsend 2017,
    "A new trick for calculating Jacobian vector products").

    >>> import tinygrad_bn as tg
    >>> tg.jvp(lambda x: x * x, tg.tensor([1.0, 2.0]), tg.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    graph, xs = _OwnGraph(), _tensors("inputs", inputs)
    vs = _matching("v", v, xs)
    with graph.open():
        xs = graph.enter(xs)
        outputs = function(*xs)
        ys = _tensors("function's answer", outputs)
        moving = [y for y in ys if y.node is not None]
        us = graph.enter([zeros_like(y) for y in moving])
        gradients = _gradients(moving, xs, us, create_graph=True)
        found = iter(_gradients(gradients, us, vs, graph.depends(vs)))
    tangents = _with_zeros([None if y.node is None else next(found) for y in ys], ys)
    return _as(outputs, graph.leave(ys)), _as(outputs, graph.leave(tangents))


def jacobian(function: Callable, inputs: Tensors) -> Any:
    """J[i][j] = ∂output i/∂input j, of shape output.shape + input.shape; without the index of an
    output or input that is not in a tuple. One backward pass for each element of the outputs.

    >>> import tinygrad_bn as tg
    >>> tg.jacobian(lambda x: x[::-1] * 3.0, tg.tensor([1.0, 2.0]))
    tensor([[0., 3.],
            [3., 0.]])
    """
    graph, xs = _OwnGraph(), _tensors("inputs", inputs)
    with graph.open():
        xs = graph.enter(xs)
        outputs = function(*xs)
        ys = _tensors("function's answer", outputs)
        recorded, blocks = graph.depends(), []
        for y in ys:
            rows = [
                _with_zeros(_gradients([y], xs, [one], recorded, retain_graph=True), xs)
                for one in _one_hots(y)
            ]
            blocks.append([_stacked([row[j] for row in rows], y, x) for j, x in enumerate(xs)])
    return _as(outputs, [_as(inputs, graph.leave(row)) for row in blocks])


def hessian(function: Callable, inputs: Tensors) -> Any:
    """H[i][j] = ∂²output/∂input i ∂input j for a function with one output of one element: the
    Jacobian of its gradient, built as that is.

    >>> import tinygrad_bn as tg
    >>> tg.hessian(lambda x: tg.sum(x * x * x), tg.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """

    def gradient(*xs):
        return vjp(function, xs[0] if isinstance(inputs, Tensor) else xs)[1]

    return jacobian(gradient, inputs)


def _tensors(name: str, value: Any) -> list[Tensor]:
    """One Tensor or several, as a list."""
    tensors = listed(value)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, wants a Tensor, or several")
    return tensors


def _matching(name: str, value: Any, like: Sequence[Tensor]) -> list[Tensor]:
    """One Tensor or several, of the number and shapes of `like`."""
    tensors = _tensors(name, value)
    if [t.shape for t in tensors] != [t.shape for t in like]:
        got, wants = ([describe(t) for t in row] for row in (tensors, like))
        raise ValueError(f"{name}: got {', '.join(got)}, wants {', '.join(wants)}")
    return tensors


def _as(structure: Any, answers: list) -> Any:
    """The only answer if `structure` is one Tensor, else a tuple of all."""
    return tuple(answers) if isinstance(structure, (list, tuple)) else answers[0]


def _gradients(ys, xs, vs, create_graph, retain_graph=None) -> Sequence[Tensor | None]:
    """The gradients at xs for gradients vs at ys; None where nothing depends."""
    pairs = [(y, v) for y, v in zip(ys, vs) if y is not None and y.node is not None]
    if not pairs:
        return [None] * len(xs)
    options = {"retain_graph": retain_graph, "create_graph": create_graph}
    return grad([y for y, _ in pairs], xs, [v for _, v in pairs], allow_unused=True, **options)


def _with_zeros(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [zeros_like(x) if t is None else t for t, x in zip(tensors, like)]


def _one_hots(y: Tensor) -> Iterator[Tensor]:
    """Of the shape of y, for each of its elements: 1 there and else 0."""
    for element in range(y.size):
        one = np.zeros(y.shape, y.dtype)
        one.flat[element] = 1
        yield at_place(to_device(one, y.device))


def _stacked(rows: list[Tensor], y: Tensor, x: Tensor) -> Tensor:
    """The gradients at x of each element of y, as one Tensor."""
    shape = y.shape + x.shape
    if not rows:
        return zeros(shape, dtype=x.dtype, device=x.device)
    return reshape(stack(rows), shape=shape)
