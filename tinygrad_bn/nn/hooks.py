"""Hooks on modules, with PyTorch's semantics: functions called around `forward`, and in backward
when the gradients at a module's outputs, and then those at its inputs, are known.

For the latter, the Tensors that go into the module and come out of it pass through an op that does
nothing but call us on the way back (`transforms.passing`). So the gradient at an input is what came
through this module, and not what its Tensor got from elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..backend import describe
from ..creation import zeros
from ..engine import read_only
from ..graph import Tensor, at_place
from ..recording import recording, told
from ..tensor import HookHandle
from ..transforms import passing


class Hooks:
    """The hooks of one module, each kind in the order of registration."""

    def __init__(self) -> None:
        self.forward_pre: list[Callable] = []
        self.forward: list[Callable] = []
        self.backward_pre: list[Callable] = []
        self.backward: list[Callable] = []

    def add(self, kind: str, hook: Callable) -> HookHandle:
        hooks = getattr(self, kind)
        hooks.append(hook)
        return HookHandle(hooks, hook)

    def call(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """`module.forward(*args, **kwargs)` with all hooks around it."""
        for hook in list(self.forward_pre):
            answer = hook(module, args)
            if answer is not None:
                args = answer if isinstance(answer, tuple) else (answer,)
        crossing = None
        if self.backward_pre or self.backward:
            crossing = _Crossing(module, list(self.backward_pre), list(self.backward))
            args = crossing.enter(args)
        output = module.forward(*args, **kwargs)
        for hook in list(self.forward):
            answer = hook(module, args, output)
            output = output if answer is None else answer
        return output if crossing is None else crossing.leave(output)


class _Crossing:
    """One call of a module: gradients will cross its outputs, and later its inputs."""

    def __init__(self, module: Any, pre_hooks: list[Callable], hooks: list[Callable]) -> None:
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks

    def enter(self, args: tuple) -> tuple:
        self.args = [(a.shape, a.dtype, a.device) if isinstance(a, Tensor) else None for a in args]
        args, self.inputs = _passed(args, self._cross_inputs)
        return tuple(args)

    def leave(self, output: Any) -> Any:
        values = output if isinstance(output, tuple) else (output,)
        if not any(isinstance(value, Tensor) for value in values):
            raise TypeError(
                f"{type(self.module).__name__}: got {type(output).__name__} from forward; with a "
                "backward hook it wants a Tensor, or a tuple with Tensors"
            )
        values, self.outputs = _passed(values, self._cross_outputs)
        self.count = len(values)
        if not isinstance(output, tuple):
            return values[0]
        return getattr(type(output), "_make", tuple)(values)  # a named tuple stays one

    def _cross_outputs(self, gs: Sequence) -> list:
        grads = _spread(gs, self.outputs, [None] * self.count)
        for hook in self.pre_hooks:
            grads = self._replaced(grads, hook(self.module, grads))
        if self.inputs:
            told.get()[self] = grads
        else:  # no gradient will come to the inputs: now is the time
            nothing = (None,) * len(self.args)
            for hook in self.hooks:
                self._replaced(nothing, hook(self.module, nothing, grads))
        return [grads[i] for i in self.outputs]

    def _cross_inputs(self, gs: Sequence) -> Sequence:
        grad_output = told.get().pop(self, None)
        if grad_output is None:  # it did not come through the outputs: a second derivative
            return gs
        # A Tensor to which no gradient comes is shown zeros, as in PyTorch.
        blank = [arg and zeros(arg[0], dtype=arg[1], device=arg[2]) for arg in self.args]
        grads = _spread(gs, self.inputs, blank)
        for hook in self.hooks:
            grads = self._replaced(grads, hook(self.module, grads, grad_output))
        return [grads[i] for i in self.inputs]

    def _replaced(self, grads: tuple, answer: Any) -> tuple:
        """What a hook answered in place of `grads`, checked."""
        if answer is None:
            return grads
        if not isinstance(answer, (tuple, list)) or len(answer) != len(grads):
            raise RuntimeError(
                f"backward hook of {type(self.module).__name__}: it returned "
                f"{type(answer).__name__}, wants a tuple of {len(grads)}, one for each gradient"
            )
        for new, old in zip(answer, grads):
            fits = isinstance(new, Tensor) and old is not None and new.shape == old.shape
            if new is not None and not fits:
                raise RuntimeError(
                    f"backward hook of {type(self.module).__name__}: it returned {describe(new)}, "
                    f"wants {describe(old)}"
                )
        return tuple(answer)


def _passed(values: tuple, back: Callable) -> tuple[list, list[int]]:
    """The values, and which of them pass a place where `back` is called: the Tensors that require a
    gradient, while recording."""
    values, which = list(values), []
    if recording.get():
        which = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if which:
        for i, tensor in zip(which, passing([values[i] for i in which], back=back)):
            values[i] = tensor
    return values, which


def _spread(gs: Sequence, which: list[int], others: list) -> tuple:
    """The gradients as Tensors, at their positions among `others`."""
    for i, g in zip(which, gs):
        if g is not None:
            others[i] = g if isinstance(g, Tensor) else at_place(read_only(g))
    return tuple(others)
