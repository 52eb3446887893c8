"""SyncBatchNorm among other modules: a model is converted, copied, folded, stepped."""

import copy

import numpy as np
from test_sync_norm import layer, numbers, on_host

import tinygrad_bn as tg
from tinygrad_bn import distributed, nn
from tinygrad_bn.distributed import simulate


def model():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3, eps=1e-3, momentum=None, impl="composed"),
        nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5, affine=False)),
        nn.BatchNorm1d(5, track_running_stats=False, bias=False),
    )


def test_a_converted_model_has_the_same_parameters_and_state():
    made = model()
    before = [id(tensor) for tensor in (*made.parameters(), *made.buffers())]
    names = list(made.state_dict())
    assert nn.convert_sync_batchnorm(made) is made
    assert [id(tensor) for tensor in (*made.parameters(), *made.buffers())] == before
    assert list(made.state_dict()) == names
    first, second = made[1], made[2][2]
    assert {type(m) for m in (first, second, made[3])} == {nn.SyncBatchNorm}
    assert (first.eps, first.momentum, first.impl) == (1e-3, None, "composed")
    assert repr(first) == repr(model()[1]).replace("BatchNorm2d", "SyncBatchNorm")
    assert not second.affine
    assert nn.SyncBatchNorm.convert_sync_batchnorm(made) is made


def test_a_batch_norm_itself_is_converted_with_its_mode_and_hooks():
    seen, made = [], nn.BatchNorm1d(3).eval()
    made.register_forward_hook(lambda module, args, output: seen.append(type(module)))
    other = nn.convert_sync_batchnorm(made)
    assert not other.training
    other(tg.ones(2, 3))
    assert seen == [nn.SyncBatchNorm]


def test_a_model_that_talks_with_given_ranks_can_be_copied():
    def each(comm):
        made = nn.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(3)), comm)
        twin = copy.deepcopy(made)
        assert twin[0].process_group is comm
        return twin(tg.tensor(numbers((12, 3), dtype=np.float32)[comm.share(12)])).shape

    assert simulate(2, each) == [(6, 3)] * 2


def test_one_that_is_used_twice_stays_one_and_shares_no_place_with_the_old():
    made = nn.BatchNorm1d(3)
    converted = nn.convert_sync_batchnorm(nn.Sequential(made, nn.ReLU(), made))
    assert converted[0] is converted[2]
    converted[0].register_buffer("more", tg.ones(1))
    assert "more" not in made._buffers


def test_other_ranks_may_be_given_later():
    made = nn.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm1d(3)))
    again = nn.convert_sync_batchnorm(made, distributed.ALONE)
    assert again[0].process_group is distributed.ALONE


def test_relu_after_it_is_relu():
    def each(comm):
        made, x = layer(nn.SyncBatchNorm), tg.tensor(numbers((4, 3)))
        return on_host([made.forward_relu(x), tg.relu(made(x))])

    for got, wanted in simulate(2, each):
        np.testing.assert_array_equal(got, wanted)


def test_it_folds_into_the_layer_before_it():
    linear, made = nn.Linear(2, 3, dtype=np.float64), layer(nn.SyncBatchNorm).eval()
    x = tg.tensor(numbers((5, 2)))
    folded, wanted = on_host([nn.fold(linear, made)(x), made(linear(x))])
    np.testing.assert_allclose(folded, wanted, rtol=1e-12)


def test_an_optimizer_made_before_steps_what_was_converted():
    def each(comm):
        made = nn.Sequential(nn.BatchNorm1d(3))
        optimizer = tg.optim.SGD(made.parameters(), lr=1.0)
        made = nn.convert_sync_batchnorm(made)
        made(tg.tensor(numbers((12, 3), dtype=np.float32)[comm.share(12)])).sum().backward()
        optimizer.step()
        return float(made[0].bias.sum())

    assert simulate(2, each) == [-18.0, -18.0]
