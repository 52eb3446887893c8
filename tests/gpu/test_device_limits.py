"""What a GPU does not have: the error says what was asked for, and the process goes on."""

import double
import numpy as np
import pytest
from helpers import LAYOUTS, host, laid_out

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim, train


@pytest.fixture(autouse=True)
def on_the_double(cupy):
    with tg.device("cpu"):
        yield


# --- Devices --------------------------------------------------------------------------------------

ATTEMPTS = {
    "to": lambda device: tg.ones(2).to(device),
    "creation": lambda device: tg.zeros(2, device=device),
    "tensor": lambda device: tg.tensor([1.0], device=device),
    "arange": lambda device: tg.arange(3, device=device),
    "layer": lambda device: nn.Linear(2, 2, device=device),
    "module": lambda device: nn.Linear(2, 2).to(device),
    "default": tg.set_default_device,
    "context": tg.device,
    "batches": lambda device: next(train.uploaded([(np.ones(2),)], device)),
}
every_attempt = pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)


@every_attempt
@pytest.mark.parametrize(
    "report",
    [
        "cudaErrorNoDevice: no CUDA-capable device is detected",
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    ],
)
def test_without_a_driver_or_with_one_that_is_too_old(attempt, report, cupy, monkeypatch):
    def fail():
        raise double.CUDARuntimeError(report)

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fail)
    wanted = f"device 'cuda:0' needs an NVIDIA GPU with a working driver: CuPy reports {report}"
    with pytest.raises(RuntimeError) as caught:
        attempt("cuda")
    assert str(caught.value) == wanted
    assert isinstance(caught.value.__cause__, double.CUDARuntimeError)
    monkeypatch.undo()
    assert (tg.ones(2).device, tg.ones(2, device="cuda").device) == ("cpu", "cuda:0")


@every_attempt
def test_a_gpu_that_is_not_there(attempt):
    with pytest.raises(RuntimeError, match=r"^device 'cuda:2' does not exist: CuPy finds 2 GPU"):
        attempt("cuda:2")
    assert tg.ones(2).device == "cpu"


def test_operands_on_other_devices_are_named_with_the_op():
    x, y = tg.ones(2, device="cuda:1"), tg.ones(2, device="cuda:0")
    for call, op in ((lambda: x * y, "mul"), (lambda: F.linear(x, tg.ones(1, 2)), "linear")):
        with pytest.raises(ValueError, match=rf"{op}\(.*different devices, cuda:1 and c"):
            call()
    with pytest.raises(ValueError, match="different devices, cuda:1 and cpu"):
        nn.BatchNorm1d(2).to("cuda:1").running_mean + np.ones(2, np.float32)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_arrays_with_gaps_or_in_another_order_give_the_same(layout):
    def results(layout):
        tg.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.GroupNorm(2, 4), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3)),
        ).to("cuda")
        values = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
        with tg.device("cuda"):
            x = tg.Tensor(laid_out(values, layout), requires_grad=True)
            loss = F.cross_entropy(net(x), tg.tensor(laid_out(np.arange(5) % 3, layout)))
        loss.backward()
        return [host(g) for g in (loss, x.grad, *(p.grad for p in net.parameters()))]

    for got, wanted in zip(results(layout), results("contiguous"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


# --- Memory ---------------------------------------------------------------------------------------

SIZE = 4_000_000  # bytes of x


def overfull(x):
    """What takes more than the 2.5 · SIZE that the GPU has, beside x."""
    net = nn.Linear(1000, 1000, bias=False)

    def step():
        w = tg.tensor(host(x), device="cuda", requires_grad=True)
        optim.Adam([w])

    return {
        "an op": lambda: tg.exp(x) + tg.exp(x) * 2.0,
        "backward": lambda: (x * 2.0).backward(x),
        "creation": lambda: tg.zeros(2000, 1000, device="cuda"),
        "a copy": lambda: tg.ones(2000, 1000).to("cuda"),
        "a module": lambda: nn.Sequential(net, nn.Linear(1000, 1000)).to("cuda"),
        "an optimizer": step,
        "a batch": lambda: next(train.uploaded([(np.ones((3000, 1000)),)], "cuda")),
    }


@pytest.mark.parametrize("what", overfull(tg.zeros(1)))
def test_out_of_memory_the_error_names_what_was_asked_and_what_is_free(what, cupy):
    x = tg.tensor(np.ones((1000, 1000), np.float32), device="cuda", requires_grad=True)
    used = cupy.cuda.runtime.memGetInfo()
    taken = used[1] - used[0] - SIZE
    with double.memory(taken + SIZE * 5 // 2):
        with pytest.raises(MemoryError) as caught:
            overfull(x)[what]()
        asked = r"Out of memory allocating [\d,]{5,} bytes \(allocated so far: [\d,]+ bytes\)\."
        caught.match(asked + r" [\d,]+ of [\d,]+ bytes are free\.$")
        causes = [caught.value.__cause__, getattr(caught.value.__cause__, "__cause__", None)]
        assert any(isinstance(e, cupy.cuda.memory.OutOfMemoryError) for e in causes)
        del caught, causes
        assert tg.sum(x * 1.0).item() == 1_000_000  # what fits is computed
    assert tg.sum(tg.exp(x) * 0.0 + x).item() == 1_000_000


def test_an_op_says_which_one_found_no_memory(cupy):
    x = tg.tensor(np.ones((1000, 1000), np.float32), device="cuda")
    free, total = cupy.cuda.runtime.memGetInfo()
    with (
        double.memory(total - free),
        pytest.raises(MemoryError, match=r"^exp\(float32\[1000, 1000"),
    ):
        tg.exp(x)


def test_numpy_out_of_memory_is_named_as_well():
    with pytest.raises(MemoryError, match=r"^broadcast_to|^add\(.*Unable to allocate"):
        tg.ones(1 << 24, 1) + tg.ones(1, 1 << 24)
