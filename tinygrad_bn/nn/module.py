"""Module: parameters, buffers and submodules by name, and the state dict."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import recording
from ..backend import as_array, canonical_device, copied, describe, to_device
from ..graph import Tensor, at_place
from ..tensor import HookHandle
from .hooks import Hooks


class Parameter(Tensor):
    """A Tensor that a module learns: it requires a gradient unless told otherwise."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)
        if self.device == "cpu" and not self.data.flags.writeable:
            self.data = self.data.copy()  # it will be trained


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def _hint(value: Any) -> str:
    """What to do with an array that `np.savez` saved: it keeps bfloat16 as bytes without a name."""
    is_bytes = getattr(value, "dtype", None) == np.dtype("V2")
    return " (if np.savez saved it as bfloat16, give its .view(tg.bfloat16))" if is_bytes else ""


class Module:
    """A layer or network: set Parameters and Modules as attributes, and define `forward`.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> Scale()(tg.tensor([3.0]))
    tensor([6.], op=mul)
    """

    _module_hooks: Hooks | None = None

    def __init__(self) -> None:
        self.__dict__.update(_parameters={}, _modules={}, _buffers={})
        self.training = True
        self._unsaved: set[str] = set()  # names of buffers that the state dict leaves out
        self._name = ""  # the attribute of the parent that holds this module

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args, **kwargs):
        hooks = self._module_hooks
        forward = self.forward if hooks is None else functools.partial(hooks.call, self)
        if recording.scopes.get() is None:
            return forward(*args, **kwargs)
        with recording.scope(f"{self._name}:{type(self).__name__}".lstrip(":")):
            return forward(*args, **kwargs)

    # --- Attributes -------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(f"{name}: call super().__init__() before setting attributes")
        for kind, home in ((Parameter, "_parameters"), (Module, "_modules"), (Tensor, "_buffers")):
            mine = self.__dict__[home]
            registers = kind is not Tensor and isinstance(value, kind)  # a buffer is asked for
            if not registers and name not in mine:
                continue
            if not isinstance(value, (kind, type(None))):
                raise TypeError(
                    f"{name}: got {type(value).__name__}, wants a {kind.__name__} or None"
                )
            for other in ("_parameters", "_modules", "_buffers"):
                self.__dict__[other].pop(name, None) if other != home else None
            self.__dict__.pop(name, None)
            mine[name] = value
            if isinstance(value, Module):
                value.__dict__["_name"] = name
            elif isinstance(value, Parameter) and value.name is None:
                value.name = name
            return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:  # asked when the instance has no such attribute
        state = self.__dict__
        for home in ("_parameters", "_buffers", "_modules"):
            if name in (mine := state.get(home, ())):
                return mine[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for home in ("_parameters", "_modules", "_buffers"):
            if name in self.__dict__[home]:
                del self.__dict__[home][name]
                return
        object.__delattr__(self, name)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter; None keeps the name for one that the module does not have."""
        self._parameters[name] = None
        setattr(self, name, parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that belongs to the module and is not learned, such as running statistics.
        It moves with the module and, if `persistent`, is saved with it."""
        self._buffers[name] = None
        setattr(self, name, tensor)
        (self._unsaved.discard if persistent else self._unsaved.add)(name)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Add a submodule under a name that need not be an identifier."""
        self._modules[name] = None
        setattr(self, name, module)

    # --- Hooks ------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(module, args)` before `forward`; what it returns, a tuple or the only one,
        takes the place of the positional arguments. The handle's `remove()` takes it away."""
        return self._add_hook("forward_pre", hook)

    def register_forward_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns takes the place of the
        output."""
        return self._add_hook("forward", hook)

    def register_full_backward_pre_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(module, grad_output)` when the gradients at the outputs are known (a tuple,
        None where none arrived); a tuple that it returns takes their place."""
        return self._add_hook("backward_pre", hook)

    def register_full_backward_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients at the positional inputs
        are known: those that came through this call of the module. A tuple that it returns takes
        the place of `grad_input`. If no input requires a gradient, `grad_input` is all None, and
        the hook is called when `grad_output` is known."""
        return self._add_hook("backward", hook)

    def _add_hook(self, kind: str, hook: Callable) -> HookHandle:
        if self._module_hooks is None:
            self._module_hooks = Hooks()
        return self._module_hooks.add(kind, hook)

    # --- Walking ----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The direct submodules with their names."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator["Module"]:
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module and all below it, each once, with dotted names."""
        return ((name, module) for name, module, first in self._walk(prefix, set()) if first)

    def modules(self) -> Iterator["Module"]:
        return (module for _, module in self.named_modules())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, "Module", bool]]:
        """All paths to modules, and whether a module is met for the first time."""
        yield prefix, self, id(self) not in seen
        seen.add(id(self))
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def _named(self, home: str, repeats: bool = False) -> Iterator[tuple[str, Tensor]]:
        """The Tensors of one kind with dotted names; a shared one once, unless `repeats`."""
        seen = set()
        for prefix, module, _ in self._walk("", set()):
            for name, tensor in module.__dict__[home].items():
                if tensor is not None and (repeats or id(tensor) not in seen):
                    seen.add(id(tensor))
                    yield f"{prefix}.{name}" if prefix else name, tensor

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names; one that is shared comes once."""
        return self._named("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names."""
        return self._named("_buffers")

    def buffers(self) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers())

    def apply(self, function: Callable[["Module"], Any]) -> "Module":
        """Call `function` on every module, the innermost first; returns this one."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # --- Modes ------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "Module":
        """Training mode for this module and all below it (evaluation mode if not `mode`)."""
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> "Module":
        """Evaluation mode for this module and all below it."""
        return self.train(False)

    def requires_grad_(self, wanted: bool = True) -> "Module":
        """Freeze all parameters, or thaw them."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str) -> "Module":
        """Move parameters, their gradients and buffers to a device; returns this module. Make an
        optimizer after that: one that was made before steps the parameters where they were."""
        device = canonical_device(device)
        for kind in ("_parameters", "_buffers"):
            for _, tensor in self._named(kind):
                moved, grad = to_device(tensor.data, device), tensor.grad
                if moved is not tensor.data:
                    tensor.data = moved
                    if tensor.node is not None:
                        tensor.node.home = None  # which an optimizer lent it, where it was
                        if grad is not None:
                            tensor.grad = at_place(to_device(grad.data, device))
        return self

    # --- The state dict ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all parameters and saved buffers, by dotted names, in PyTorch's order."""
        return {key: at_place(copied(tensor.data)) for key, tensor in self._saved()}

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module, _ in self._walk("", set()):
            for home in ("_parameters", "_buffers"):
                for name, tensor in module.__dict__[home].items():
                    if tensor is not None and name not in module._unsaved:
                        yield f"{prefix}.{name}" if prefix else name, tensor

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Write the arrays or Tensors of a state dict into this module, in its own dtypes.

        A key that is missing or unexpected is an error unless `strict` is False, a wrong shape or
        no numbers always; the error lists them all, and then nothing has been changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"state: got {type(state).__name__}, wants a mapping of names to arrays"
            )
        mine = dict(self._saved())
        missing = [key for key in mine if key not in state]
        unexpected = [key for key in state if key not in mine]
        values, wrong = {}, {}
        for key in mine.keys() & state.keys():
            value = state[key].data if isinstance(state[key], Tensor) else state[key]
            try:
                values[key] = as_array(value)
                how = "" if values[key].shape == mine[key].shape else "misshapen"
            except TypeError:
                how = "not numbers in"
            if how:
                wants = describe(mine[key].data) + _hint(value)
                wrong[key] = f"{how} {key}: got {describe(value)}, wants {wants}"
        problems = [wrong[key] for key in sorted(wrong)]
        if strict:
            problems = [f"missing {key}" for key in missing] + [
                *(f"unexpected {key}" for key in unexpected),
                *problems,
            ]
        if problems:
            raise RuntimeError(
                f"load_state_dict of {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        owned = {  # copies first, in case the values are views of what is written
            key: copied(as_array(values[key], tensor.dtype, tensor.device))
            for key, tensor in mine.items()
            if key in values
        }
        for key, array in owned.items():
            recording.write(mine[key].data, array)
        return IncompatibleKeys(missing, unexpected)

    # --- What it looks like -----------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands in the parentheses of the module's line."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self._modules.items():
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        inside = self.extra_repr()
        if lines:
            inside = "\n" + "\n".join(([f"  {inside}"] if inside else []) + lines) + "\n"
        return f"{type(self).__name__}({inside})"
