"""What optimizers share: groups of parameters, the step over flat arrays, the state dict."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..backend import as_array, on_device_of
from ..functional.arguments import NUMBERS
from ..graph import Tensor, at_place, describe
from ..recording import mark_written
from .flat import Flat


def not_negative(value):
    return isinstance(value, NUMBERS) and 0 <= value < math.inf


def _two_betas(value):
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(isinstance(beta, NUMBERS) and 0 <= beta < 1 for beta in value)


_WANTS = {  # what an option must be, in words and as a test
    "lr": ("a number ≥ 0", not_negative),
    "momentum": ("a number ≥ 0", not_negative),
    "dampening": ("a number", lambda value: isinstance(value, NUMBERS) and math.isfinite(value)),
    "weight_decay": ("a number ≥ 0", not_negative),
    "eps": ("a number ≥ 0", not_negative),
    "betas": ("two numbers in [0, 1)", _two_betas),
}


class Optimizer:
    """What optimizers share: groups of parameters, zero_grad, step, the state dict.

    `params`: Tensors, or dicts {"params": Tensors, and options in which this group differs}.
    `param_groups` is the list of groups, dicts that hold their "params" and every option; this is
    the place to change an option between steps. A parameter without a gradient (frozen, or unused
    in the loss) stays as it is, and its state too. float16 parameters are stepped in float32, and
    so is their state; the result is rounded.

    A subclass says what it keeps of a parameter (`_keeps`) and the direction of a step.
    """

    saves_steps = False  # whether the direction depends on how many steps there were
    fixed: Mapping = {"maximize": False}  # options of PyTorch's that have one value here

    def __init__(self, params: Iterable[Tensor | dict], **defaults: Any) -> None:
        given = [params] if isinstance(params, Tensor) else list(params)
        if not given:
            raise ValueError("params: got none, wants at least one Tensor")
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self._flats: list[list[Flat]] = []  # of each group
        self._places: list[tuple[Flat, int]] = []  # of each parameter, in the state dict's order
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Step more parameters: {"params": Tensors, and options that differ from the defaults}."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError(f'param_group: got {param_group!r:.60}, wants a dict with "params"')
        params = param_group["params"]
        if isinstance(params, (set, frozenset)):
            raise TypeError("params: got a set, wants Tensors in an order")
        params = (params,) if isinstance(params, Tensor) else tuple(params)
        group = {**self.defaults, **param_group, "params": params}
        unknown = group.keys() - self.defaults.keys() - {"params", "initial_lr"}  # of a schedule
        if unknown:
            raise ValueError(
                f"param_group: got {', '.join(sorted(unknown))}, wants options of "
                f"{type(self).__name__}: {', '.join(self.defaults)}"
            )
        self._check(group)
        flats = _flatten(params, {id(p) for group in self.param_groups for p in group["params"]})
        places = {id(p): (flat, k) for flat in flats for k, p in enumerate(flat.parameters)}
        self.param_groups.append(group)
        self._flats.append(flats)
        self._places += [places[id(p)] for p in params]

    def _check(self, options: Mapping) -> None:
        for name, (words, fits) in _WANTS.items():
            if name in options and not fits(options[name]):
                raise ValueError(f"{name}: got {options[name]!r}, wants {words}")

    def zero_grad(self) -> None:
        """Forget all gradients (they become None, not 0)."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient: p ← p − lr · direction."""
        for group in self.param_groups:
            self._check(group)
        gathered = [  # which may raise: before all else
            (group, flat, flat.gather())
            for group, flats in zip(self.param_groups, self._flats)
            for flat in flats
        ]
        for group, flat, runs in gathered:
            for run in runs:
                with on_device_of(flat.data):
                    self._move(group, flat, run)
                mark_written(flat.data[flat.where(run)])

    def _move(self, group: dict, flat: Flat, run: range) -> None:
        where, names = flat.where(run), self._keeps(group)
        p, g = flat.data[where], flat.grad[where]
        step = flat.count(run) if names else 0
        state = [flat.kept(name)[where] for name in names]
        p -= group["lr"] * self._direction(group, p.astype(g.dtype, copy=False), g, step, *state)

    def _keeps(self, options: dict) -> tuple[str, ...]:
        """The names of the arrays that are kept from step to step."""
        raise NotImplementedError

    def _direction(self, options: dict, p, g, step: int, *state):
        """Where to go from p with the gradient g, at step number `step` (from 1). The arrays of the
        state are moved in place; p and g are only read."""
        raise NotImplementedError

    # --- The state dict -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the optimizer knows, in PyTorch's form: {"state": {number of a
        parameter: {name: Tensor}}, "param_groups": groups with numbers as their "params"}."""
        groups, state, numbers = [], {}, itertools.count()
        for group in self.param_groups:
            groups.append({**group, "params": [next(numbers) for _ in group["params"]]})
            for number in groups[-1]["params"]:
                flat, k = self._places[number]
                kept = flat.state_of(k, self._keeps(group)) if flat.steps[k] else {}
                if kept:
                    counted = {"step": flat.steps[k]} if self.saves_steps else {}
                    state[number] = counted | {n: at_place(a) for n, a in kept.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state dict, of this class or of PyTorch's of the same name. What does not
        fit is a ValueError that says so, and then nothing has been changed."""
        groups, states = self._fitting(state_dict)
        for group, saved in zip(self.param_groups, groups):
            group.update(saved)
        for (flat, k), (steps, arrays) in zip(self._places, states):
            flat.restore(k, steps, arrays)

    def _fitting(self, state_dict: Mapping[str, Any]) -> tuple[list, list]:
        """The options of each group, and the steps and arrays of each parameter, checked."""
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= {*state_dict}:
            raise ValueError(
                f'state_dict: got {state_dict!r:.60}, wants {{"state": …, "param_groups": …}}'
            )
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in state_dict["param_groups"]]
        if given != sizes:
            raise ValueError(f"param_groups: got {given} parameters in groups, wants {sizes}")
        groups, states, saved_states = [], [], dict(state_dict["state"])
        for group, saved in zip(self.param_groups, state_dict["param_groups"]):
            options = {**saved, "params": group["params"]}
            for name in self.defaults:
                if name not in saved:
                    raise ValueError(
                        f"param_groups: got no {name}, which {type(self).__name__} has"
                    )
            for name, value in self.fixed.items():
                if saved.get(name, value) != value:
                    raise ValueError(f"{name}: got {saved[name]}, wants {value}")
            self._check(options)
            groups.append(options)
            for number in saved["params"]:
                flat, k = self._places[len(states)]
                entry = saved_states.pop(number, {})
                states.append(self._fitting_entry(f"state[{number}]", entry, options, flat, k))
        if saved_states:
            raise ValueError(f"state: got {list(saved_states)}, which are in no group")
        return groups, states

    def _fitting_entry(self, name: str, entry: Mapping, options: dict, flat: Flat, k: int) -> tuple:
        """The steps and arrays of parameter k of a Flat, checked."""
        if not isinstance(entry, Mapping):
            raise ValueError(f"{name}: got {entry!r:.60}, wants a dict of arrays")
        values = {key: value for key, value in entry.items() if value is not None}
        if not values:
            return 0, {}  # it has not been stepped
        wanted = ["step"] * self.saves_steps + [*self._keeps(options)]
        if sorted(values) != sorted(wanted):
            raise ValueError(f"{name}: got {sorted(values)}, wants {sorted(wanted)}")
        try:
            steps = float(values.pop("step", 1))
        except (TypeError, ValueError):
            steps = math.nan
        if not (steps >= 0 and steps.is_integer()):
            raise ValueError(f"{name}['step']: got {entry['step']!r:.60}, wants a whole number ≥ 0")
        p = flat.parameters[k]
        for key, value in values.items():
            array = value.data if isinstance(value, Tensor) else value
            try:
                values[key] = as_array(array, flat.grad.dtype, p.device)
                fits = values[key].shape == p.shape
            except TypeError:  # not numbers
                fits = False
            if not fits:
                raise ValueError(f"{name}[{key!r}]: got {describe(array)}, wants shape {p.shape}")
        return int(steps), values


def _flatten(params: tuple, taken: set[int]) -> list[Flat]:
    """The parameters by dtype and device, checked; `taken` are the ids of those in other groups."""
    kinds: dict[tuple, list[Tensor]] = {}
    seen = set(taken)
    for k, p in enumerate(params):
        if not isinstance(p, Tensor) or not p.is_leaf or p.dtype.kind != "f":
            what = describe(p.data) if isinstance(p, Tensor) else type(p).__name__
            raise TypeError(f"params[{k}]: got {what}, wants a floating-point leaf Tensor")
        if id(p) in seen:
            where = "in another group" if id(p) in taken else "in the list twice"
            raise ValueError(f"params[{k}]: the same Tensor is {where}")
        seen.add(id(p))
        kinds.setdefault((p.device, p.dtype), []).append(p)
    return [Flat(parameters) for parameters in kinds.values()]
