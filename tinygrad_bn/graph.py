"""The graph: a Tensor has a place in it, a Node is an op that was recorded, a Leaf where it ends.

`primitive.py` says how an op records its node, `engine.py` how backward walks the graph.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .backend import as_array, copied, is_floating, on_device_of


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
    tensor = _new(Tensor)
    tensor.data = np.asarray(data) if isinstance(data, np.generic) else data
    tensor.node, tensor.index, tensor.name = node, index, None
    return tensor


_new = object.__new__


class Leaf:
    """An end of the graph: here the gradient of a Tensor that the user made arrives and stays.

    An optimizer lends it a `home`, a part of the array in which all its gradients lie side by side.
    There the gradient is as long as nobody asks for it; who does gets a Tensor of his own.
    """

    __slots__ = ("gradient", "hooks", "home", "is_at_home")
    # As of a Node: it comes from nothing, is one Tensor, older than any node, and keeps a gradient.
    parents, needs, many, grads, time, trace = (), (), 0, (), -1, None

    def __init__(self) -> None:
        self.gradient, self.hooks, self.home, self.is_at_home = None, None, None, False

    def add_grad(self, _index: int, g: Any) -> Any:
        """Add to the gradient, in memory of its own: `g` may be a view, or seen elsewhere.
        Returns a home on a GPU into which the caller is to copy g, with others at once."""
        home = self.home
        if self.is_at_home:
            with on_device_of(home):
                home += g
        elif self.gradient is not None:
            with on_device_of(g):
                self.gradient = at_place(self.gradient.data + g)
        elif home is not None and home.dtype is g.dtype and home.shape == g.shape:
            self.is_at_home = True
            if type(home) is not np.ndarray:
                return home
            home[...] = g
        else:
            self.gradient = at_place(copied(g))
        return None

    def grad(self, _index: int) -> Tensor | None:
        """The gradient, which the caller may keep and change: so it leaves home."""
        if self.is_at_home:
            self.set_grad(0, at_place(copied(self.home)))
        return self.gradient

    def set_grad(self, _index: int, gradient: Tensor | None) -> None:
        self.gradient, self.is_at_home = gradient, False


def new_leaf(array: Any) -> Leaf:
    if not is_floating(array.dtype):
        raise TypeError(f"requires_grad: got a Tensor of {array.dtype}, wants floating point")
    return Leaf()


class Like:
    """What a gradient rule may know of an argument that was not kept."""

    __slots__ = ("shape", "dtype")

    def __init__(self, array: Any) -> None:
        known = hasattr(array, "shape")  # it may be a number of Python's
        self.shape, self.dtype = (array.shape, array.dtype) if known else ((), None)


class Node:
    """One recorded op: where its arguments came from, and what its gradient rules will read.

    It holds arrays and no Tensor: giving a Tensor other data later changes no gradient. (What is
    written into the array itself, behind the library's back, does.)

    needs: for which arguments it gives gradients, those with a parent
    parents: the Node or Leaf of each argument; None for a constant
    indices: which output of its parent each argument is
    arrays: the arguments that the rules read, None for others (() if none); None: freed
    likes: shape and dtype of each argument; None if all are as the output's
    outputs: the outputs that the rules read
    many: the number of outputs if the op returned a tuple, else 0
    time: when it was recorded, after its parents
    """

    __slots__ = ("op", "needs", "parents", "indices", "arrays", "likes", "outputs", "many")
    __slots__ += ("kwargs", "time", "__dict__")  # this is empty, but for what few nodes have:
    refill = None  # or (segment, number): segment.take(number) computes arrays and outputs again
    hooks = None  # output number -> functions of the gradient
    grads = None  # output number -> gradient, where retain_grad asks for it
    trace = None

    def add_grad(self, index: int, g: Any) -> None:
        """Add to the gradient that is kept for an output, in memory of its own."""
        old = self.grads.get(index)
        with on_device_of(g):
            self.grads[index] = at_place(copied(g) if old is None else old.data + g)

    def grad(self, index: int) -> Tensor | None:
        """The gradient that is kept for an output."""
        return None if self.grads is None else self.grads.get(index)

    def set_grad(self, index: int, gradient: Tensor | None) -> None:
        if self.grads is not None and index in self.grads:
            self.grads[index] = gradient

    def come_from(self, parents: Sequence, indices: Sequence[int]) -> None:
        """Have these parents, output number `indices` of them. They must be older."""
        self.parents, self.indices = parents, indices
        self.needs = tuple([parent is not None for parent in parents])


def toposort(roots: Iterable, parents: Callable[[Any], Iterable]) -> list:
    """All that `roots` depend on, each before its parents. Knows nothing of Tensors; no recursion.

    >>> toposort(["c"], {"a": [], "b": ["a", "a"], "c": ["b", "a"]}.get)
    ['c', 'b', 'a']
    """
    order, seen = [], set()
    for root in roots:
        stack = [] if id(root) in seen else [(root, iter(parents(root)))]
        seen.add(id(root))
        while stack:
            node, rest = stack[-1]
            for parent in rest:
                if id(parent) not in seen:
                    seen.add(id(parent))
                    stack.append((parent, iter(parents(parent))))
                    break
            else:
                order.append(node)
                stack.pop()
    order.reverse()
    return order


def parents(node: Node | Leaf) -> list:
    """The parents of a node in the graph."""
    return [parent for parent in node.parents if parent is not None]


def youngest_first(roots: Iterable) -> list:
    """The nodes that `roots` depend on. Parents are older, so this order is topological; and
    sorting by age is quicker than `toposort`, which serves graphs whose nodes have no age."""
    found = set(roots)
    order = list(found)
    for node in order:  # which grows
        for parent in node.parents:
            if parent is not None and parent not in found:
                found.add(parent)
                order.append(parent)
    return sorted(order, key=operator.attrgetter("time"), reverse=True)
