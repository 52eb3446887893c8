"""A captured step is the step: every bit, every count, and nothing that waits."""

import copy
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def gpu(request):
    """CuPy, or the double that the run has in its place; Tensors are made there."""
    if request.config.getoption("--device") == "cpu":
        pytest.skip("about a GPU; run with --device=double")
    import cupy

    with tg.device("cuda"):
        yield cupy


def mlp():
    layers = [(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()) for _ in range(1)]
    return nn.Sequential(*layers[0], nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def dropping():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 3))


def convnet():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 3)),
    )


NETS = {"mlp": (mlp, (12, 6)), "dropout": (dropping, (12, 6)), "convnet": (convnet, (4, 1, 12, 12))}
OPTIMIZERS = {
    "SGD": functools.partial(optim.SGD, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=1e-2),
    "plain SGD": functools.partial(optim.SGD, lr=0.1),
    "Adam": functools.partial(optim.Adam, lr=0.02, amsgrad=True),
    "AdamW": functools.partial(optim.AdamW, lr=0.02),
}


def batches(count, shape, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    return [
        (generator.standard_normal(shape).astype("f4"), generator.integers(0, classes, shape[0]))
        for _ in range(count)
    ]


class Training:
    """A network, its optimizer and schedule, and its step."""

    def __init__(self, net="mlp", optimizer="SGD", clip=False):
        make, self.shape = NETS[net]
        tg.manual_seed(3)
        self.net, self.clip = make(), clip
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters())
        self.schedule = optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.state = self.net, self.optimizer

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), 0.1)
        self.optimizer.step()
        return loss

    def captured(self):
        ((x, y),) = batches(1, self.shape, seed=9)
        return tg.capture(self.step, (x, y), self.state)

    def run(self, step, count=5):
        """The losses of some steps, each of an epoch."""
        losses = []
        for x, y in batches(count, self.shape):
            losses.append(step(tg.tensor(x), tg.tensor(y)).item())
            self.schedule.step()
        return losses

    def all_state(self):
        """Every number of the network, its gradients and the optimizer, on the host."""
        found = {name: host(t) for name, t in self.net.state_dict().items()}
        for name, p in self.net.named_parameters():
            found[f"{name}.grad"] = None if p.grad is None else host(p.grad)
        for number, entry in self.optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                found[f"{number}.{name}"] = host(value)
        return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name, strict=True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_captured_steps_are_the_steps_bit_by_bit(net, optimizer, gpu):
    eager, captured = Training(net, optimizer), Training(net, optimizer)
    function = captured.captured()
    tg.manual_seed(5)
    wanted = eager.run(eager.step)
    tg.manual_seed(5)
    assert captured.run(function) == wanted
    assert_same(captured.all_state(), eager.all_state())


def test_clipped_gradients_are_captured_too(gpu):
    eager, captured = Training(clip=True), Training(clip=True)
    assert captured.run(captured.captured()) == eager.run(eager.step)
    assert_same(captured.all_state(), eager.all_state())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("begun", [False, True])
def test_capture_leaves_all_as_it_was(net, begun, gpu):
    training = Training(net, "Adam")
    if begun:
        training.run(training.step, 3)
    before = training.all_state(), [dict(g) for g in training.optimizer.param_groups]
    tg.manual_seed(5)
    numbers = host(tg.randn(3)), host(F.dropout(tg.ones(20)))
    tg.manual_seed(5)
    training.captured()
    assert_same(training.all_state(), before[0])
    assert training.optimizer.param_groups == before[1]
    assert_same(
        dict(enumerate((host(tg.randn(3)), host(F.dropout(tg.ones(20)))))), dict(enumerate(numbers))
    )


def test_eager_and_captured_steps_take_turns(gpu):
    eager, mixed = Training("mlp", "Adam"), Training("mlp", "Adam")
    function = mixed.captured()
    wanted = eager.run(eager.step, 6)
    turns = iter([function, mixed.step, mixed.step, function, function, mixed.step])
    assert mixed.run(lambda x, y: next(turns)(x, y), 6) == wanted
    assert_same(mixed.all_state(), eager.all_state())


def test_replays_are_counted_and_saved_and_loaded(gpu):
    training = Training("mlp", "Adam")
    function = training.captured()
    training.run(function, 3)
    saved = copy.deepcopy([training.net.state_dict(), training.optimizer.state_dict()])
    assert {entry["step"] for entry in saved[1]["state"].values()} == {3}
    assert training.net[1].num_batches_tracked.item() == 3
    losses = training.run(function, 2)
    training.net.load_state_dict(saved[0])
    training.optimizer.load_state_dict(saved[1])
    training.schedule.load_state_dict({"last_epoch": 3})
    assert training.run(function, 2) == losses


# --- What it costs --------------------------------------------------------------------------------


def test_a_call_copies_nothing_from_the_host_and_nothing_waits(gpu, double_only):
    training = Training("dropout", "Adam")
    function = training.captured()
    (x, y), (other, _) = batches(2, training.shape)
    on_gpu, total = (tg.tensor(x), tg.tensor(y)), function.pool.total_bytes()
    double_only.stats.clear()
    with double_only.forbid("h2d", "d2h", "sync"):
        for _ in range(2):
            function(*on_gpu)
            training.schedule.step()
    assert double_only.stats["graph"] == 2
    # In each call the two inputs and the two corrections of Adam; the learning rate is as it was.
    assert double_only.stats["kernel"] == 2 * 4
    with double_only.forbid("d2h", "sync"):
        function(x, y)
        function(tg.tensor(other, device="cpu"), y)
    assert (double_only.stats["h2d"], function.pool.total_bytes()) == (4, total)


def test_how_many_kernels_the_step_of_the_17_layer_mlp_is(gpu, double_only):
    sizes = [64, *[32] * 16, 10]
    hidden = [
        layer
        for i, o in itertools.pairwise(sizes[:-1])
        for layer in (nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU())
    ]
    net = nn.Sequential(*hidden, nn.Linear(32, 10))
    optimizer = optim.SGD(net.parameters(), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    function = tg.capture(step, batches(1, (100, 64), 10)[0], (net, optimizer))
    nodes = len(double_only.nodes(function.graph))
    assert f"is a graph of {nodes} nodes" in " ".join(README.read_text(encoding="utf-8").split())


# --- What comes out, and what it moves ------------------------------------------------------------


def test_answers_are_the_same_tensors_every_time(gpu):
    net = nn.Linear(2, 2)

    def step(x):
        y = net(x)
        return {"sum": y.sum(), "parts": [y, (y * 2,)], "nothing": None}

    function = tg.capture(step, tg.ones(3, 2), net)
    one = function(tg.ones(3, 2))
    first = one["sum"].item()
    two = function(tg.ones(3, 2) * 2)
    assert one is two
    assert one["sum"].item() != first
    assert one["nothing"] is None
    assert not one["parts"][1][0].requires_grad
    np.testing.assert_array_equal(host(one["parts"][1][0]), 2 * host(net(tg.ones(3, 2) * 2)))


def test_a_step_may_leave_gradients_and_ask_for_those_at_its_input(gpu):
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())

    def step(x):
        net.zero_grad()
        x.requires_grad_()
        loss = net(x).sum()
        (dx,) = tg.grad(loss, x, retain_graph=True)
        loss.backward()
        return dx

    function = tg.capture(step, tg.ones(4, 3), net)
    assert net[0].weight.grad is None
    for scale in (1.0, 2.0):
        dx = host(function(tg.ones(4, 3) * scale))
        left = [host(p.grad) for p in net.parameters()]
        np.testing.assert_array_equal(host(step(tg.ones(4, 3) * scale)), dx)
        for p, gradient in zip(net.parameters(), left):
            np.testing.assert_array_equal(host(p.grad), gradient)


def test_dropout_draws_anew_in_each_replay_and_as_the_seed_says(gpu):
    function = tg.capture(lambda x: F.dropout(x), tg.ones(8, 8), ())
    drawn = []
    for _ in range(2):
        tg.manual_seed(7)
        drawn.append([host(function(tg.ones(8, 8))) for _ in range(3)])
    np.testing.assert_array_equal(*drawn)
    assert len({mask.tobytes() for mask in drawn[0]}) == 3
    tg.manual_seed(7)
    np.testing.assert_array_equal(host(F.dropout(tg.ones(8, 8))), drawn[0][0])


def test_a_graph_recorded_before_notices_what_a_replay_writes(gpu):
    training = Training()
    function = training.captured()
    ((x, y),) = batches(1, training.shape)
    weight = training.net[0].weight
    of_weight = (weight * weight).sum()
    loss = function(x, y)
    scale = tg.ones(1, requires_grad=True)
    of_answer = (scale * loss).sum()
    function(x, y)
    for graph in (of_weight, of_answer):
        with pytest.raises(RuntimeError, match="was changed in place after it was recorded"):
            graph.backward()


def test_two_captured_steps_side_by_side(gpu):
    eager, captured = Training("mlp", "Adam"), Training("mlp", "Adam")
    evaluate = [lambda x, t=t: t.net(x).argmax(axis=1) for t in (eager, captured)]
    train = captured.captured()
    captured.net.eval()
    test = tg.capture(evaluate[1], tg.ones(5, 6), captured.net)
    for x, y in batches(3, captured.shape):
        captured.net.train()
        eager.net.train()
        assert train(x, y).item() == eager.step(tg.tensor(x), tg.tensor(y)).item()
        captured.net.eval()
        eager.net.eval()
        x = tg.tensor(x[:5])
        np.testing.assert_array_equal(host(test(x)), host(evaluate[0](x)))
    assert_same(captured.all_state(), eager.all_state())


def test_calls_on_other_streams_and_of_another_device(gpu, double_only):
    training = Training()
    function, eager = training.captured(), Training()
    wanted = eager.run(eager.step, 2)
    losses = []
    for x, y in batches(2, training.shape):
        with gpu.cuda.Stream(non_blocking=True) as stream:
            losses.append(function(x, y).item())
            training.schedule.step()
            stream.synchronize()
    assert losses == wanted
    with tg.device("cuda:1"):
        there = Training()
        assert there.run(there.captured(), 2) == wanted
    assert there.net[0].weight.device == "cuda:1"


# --- On the CPU -----------------------------------------------------------------------------------


def test_on_the_cpu_the_step_is_called():
    with tg.device("cpu"):
        eager, captured = Training(), Training()
        function = captured.captured()
        assert captured.run(function) == eager.run(eager.step)
        loss = function(*batches(1, captured.shape)[0])
    assert not loss.requires_grad
    assert captured.net[1].num_batches_tracked.item() == 6
