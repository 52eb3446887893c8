"""Optimizers over flat arrays (their numbers: see test_golden_training)."""

import copy
import math

import numpy as np
import pytest
from helpers import assert_values, host, leaf, on_device, share_memory, vector
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.memory import storage_of


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


OPTIMIZERS = [
    lambda params: tg.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
    lambda params: tg.optim.Adam(params, lr=0.1, weight_decay=0.1, amsgrad=True),
    lambda params: tg.optim.AdamW(params, lr=0.1),
]
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS, ids=["SGD", "Adam", "AdamW"])


@every_optimizer
@given(present=st.lists(st.tuples(*[st.booleans()] * 4), max_size=6))
def test_parameters_together_go_as_each_goes_alone_whichever_have_gradients(make, present):
    together, alone = ([leaf(np.arange(1.0, 3.0) + k) for k in range(4)] for _ in range(2))
    optimizers = [make(together), *(make([p]) for p in alone)]
    for step, has_gradient in enumerate(present):
        for k, has in enumerate(has_gradient):
            for p in (together[k], alone[k]):
                p.grad = tg.tensor(np.array([1.0, -2.0]) / (1 + step + k)) if has else None
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(together, alone):
        np.testing.assert_allclose(host(p), host(q), rtol=1e-14)


@every_optimizer
def test_a_step_takes_as_many_operations_for_thirty_parameters_as_for_three(make, double_only):
    counts = []
    for n in (3, 30):
        parameters = [leaf(np.ones(2)) for _ in range(n)]
        optimizer = make(parameters)
        for p in parameters:
            p.sum().backward()
        optimizer.step()  # makes the state
        before = double_only.stats["kernel"]
        with double_only.forbid("h2d", "d2h", "sync"):
            optimizer.step()
        counts.append(double_only.stats["kernel"] - before)
    assert counts[0] == counts[1]


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
    optimizer.param_groups[0]["momentum"] = 0.5
    for _ in range(2):
        step(optimizer, w.sum())
    assert host(w).tolist() == [1 - 1 - 1.5]


def test_the_first_velocity_is_the_gradient_though_momentum_and_dampening_come_late():
    w = leaf(np.array([0.0]))
    optimizer = tg.optim.SGD([w], lr=1.0)
    step(optimizer, w.sum())
    optimizer.param_groups[0].update(momentum=0.5, dampening=0.5)
    step(optimizer, w.sum())
    assert host(w).tolist() == [-1 - 1]
    step(optimizer, w.sum())
    assert host(w).tolist() == [-2 - (0.5 + 0.5)]


@every_optimizer
def test_a_copy_of_model_and_optimizer_trains_the_copy(make):
    net = nn.Linear(2, 1, dtype=np.float64)
    optimizer = make(net.parameters())
    step(optimizer, net(tg.tensor(np.ones((1, 2)))).sum())
    twin, its_optimizer = copy.deepcopy((net, optimizer))
    before = host(net.weight)
    step(its_optimizer, twin(tg.tensor(np.ones((1, 2)))).sum())
    assert (host(net.weight) == before).all()
    step(optimizer, net(tg.tensor(np.ones((1, 2)))).sum())
    np.testing.assert_array_equal(host(twin.weight), host(net.weight))


def test_groups_have_options_of_their_own_which_can_be_changed():
    p, q, r = (leaf(np.zeros(1)) for _ in range(3))
    optimizer = tg.optim.SGD([{"params": p}, {"params": [q], "lr": 0.5}], lr=1.0)
    step(optimizer, (p + q).sum())
    assert (host(p).item(), host(q).item()) == (-1, -0.5)
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.add_param_group({"params": [r], "lr": 2.0})
    step(optimizer, (p + q + r).sum())
    assert (host(p).item(), host(q).item(), host(r).item()) == (-1.25, -1, -2)
    assert [group["params"] for group in optimizer.param_groups] == [(p,), (q,), (r,)]


@every_optimizer
def test_float16_parameters_are_stepped_in_float32_and_rounded_once(make):
    gradient = np.array([1e-5, 3e-4], np.float16)
    narrow, wide = (leaf(np.array([1.0, -0.3], dtype)) for dtype in (np.float16, np.float32))
    optimizers = [make([p]) for p in (narrow, wide)]
    for _ in range(3):
        wide.data = tg.tensor(host(narrow).astype(np.float32)).data
        narrow.grad, wide.grad = tg.tensor(gradient), tg.tensor(gradient.astype(np.float32))
        for optimizer in optimizers:
            optimizer.step()
        np.testing.assert_array_equal(host(narrow), host(wide).astype(np.float16))
    states = [optimizer.state_dict()["state"][0] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_array_equal(host(value), host(states[1][name]))
        assert name == "step" or value.dtype == np.float32


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
        ({"dampening": math.inf}, "dampening: got inf"),
        ({"weight_decay": math.inf}, "weight_decay: got inf"),
        ({"nesterov": True}, "nesterov: wants a momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov: wants .* no dampening"),
    ],
)
def test_bad_options_are_named_when_given_and_when_set_later(options, message):
    p = leaf(np.ones(1))
    with pytest.raises(ValueError, match=message):
        tg.optim.SGD([p], **options)
    optimizer = tg.optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [leaf(np.ones(1))], **options})
    optimizer.param_groups[0].update(options)
    with pytest.raises(ValueError, match=message):
        step(optimizer, p.sum())
    assert host(p).tolist() == [1]
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("betas", [(0.9, 1.0), (-0.1, 0.9), (0.9,), 0.9, ("a", "b"), None])
@pytest.mark.parametrize("optimizer", [tg.optim.Adam, tg.optim.AdamW])
def test_bad_betas_are_named(optimizer, betas):
    with pytest.raises(ValueError, match=r"betas: got .*wants two numbers"):
        optimizer([leaf(np.ones(1))], betas=betas)
    with pytest.raises(ValueError, match="eps: got -1"):
        optimizer([leaf(np.ones(1))], eps=-1)


def test_bad_parameters_are_named():
    p = leaf(np.ones(1))
    with pytest.raises(ValueError, match="params: got none"):
        tg.optim.SGD([])
    with pytest.raises(ValueError, match=r"params\[1\]: the same Tensor is in the list twice"):
        tg.optim.SGD([p, p])
    with pytest.raises(ValueError, match=r"params\[0\]: the same Tensor is in another group"):
        tg.optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match=r"params\[0\]: got float64\[1\].*leaf"):
        tg.optim.SGD([p * 2])
    with pytest.raises(TypeError, match=r"params\[0\]: got int64"):
        tg.optim.SGD([tg.tensor([1])])
    with pytest.raises(TypeError, match=r"params\[0\]: got str"):
        tg.optim.SGD("pq")
    with pytest.raises(TypeError, match=r"params\[1\]: got dict"):
        tg.optim.SGD([p, {"params": []}])
    with pytest.raises(TypeError, match="param_group: got tensor"):
        tg.optim.SGD([{"params": []}, p])
    with pytest.raises(TypeError, match="params: got a set"):
        tg.optim.SGD([{"params": {p}}])
    with pytest.raises(ValueError, match="param_group: got rate, wants options of SGD: lr, mom"):
        tg.optim.SGD([{"params": [p], "rate": 0.1}])


@pytest.mark.parametrize(
    "exchange",
    [
        lambda groups, p: groups[1].update(params=(*groups[1]["params"], p)),
        lambda groups, p: groups[1].update(params=[p]),
        lambda groups, p: groups[1].pop("params"),
        lambda groups, p: groups.append({**groups[1], "params": (p,)}),
        lambda groups, p: groups.pop(),
    ],
)
def test_parameters_exchanged_behind_the_optimizers_back_are_named_and_nothing_moves(exchange):
    p, q, new = (leaf(np.ones(2)) for _ in range(3))
    optimizer = tg.optim.SGD([{"params": p}, {"params": q}], lr=0.1, momentum=0.5)
    saved = optimizer.state_dict()
    for parameter in (p, q, new):
        parameter.grad = tg.tensor(np.ones(2))
    exchange(optimizer.param_groups, new)
    load, add = optimizer.load_state_dict, optimizer.add_param_group
    calls = [optimizer.step, optimizer.zero_grad, optimizer.state_dict, lambda: load(saved)]
    for call in (*calls, lambda: add({"params": leaf(np.ones(1))})):
        with pytest.raises(ValueError, match='param_groups: got other "params" than were given'):
            call()
    assert host(p).tolist() == host(q).tolist() == host(new).tolist() == [1, 1]
    assert all(parameter.grad is not None for parameter in (p, q, new))


@pytest.mark.parametrize("separate", [False, True], ids=["one group", "two groups"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["alike", "of two dtypes"])
def test_parameters_that_share_memory_are_refused_and_stay_tied(separate, dtype):
    memory = on_device(np.ones(4))
    parts = [tg.Tensor(part, requires_grad=True) for part in (memory[:3], memory[2:].view(dtype))]
    params = [leaf(np.ones(2)), *parts]
    if separate:
        params = [{"params": params[:2]}, {"params": params[2:]}]
    with pytest.raises(ValueError, match=r"params\[\d\]: got .* in memory of another parameter"):
        tg.optim.SGD(params)
    assert share_memory(*parts)


def test_parameters_that_lie_between_each_other_are_no_sharers():
    memory = on_device(np.arange(6.0).reshape(2, 3))
    parts = [tg.Tensor(memory[:, k], requires_grad=True) for k in range(3)]
    empty = leaf(np.ones(0))
    step(tg.optim.SGD([*parts, empty], lr=1.0), parts[0].sum() + parts[2].sum())
    assert [host(part).tolist() for part in parts] == [[-1, 2], [1, 4], [1, 4]]


def test_a_model_that_moved_needs_a_new_optimizer_and_nothing_has_moved():
    p, q = leaf(np.ones(2)), leaf(np.ones(2))
    optimizer = tg.optim.SGD([{"params": p}, {"params": q}], lr=0.1)
    q.data = tg.tensor(np.ones(3)).data
    p.grad = tg.tensor(np.ones(2))
    with pytest.raises(RuntimeError, match="make the optimizer after moving the model"):
        optimizer.step()
    assert host(p).tolist() == [1, 1]


def test_a_leaf_that_was_replaced_writes_no_gradient_for_its_successor():
    p = vector(1.0, 2.0)
    optimizer = tg.optim.SGD([p], lr=1.0)
    before = (p * 3).sum()
    p.requires_grad = False
    p.requires_grad = True
    optimizer.step()
    (p * 10).sum().backward()
    before.backward()
    assert_values(p.grad, 10.0, 10.0)
