"""Devices: where Tensors are made, copies between devices, and no copy where none is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import host, leaf

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.backend import canonical_device

TESTS = Path(__file__).parent


def test_the_names_of_devices():
    names = ("cpu", "cuda", "cuda:0", "cuda:12")
    assert [canonical_device(n) for n in names] == ["cpu", "cuda:0", "cuda:0", "cuda:12"]
    for name in ("gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""):
        with pytest.raises(ValueError, match=r'device: got .*, wants "cpu", "cuda" or "cuda:N"'):
            canonical_device(name)
    for name in (0, None, np.float64):
        with pytest.raises(TypeError, match="device: got"):
            canonical_device(name)


def test_without_cupy_the_error_says_what_to_install(monkeypatch, cpu_only):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(RuntimeError, match=r"needs CuPy.*pip install \"cupy-cuda12x\[ctk\]\""):
        tg.ones(2).to("cuda")


def test_with_cupy_and_no_gpu_the_error_is_one_sentence(cpu_only):
    import double

    double.install(devices=0)
    try:
        for attempt in (
            lambda: tg.ones(2).to("cuda"),
            lambda: tg.ones(2, device="cuda"),
            lambda: tg.set_default_device("cuda:1"),
            lambda: nn.Linear(2, 2).to("cuda"),
        ):
            with pytest.raises(
                RuntimeError, match="needs an NVIDIA GPU with a working driver: CuPy"
            ):
                attempt()
        assert tg.ones(2).device == "cpu"
    finally:
        double.uninstall()


def test_the_environment_variable_sets_where_tensors_are_made(monkeypatch, cpu_only):
    monkeypatch.setenv("TINYGRAD_BN_DEVICE", "cuda:x")
    with pytest.raises(ValueError, match="TINYGRAD_BN_DEVICE: got 'cuda:x', wants"):
        tg.ones(2)
    monkeypatch.setenv("TINYGRAD_BN_DEVICE", "cpu")
    assert tg.ones(2).device == "cpu"


NO_GPU = """
import sys, double
double.install(devices=0)
sys.exit({module}.main({arguments}))
"""


def without_a_gpu(module, *arguments):
    """A command on a machine that has CuPy and no GPU, and TINYGRAD_BN_DEVICE=cuda."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "TINYGRAD_BN_DEVICE": "cuda"}
    code = f"import {module}\n" + NO_GPU.format(module=module, arguments=list(arguments))
    run = [sys.executable, "-c", code]
    return subprocess.run(run, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["compare", "tour"])
def test_a_command_without_its_gpu_is_one_sentence(command, tmp_path, cpu_only):
    options = ["--out", str(tmp_path / "out")] if command == "tour" else []
    done = without_a_gpu("tinygrad_bn.cli", command, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "device 'cuda:0' needs an NVIDIA GPU with a working driver" in done.stderr


def test_the_tests_without_their_gpu_are_one_sentence(cpu_only):
    done = without_a_gpu("pytest", "--device=cuda", "-p", "no:cacheprovider", str(TESTS))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: device 'cuda:0' needs an NVIDIA GPU" in done.stderr
    assert "INTERNALERROR" not in done.stderr + done.stdout


def test_a_device_that_does_not_exist_is_counted(double_only):
    with pytest.raises(RuntimeError, match=r"'cuda:7' does not exist: CuPy finds 2 GPU"):
        tg.ones(2).to("cuda:7")


def test_with_device_sets_where_new_tensors_are_made_and_nothing_else(double_only):
    x = tg.ones(2)
    with tg.device("cpu"):
        y = tg.ones(2)
        assert (x * 2).device == "cuda:0"
    assert (x.device, y.device, tg.ones(2).device) == ("cuda:0", "cpu", "cuda:0")


def test_to_is_differentiable_there_and_back(double_only):
    x = leaf(np.array([1.0, 2.0]))
    y = (x * x).to("cpu")
    assert (y.device, y.to("cpu") is y) == ("cpu", True)
    (dx,) = tg.grad(y.sum(), x, create_graph=True)
    (ddx,) = tg.grad(dx.sum(), x)
    assert (dx.device, host(dx).tolist(), host(ddx).tolist()) == ("cuda:0", [2, 4], [2, 2])


def test_mixing_devices_names_the_op_and_both(double_only):
    x = tg.ones(2)
    for other in (x.cpu(), np.ones(2)):
        with pytest.raises(ValueError, match=r"add\(.*different devices, cuda:0 and cpu"):
            x + other
    with pytest.raises(ValueError, match=r"mul\(.*different devices, cuda:0 and cuda:1"):
        x * x.to("cuda:1")
    with pytest.raises(
        ValueError, match=r"gradient: got float32\[2\], wants float32\[2\] on cuda:0"
    ):
        leaf(np.ones(2, np.float32)).backward(np.ones(2, np.float32))


def test_a_seed_gives_the_same_network_on_both_devices(double_only):
    states = []
    for device in ("cpu", "cuda"):
        with tg.device(device):
            tg.manual_seed(5)
            states.append(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict())
    assert all((host(states[0][k]) == host(states[1][k])).all() for k in states[0])


def test_a_module_moves_with_gradients_and_statistics(double_only):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    x = tg.randn(6, 3)
    net(x).sum().backward()
    before = host(net[0].weight.grad)
    assert net.to("cpu") is net
    assert {t.device for t in (*net.parameters(), *net.buffers())} == {"cpu"}
    assert net[0].weight.grad.device == "cpu"
    assert (host(net[0].weight.grad) == before).all()
    net(x.cpu()).sum().backward()


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("impl", ["fused", "composed"])
def test_a_training_step_makes_no_copy_and_waits_for_nothing(double_only, impl, momentum):
    net = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8, momentum=momentum, impl=impl), nn.ReLU(), nn.Linear(8, 2)
    )
    optimizer = tg.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    x, target = tg.randn(16, 3), tg.tensor(np.arange(16) % 2)
    losses = []
    with double_only.forbid("h2d", "d2h", "sync"):
        for _ in range(5):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), target, label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            losses.append(loss)
    assert losses[-1].item() < losses[0].item()
    assert net[1].num_batches_tracked.item() == 5


def test_a_step_on_the_double_is_the_step_on_the_cpu(double_only):
    results = []
    for device in ("cpu", "cuda"):
        with tg.device(device):
            tg.manual_seed(1)
            net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
            optimizer = tg.optim.SGD(net.parameters(), lr=0.3)
            for _ in range(3):
                optimizer.zero_grad()
                F.cross_entropy(net(tg.randn(12, 3)), tg.tensor([0, 1] * 6)).backward()
                optimizer.step()
            results.append({k: host(v) for k, v in net.state_dict().items()})
    for key in results[0]:
        np.testing.assert_allclose(results[0][key], results[1][key], rtol=2e-5, atol=1e-6)
