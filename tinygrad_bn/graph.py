"""The graph: a Tensor has a place in it, and an op records a node.

The one rule: **an op called on arrays computes; called on Tensors it also records.** So a gradient
rule, which is written with ops, runs at NumPy speed when it is fed arrays, and is itself recorded
when it is fed Tensors: that gives derivatives of every order. `engine.py` walks the graph back.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import recording
from .backend import array_module, as_array, describe, is_array, on_device_of
from .recording import Trace, raise_if_written


class Tensor:
    """An array, and its place in the graph: output number `index` of `node`.

    `node` is a Leaf for a Tensor that the user made and wants a gradient of, a Node for the result
    of an op on such, and None for a constant. Operators and methods are added in `tensor.py`.
    """

    __slots__ = ("data", "node", "index", "name", "__weakref__")

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = as_array(data)
        self.node = new_leaf(self.data) if requires_grad else None
        self.index = 0
        self.name = None


def at_place(data: Any, node: "Node | Leaf | None" = None, index: int = 0) -> Tensor:
    """A Tensor at a place of the graph (without a node: a constant)."""
    tensor = Tensor.__new__(Tensor)
    tensor.data = np.asarray(data) if isinstance(data, np.generic) else data
    tensor.node, tensor.index, tensor.name = node, index, None
    return tensor


class Leaf:
    """An end of the graph: here the gradient of a Tensor that the user made arrives and stays."""

    __slots__ = ("grads", "hooks")
    parents, many = (), 0  # it comes from nothing, and is one Tensor

    def __init__(self) -> None:
        self.grads, self.hooks = {}, None  # as of a Node; its only output is number 0


def new_leaf(array: Any) -> Leaf:
    if array.dtype.kind != "f":
        raise TypeError(f"requires_grad: got a Tensor of {array.dtype}, wants floating point")
    return Leaf()


_NUMBER = (float, int, bool, np.generic)  # arguments without a shape


class Like:
    """What a gradient rule may know of an argument that was not kept."""

    __slots__ = ("shape", "dtype")

    def __init__(self, array: Any) -> None:
        self.shape, self.dtype = getattr(array, "shape", ()), getattr(array, "dtype", None)


class Node:
    """One recorded op: where its arguments came from, and what its gradient rules will read.

    It holds arrays and no Tensor: giving a Tensor other data later changes no gradient. (What is
    written into the array itself, behind the library's back, does.)
    """

    __slots__ = (
        "op",
        "parents",  # the Node or Leaf of each argument; None for a constant
        "indices",  # which output of its parent each argument is
        "arrays",  # the arguments that the rules read, None for others; None when freed
        "likes",  # shape and dtype of each argument; None if all are as the output's
        "outputs",  # the outputs that the rules read
        "refill",  # None; or (segment, number): segment.take(number) computes both again
        "many",  # the number of outputs if the op returned a tuple, else 0
        "kwargs",
        "time",  # when it was recorded, on the clock of writes
        "hooks",  # output number -> functions of the gradient
        "grads",  # output number -> gradient, where retain_grad asks for it; else None
        "trace",
    )


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
            raise TypeError(
                f"{self.name}: wants a rule (g, out, {names}) for each of its arguments"
            )
        self._plans: dict = {}

    def __repr__(self) -> str:
        return f"<op {self.name} {self.__signature__}>"

    def __call__(self, *args, **kwargs):
        if len(args) != self.arity:
            args, kwargs = self._bind(args, kwargs)
        for arg in args:
            if isinstance(arg, (Tensor, list, tuple)):
                break
        else:
            return self._compute(args, kwargs)
        arrays, parents, indices, plain = [], [], [], True
        for arg in args:
            if isinstance(arg, Tensor):
                plain = False
                arrays.append(arg.data)
                parents.append(arg.node)
                indices.append(arg.index)
            else:
                known = type(arg) is np.ndarray or arg is None or isinstance(arg, _NUMBER)
                arrays.append(arg if known or is_array(arg) else self._converted(arg))
                parents.append(None)
                indices.append(0)
        for k in self.ruleless:
            parents[k] = None  # no gradient can come back to it
        out = self._compute(arrays, kwargs)
        if plain:
            return out
        if not any(parents) or not (self.vjps or self.joint) or not recording.recording.get():
            return tuple(map(at_place, out)) if type(out) is tuple else at_place(out)
        return self._record(args, arrays, parents, indices, out, kwargs)

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

    def _compute(self, arrays, kwargs):
        try:
            xp = array_module(arrays)
            if xp is np:
                return self.forward(np, *arrays, **kwargs)
            with on_device_of(next(filter(is_array, arrays))):
                return self.forward(xp, *arrays, **kwargs)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            kind = next((k for k in (IndexError, ValueError) if isinstance(error, k)), TypeError)
            raise kind(f"{self.name}({', '.join(map(describe, arrays))}): {error}") from error

    def _record(self, args, arrays, parents, indices, out, kwargs):
        """Make the node, with what the needed rules read and nothing else."""
        needs = tuple([parent is not None for parent in parents])
        if needs not in self._plans:
            self._plans[needs] = self._plan(needs)
        keeps_output, keeps = self._plans[needs]
        node = Node()
        node.op, node.parents, node.indices, node.kwargs = self, parents, indices, kwargs
        node.arrays = [a if k else None for a, k in zip(arrays, keeps)]
        node.likes = node.outputs = node.refill = node.hooks = node.grads = None
        node.time, node.trace = recording.now, None
        node.many = len(out) if type(out) is tuple else 0
        outs = out if node.many else (out,)
        # NumPy returns scalars where one would expect arrays without axes.
        outs = tuple([np.asarray(o) if isinstance(o, np.generic) else o for o in outs])
        if keeps_output:
            kept = self.keeps_outputs or (True,) * len(outs)
            node.outputs = [o if k else None for o, k in zip(outs, kept)]
        shape, dtype = outs[0].shape, outs[0].dtype
        for a in arrays:
            if not isinstance(a, _NUMBER) and (
                node.many or a is None or a.shape != shape or a.dtype is not dtype
            ):
                node.likes = [None if a is None else Like(a) for a in arrays]
                break
        scopes = recording.scopes.get()
        if scopes is not None:
            names = tuple([getattr(a, "name", None) for a in args])
            node.trace = Trace(tuple(arrays), names, outs, scopes)
        if any([o.dtype.kind not in "fiub" for o in outs]):
            raise TypeError(f"{self.name}: its result is {describe(outs[0])}, wants real numbers")
        for note in recording.journals.get():
            note(node, arrays, outs)
        # A result that is not floating point (of astype, say) is where gradients end.
        places = [node if o.dtype.kind == "f" else None for o in outs]
        results = [at_place(o, place, i) for i, (o, place) in enumerate(zip(outs, places))]
        for result in results:
            o = result.data
            if type(o) is np.ndarray and all([o is not a for a in arrays]):
                o.setflags(False)  # (write=False) a rule may read it: nobody writes into it
        return tuple(results) if node.many else results[0]

    def _plan(self, needs: tuple) -> tuple:
        """Whether the needed rules read the outputs, and which of the arguments they read: those
        whose parameter's name does not start with an underscore."""
        rules = [self.joint] if self.joint else [r for r, n in zip(self.vjps, needs) if n]
        keeps_output, keeps = False, [False] * len(needs)
        for rule in rules:
            _, out, *names = inspect.signature(rule).parameters
            names = names[:1] * len(needs) if self.variadic else names[: len(needs)]
            keeps_output |= not out.startswith("_")
            keeps = [k or not name.startswith("_") for k, name in zip(keeps, names)]
        return keeps_output, tuple(keeps)

    def gradients(self, node: Node, g: Any, needs: Sequence[bool], create_graph: bool) -> Sequence:
        """What the rules make of `g`, the gradient at the output (a list, if there are many).

        With `create_graph` they are fed Tensors, at the places where the kept values came from.
        """
        likes, arguments, outputs = node.likes, node.arrays, node.outputs
        if arguments is None:
            if node.refill is None:
                raise RuntimeError(
                    f"{self.name}: backward ran through this graph before and freed it; "
                    "to run it again, give the first run retain_graph=True"
                )
            segment, number = node.refill
            arguments, outputs = segment.take(number)
        if node.time != recording.now:
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
        if likes is None:
            likes = [Like(g)] * len(arguments)
        arguments = [like if a is None else a for a, like in zip(arguments, likes)]
        out = outputs if node.many or outputs is None else outputs[0]
        if self.joint:
            gradients = self.joint(g, out, *arguments, needs=needs, **node.kwargs)
            if len(gradients) != len(needs):
                raise RuntimeError(
                    f"{self.name}: its joint rule returned {len(gradients)} gradients, "
                    f"wants {len(needs)}, one an argument"
                )
            return gradients
        return [
            rule(g, out, *arguments, **node.kwargs) if need else None
            for rule, need in zip(self.vjps, needs)
        ]


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
