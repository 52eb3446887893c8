"""Optimizers over one flat array of parameters and one of gradients.

A step over a network's parameters one by one costs more than its backward pass when layers are
small. Laid end to end in one array, they are stepped by a few operations, however many they are.
"""

import copy
import itertools
import math
from collections.abc import Iterable

import numpy as np

from .backend import array_module, device_of, on_device_of
from .graph import Tensor, describe
from .recording import mark_written, write

__all__ = ["SGD"]


class Flat:
    """Parameters of one dtype and device, end to end in `data`, of which their arrays become views;
    an array `grad` for their gradients, filled when a step is made; and one for velocities."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        edges = [0, *itertools.accumulate(p.size for p in parameters)]
        self.slices = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
        with on_device_of(parameters[0].data):
            self.xp = array_module([parameters[0].data])
            self.data, self.grad, self.velocity = (
                self.xp.zeros(edges[-1], parameters[0].dtype) for _ in range(3)
            )
        self.views = [self.data[s].reshape(p.shape) for s, p in zip(self.slices, parameters)]
        self.gather()

    def __deepcopy__(self, memo: dict) -> "Flat":
        twin = Flat([copy.deepcopy(p, memo) for p in self.parameters])
        twin.velocity[...] = self.velocity
        return twin

    def gather(self) -> list[slice]:
        """Bring in the gradients, and parameters whose array was replaced. Returns where those with
        a gradient stand in the flat arrays: slices, neighbours joined."""
        runs: list[list] = []  # [start, stop, gradients]
        for p, where, view in zip(self.parameters, self.slices, self.views):
            if p.data is not view:
                if (p.shape, p.dtype, p.device) != (view.shape, view.dtype, device_of(view)):
                    raise RuntimeError(
                        f"a parameter became {describe(p.data)} after the optimizer was made for "
                        f"{describe(view)}; make the optimizer after moving the model"
                    )
                write(view, p.data)
                p.data = view
            gradient = p.grad
            if gradient is None:
                continue  # frozen, or unused in the loss
            if not runs or runs[-1][1] != where.start:
                runs.append([where.start, where.start, []])
            runs[-1][1] = where.stop
            runs[-1][2].append(gradient.data.ravel())
        with on_device_of(self.data):
            for start, stop, gradients in runs:
                self.xp.concatenate(gradients, out=self.grad[start:stop])
        return [slice(start, stop) for start, stop, _ in runs]


class SGD:
    """Stochastic gradient descent, as PyTorch defines it.

    g ← ∂ℓ/∂p + weight_decay · p;  v ← momentum · v + g;  p ← p − lr · v (nesterov: lr · (g +
    momentum · v)). A parameter without a gradient (frozen, or unused in the loss) stays as it is.

    >>> import tinygrad_bn as tg
    >>> p = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([p], lr=0.5)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not (isinstance(value, (int, float, np.number)) and 0 <= value < math.inf):
                raise ValueError(f"{name}: got {value!r}, wants a number ≥ 0")
        if nesterov and not momentum:
            raise ValueError("nesterov: wants a momentum above 0")
        self.lr, self.momentum = lr, momentum
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self.flats = _flatten(params)

    def zero_grad(self) -> None:
        """Forget all gradients (they become None, not 0)."""
        for flat in self.flats:
            for p in flat.parameters:
                p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        gathered = [flat.gather() for flat in self.flats]  # which may raise: before all else
        for flat, runs in zip(self.flats, gathered):
            for run in runs:
                with on_device_of(flat.data):
                    self._move(flat.data[run], flat.grad[run], flat.velocity[run])
                mark_written(flat.data[run])

    def _move(self, p, g, v) -> None:
        """One step of the parameters p with the gradients g, in place; v are their velocities."""
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            v *= self.momentum
            v += g
            g = g + self.momentum * v if self.nesterov else v
        p -= self.lr * g


def _flatten(params: Iterable[Tensor]) -> list[Flat]:
    """The parameters by dtype and device, checked."""
    kinds: dict[tuple, list[Tensor]] = {}
    seen = set()
    for k, p in enumerate(params):
        if not isinstance(p, Tensor) or not p.is_leaf or p.dtype.kind != "f":
            what = describe(p.data) if isinstance(p, Tensor) else type(p).__name__
            raise TypeError(f"params[{k}]: got {what}, wants a floating-point leaf Tensor")
        if id(p) in seen:
            raise ValueError(f"params[{k}]: the same Tensor is in the list twice")
        seen.add(id(p))
        kinds.setdefault((p.device, p.dtype), []).append(p)
    if not kinds:
        raise ValueError("params: got none, wants at least one Tensor")
    return [Flat(parameters) for parameters in kinds.values()]
