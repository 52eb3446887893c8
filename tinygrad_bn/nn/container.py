"""Modules of modules: one after the other, and in a list."""

from collections.abc import Iterable, Iterator

from .fusion import dense_layers, run_layers, takes_relu
from .module import Module


class _Listed(Module):
    """Modules by number (or, in a Sequential, by name), in their order."""

    def _append(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module {name}: got {type(module).__name__}, wants a Module")
        if name in self._modules:
            raise ValueError(f"module {name}: there is one of this name")
        self.add_module(name, module)

    def append(self, module: Module) -> "_Listed":
        """Add a module at the end; returns this one."""
        self._append(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> "_Listed":
        """Add modules at the end; returns this one."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())


class Sequential(_Listed):
    """Modules that run one after the other, given one by one or as a dict of names.

    >>> from tinygrad_bn import nn
    >>> nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *modules: Module | dict[str, Module]) -> None:
        super().__init__()
        named = len(modules) == 1 and isinstance(modules[0], dict)
        for name, module in modules[0].items() if named else enumerate(modules):
            self._append(str(name), module)

    def forward(self, input):
        rest = [*self._modules.values()]
        while rest:
            fitting = dense_layers(rest, input)
            if fitting:
                input, rest = run_layers(fitting, input), rest[3 * len(fitting) :]
            elif len(rest) > 1 and takes_relu(*rest[:2]):
                input, rest = rest[0].forward_relu(input), rest[2:]
            else:
                input, rest = rest[0](input), rest[1:]
        return input

    def __getitem__(self, index: int | slice):
        items = list(self._modules.items())
        return Sequential(dict(items[index])) if isinstance(index, slice) else items[index][1]


class ModuleList(_Listed):
    """Modules in a list, whose parameters count as the owner's. What runs when, the owner says.

    >>> from tinygrad_bn import nn
    >>> [name for name, _ in nn.ModuleList([nn.ReLU(), nn.Linear(1, 1)]).named_parameters()]
    ['1.weight', '1.bias']
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __getitem__(self, index: int | slice):
        modules = list(self)[index]
        return ModuleList(modules) if isinstance(index, slice) else modules
