"""Learning rates over the epochs, with PyTorch's names.

Each schedule is a formula: the rate at epoch t from the rate at which the group began, its
"initial_lr". (PyTorch multiplies the present rate instead; the values are the same, but here two
schedules on one optimizer do not multiply: `SequentialLR` joins them.)
"""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..functional.arguments import number, whole
from .base import Optimizer


def _listed(value):
    return isinstance(value, (list, tuple))


_COUNTS = ("step_size", "T_max", "total_iters")
_NUMBERS = {  # from where to where
    **dict.fromkeys(("gamma", "eta_min"), (0, math.inf)),
    **dict.fromkeys(("factor", "start_factor", "end_factor"), (0, 1)),
}
_WANTS = {  # what another argument must be, in words and as a test
    "optimizer": ("an Optimizer", lambda value: isinstance(value, Optimizer)),
    "milestones": (
        "epochs that ascend",
        lambda value: _listed(value) and [*value] == sorted(value),
    ),
    "schedulers": (
        "a list of schedulers",
        lambda value: _listed(value) and value and all(isinstance(s, LRScheduler) for s in value),
    ),
}


@dataclass(eq=False)
class LRScheduler:
    """Sets the "lr" of every group of an optimizer: at once, and in every `step`, one an epoch.

    A subclass has a formula, `_rate`. `last_epoch` is the number of steps made, 0 at first.
    """

    optimizer: Optimizer

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _COUNTS:
                setattr(self, name, whole(name, value, 1))
            if name in _NUMBERS:
                number(name, value, *_NUMBERS[name])
            words, fits = _WANTS.get(name, ("", lambda _: True))
            if not fits(value):
                raise ValueError(f"{name}: got {value!r:.60}, wants {words}")
        self._check()
        self._go_to(0)

    def _check(self) -> None:
        """What must hold between the arguments."""

    def _rate(self, base: float, t: int, group: int) -> float:
        """The rate at epoch t of group number `group`, whose initial rate is `base`."""
        raise NotImplementedError

    def step(self) -> None:
        """The next epoch begins."""
        self._go_to(self.last_epoch + 1)

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as the schedule last set it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is. (The initial rates are in the optimizer's state dict, the rest is
        in the arguments with which the schedule was made.)"""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; load the optimizer's state dict before."""
        self._go_to(whole("last_epoch", dict(state_dict).get("last_epoch")))

    def _go_to(self, epoch: int) -> None:
        groups = self.optimizer.param_groups
        bases = [group.get("initial_lr", group["lr"]) for group in groups]
        rates = [self._rate(base, epoch, k) for k, base in enumerate(bases)]  # which may raise
        self.last_epoch, self._last_lr = epoch, rates
        for group, base, rate in zip(groups, bases, rates):
            group["initial_lr"], group["lr"] = base, rate


@dataclass(eq=False)
class StepLR(LRScheduler):
    """Times `gamma` every `step_size` epochs.

    >>> import tinygrad_bn as tg
    >>> optimizer = tg.optim.SGD([tg.tensor([1.0], requires_grad=True)], lr=0.5)
    >>> schedule = tg.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for epoch in range(3):  # of optimizer steps, and then
    ...     schedule.step()
    ...     print(schedule.get_last_lr())
    [0.5]
    [0.25]
    [0.25]
    """

    step_size: int
    gamma: float = 0.1

    def _rate(self, base, t, group):
        return base * self.gamma ** (t // self.step_size)


@dataclass(eq=False)
class MultiStepLR(LRScheduler):
    """Times `gamma` at each of the epochs `milestones`."""

    milestones: Sequence[int]
    gamma: float = 0.1

    def _rate(self, base, t, group):
        return base * self.gamma ** bisect.bisect_right(self.milestones, t)


@dataclass(eq=False)
class ExponentialLR(LRScheduler):
    """Times `gamma` every epoch."""

    gamma: float

    def _rate(self, base, t, group):
        return base * self.gamma**t


@dataclass(eq=False)
class CosineAnnealingLR(LRScheduler):
    """Down to `eta_min` in `T_max` epochs, along half a cosine (Loshchilov & Hutter 2017), and then
    up again."""

    T_max: int
    eta_min: float = 0.0

    def _rate(self, base, t, group):
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


@dataclass(eq=False)
class LinearLR(LRScheduler):
    """From `start_factor` to `end_factor` times the initial rate, in `total_iters` even steps."""

    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = 5

    def _check(self) -> None:
        if not self.start_factor:
            raise ValueError(f"start_factor: got {self.start_factor}, wants a number in (0, 1]")

    def _rate(self, base, t, group):
        done = min(t, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)


@dataclass(eq=False)
class ConstantLR(LRScheduler):
    """`factor` times the initial rate for `total_iters` epochs, and then the initial rate."""

    factor: float = 1 / 3
    total_iters: int = 5

    def _rate(self, base, t, group):
        return base * (self.factor if t < self.total_iters else 1)


@dataclass(eq=False)
class LambdaLR(LRScheduler):
    """`lr_lambda(epoch)` times the initial rate; a list has a function for each group."""

    lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]

    def _check(self) -> None:
        groups = len(self.optimizer.param_groups)
        if not callable(self.lr_lambda) and len(self.lr_lambda) != groups:
            raise ValueError(f"lr_lambda: got {len(self.lr_lambda)} functions, wants {groups}")

    def _rate(self, base, t, group):
        return base * (self.lr_lambda if callable(self.lr_lambda) else self.lr_lambda[group])(t)


@dataclass(eq=False)
class SequentialLR(LRScheduler):
    """One schedule after the other: the next begins, at its own epoch 0, at each milestone.

    >>> import tinygrad_bn as tg
    >>> from tinygrad_bn.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    >>> optimizer = tg.optim.SGD([tg.tensor([1.0], requires_grad=True)], lr=0.1)
    >>> warm_up, cosine = LinearLR(optimizer, 0.1, total_iters=5), CosineAnnealingLR(optimizer, 20)
    >>> schedule = SequentialLR(optimizer, [warm_up, cosine], milestones=[5])
    """

    schedulers: Sequence[LRScheduler]
    milestones: Sequence[int]

    def _check(self) -> None:
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"milestones: got {len(self.milestones)} for {len(self.schedulers)} schedulers, "
                "wants one between two of them"
            )
        if any(scheduler.optimizer is not self.optimizer for scheduler in self.schedulers):
            raise ValueError("schedulers: got one of another optimizer")

    def _rate(self, base, t, group):
        k = bisect.bisect_right(self.milestones, t)
        return self.schedulers[k]._rate(base, t - [0, *self.milestones][k], group)
