"""`checkpoint`: a graph that keeps less, and computes it again.

The function is called as always, while a journal notes the ops that it records. Then their nodes
give away what they kept for backward, and get a `refill`: the segment that they belong to, and
their number in it. The first rule that asks makes the segment call the function again; each node is
handed what its double kept, and what has been handed out is freed as the pass goes on.
"""

import contextvars
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import recording
from .backend import describe, is_array, to_device
from .graph import Leaf, Node, Tensor, at_place
from .random_numbers import random_state, set_random_state

__all__ = ["checkpoint"]


def checkpoint(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, of which the graph keeps the arguments and what the function
    reads from outside, but nothing in between: backward calls the function again (Chen et al. 2016,
    "Training deep nets with sublinear memory cost"). It may contain checkpoints.

    Gradients of every order, hooks and `retain_grad` are as without. In the second call running
    statistics stay where they are, and the random generator (`manual_seed`) draws the same numbers
    again (threads share it: while one draws inside a checkpoint, no other may draw). The function
    must do the same twice: a RuntimeError tells of another op, shape, option or number, and of
    another array from outside if the first is still there to compare. What it does besides
    (printing, module hooks on the way forward) it does twice.

    >>> import tinygrad_bn as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> tg.checkpoint(lambda x: tg.sum(tg.exp(x) * x), x).backward()
    >>> x.grad
    tensor([ 5.4366, 22.1672])
    """
    segment, nodes = _Segment(function, args, kwargs), {}

    def note(node, arguments, outputs):
        read = [
            None if id(p) in nodes else weakref.ref(a) if p is None and is_array(a) else a
            for a, p in zip(arguments, node.parents)
        ]
        nodes[id(node)] = node
        segment.steps.append(_Step(_did(node, outputs), node.time, read))

    with recording.journal(note):
        answer = function(*args, **kwargs)
    for number, (node, step) in enumerate(zip(nodes.values(), segment.steps)):
        for k, parent in enumerate(node.parents):
            # A place from outside when it was recorded, but a transform has given it back.
            if is_array(step.read[k]) and (parent is None or id(parent) in nodes):
                step.read[k] = None
        if node.refill or any(map(is_array, (*(node.arrays or ()), *(node.outputs or ())))):
            node.arrays = node.outputs = None
            node.refill = segment, number
    return answer


class _Step(NamedTuple):
    """An op that the function recorded: the second call must record the same."""

    did: tuple  # the op's name, its options, the dtype and shape of each output
    time: int
    read: list  # of each argument: None if the function made it; an array that came from outside at
    # a place of the graph; a weak reference to one without (it may be made anew); or a number


def _did(node: Node, outputs: Sequence[Any]) -> tuple:
    kinds = [(output.dtype, output.shape) for output in outputs]
    return node.op.name, node.kwargs, kinds


def _same(now: Any, before: Any) -> bool:
    """Whether two options are equal; of what has no value (a function), whether there is one."""
    if is_array(now) or is_array(before):
        return is_array(now) and is_array(before) and _equal(now, before)
    if isinstance(now, dict) and isinstance(before, dict):
        return now.keys() == before.keys() and all(_same(now[key], before[key]) for key in now)
    if isinstance(now, (tuple, list)) and isinstance(before, (tuple, list)):
        return len(now) == len(before) and all(map(_same, now, before))
    functions = [callable(value) and not isinstance(value, type) for value in (now, before)]
    return all(functions) or now == before


class _Segment:
    """A call of a function, which can be repeated: what it needs for that, and what it must do."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict) -> None:
        self.function, self.arguments = function, _mapped(_at_own_place, (args, kwargs))
        self.random = random_state()
        self.steps: list[_Step] = []
        self.kept: list = []  # of each step after a second call: (arrays, outputs, refill), once
        # The device, NumPy's error state, … are as now; but no statistics move, no journal notes.
        self.context = contextvars.copy_context()
        self.context.run(recording.statistics_move.set, False)
        self.context.run(recording.journals.set, ())

    def take(self, number: int) -> tuple:
        """The arguments and outputs that step `number` keeps for its rules."""
        if not self.kept or self.kept[number] is None:
            self.kept = self.context.copy().run(self._again)  # two threads may both come here
        (arrays, outputs, refill), self.kept[number] = self.kept[number], None
        return (arrays, outputs) if refill is None else refill[0].take(refill[1])

    def _again(self) -> list:
        nodes = []

        def note(node, arguments, outputs):
            self._compare(len(nodes), node, arguments, outputs)
            nodes.append(node)

        args, kwargs = _mapped(_at_own_place, self.arguments)
        before = random_state()
        set_random_state(self.random)
        try:
            with recording.journal(note):
                self.function(*args, **kwargs)
        finally:
            set_random_state(before)
        if len(nodes) != len(self.steps):
            raise _differs(f"{len(nodes)} ops", str(len(self.steps)))
        return [(node.arrays, node.outputs, node.refill) for node in nodes]

    def _compare(self, number, node, arguments, outputs):
        """A RuntimeError unless a step of the second call is that of the first."""
        did, name = _did(node, outputs), node.op.name
        step = self.steps[number] if number < len(self.steps) else None
        if step is None or not _same(did, step.did):
            before = "none" if step is None else _told(*step.did)
            raise _differs(f"{_told(*did)} as op {number}", before)
        if step.time != recording.now:
            recording.raise_if_written(name, arguments, step.time)
        for k, (now, before) in enumerate(zip(arguments, step.read)):
            before = before() if isinstance(before, weakref.ref) else before
            if before is not None and now is not before and not _equal(now, before):
                raise RuntimeError(
                    f"checkpoint: called again by backward, the function gave {name} another "
                    f"argument {k}, {describe(now)}: was a variable that it closes over bound anew "
                    "(by a loop?), or a Tensor given other data?"
                )

    def arrays(self) -> list:
        """All arrays that are held here."""
        found = [array for step in self.steps for array in step.read]
        _mapped(lambda tensor: found.append(tensor.data), self.arguments)
        for arrays, outputs, refill in filter(None, self.kept):
            found += [*(arrays or ()), *(outputs or ()), *(refill[0].arrays() if refill else ())]
        return [array for array in found if is_array(array)]


def _told(name: str, options: dict, kinds: list) -> str:
    given = ", ".join(f"{key}={value}" for key, value in options.items())
    made = ", ".join(f"{dtype}{list(shape)}" for dtype, shape in kinds)
    return f"{name}({given}) -> {made}"


def _differs(now: str, before: str) -> RuntimeError:
    return RuntimeError(
        f"checkpoint: called again by backward, the function recorded {now}, and before {before}; "
        "it must do the same twice"
    )


def _at_own_place(tensor: Tensor) -> Tensor:
    """The array now, and, if the Tensor has a place in a graph, a place that leads nowhere: what
    the function does to its argument the second time (a hook, say) has no effect."""
    return at_place(tensor.data, tensor.node and Leaf())


def _equal(*values: Any) -> bool:
    hosts = [to_device(value, "cpu") if is_array(value) else value for value in values]
    return np.array_equal(*hosts, equal_nan=True)


def _mapped(change: Callable, value: Any) -> Any:
    """`value`, with every Tensor in it changed, however deep in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)([_mapped(change, part) for part in value])
    if type(value) is dict:
        return {key: _mapped(change, part) for key, part in value.items()}
    return value
