"""Schedules of the learning rate (their numbers: see test_golden_training)."""

import copy
import math

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn.optim import lr_scheduler


def optimizer(lr=0.5):
    return tg.optim.SGD([leaf(np.zeros(1))], lr=lr)


def test_the_first_rate_holds_at_once_and_steps_of_the_optimizer_use_the_rate():
    sgd = optimizer()
    schedule = lr_scheduler.LinearLR(sgd, start_factor=0.5, total_iters=2)
    (p,) = sgd.param_groups[0]["params"]
    for _ in range(3):
        p.grad = tg.tensor(np.ones(1))
        sgd.step()
        schedule.step()
    assert host(p).item() == pytest.approx(-(0.25 + 0.375 + 0.5))


def test_a_schedule_goes_on_from_its_state_dict_and_the_optimizers():
    def made(lr):
        sgd = optimizer(lr)
        return sgd, lr_scheduler.ExponentialLR(sgd, gamma=0.5)

    first, its_schedule = made(0.8)
    for _ in range(3):
        its_schedule.step()
    second, schedule = made(0.3)
    second.load_state_dict(first.state_dict())
    schedule.load_state_dict(its_schedule.state_dict())
    assert schedule.get_last_lr() == [second.param_groups[0]["lr"]] == [0.1]
    schedule.step()
    assert (schedule.last_epoch, schedule.get_last_lr()) == (4, [0.05])


def test_a_group_that_joins_later_starts_from_its_own_rate():
    sgd = optimizer()
    schedule = lr_scheduler.StepLR(sgd, step_size=2, gamma=0.5)
    sgd.add_param_group({"params": [leaf(np.zeros(1))], "lr": 4.0})
    for _ in range(2):
        schedule.step()
    assert schedule.get_last_lr() == [0.25, 2.0]


def test_one_sequence_in_another():
    sgd = optimizer(1.0)
    inner = lr_scheduler.SequentialLR(
        sgd,
        [lr_scheduler.ConstantLR(sgd, 0.5, 9), lr_scheduler.ExponentialLR(sgd, 0.5)],
        milestones=[2],
    )
    outer = lr_scheduler.SequentialLR(sgd, [lr_scheduler.ConstantLR(sgd, 0.25, 9), inner], [1])
    rates = []
    for _ in range(6):
        rates += outer.get_last_lr()
        outer.step()
    assert rates == [0.25, 0.5, 0.5, 1.0, 0.5, 0.25]


def test_a_function_that_fails_changes_nothing():
    sgd = optimizer()
    sgd.add_param_group({"params": [], "lr": 0.25})
    schedule = lr_scheduler.LambdaLR(sgd, [lambda epoch: 0.5**epoch, lambda epoch: 1 / (1 - epoch)])
    with pytest.raises(ZeroDivisionError):
        schedule.step()
    assert schedule.last_epoch == 0
    assert schedule.get_last_lr() == [group["lr"] for group in sgd.param_groups] == [0.5, 0.25]


def test_a_copy_of_optimizer_and_schedule_goes_its_own_way():
    sgd = optimizer()
    schedule = lr_scheduler.ExponentialLR(sgd, 0.5)
    twin, its_schedule = copy.deepcopy((sgd, schedule))
    its_schedule.step()
    assert (sgd.param_groups[0]["lr"], twin.param_groups[0]["lr"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: lr_scheduler.StepLR("sgd", 2), "optimizer: got 'sgd', wants an Optimizer"),
        (lambda o: lr_scheduler.StepLR(o, 0), "step_size: got 0, wants a whole number ≥ 1"),
        (lambda o: lr_scheduler.StepLR(o, 1.5), "step_size: got 1.5"),
        (lambda o: lr_scheduler.StepLR(o, True), "step_size: got True"),
        (lambda o: lr_scheduler.StepLR(o, 2, gamma=-1), "gamma: got -1"),
        (lambda o: lr_scheduler.ExponentialLR(o, math.nan), "gamma: got nan"),
        (lambda o: lr_scheduler.MultiStepLR(o, [3, 2]), r"milestones: got \[3, 2\]"),
        (lambda o: lr_scheduler.MultiStepLR(o, 3), "milestones: got 3"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 0), "T_max: got 0"),
        (lambda o: lr_scheduler.CosineAnnealingLR(o, 5, eta_min=-0.1), "eta_min: got -0.1"),
        (lambda o: lr_scheduler.LinearLR(o, 0.0), "start_factor: got 0.0, wants .* \\(0, 1\\]"),
        (lambda o: lr_scheduler.LinearLR(o, end_factor=2), "end_factor: got 2"),
        (lambda o: lr_scheduler.ConstantLR(o, total_iters=0), "total_iters: got 0"),
        (lambda o: lr_scheduler.ConstantLR(o, 1.5), "factor: got 1.5"),
        (lambda o: lr_scheduler.LambdaLR(o, []), "lr_lambda: got 0 functions, wants 1"),
        (lambda o: lr_scheduler.SequentialLR(o, [], []), r"schedulers: got \[\], wants a list of"),
        (
            lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.ConstantLR(o, 1)], [2]),
            "milestones: got 1 for 1 schedulers",
        ),
        (
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.StepLR(optimizer(), 1), lr_scheduler.StepLR(o, 1)], [2]
            ),
            "schedulers: got one of another optimizer",
        ),
    ],
)
def test_bad_arguments_are_named_and_change_no_rate(make, message):
    sgd = optimizer()
    with pytest.raises(ValueError, match=message):
        make(sgd)
    assert sgd.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("state", [{}, {"last_epoch": -1}, {"last_epoch": 1.5}])
def test_a_bad_state_dict_is_named(state):
    schedule = lr_scheduler.ExponentialLR(optimizer(), 0.5)
    with pytest.raises(ValueError, match=r"last_epoch: got .*wants a whole number"):
        schedule.load_state_dict(state)
    assert schedule.get_last_lr() == [0.5]
