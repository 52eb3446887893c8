"""Modules: registration, the state dict, modes, layers."""

import copy

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn


def small_net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_parameters_and_buffers_are_found_by_dotted_names():
    net = nn.Sequential(small_net(), nn.Linear(2, 1, bias=False))
    assert [name for name, _ in net.named_parameters()] == [
        *("0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias", "0.3.weight", "0.3.bias"),
        "1.weight",
    ]
    assert [name for name, _ in net.named_buffers()] == [
        *("0.1.running_mean", "0.1.running_var", "0.1.num_batches_tracked"),
    ]
    assert [name for name, _ in net.named_modules()] == [
        *("", "0", "0.0", "0.1", "0.2", "0.3", "1"),
    ]


def test_a_seed_gives_the_same_network():
    states = []
    for _ in range(2):
        tg.manual_seed(3)
        states.append(small_net().state_dict())
    assert all((host(states[0][k]) == host(states[1][k])).all() for k in states[0])


def test_linear_starts_as_pytorchs_does():
    tg.manual_seed(0)
    layer = nn.Linear(100, 400)
    for values in (host(layer.weight), host(layer.bias)):
        assert np.abs(values).max() <= 0.1
        assert values.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.1)


def test_state_dict_round_trip_and_independence():
    tg.manual_seed(0)
    net, other = small_net(), small_net()
    net(tg.randn(8, 3))
    saved = net.state_dict()
    other.load_state_dict(saved)
    x = tg.randn(5, 3)
    assert (host(net.eval()(x)) == host(other.eval()(x))).all()
    net.train()(tg.randn(8, 3))  # moves net's statistics, not the saved ones
    assert (host(saved["1.running_mean"]) == host(other[1].running_mean)).all()


def test_load_state_dict_takes_arrays_and_keeps_dtypes():
    net = nn.Linear(2, 1)
    net.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": [3]})
    assert net.weight.dtype == np.float32
    assert host(net.weight).tolist() == [[1, 2]]
    assert host(net.bias).tolist() == [3]


def test_load_state_dict_lists_every_problem_and_changes_nothing():
    net = small_net()
    before = net.state_dict()
    state = {k: host(v) + 1 for k, v in before.items() if k != "0.bias"}
    state |= {"0.weight": np.zeros((2, 2)), "extra": np.zeros(1), "1.bias": np.array(["a"] * 4)}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "missing 0.bias" in text
    assert "not numbers in 1.bias: got <U1[4], wants float32[4]" in text
    assert "unexpected extra" in text
    assert "misshapen 0.weight: got float64[2, 2], wants float32[4, 3]" in text
    with pytest.raises(RuntimeError, match="misshapen"):
        net.load_state_dict(state, strict=False)
    after = net.state_dict()
    assert all((host(before[k]) == host(after[k])).all() for k in before)
    del state["0.weight"], state["1.bias"]
    passed_over = net.load_state_dict(state, strict=False)
    assert passed_over.missing_keys == ["0.weight", "0.bias", "1.bias"]
    assert passed_over.unexpected_keys == ["extra"]
    with pytest.raises(TypeError, match="state: got list"):
        net.load_state_dict([])


def test_train_and_eval_reach_all_modules():
    net = nn.Sequential(small_net())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_evaluation_uses_the_running_statistics_and_moves_nothing():
    layer = nn.BatchNorm1d(2).eval()
    before = {k: host(v) for k, v in layer.state_dict().items()}
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(host(layer(x)), host(x) / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert all((host(v) == before[k]).all() for k, v in layer.state_dict().items())


def test_momentum_none_averages_all_batches_evenly():
    layer = nn.BatchNorm1d(1, momentum=None)
    batches = np.random.default_rng(0).standard_normal((4, 6, 1)).astype(np.float32)
    for batch in batches:
        layer(tg.tensor(batch))
    np.testing.assert_allclose(host(layer.running_mean), batches.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(host(layer.running_var), batches.var(1, ddof=1).mean(0), rtol=1e-5)
    assert layer.num_batches_tracked.item() == 4


def test_a_failed_training_step_moves_no_statistics():
    layer = nn.BatchNorm1d(2)
    layer(tg.tensor(np.eye(2, dtype=np.float32)))
    before = {k: host(v) for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match="one value per channel"):
        layer(tg.ones((1, 2)))
    with pytest.raises(ValueError, match=r"input: got shape \(2, 3\)"):
        layer(tg.ones((2, 3)))
    assert all((host(v) == before[k]).all() for k, v in layer.state_dict().items())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d, (2, 3, 4, 5)),
        (nn.BatchNorm2d, (2, 3, 4)),
        (nn.BatchNorm3d, (2, 3, 4, 5)),
        (nn.BatchNorm2d, (2, 4, 5, 6)),
    ],
)
def test_batch_norm_wants_its_number_of_axes_and_channels(layer, shape):
    with pytest.raises(ValueError, match="input: got shape"):
        layer(3)(tg.ones(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": -1}, "num_features"),
        ({"num_features": 2.0}, "num_features"),
        ({"num_features": 2, "eps": -1}, "eps"),
        ({"num_features": 2, "eps": float("nan")}, "eps"),
        ({"num_features": 2, "momentum": 1.5}, "momentum"),
        ({"num_features": 2, "impl": "fast"}, "impl"),
    ],
)
def test_batch_norm_names_the_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=f"{message}: got"):
        nn.BatchNorm1d(**arguments)


def test_batch_norm_in_three_dimensions_is_batch_norm_of_a_matrix():
    tg.manual_seed(0)
    x = tg.randn(2, 3, 2, 2, 3)
    rows = tg.tensor(np.moveaxis(host(x), 1, -1).reshape(-1, 3))
    y = host(nn.BatchNorm3d(3)(x))
    np.testing.assert_allclose(
        np.moveaxis(y, 1, -1).reshape(-1, 3), host(nn.BatchNorm1d(3)(rows)), atol=1e-6
    )


def test_statistics_can_be_switched_off_as_in_pytorch():
    x = tg.tensor([[1.0, 2.0], [3.0, 5.0]])
    layer = nn.BatchNorm1d(2)
    layer.track_running_stats = False
    layer(x)
    assert host(layer.running_mean).tolist() == [0, 0]
    assert layer.num_batches_tracked.item() == 0
    np.testing.assert_allclose(host(layer.eval()(x)), host(x), rtol=1e-5)  # by running ones still
    layer.running_mean = layer.running_var = None
    np.testing.assert_allclose(host(layer(x)), [[-1, -1], [1, 1]], atol=1e-4)  # by the batch


def test_affine_without_bias_and_another_dtype():
    layer = nn.BatchNorm1d(2, dtype=np.float64, bias=False)
    assert list(layer.state_dict()) == [
        *("weight", "running_mean", "running_var", "num_batches_tracked"),
    ]
    assert layer(tg.tensor(np.eye(2))).dtype == np.float64
    assert nn.Linear(2, 2, dtype=np.float64).bias.dtype == np.float64


def test_a_state_dict_of_live_views_is_loaded_as_it_was():
    net = nn.Module()
    net.a, net.b = nn.Parameter([1.0]), nn.Parameter([2.0])
    net.load_state_dict({"a": net.b, "b": net.a})
    assert (net.a.item(), net.b.item()) == (2, 1)


def test_a_parameter_can_be_made_of_a_recorded_result():
    w = leaf(np.ones(2))
    parameter = nn.Parameter((w * 2.0).detach())
    tg.optim.SGD([parameter], lr=1.0)
    parameter.sum().backward()
    with tg.no_grad():
        parameter -= 1.0
    assert host(parameter).tolist() == [1, 1]


def test_flatten():
    x = tg.ones((2, 3, 4, 5))
    assert nn.Flatten()(tg.ones((0, 3, 4))).shape == (0, 12)
    for layer, wrong in ((nn.Flatten(5), x), (nn.Flatten(), tg.ones(3)), (nn.Flatten(2, 1), x)):
        with pytest.raises((ValueError, IndexError)):
            layer(wrong)
    assert nn.Flatten()(x).shape == (2, 60)
    assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert nn.Flatten(1, 2)(x).shape == (2, 12, 5)


def test_sequential_is_a_list_of_modules():
    net = small_net()
    assert len(net) == 4
    assert isinstance(net[-1], nn.Linear)
    assert [type(m) for m in net[1:3]] == [nn.BatchNorm1d, nn.ReLU]
    assert list(net) == [net[i] for i in range(4)]
    assert net.append(nn.Tanh()) is net
    assert len(net) == 5
    named = nn.Sequential({"first": nn.ReLU(), "second": nn.Sigmoid()})
    assert repr(named) == "Sequential(\n  (first): ReLU()\n  (second): Sigmoid()\n)"
    with pytest.raises(TypeError, match="module 0: got function"):
        nn.Sequential(lambda x: x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(3, 3, bias=False)
        self.decode = nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(F.tanh(self.encode(x)))


def test_tied_weights_are_one_parameter_with_the_sum_of_gradients():
    tg.manual_seed(0)
    net = Tied()
    assert len(list(net.parameters())) == 1
    assert list(net.state_dict()) == ["encode.weight", "decode.weight"]
    x = tg.randn(4, 3)
    net(x).sum().backward()
    one, two = leaf(host(net.encode.weight)), leaf(host(net.encode.weight))
    F.linear(F.tanh(F.linear(x, one)), two).sum().backward()
    np.testing.assert_allclose(
        host(net.encode.weight.grad), host(one.grad) + host(two.grad), atol=1e-6
    )


def test_deepcopy_keeps_ties_and_shares_nothing():
    net = Tied()
    twin = copy.deepcopy(net)
    assert twin.encode.weight is twin.decode.weight
    twin.encode.weight.data[...] = 0
    assert (host(net.encode.weight) != 0).any()


def test_attributes_are_registered_replaced_and_refused():
    net = nn.Module()
    net.weight = nn.Parameter([1.0])
    net.note = "plain"
    assert [name for name, _ in net.named_parameters()] == ["weight"]
    net.weight = None
    assert list(net.parameters()) == []
    with pytest.raises(TypeError, match="weight: got Tensor, wants a Parameter or None"):
        net.weight = tg.ones(1)
    del net.weight
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):
        _ = net.weight
    net.register_buffer("kept", tg.ones(1))
    net.register_buffer("unsaved", tg.ones(1), persistent=False)
    assert list(net.state_dict()) == ["kept"]
    net.note = nn.ReLU()
    assert [name for name, _ in net.named_children()] == ["note"]

    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"super\(\).__init__"):
        Forgot()
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_freezing_and_zero_grad():
    net = small_net()
    net[0].requires_grad_(False)
    net(tg.randn(6, 3)).sum().backward()
    assert net[0].weight.grad is None
    assert net[3].weight.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_tracing_tells_the_module_of_every_op():
    net = nn.Sequential(small_net(), nn.Linear(2, 1))
    with tg.tracing():
        y = net(tg.randn(5, 3))
    assert y.node.trace.scope == "Sequential.1:Linear"
    (inner,) = {n.trace.scope for n in tg.check.graph_nodes([y]) if n.op.name == "normalize"}
    assert inner == "Sequential.0:Sequential.1:BatchNorm1d"
