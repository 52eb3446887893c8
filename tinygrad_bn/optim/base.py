"""What optimizers share: groups of parameters, the step over flat arrays, the state dict."""

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..backend import as_array, describe, is_floating, on_device_of
from ..functional import arguments
from ..functional.arguments import NUMBERS
from ..graph import Tensor, at_place
from ..recording import capturing, mark_written
from .flat import Flat, sharing


def _check_betas(name, value):
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    if not pair or not all(isinstance(beta, NUMBERS) and 0 <= beta < 1 for beta in value):
        raise ValueError(f"{name}: got {value!r}, wants two numbers in [0, 1)")


_not_negative = functools.partial(arguments.number, least=0)
_CHECKS = {  # of an option, by its name
    **dict.fromkeys(("lr", "momentum", "weight_decay", "eps"), _not_negative),
    "dampening": arguments.number,
    "betas": _check_betas,
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
        self._params: list[tuple[Tensor, ...]] = []  # of each group
        self._flats: list[list[Flat]] = []  # of each group
        self._places: list[tuple[Flat, int]] = []  # of each parameter, in the state dict's order
        self._add(given if isinstance(given[0], Mapping) else [{"params": given}])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Step more parameters: {"params": Tensors, and options that differ from the defaults}."""
        self._add([param_group])

    def _add(self, given: list) -> None:
        groups = [self._complete(group) for group in given]
        _check_parameters([group["params"] for group in self._known_groups() + groups])
        for group in groups:
            flats = _flatten(group["params"])
            places = {id(p): (flat, k) for flat in flats for k, p in enumerate(flat.parameters)}
            self.param_groups.append(group)
            self._params.append(group["params"])
            self._flats.append(flats)
            self._places += [places[id(p)] for p in group["params"]]

    def _complete(self, param_group: Mapping) -> dict[str, Any]:
        """A group with every option, checked."""
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
        return group

    def _known_groups(self) -> list[dict]:
        """`param_groups`, once it is clear that nobody has exchanged parameters there."""
        present = [group.get("params") for group in self.param_groups]
        if [*map(id, present)] != [*map(id, self._params)]:
            raise ValueError(
                'param_groups: got other "params" than were given; to step others, call '
                "add_param_group or make a new optimizer"
            )
        return self.param_groups

    def _check(self, options: Mapping) -> None:
        for name, check in _CHECKS.items():
            if name in options:
                check(name, options[name])

    def zero_grad(self) -> None:
        """Forget all gradients (they become None, not 0)."""
        self._known_groups()
        for flat in itertools.chain(*self._flats):
            flat.forget()

    def flats(self) -> list[tuple[dict, Flat]]:
        """The flat arrays of the parameters, each with its group, whose options are checked."""
        for group in self._known_groups():
            self._check(group)
        pairs = zip(self.param_groups, self._flats)
        return [(group, flat) for group, flats in pairs for flat in flats]

    def arrays(self) -> list[Any]:
        """All that a step may write into. State that is not there yet is made, and is 0."""
        found = []
        for group, flat in self.flats():
            found += [flat.data, flat.grad, *map(flat.kept, self._keeps(group))]
        return found

    def step(self) -> None:
        """Move every parameter that has a gradient: p ← p − lr · direction."""
        gathered = [(group, flat, flat.gather()) for group, flat in self.flats()]  # may raise
        for group, flat, runs in gathered:
            for run in runs:
                with on_device_of(flat.data):
                    self._move(group, flat, run)
                mark_written(flat.data[flat.where(run)])

    def _move(self, group: dict, flat: Flat, run: range) -> None:
        where, names = flat.where(run), self._keeps(group)
        p, g = flat.data[where], flat.grad[where]

        def compute():
            return self._numbers(group, flat.count(run) if names else 0)

        capture = capturing.get()
        lr, *numbers = compute() if capture is None else capture.numbers(compute, g)
        state = [flat.kept(name)[where] for name in names]
        p -= lr * self._direction(group, p.astype(g.dtype, copy=False), g, numbers, *state)

    def _keeps(self, options: dict) -> tuple[str, ...]:
        """The names of the arrays that are kept from step to step."""
        raise NotImplementedError

    def _numbers(self, options: dict, step: int) -> tuple[float, ...]:
        """What is not the same in all steps: the learning rate, and what depends on the number of
        the step, from 1. (A captured step is told of these, and of no other number.)"""
        return (options["lr"],)

    def _direction(self, options: dict, p, g, numbers: list, *state):
        """Where to go from p with the gradient g. `numbers`: those behind the learning rate. The
        arrays of the state are moved in place; p and g are only read."""
        raise NotImplementedError

    # --- The state dict -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the optimizer knows, in PyTorch's form: {"state": {number of a
        parameter: {name: Tensor}}, "param_groups": groups with numbers as their "params"}."""
        groups, state, numbers = [], {}, itertools.count()
        for group in self._known_groups():
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
        sizes = [len(group["params"]) for group in self._known_groups()]
        given = [len(numbers) for numbers in _numbers(state_dict)]
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


def _numbers(state_dict: Any) -> list[Sequence[int]]:
    """The numbers of the parameters in each group of a state dict, once its form is clear."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= {*state_dict}:
        raise ValueError(
            f'state_dict: got {state_dict!r:.60}, wants {{"state": …, "param_groups": …}}'
        )
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping):
        raise ValueError(f"state: got {state!r:.60}, wants a dict")
    if not isinstance(groups, (list, tuple)):
        raise ValueError(f"param_groups: got {groups!r:.60}, wants a list of dicts")
    for k, group in enumerate(groups):
        numbers = group.get("params") if isinstance(group, Mapping) else None
        listed = isinstance(numbers, (list, tuple))
        if not listed or not all(isinstance(number, NUMBERS) for number in numbers):
            raise ValueError(f'param_groups[{k}]: got {group!r:.60}, wants numbers as its "params"')
    numbers = [number for group in groups for number in group["params"]]
    if len({*numbers}) < len(numbers):
        raise ValueError(f"param_groups: got the numbers {numbers}, wants each once")
    return [group["params"] for group in groups]


def _check_parameters(groups: list[tuple]) -> None:
    found: dict[int, tuple] = {}  # by id: the group's number, the place in it, the parameter
    for number, params in enumerate(groups):
        for k, p in enumerate(params):
            if not isinstance(p, Tensor) or not p.is_leaf or not is_floating(p.dtype):
                what = describe(p.data) if isinstance(p, Tensor) else type(p).__name__
                raise TypeError(f"params[{k}]: got {what}, wants a floating-point leaf Tensor")
            if id(p) in found:
                where = "the list twice" if found[id(p)][0] == number else "another group"
                raise ValueError(f"params[{k}]: the same Tensor is in {where}")
            found[id(p)] = number, k, p
    shared = sharing([p for _, _, p in found.values()])
    if shared:
        _, k, p = [*found.values()][shared[1]]
        raise ValueError(
            f"params[{k}]: got {describe(p.data)} in memory of another parameter, wants its own "
            "(to tie parameters, use one Tensor)"
        )


def _flatten(params: tuple) -> list[Flat]:
    """The parameters by dtype and device."""
    kinds: dict[tuple, list[Tensor]] = {}
    for p in params:
        kinds.setdefault((p.device, p.dtype), []).append(p)
    return [Flat(parameters) for parameters in kinds.values()]
