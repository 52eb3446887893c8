"""Primitive ops: a forward function on arrays, and gradient rules that are written with ops.

The one rule: **an op called on arrays computes; called on Tensors it also records.** So a gradient
rule, which is written with ops, runs at NumPy speed when it is fed arrays, and is itself recorded
when it is fed Tensors: that gives derivatives of every order.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import recording
from .backend import array_module, as_array, describe, is_array, is_floating, on_device_of
from .graph import Like, Node, Tensor, at_place
from .recording import Trace, journals, raise_if_written, scopes, ticks

_KNOWN = {np.ndarray, float, int, bool, type(None)}  # what most arguments but Tensors are
# What a forward function may raise. The last three stay what they are, with the op's name.
_REFUSALS = TypeError, AttributeError, IndexError, ValueError, MemoryError


class Plan(NamedTuple):
    """What a node keeps, when some of its op's arguments have a place in the graph."""

    needs: tuple[bool, ...]  # for which arguments gradients are wanted
    keeps: tuple[bool, ...]  # which arguments their rules read; () for none
    keeps_outputs: bool
    first: tuple[int, ...]  # the indices of arguments that are all output number 0
    is_wanted: bool  # whether any gradient is


class Op:
    """A primitive: a forward function on arrays, and its gradient rules, written with ops."""

    def __init__(self, forward: Callable, label: str, vjps, joint, outputs, variadic: bool) -> None:
        functools.update_wrapper(self, forward)
        self.forward, self.label, self.vjps, self.joint = forward, label, vjps, joint
        self.name, self.variadic = forward.__name__.lstrip("_"), variadic
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        self.arity = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        anyhow = [p.replace(kind=p.POSITIONAL_OR_KEYWORD) for p in parameters]
        self.__signature__ = inspect.Signature(anyhow)
        self.keeps_outputs = outputs and [not name.startswith("_") for name in outputs]
        self.ruleless = [k for k, rule in enumerate(vjps) if rule is None]
        reads = [len(inspect.signature(rule).parameters) for rule in vjps if rule]
        if vjps and (len(vjps) != self.arity or any(n < 2 + self.arity for n in reads)):
            names = ", ".join(p.name for p in parameters[: self.arity])
            wants = f"wants a rule (g, out, {names}) for each of its arguments"
            raise TypeError(f"{self.name}: {wants}")
        self._plans: dict = {}

    def __repr__(self) -> str:
        return f"<op {self.name} {self.__signature__}>"

    def __call__(self, *args, **kwargs):
        if len(args) != self.arity:
            args, kwargs = self._bind(args, kwargs)
        for arg in args:
            if type(arg) not in _KNOWN:
                break
        else:
            try:
                return self.forward(np, *args, **kwargs)
            except _REFUSALS as error:
                raise self._refusal(args, error) from error
        arrays, parents, indices, places, plain, number = [], [], [], 1, True, False
        for arg in args:
            places += places  # bit by bit, which arguments have a place in the graph
            if isinstance(arg, Tensor):
                plain = False
                arrays.append(arg.data)
                parents.append(node := arg.node)
                indices.append(arg.index)
                if node is not None:
                    places += 1
            else:
                known = type(arg) in _KNOWN or is_array(arg) or isinstance(arg, np.generic)
                arrays.append(arg if known else self._converted(arg))
                parents.append(None)
                indices.append(0)
                number = number or type(arg) is float
        arrays = _beside_bfloat16(arrays) if number else arrays
        try:
            if (xp := array_module(arrays)) is np:
                out = self.forward(np, *arrays, **kwargs)
            else:
                with on_device_of(next(filter(is_array, arrays))):
                    out = self.forward(xp, *arrays, **kwargs)
        except _REFUSALS as error:
            raise self._refusal(arrays, error) from error
        if plain:
            return out
        plan = self._plans.get(places) or self._plan(places)
        if plan.is_wanted and recording.recording.get():
            return self._record(plan, args, arrays, parents, indices, out, kwargs)
        return tuple(map(at_place, out)) if type(out) is tuple else at_place(out)

    def _refusal(self, arrays, error):
        kind = next((kind for kind in _REFUSALS[2:] if isinstance(error, kind)), TypeError)
        return kind(f"{self.name}({', '.join(map(describe, arrays))}): {error}")

    def _converted(self, arg):
        """A list, or an array of another library, as an array."""
        try:
            return as_array(arg)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def _bind(self, args, kwargs):
        """Arguments given by name and options given by position, put where they belong."""
        try:
            values = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        names = list(self.__signature__.parameters.items())
        if self.variadic:
            return tuple(values.pop(names[0][0])), values
        return [values.pop(name, p.default) for name, p in names[: self.arity]], values

    def _record(self, plan, args, arrays, parents, indices, out, kwargs):
        """Make the node, with what the needed rules read and nothing else."""
        needs, keeps, keeps_outputs, first, _ = plan
        for k in self.ruleless:
            parents[k] = None  # no gradient can come back to it
        node = Node()
        node.op, node.needs, node.parents, node.kwargs = self, needs, parents, kwargs
        node.indices = indices if any(indices) else first
        # The garbage collector soon loses sight of a tuple of arrays, as of no list.
        node.arrays = keeps and tuple([a if keep else None for a, keep in zip(arrays, keeps)])
        node.time, node.likes, node.outputs = next(ticks), None, None
        if type(out) is tuple:
            node.many, alike = len(out), False
            given = {*map(id, arrays)}
            result = tuple([self._result(o, node, k, id(o) in given) for k, o in enumerate(out)])
        else:
            node.many, alike, is_argument, dtype, shape = 0, True, False, out.dtype, out.shape
            for a in arrays:
                if a is out:
                    is_argument = True
                elif (kind := type(a)) is not float and (
                    kind is not np.ndarray or a.dtype is not dtype or a.shape != shape
                ):
                    alike = False
            result = self._result(out, node, 0, is_argument)
        if not alike:
            node.likes = [None if a is None else Like(a) for a in arrays]
        scope, notes = scopes.get(), journals.get()
        if keeps_outputs or notes or scope is not None:
            outs = [r.data for r in (result if node.many else (result,))]
            if keeps_outputs:
                wanted = self.keeps_outputs
                node.outputs = [o if w else None for o, w in zip(outs, wanted)] if wanted else outs
            if scope is not None:
                names = tuple([getattr(a, "name", None) for a in args])
                node.trace = Trace(tuple(arrays), names, tuple(outs), scope)
            for note in notes:
                note(node, arrays, outs)
        return result

    def _result(self, array, node, index, is_argument):
        """Output number `index` of a node as a Tensor."""
        result = at_place(array, node, index)
        array = result.data
        if array.dtype.kind != "f" and not is_floating(array.dtype):
            if array.dtype.kind not in "iub":
                raise TypeError(f"{self.name}: its result is {describe(array)}, wants real numbers")
            result.node = None  # a result of integers (of astype, say) is where gradients end
        if type(array) is np.ndarray and not is_argument:
            array.setflags(False)  # (write=False) a rule may read it: nobody writes into it
        return result

    def _plan(self, places: int) -> Plan:
        """Which arguments the needed rules read: those whose parameter's name does not start with
        an underscore. `places`: a bit for each argument, after a 1."""
        bits = [bit == "1" for bit in bin(places)[3:]]
        has = self.vjps or [self.joint] * len(bits)
        needs = tuple([bit and rule is not None for bit, rule in zip(bits, has)])
        keeps_outputs, keeps = False, [False] * len(needs)
        for rule in {rule for rule, need in zip(has, needs) if need}:
            _, out, *names = inspect.signature(rule).parameters
            names = names[:1] * len(needs) if self.variadic else names[: len(needs)]
            keeps_outputs |= not out.startswith("_")
            keeps = [k or not name.startswith("_") for k, name in zip(keeps, names)]
        kept = tuple(keeps) if any(keeps) else ()
        self._plans[places] = plan = Plan(needs, kept, keeps_outputs, (0,) * len(needs), any(needs))
        return plan

    def gradients(self, node: Node, g: Any, needs: Sequence[bool], create_graph: bool) -> Sequence:
        """What the rules make of `g`, the gradient at the output (a list, if there are many).

        With `create_graph` they are fed Tensors, at the places where the kept values came from.
        """
        likes, arguments, outputs = node.likes, node.arrays, node.outputs
        if arguments is None:
            if node.refill is None:
                what = f"{self.name}: backward ran through this graph before and freed it"
                raise RuntimeError(f"{what}; to run it again, give the first run retain_graph=True")
            segment, number = node.refill
            arguments, outputs = segment.take(number)
        if node.time < recording.now:
            raise_if_written(self.name, (*arguments, *(outputs or ())), node.time)
        if create_graph:
            arguments = [
                a if a is None or parent is None else at_place(a, parent, i)
                for a, parent, i in zip(arguments, node.parents, node.indices)
            ]
            for tensor, name in zip(arguments, node.trace.input_names if node.trace else ()):
                if isinstance(tensor, Tensor):
                    tensor.name = name
            if outputs is not None:
                outputs = [o if o is None else at_place(o, node, i) for i, o in enumerate(outputs)]
        # An argument that was not kept is seen as its shape and dtype; without `likes`, those of g.
        likes = [Like(g)] * len(needs) if likes is None else likes
        if arguments:
            arguments = [like if a is None else a for a, like in zip(arguments, likes)]
        else:
            arguments = likes
        out = outputs if node.many or outputs is None else outputs[0]
        if self.joint:
            gradients = self.joint(g, out, *arguments, needs=needs, **node.kwargs)
            if len(gradients) != len(needs):
                what = f"{self.name}: its joint rule returned {len(gradients)} gradients"
                raise RuntimeError(f"{what}, wants {len(needs)}, one an argument")
            return gradients
        pairs = zip(self.vjps, needs)
        return [rule(g, out, *arguments, **node.kwargs) if need else None for rule, need in pairs]


def _beside_bfloat16(values: list) -> list:
    """Python's floats as bfloat16 if an array is: NumPy and CuPy would make float32 of it, though
    such a number widens no other dtype."""
    kind = next((v.dtype.type for v in values if is_array(v) and v.dtype.char == "E"), None)
    return values if kind is None else [kind(v) if type(v) is float else v for v in values]


def op(label: str, *vjps, joint=None, outputs=None, variadic=False) -> Callable[[Callable], Op]:
    """Make a primitive of a forward function `f(xp, *arrays, **options)`, its label in pictures and
    its gradient rules. This is how every op of the library is made, and how a user makes one.

    `vjps`: for each array argument a rule `(g, out, *arrays, **options)`, which gives the gradient
    at that argument for the gradient `g` at the output `out`; None where there is none. `joint`:
    instead, one rule for all, `(g, out, *arrays, needs, **options)`, which returns one gradient an
    argument (None where `needs` is false). A parameter with a leading underscore is not kept for
    backward: the rule sees its shape and dtype. The engine sums a gradient back to the shape of an
    argument that was broadcast, and casts it to its dtype. If the op returns a tuple, `outputs`
    names its members (underscore: not kept) and `g` and `out` are lists. `variadic`: the op takes a
    list of arrays. A rule is given the options that the call gave: repeat defaults in it.

    >>> import tinygrad_bn as tg
    >>> @tg.op("x³", lambda g, _out, x: g * 3 * x * x)
    ... def cube(xp, x):
    ...     return x * x * x
    >>> x = tg.tensor(2.0, requires_grad=True)
    >>> tg.grad(cube(x), x)
    (tensor(12.),)
    """
    if not isinstance(label, str):
        raise TypeError(f'op: got {type(label).__name__} as its label, wants text: @op("×", …)')
    return lambda forward: Op(forward, label, vjps, joint, outputs, variadic)
