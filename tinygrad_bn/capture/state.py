"""What a captured step reads and moves, and how it is put back."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..backend import is_array, to_device
from ..graph import Leaf, Tensor
from ..nn import Module
from ..optim import Optimizer
from ..random_numbers import random_state, set_random_state
from .fitting import CaptureError, kind_of, tensors


class State:
    """The Modules, Optimizers and Tensors that a step reads and moves."""

    def __init__(self, state: Any) -> None:
        one = isinstance(state, (Module, Optimizer, Tensor)) or is_array(state)
        parts = [state] if one or not isinstance(state, Iterable) else state
        self.modules: list[Module] = []
        self.optimizers: list[Optimizer] = []
        self.tensors: dict[int, tuple[str, Tensor]] = {}  # each once, with a name
        for k, part in enumerate(parts):
            if isinstance(part, Module):
                self.modules += part.modules()
                named = [*part.named_parameters(), *part.named_buffers()]
            elif isinstance(part, Optimizer):
                self.optimizers.append(part)
                params = [p for group in part.param_groups for p in group["params"]]
                named = [(f"parameter {n}", p) for n, p in enumerate(params)]
            elif isinstance(part, Tensor) and part.is_leaf:
                named = [("Tensor", part)]
            else:
                made = ", the result of an op" if isinstance(part, Tensor) else ""
                wants = "Modules, Optimizers and leaf Tensors"
                raise TypeError(f"state[{k}]: got {kind_of(part)}{made}, wants {wants}")
            for name, tensor in named:
                self.tensors.setdefault(id(tensor), (f"state[{k}], {name}", tensor))

    def arrays(self) -> list:
        found = [tensor.data for _, tensor in self.tensors.values()]
        return found + [array for optimizer in self.optimizers for array in optimizer.arrays()]

    def on_host(self, answer: Any = None) -> dict[str, np.ndarray]:
        """Copies of all that a replay must make as the step does, by name."""
        named = {name: tensor.data for name, tensor in self.tensors.values()}
        for k, optimizer in enumerate(self.optimizers):
            for n, array in enumerate(optimizer.arrays()):
                named[f"{type(optimizer).__name__} {k}, array {n}"] = array
        for name, tensor in self.tensors.values():
            if tensor.node is not None and tensor.node.gradient is not None:
                named[f"the gradient of {name}"] = tensor.node.gradient.data
        named |= {f"answer {n}": tensor.data for n, tensor in enumerate(tensors(answer))}
        return {name: to_device(array, "cpu") for name, array in named.items()}


_UNTOUCHED = 0  # for the False of a leaf's `is_at_home`, which a step writes that clears a gradient


class Snapshot:
    """What Python knows of a state at one moment, beside the values in its arrays."""

    def __init__(self, state: State) -> None:
        self.members = [
            (members, name, value)
            for module in state.modules
            for members in (module._modules, module._parameters, module._buffers)
            for name, value in members.items()
        ]
        self.modes = [(module, module.training) for module in state.modules]
        self.tensors = [(name, t, t.data, t.node) for name, t in state.tensors.values()]
        leaves = [leaf for *_, leaf in self.tensors if leaf is not None]
        self.gradients = [(leaf, leaf.gradient, leaf.is_at_home) for leaf in leaves]
        self.optimizers = [
            (
                optimizer,
                [(group, dict(group), flat, [*flat.steps]) for group, flat in optimizer.flats()],
            )
            for optimizer in state.optimizers
        ]
        self.random = random_state()

    def restore(self) -> None:
        """Make it so again."""
        for members, name, value in self.members:
            members[name] = value
        for module, training in self.modes:
            module.training = training
        for _, tensor, array, leaf in self.tensors:
            tensor.data, tensor.node = array, leaf
        for leaf, gradient, is_at_home in self.gradients:
            leaf.gradient, leaf.is_at_home = gradient, is_at_home
        for _, parts in self.optimizers:
            for group, options, flat, steps in parts:
                group.update(options)
                flat.steps[:] = steps
        set_random_state(self.random)

    def forget_gradients(self) -> None:
        """As when all were cleared before a step."""
        for leaf, _, _ in self.gradients:
            leaf.gradient, leaf.is_at_home = None, _UNTOUCHED

    def new_gradients(self) -> list[tuple[Leaf, Tensor | None, bool]]:
        """The leaves whose gradients were set or cleared since, and what is there now."""
        leaves = [leaf for leaf, _, _ in self.gradients if leaf.is_at_home is not _UNTOUCHED]
        return [(leaf, leaf.gradient, leaf.is_at_home) for leaf in leaves]

    def raise_if_changed(self, when: str, but_for: Sequence[str] = ()) -> None:
        """A CaptureError if something was replaced, or an option of an optimizer changed."""
        for name, tensor, array, leaf in self.tensors:
            if tensor.data is not array:
                raise CaptureError(f"{name}: its array was replaced {when}")
            if tensor.node is not leaf:
                raise CaptureError(f"{name}: requires_grad was changed {when}")
        for members, name, value in self.members:
            if members.get(name) is not value:
                raise CaptureError(f"{name}: another was put into its module {when}")
        for module, training in self.modes:
            if module.training is not training:
                raise CaptureError(f"{type(module).__name__}: its mode was changed {when}")
        for optimizer, parts in self.optimizers:
            kind, flats = type(optimizer).__name__, optimizer.flats()
            if [flat for _, flat in flats] != [flat for _, _, flat, _ in parts]:
                raise CaptureError(f"{kind}: its parameters were changed {when}")
            for group, options, _, _ in parts:
                for name, value in options.items():
                    now = group.get(name)
                    if name not in but_for and now is not value and now != value:
                        raise CaptureError(f"{kind}: {name} was changed {when}: {value} to {now}")
