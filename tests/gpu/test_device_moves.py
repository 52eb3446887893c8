"""Modules, their state and Tensors go from one device to another and back: on the double."""

import copy

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim


@pytest.fixture(autouse=True)
def on_the_cpu(cupy):
    """The double is there, and new Tensors are made on the CPU, in every run."""
    with tg.device("cpu"):
        yield


class Tied(nn.Module):
    """Two layers with one weight, a buffer that is saved and one that is not."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(3, momentum=None)
        self.register_buffer("scale", tg.tensor([2.0]))
        self.register_buffer("mask", tg.tensor([True, False, True]), persistent=False)
        self.loss = nn.CrossEntropyLoss(weight=tg.tensor([1.0, 2.0, 3.0]))

    def forward(self, x, target):
        x = tg.where(self.mask, self.norm(self.first(x)), 0.0)
        return self.loss(self.second(x) * self.scale, target)


def tied():
    tg.manual_seed(0)
    return Tied()


X = np.arange(12.0, dtype=np.float32).reshape(4, 3) % 5
LABELS = np.array([0, 1, 2, 1])


def stepped(model, optimizer, device):
    """The loss of a training step."""
    optimizer.zero_grad()
    loss = model(tg.tensor(X, device=device), tg.tensor(LABELS, device=device))
    loss.backward()
    optimizer.step()
    return loss.item()


def devices(model):
    return {t.device for t in (*model.parameters(), *model.buffers())}


def values(state):
    return {key: host(value).tolist() for key, value in state.items()}


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_module_goes_to_a_device_and_back_with_all_that_it_has(device):
    model, twin = tied(), tied()
    seen = []
    model.first.weight.register_hook(lambda g: seen.append(g.device))
    for module in (model, twin):
        module(tg.tensor(X), tg.tensor(LABELS)).backward()
    identities = [id(p) for p in model.parameters()]
    canonical = {"cuda": "cuda:0"}.get(device, device)
    assert model.to(device) is model
    assert devices(model) == {canonical}
    assert [id(p) for p in model.parameters()] == identities
    assert model.second.weight is model.first.weight
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    for p, same in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad.device == canonical
        np.testing.assert_array_equal(host(p.grad), host(same.grad))
    model(tg.tensor(X, device=device), tg.tensor(LABELS, device=device)).backward()
    assert seen == ["cpu", canonical]
    model.to("cpu")
    twin(tg.tensor(X), tg.tensor(LABELS)).backward()
    assert devices(model) == {"cpu"}
    for p, same in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(host(p.grad), host(same.grad), rtol=1e-5, atol=1e-6)
    for mine, same in zip(model.buffers(), twin.buffers(), strict=True):
        np.testing.assert_allclose(host(mine), host(same), rtol=1e-6)


def test_a_module_that_is_there_keeps_its_arrays():
    model = tied().to("cuda")
    arrays = [t.data for t in (*model.parameters(), *model.buffers())]
    model.to("cuda:0")
    assert all(t.data is a for t, a in zip((*model.parameters(), *model.buffers()), arrays))


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_training_goes_on_where_it_was_with_an_optimizer_made_after_moving(kind):
    losses = {}
    for route in ("cpu cpu", "cuda:1 cuda:1", "cpu cuda:0", "cuda:0 cpu", "cuda:0 cuda:1"):
        model, state, losses[route] = tied(), None, []
        for device in route.split():
            model.to(device)
            optimizer = kind(model.parameters(), lr=0.01)
            if state is not None:
                optimizer.load_state_dict(state)
            losses[route] += [stepped(model, optimizer, device) for _ in range(3)]
            state = optimizer.state_dict()
    for route in losses:
        np.testing.assert_allclose(losses[route], losses["cpu cpu"], rtol=1e-5, err_msg=route)


def test_an_optimizer_made_before_moving_says_so_and_serves_again_after_the_way_back():
    model = tied()
    optimizer = optim.Adam(model.parameters())
    stepped(model, optimizer, "cpu")
    before = values(model.state_dict())
    model.to("cuda")
    with pytest.raises(RuntimeError, match=r"on cuda:0 .* make the optimizer after moving"):
        stepped(model, optimizer, "cuda")
    weight = values(model.state_dict())["first.weight"]
    assert weight == before["first.weight"]  # nothing was stepped
    model.to("cpu")
    stepped(model, optimizer, "cpu")
    assert values(model.state_dict())["first.weight"] != weight


@pytest.mark.parametrize("target", ["cpu", "cuda:0", "cuda:1"])
@pytest.mark.parametrize("source", ["cpu", "cuda:0", "cuda:1"])
def test_a_state_dict_of_one_device_is_loaded_on_another(source, target):
    model, other = tied().to(source), Tied().to(target)
    optimizer = optim.Adam(model.parameters())
    stepped(model, optimizer, source)
    state = model.state_dict()
    assert {value.device for value in state.values()} == {source}
    other.load_state_dict(state)
    assert devices(other) == {target}
    assert values(other.state_dict()) == values(state)
    other.load_state_dict({key: value.cpu().numpy() for key, value in state.items()})
    assert values(other.state_dict()) == values(state)
    assert "mask" not in state


def test_a_state_dict_goes_through_a_file(tmp_path):
    model, other = tied().to("cuda"), Tied().to("cuda:1")
    arrays = {key: value.cpu().numpy() for key, value in model.state_dict().items()}
    np.savez(tmp_path / "model.npz", **arrays)
    with np.load(tmp_path / "model.npz") as saved:
        other.load_state_dict(saved)
    assert values(other.state_dict()) == values(model.state_dict())
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(arrays, tmp_path / "model.safetensors")
    again = Tied().to("cuda")
    again.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert values(again.state_dict()) == values(model.state_dict())


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_a_deep_copy_stays_on_the_device_in_memory_of_its_own(device):
    model = tied().to(device)
    model(tg.tensor(X, device=device), tg.tensor(LABELS, device=device)).backward()
    twin = copy.deepcopy(model)
    assert devices(twin) == {device} == {p.grad.device for p in twin.parameters()}
    assert twin.second.weight is twin.first.weight
    before = values(twin.state_dict())
    stepped(model, optim.SGD(model.parameters(), lr=1.0), device)
    assert values(twin.state_dict()) == before


def test_printing_a_tensor_shows_its_values_wherever_it_is():
    x = tg.tensor([1.0, 2.5], device="cuda:1")
    assert repr(x) == "tensor([1. , 2.5], device='cuda:1')"
    assert f"{x[1]:.2f}" == "2.50"
    assert (x[1].item(), x.tolist(), float(x[0])) == (2.5, [1.0, 2.5], 1.0)
    assert "Linear(in_features=3, out_features=3, bias=True)" in repr(tied().to("cuda"))


def test_with_device_layers_and_new_tensors_are_made_there():
    with tg.device("cuda:1"):
        made = [tg.zeros(2), tg.ones(2), tg.full((2,), 3), tg.arange(3), tg.randn(2), tg.rand(2)]
        made += [tg.tensor([1.0]), tg.zeros_like(tg.ones(2)), *nn.BatchNorm1d(2).buffers()]
        made += list(nn.Conv2d(1, 2, 3).parameters())
        with tg.device("cpu"):
            assert tg.zeros(2).device == "cpu"
    assert {t.device for t in made} == {"cuda:1"}
    assert nn.Linear(2, 2, device="cuda").weight.device == "cuda:0"
    assert F.relu(tg.zeros(2)).device == "cpu"


@pytest.mark.parametrize("places", ["cuda:0 cuda:1", "cuda:1 cpu", "cpu cuda:1 cuda:0"])
def test_a_graph_may_lead_over_several_devices(places):
    def gradients(places):
        tg.manual_seed(0)
        x = tg.tensor(X, requires_grad=True)
        layers = [nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.BatchNorm1d(3)) for _ in places]
        y = x
        for place, layer in zip(places, layers):
            there = y.to(place)
            y = layer.to(place)(there) + there
        kept = layers[0][1](there)
        kept.retain_grad()
        for _ in range(2):
            (tg.sum(y * y) + tg.sum(kept)).backward(retain_graph=True)
        (dx,) = tg.grad(tg.sum(y), x, create_graph=True)
        (ddx,) = tg.grad(tg.sum(dx * dx), x)
        found = [
            x.grad,
            kept.grad,
            dx,
            ddx,
            *(p.grad for layer in layers for p in layer.parameters()),
        ]
        return [host(g) for g in found]

    places = places.split()
    for got, wanted in zip(gradients(places), gradients(["cpu"] * len(places)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
