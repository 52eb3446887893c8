"""A training step of two networks (those of benchmarks/speed/networks.py), eager and captured."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import tinygrad_bn as tg

from ..speed.networks import CNN, RATE, Network, data, mlp
from . import timing
from .rival import PyTorch, pytorch

BURST = 0.05  # seconds
STEPS = 3  # so many losses are compared


def rows(dry: bool) -> Iterator[dict]:
    rival = pytorch(dry)
    cnn = CNN((3, 4, 4), 2, 8, 4) if dry else CNN((3, 16, 32, 64), 10, 32, 64)
    networks = {"MLP": mlp(dry), "CNN": cnn}
    yield {"expected": list(networks)}
    with timing.one_stream(rival):
        for name, network in networks.items():
            yield from measured(name, network, rival, dry)


def measured(name: str, network: Network, rival: PyTorch | None, dry: bool) -> Iterator[dict]:
    """A row for the network; and for each problem."""
    makers = {"ours": partial(ours, network), "ours, captured": partial(captured, network)}
    if rival is not None:
        makers["PyTorch"] = partial(theirs, network, rival)
        makers["PyTorch, CUDA graph"] = partial(in_graph, network, rival)
    steps, problems = timing.made(name, makers)
    yield from problems
    # (A network of PyTorch's has moved while its graph was recorded.)
    losses = {
        who: [float(step(k)) for k in range(STEPS)]
        for who, step in steps.items()
        if who != "PyTorch, CUDA graph"
    }
    with tg.device("cpu"):
        step, inputs, _ = our_step(network)
        losses["ours, on the CPU"] = [step(*inputs).item() for _ in range(STEPS)]
    exact = np.array(losses["ours, on the CPU"])
    yield {
        "name": name,
        "seconds": timing.seconds(steps, dry, burst=BURST),
        "losses": losses,
        "off_from_cpu": {
            who: float(np.max(abs(found / exact - 1))) for who, found in losses.items()
        },
    }


def our_step(network: Network) -> tuple[Callable, tuple, tuple]:
    """The step, its inputs, and what it moves, on the default device."""
    with tg.device("cpu"):
        x, classes, state = data(network)
    net = network.layers(tg.nn)
    net.load_state_dict(state)
    optimizer = tg.optim.SGD(net.parameters(), lr=RATE)

    def step(x, classes):
        optimizer.zero_grad()
        loss = tg.functional.cross_entropy(net(x), classes)
        loss.backward()
        optimizer.step()
        return loss

    return step, (tg.tensor(x), tg.tensor(classes)), (net, optimizer)


def ours(network: Network) -> timing.Step:
    with tg.device("cuda"):
        step, inputs, _ = our_step(network)
    return lambda _: step(*inputs).detach()


def captured(network: Network) -> timing.Step:
    with tg.device("cuda"):
        step, inputs, state = our_step(network)
    step = tg.capture(step, inputs, state)
    return lambda _: step(*inputs)


def theirs(network: Network, rival: PyTorch, compiled: Any = lambda net: net) -> timing.Step:
    torch = rival.torch
    with tg.device("cpu"):
        x, classes, state = data(network)
    net = network.layers(torch.nn).to(rival.device)
    net.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    net, x, classes = compiled(net), rival.tensor(x), rival.tensor(classes)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)

    def step(_):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), classes)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def in_graph(network: Network, rival: PyTorch) -> timing.Step:
    return rival.graphed(theirs(network, rival), 1)
