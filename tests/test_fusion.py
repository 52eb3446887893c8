"""What `Sequential` runs as one op gives what its modules give one after the other."""

import pickle

import numpy as np
import pytest
from helpers import assert_close, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes
from tinygrad_bn.kernels import cpu_dense


def perceptron(has_bias=True, **norm):
    """Two layers of Linear, batch norm and ReLU, and a Linear, in float64."""
    tg.manual_seed(0)
    kind = {"dtype": tg.float64}
    modules = []
    for n, m in ((3, 5), (5, 4)):
        modules += [nn.Linear(n, m, bias=has_bias, **kind), nn.BatchNorm1d(m, **kind, **norm)]
        modules.append(nn.ReLU())
    return nn.Sequential(*modules, nn.Linear(4, 2, **kind))


def convnet(**norm):
    tg.manual_seed(0)
    kind = {"dtype": tg.float64}
    convolution = nn.Conv2d(2, 3, 3, **kind)
    return nn.Sequential(convolution, nn.BatchNorm2d(3, **kind, **norm), nn.ReLU(), nn.Flatten())


def one_by_one(net, x):
    for module in net:
        x = module(x)
    return x


NETS = {
    "perceptron": (perceptron, (7, 3)),
    "perceptron without biases": (lambda **norm: perceptron(has_bias=False, **norm), (7, 3)),
    "convnet": (convnet, (4, 2, 5, 4)),
}
each_net = pytest.mark.parametrize("name", NETS)
each_norm = pytest.mark.parametrize(
    "norm",
    [{}, {"affine": False}, {"bias": False}, {"momentum": None}, {"track_running_stats": False}],
    ids=lambda norm: "-".join(norm) or "plain",
)


def problem(name, **norm):
    make, shape = NETS[name]
    x = np.random.default_rng(1).standard_normal(shape)
    return make(**norm), make(**norm), leaf(x), leaf(x)


@each_net
@each_norm
def test_values_gradients_and_running_statistics_are_those_of_the_modules(name, norm):
    fused, plain, x, same = problem(name, **norm)
    for _ in range(2):
        y, expected = fused(x), one_by_one(plain, same)
        assert_close(y, expected, 32)
        (y * y).sum().backward()
        (expected * expected).sum().backward()
    gradients = [(x.grad, same.grad)]
    gradients += [(p.grad, q.grad) for p, q in zip(fused.parameters(), plain.parameters())]
    largest = max(float(abs(theirs).max()) for _, theirs in gradients)
    for ours, theirs in gradients:
        assert_close(ours, theirs, 32, largest)
    for p, q in zip(fused.buffers(), plain.buffers()):
        assert_close(p, q, 32)


@each_norm
def test_layers_too_large_for_one_call_do_the_same(norm, monkeypatch):
    monkeypatch.setattr(cpu_dense, "_SMALL", 0)
    assert "layers" in ops_of(perceptron(**norm), leaf(np.ones((4, 3))))
    test_values_gradients_and_running_statistics_are_those_of_the_modules("perceptron", norm)


@each_net
def test_orders_2_and_3_are_those_of_the_modules(name):
    def chain(run, x):
        """Σ y² and the sums of the squares of its gradients of order 1, 2 and 3 at x."""
        found = [(run(x) * run(x)).sum()]
        for _ in range(3):
            (g,) = tg.grad(found[-1], x, create_graph=True)
            found.append((g * g).sum())
        return found

    fused, plain, x, same = problem(name)
    ours, theirs = chain(fused, x), chain(lambda x: one_by_one(plain, x), same)
    for order, (a, b) in enumerate(zip(ours, theirs)):
        assert abs(a.item() - b.item()) <= 1e-9 * abs(b.item()), order


DENSE = {"layers", "small_layers"}


def ops_of(net, x):
    return sorted(node.op.name for node in graph_nodes([net(x)]))


def test_layers_are_one_op_and_a_relu_is_part_of_its_norm():
    found = ops_of(perceptron(), leaf(np.ones((4, 3))))
    assert len(found) == 2
    assert {*found} - DENSE == {"linear"}
    assert "relu" not in ops_of(convnet(), leaf(np.ones((2, 2, 4, 4))))


def traced(net, x):
    with tg.tracing():
        return ops_of(net, x)


def hooked(net, x):
    net[1].register_forward_hook(lambda *_: None)
    net[-2].register_forward_hook(lambda *_: None)
    return ops_of(net, x)


def patched(net, x):
    net[1].forward, net[4].forward = (lambda f: lambda x: f(x))(net[1].forward), net[4].forward
    return ops_of(net, x)


def evaluated(net, x):
    return ops_of(net.eval(), x)


def composed(net, x):
    net[1].impl = net[4].impl = "composed"
    return ops_of(net, x)


class Mine(nn.BatchNorm1d):
    pass


def subclassed(net, x):
    mine = [Mine(5, dtype=tg.float64), Mine(4, dtype=tg.float64)]
    modules = list(net)
    modules[1], modules[4] = mine
    return ops_of(nn.Sequential(*modules), x)


@pytest.mark.parametrize("run", [traced, hooked, patched, evaluated, composed, subclassed])
def test_nothing_is_fused_where_somebody_could_see_it(run):
    found = run(perceptron(), leaf(np.random.default_rng(0).standard_normal((4, 3))))
    assert not DENSE & {*found}
    assert found.count("relu") == 2


@pytest.mark.parametrize(
    ("shape", "error"),
    [((1, 3), "one value per channel"), ((4, 2), "wants input"), ((3,), "shape")],
)
def test_bad_input_is_told_as_by_the_modules(shape, error):
    for run in (perceptron(), lambda x: one_by_one(perceptron(), x)):
        with pytest.raises(ValueError, match=error):
            run(leaf(np.ones(shape)))


def of_one(kind):
    return kind(np.ones(1))


BAD = {
    "running_var of one": (1, "running_var", lambda: of_one(tg.Tensor)),
    "running_mean of float32": (1, "running_mean", lambda: tg.zeros(5)),
    "no running_var": (1, "running_var", lambda: None),
    "β of one": (1, "bias", lambda: of_one(nn.Parameter)),
    "γ of one": (1, "weight", lambda: of_one(nn.Parameter)),
    "negative ε": (1, "eps", lambda: -1.0),
    "momentum of 2": (1, "momentum", lambda: 2.0),
    "b of one": (0, "bias", lambda: of_one(nn.Parameter)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_layers_are_told_as_by_the_modules_and_nothing_moves(name):
    module, attribute, value = BAD[name]
    x = np.random.default_rng(0).standard_normal((4, 3))
    said = []
    for run in (lambda net: net(leaf(x)), lambda net: one_by_one(net, leaf(x))):
        net = perceptron()
        setattr(net[module], attribute, value())
        before = [(buffer, buffer.data.copy()) for buffer in net.buffers()]
        with pytest.raises((TypeError, ValueError)) as error:
            run(net)
        said.append(str(error.value))
        for buffer, values in before:
            np.testing.assert_array_equal(buffer.cpu().numpy(), tg.Tensor(values).cpu().numpy())
    assert said[0] == said[1]


def test_what_somebody_took_away_is_missed():
    net = perceptron()
    del net[1].running_var
    with pytest.raises(AttributeError, match="running_var"):
        net(leaf(np.ones((4, 3))))


def test_other_dtypes_are_no_matter_for_one_call():
    def run(dtype, x):
        net = perceptron(momentum=None)
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.dtype == tg.float64:
                tensor.data = tensor.data.astype(dtype)
        return net(tg.tensor(x.astype(dtype)))

    x = np.random.default_rng(0).standard_normal((4, 3))
    expected = run(np.float64, x)
    own = run(pickle.loads(pickle.dumps(np.dtype(np.float64))), x)  # equal, and another object
    assert own.node.parents[0].op is expected.node.parents[0].op
    assert_close(own, expected, 32)
    if tg.get_default_device() == "cpu":  # CuPy has no such numbers
        assert_close(run(np.longdouble, x).data.astype(np.float64), expected, 32)


@pytest.mark.parametrize("sizes", [(3, 0), (0, 3)])
def test_layers_without_features(sizes):
    n, m = sizes
    modules = nn.Linear(n, m), nn.BatchNorm1d(m), nn.ReLU()
    x = tg.ones((4, n))
    expected = one_by_one(modules, x)
    assert_close(nn.Sequential(*modules)(x), expected)


def test_statistics_do_not_move_in_a_step_that_is_checked():
    net = perceptron()
    before = [buffer.data.copy() for buffer in net.buffers()]
    x = leaf(np.random.default_rng(0).standard_normal((5, 3)))
    tg.checkpoint(net, x).sum().backward()
    moved = [buffer.data.copy() for buffer in net.buffers()]
    assert [count for count in moved if not count.shape] == [1, 1]
    assert any(not np.array_equal(a, b) for a, b in zip(before, moved))


def test_training_goes_as_with_the_modules():
    losses = {}
    for name in ("fused", "one by one"):
        net = perceptron()
        run = net if name == "fused" else lambda x, net=net: one_by_one(net, x)
        optimizer = tg.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        x = tg.tensor(np.random.default_rng(0).standard_normal((16, 3)))
        target = tg.tensor(np.arange(16) % 2)
        losses[name] = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.cross_entropy(run(x), target)
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert np.allclose(losses["fused"], losses["one by one"], rtol=1e-10, atol=0)
