"""What cannot be captured is told, and leaves the state, and the library, as they were."""

import datetime
import re

import numpy as np
import pytest
from helpers import host
from test_capture import Training, assert_same, batches, gpu

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim
from tinygrad_bn.recording import write

__all__ = ["gpu"]  # a fixture
HOST = np.random.default_rng(0)


class Counting:
    """What a step must not do: it adds to the loss of the ordinary step, or does otherwise."""

    def __init__(self):
        self.training, self.count = Training(), 0
        self.other = nn.BatchNorm1d(6)
        self.buffer, self.leaf = tg.zeros(3), tg.ones(3, requires_grad=True)
        self.identity = tg.tensor(np.eye(6, dtype="f4"))
        self.foreign = optim.SGD([self.leaf], lr=0.1, momentum=0.9)

    def reads(self, x, y):
        loss = self.training.step(x, y)
        return loss * loss.item()

    def prints(self, x, y):
        loss = self.training.step(x, y)
        f"{loss}"
        return loss

    def decides(self, x, y):
        loss = self.training.step(x, y)
        return loss if loss < 100 else -loss

    def copies_a_random_mask(self, x, y):
        return self.training.step(x * tg.tensor(HOST.random(x.shape).astype("f4")), y)

    def multiplies_by_a_random_number(self, x, y):
        return self.training.step(x * HOST.random(), y)

    def draws(self, x, y):
        return self.training.step(x * float(tg.rand(1, device="cpu").item()), y)

    def counts(self, x, y):
        self.count += 1
        return self.training.step(x, y) * (1 + 1 / self.count)

    def counts_as_learning_rate(self, x, y):
        training = self.training
        self.count += 1
        training.optimizer.zero_grad()
        F.cross_entropy(training.net(x), y).backward()
        with tg.no_grad():
            for p in training.net.parameters():
                p -= p.grad * (0.1 / self.count)

    def steps_the_schedule(self, x, y):
        loss = self.training.step(x, y)
        self.training.schedule.step()
        self.training.schedule.step()
        return loss

    def accumulates(self, x, y):
        loss = F.cross_entropy(self.training.net(x), y)
        loss.backward()
        self.training.optimizer.step()
        return loss

    def moves_other_statistics(self, x, y):
        return self.training.step(self.other(x).detach(), y)

    def writes_elsewhere(self, x, y):
        write(self.buffer.data, self.buffer.data + 1)
        return self.training.step(x, y)

    def writes_behind_the_library(self, x, y):
        self.buffer.data += 1
        return self.training.step(x, y) + self.buffer.sum()

    def adds_to_a_gradient(self, x, y):
        (self.leaf * self.leaf).sum().backward()
        return self.training.step(x, y)

    def steps_another_optimizer(self, x, y):
        self.leaf.sum().backward()
        self.foreign.step()
        return self.training.step(x, y)

    def replaces_a_buffer(self, x, y):
        norm = self.training.net[1]
        norm.running_mean = norm.running_mean * 0.5
        return self.training.step(x, y)

    def replaces_the_array_of_a_buffer(self, x, y):
        norm = self.training.net[1]
        norm.running_mean.data = norm.running_mean.data * 0.5
        return self.training.step(x, y)

    def freezes(self, x, y):
        loss = self.training.step(x, y)
        self.training.net[0].weight.requires_grad = False
        return loss

    def evaluates(self, x, y):
        self.training.net.eval()
        return self.training.step(x, y)

    def solves(self, x, y):
        return self.training.step(x, y) + tg.solve(x.T @ x + self.identity, x.T).sum()

    def returns_a_number(self, x, y):
        self.training.step(x, y)
        return 3.5

    def captures(self, x, y):
        return tg.capture(self.training.step, (x, y), self.training.state)(x, y)

    def waits(self, x, y):
        import cupy

        loss = self.training.step(x, y)
        cupy.cuda.get_current_stream().synchronize()
        return loss


REFUSED = {
    "reads": r"cannot be captured: RuntimeError: .*D2H transfers are disallowed \(in a capture no",
    "prints": "D2H transfers are disallowed",
    "decides": "D2H transfers are disallowed",
    "copies_a_random_mask": "H2D transfers are disallowed",
    "multiplies_by_a_random_number": "replays do not make what the step does; it has a number of",
    "draws": "the step draws random numbers on the host",
    "counts": "answer 0: replays do not make what the step does; it has a number of Python's",
    "counts_as_learning_rate": r"0\.weight: replays do not make what the step does",
    "steps_the_schedule": r"SGD: lr was changed by the step: 0\.05 to 0\.025",
    "accumulates": "replays do not make what the step does; it has .* gradients that it do",
    "moves_other_statistics": r"the step wrote into \w+\[6?\] on cuda:0, which is not in `state`",
    "writes_elsewhere": r"the step wrote into float32\[3\] on cuda:0, which is not in `state`",
    "writes_behind_the_library": "replays do not make what the step does; .* is not in `state`",
    "adds_to_a_gradient": r"the gradient of a Tensor of shape \[3\], which is not in `state`",
    "steps_another_optimizer": "the step moves an optimizer that is not in `state`",
    "replaces_a_buffer": "running_mean: another was put into its module by the step",
    "replaces_the_array_of_a_buffer": r"1\.running_mean: its array was replaced by the step",
    "freezes": r"0\.weight: requires_grad was changed by the step",
    "evaluates": "Sequential: its mode was changed by the step",
    "solves": "NotImplementedError: calling cuBLAS API during stream capture is",
    "returns_a_number": "the step returned a float, wants Tensors, or None",
    "captures": "capture: called within a step that is being captured",
    "waits": "StreamCaptureUnsupported",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_is_told_and_changes_nothing(name, gpu):
    steps = Counting()
    training = steps.training
    training.run(training.step, 2)
    before = training.all_state(), dict(training.optimizer.param_groups[0])
    modes = [module.training for module in training.net.modules()]
    ((x, y),) = batches(1, training.shape)
    with pytest.raises(tg.CaptureError, match=REFUSED[name]):
        tg.capture(getattr(steps, name), (x, y), training.state)
    assert_same(training.all_state(), before[0])
    assert {**training.optimizer.param_groups[0]} == before[1]
    assert [module.training for module in training.net.modules()] == modes
    assert all(p.requires_grad for p in training.net.parameters())
    # And all goes on, captured and eagerly.
    training.schedule.load_state_dict({"last_epoch": 2})  # which is not in `state`
    eager = Training()
    eager.run(eager.step, 2)
    assert training.run(training.captured(), 1) == eager.run(eager.step, 1)
    assert training.run(training.step, 1) == eager.run(eager.step, 1)


@pytest.mark.parametrize("before", ["no gradient", "a gradient", "a gradient at its optimizer's"])
def test_a_gradient_outside_the_state_is_as_it_was(before, gpu):
    steps = Counting()
    if before != "a gradient at its optimizer's":
        steps.leaf.node.home = None
    if before != "no gradient":
        (3 * steps.leaf).sum().backward()
    with pytest.raises(tg.CaptureError, match="the step moves the gradient of a Tensor"):
        tg.capture(
            steps.adds_to_a_gradient, batches(1, steps.training.shape)[0], steps.training.state
        )
    gradient = steps.leaf.grad
    assert (gradient if gradient is None else gradient.tolist()) == {"no gradient": None}.get(
        before, [3, 3, 3]
    )


def test_leaves_outside_may_be_read_and_those_of_the_step_itself_have_gradients(gpu):
    training, frozen = Training(), tg.ones(1, requires_grad=True)

    def step(x, y):
        scale = frozen.detach() * 1
        scale.requires_grad = True
        (scale * (frozen * 2).detach()).sum().backward()
        return training.step(x * scale.grad * 0.5, y)

    ((x, y),) = batches(1, training.shape)
    captured = tg.capture(step, (x, y), training.state)
    eager = Training()
    assert captured(x, y).item() == eager.step(tg.tensor(x), tg.tensor(y)).item()
    assert frozen.grad is None


def test_an_error_of_the_step_itself_passes(gpu):
    training = Training()
    before = training.all_state()

    def step(x, y):
        training.step(x, y)
        return training.net(x[:, :2])

    with pytest.raises(ValueError, match="linear"):
        tg.capture(step, batches(1, training.shape)[0], training.state)
    assert_same(training.all_state(), before)


def test_an_interrupted_capture_restores_the_state_too(gpu):
    training, calls = Training(), []
    before = training.all_state()

    def step(x, y):
        calls.append(training.step(x, y))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return calls[-1]

    with pytest.raises(KeyboardInterrupt):
        tg.capture(step, batches(1, training.shape)[0], training.state)
    assert_same(training.all_state(), before)
    training.run(training.captured())


def test_state_is_modules_optimizers_and_leaves_on_one_device(gpu):
    net, leaf = nn.Linear(2, 2), tg.ones(2, requires_grad=True)
    for state, message in (
        ((net, 3), r"state\[1\]: got an int, wants Modules, Optimizers and leaf Tensors"),
        (net.forward, r"state\[0\]: got a method"),
        (net.named_parameters(), r"state\[0\]: got a tuple"),
        (np.ones(2, "f4"), r"state\[0\]: got an array of float32\[2\], wants Modules"),
        (
            leaf * 2,
            r"state\[0\]: got a Tensor of float32\[2\] on cuda:0, the result of an op, wants",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            tg.capture(lambda x: x, tg.ones(2), state)
    with pytest.raises(ValueError, match="state: lies on cpu and cuda:0, wants one device"):
        tg.capture(lambda x: x, tg.ones(2), (net, tg.ones(2, device="cpu")))


# --- Later calls ----------------------------------------------------------------------------------


def replace_parameter(t):
    t.net[0].weight.data = t.net[0].weight.data.copy()


def replace_layer(t):
    t.net.add_module("3", nn.Linear(8, 8))


def unset(member):
    return lambda t: setattr(t.net[3], member, None)


CHANGES = {
    r"0\.weight: its array was replaced since it was captured": replace_parameter,
    r"0\.weight: its array was replaced since": lambda t: optim.SGD(t.net.parameters(), lr=0.1),
    r"3: another was put into its module since it was captured": replace_layer,
    r"bias: another was put into its module since": unset("bias"),
    r"weight: another was put into its module since": unset("weight"),
    r"6\.weight: requires_grad was changed since": lambda t: t.net[6].requires_grad_(False),
    r"Sequential: its mode was changed since it was captured": lambda t: t.net.eval(),
    r"BatchNorm1d: its mode was changed since": lambda t: t.net[1].eval(),
    r"SGD: momentum was changed since it was captured: 0\.9 to 0\.8": lambda t: (
        t.optimizer.param_groups[0].update(momentum=0.8)
    ),
    r"SGD: its parameters were changed since": lambda t: t.optimizer.add_param_group(
        {"params": [tg.ones(2, requires_grad=True)]}
    ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_was_replaced_or_changed_since_is_told(message, gpu):
    training = Training()
    function = training.captured()
    ((x, y),) = batches(1, training.shape)
    function(x, y)
    CHANGES[message](training)
    before = host(training.net[4].running_mean)
    with pytest.raises(tg.CaptureError, match=message):
        function(x, y)
    np.testing.assert_array_equal(host(training.net[4].running_mean), before)


def test_a_learning_rate_that_is_none_is_told(gpu):
    training = Training()
    function = training.captured()
    training.optimizer.param_groups[0]["lr"] = -1
    with pytest.raises(ValueError, match="lr: got -1"):
        function(*batches(1, training.shape)[0])


def test_parameters_that_were_stepped_apart_are_told(gpu):
    training = Training("mlp", "Adam")
    function = training.captured()
    ((x, y),) = batches(1, training.shape)
    function(x, y)
    state = training.optimizer.state_dict()
    state["state"][2]["step"] = 5
    training.optimizer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="parameters were stepped together, and then"):
        function(x, y)


X, Y = batches(1, (12, 6))[0]
MISFITS = {
    "inputs: got 1, wants 2": lambda: (X,),
    "inputs[0]: got float32[5, 6], wants float32[12, 6]": lambda: (X[:5], Y[:5]),
    "inputs[0]: got float64[12, 6], wants float32[12, 6]": lambda: (X.astype("f8"), Y),
    "inputs[1]: got int32[12], wants int64[12]": lambda: (X, Y.astype("i4")),
    "inputs[1]: got a list, wants a Tensor or an array": lambda: (X, [1] * 100),
    "inputs[1]: got None, wants a Tensor or an array": lambda: (X, None),
    "inputs[0]: got a datetime.date, wants a Tensor": lambda: (datetime.date(2020, 1, 1), Y),
    "inputs[1]: got int64[], wants int64[12]": lambda: (X, np.int64(3)),
    "inputs[0]: got a Tensor that requires a gradient, wants its detach()": lambda: (
        *(tg.tensor(X, requires_grad=True), Y),
    ),
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("message", MISFITS)
def test_inputs_that_do_not_fit_are_told(message, device, gpu):
    with tg.device(device):
        training = Training()
        function = training.captured()
        with pytest.raises(tg.CaptureError, match=re.escape(message)):
            function(*MISFITS[message]())
        with pytest.raises(
            tg.CaptureError, match=r"^example_inputs\[0\]: got a list, wants a Tens"
        ):
            tg.capture(training.step, ([1.0], Y), training.state)


def test_inputs_of_another_device_are_told(gpu, double_only):
    training = Training()
    function = training.captured()
    with pytest.raises(tg.CaptureError, match=r"inputs\[0\]: got .* on cuda:1, wants it on cuda:0"):
        function(tg.tensor(X, device="cuda:1"), Y)
    with tg.device("cpu"):
        on_host = Training()
        function = on_host.captured()
    with pytest.raises(tg.CaptureError, match=r"inputs\[0\]: got .* on cuda:0, wants it on cpu"):
        function(tg.tensor(X), Y)


def test_on_the_cpu_an_answer_that_is_no_tensor_is_told_as_well():
    with tg.device("cpu"):
        function = tg.capture(lambda x: x.sum().item(), tg.ones(3), ())
        with pytest.raises(tg.CaptureError, match="the step returned a float, wants Tensors, or"):
            function(tg.ones(3))
