"""SGD over flat arrays (its numbers are held against PyTorch's in test_golden)."""

import copy
import math

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.backend import storage_of


def step(optimizer, *losses):
    optimizer.zero_grad()
    for loss in losses:
        loss.backward()
    optimizer.step()


def test_parameters_lie_in_one_array():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = net.state_dict()
    tg.optim.SGD(net.parameters(), lr=0.1)
    assert all((host(v) == host(before[k])).all() for k, v in net.state_dict().items())
    assert len({id(storage_of(p.data)) for p in net.parameters()}) == 1


def test_a_parameter_without_gradient_does_not_move_even_with_decay_and_momentum():
    used, unused, frozen = (leaf(np.ones(3)) for _ in range(3))
    optimizer = tg.optim.SGD([unused, used, frozen], lr=0.1, momentum=0.9, weight_decay=0.5)
    frozen.requires_grad = False
    for _ in range(3):
        step(optimizer, (used * used).sum())
    assert host(unused).tolist() == host(frozen).tolist() == [1, 1, 1]
    assert (host(used) < 1).all()


def test_a_parameter_can_be_thawed_and_its_velocity_starts_at_zero():
    p, q = leaf(np.ones(1)), leaf(np.ones(1))
    optimizer = tg.optim.SGD([p, q], lr=1.0, momentum=0.5)
    p.requires_grad = False
    step(optimizer, (q * 1.0).sum())
    p.requires_grad = True
    step(optimizer, (p + q).sum())
    assert host(p).tolist() == [0]
    assert host(q).tolist() == [-1.5]


def test_gradients_accumulate_over_backward_passes():
    p = leaf(np.array([2.0]))
    optimizer = tg.optim.SGD([p], lr=1.0)
    step(optimizer, (p * 3.0).sum(), (p * 4.0).sum())
    assert host(p).tolist() == [2 - 7]


def test_a_gradient_set_by_hand_counts():
    p, q = leaf(np.ones(2)), leaf(np.ones(2))
    optimizer = tg.optim.SGD([p, q], lr=1.0)
    (p.sum() + q.sum()).backward()
    p.grad = tg.tensor(np.array([0.5, 0.0]))
    optimizer.step()
    assert host(p).tolist() == [0.5, 1]
    assert host(q).tolist() == [0, 0]


def test_data_set_by_hand_is_kept():
    p = leaf(np.ones(2))
    optimizer = tg.optim.SGD([p], lr=1.0)
    p.data = tg.tensor(np.array([5.0, 6.0])).data
    step(optimizer, p.sum())
    assert host(p).tolist() == [4, 5]


def test_two_optimizers_can_take_turns_on_one_parameter():
    p = leaf(np.ones(1))
    first, second = tg.optim.SGD([p], lr=1.0), tg.optim.SGD([p], lr=10.0)
    for optimizer in (first, second, first):
        step(optimizer, p.sum())
    assert host(p).tolist() == [1 - 1 - 10 - 1]


def test_dtypes_are_stepped_apart():
    p, q = leaf(np.ones(2, np.float32)), leaf(np.ones(2))
    step(tg.optim.SGD([p, q], lr=0.25), p.sum() + q.sum())
    assert (p.dtype, q.dtype) == (np.float32, np.float64)
    assert host(p).tolist() == host(q).tolist() == [0.75, 0.75]


def test_two_losses_recorded_before_either_backward():
    w = leaf(np.array([1.0, 2.0]))
    tg.optim.SGD([w], lr=0.1)
    first, second = (w * w).sum(), (w * w * w).sum()
    first.backward(retain_graph=True)
    second.backward()
    first.backward()
    assert host(w.grad).tolist() == [2 * 2 + 3, 2 * 4 + 12]


def test_a_step_spoils_only_the_graphs_of_what_it_moved():
    a, b = leaf(np.array([1.0])), leaf(np.array([1.0]))
    optimizer = tg.optim.SGD([a, b], lr=0.1)
    of_a, of_b = (a * a).sum(), (b * b).sum()
    of_a.backward(retain_graph=True)
    optimizer.step()
    of_b.backward()
    assert host(b.grad).tolist() == [2]
    with pytest.raises(RuntimeError, match="changed in place"):
        of_a.backward()


def test_a_gradient_that_is_there_already_is_no_velocity():
    w = leaf(np.array([1.0]))
    (w * 2.0).sum().backward()
    optimizer = tg.optim.SGD([w], lr=1.0, momentum=0.9)
    optimizer.step()
    assert host(w).tolist() == [-1]


def test_momentum_can_be_set_later():
    w = leaf(np.array([1.0]))
    optimizer = tg.optim.SGD([w], lr=1.0)
    optimizer.momentum = 0.5
    for _ in range(2):
        step(optimizer, w.sum())
    assert host(w).tolist() == [1 - 1 - 1.5]


def test_a_copy_of_model_and_optimizer_trains_the_copy():
    net = nn.Linear(2, 1, bias=False)
    optimizer = tg.optim.SGD(net.parameters(), lr=1.0, momentum=0.5)
    step(optimizer, net(tg.ones((1, 2))).sum())
    twin, its_optimizer = copy.deepcopy((net, optimizer))
    before = host(net.weight)
    step(its_optimizer, twin(tg.ones((1, 2))).sum())
    assert (host(net.weight) == before).all()
    np.testing.assert_allclose(host(twin.weight), before - 1.5, rtol=1e-6)


def test_a_graph_recorded_before_a_step_does_not_run_after_it():
    w = leaf(np.array([2.0]))
    optimizer = tg.optim.SGD([w], lr=0.1)
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(
        RuntimeError, match=r"mul: float64.* was changed in place after it was recorded"
    ):
        loss.backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr: got -1"),
        ({"lr": math.nan}, "lr: got nan"),
        ({"lr": "fast"}, "lr: got 'fast'"),
        ({"momentum": -0.1}, "momentum: got -0.1"),
        ({"weight_decay": math.inf}, "weight_decay: got inf"),
        ({"nesterov": True}, "nesterov: wants a momentum"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        tg.optim.SGD([leaf(np.ones(1))], **options)


def test_bad_parameters_are_named():
    p = leaf(np.ones(1))
    with pytest.raises(ValueError, match="params: got none"):
        tg.optim.SGD([])
    with pytest.raises(ValueError, match=r"params\[1\]: the same Tensor"):
        tg.optim.SGD([p, p])
    with pytest.raises(TypeError, match=r"params\[0\]: got float64\[1\].*leaf"):
        tg.optim.SGD([p * 2])
    with pytest.raises(TypeError, match=r"params\[0\]: got int64"):
        tg.optim.SGD([tg.tensor([1])])
    with pytest.raises(TypeError, match=r"params\[0\]: got str"):
        tg.optim.SGD("pq")


def test_a_model_that_moved_needs_a_new_optimizer():
    p = leaf(np.ones(2))
    optimizer = tg.optim.SGD([p], lr=0.1)
    p.data = tg.tensor(np.ones(3)).data
    with pytest.raises(RuntimeError, match="make the optimizer after moving the model"):
        optimizer.step()
