"""A training step of two networks: forward, loss, backward and SGD.

A multilayer perceptron of EE-559 (2 → 32, 16 times 32 → 32, → 2; a batch of 100), and a small
convnet (64 images of 3×32×32), both with batch norm and ReLU after every layer but the last. They
are checked by the losses of their first three steps. MyGrad and HIPS autograd have no running
statistics.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinygrad_bn as tg

from .measure import OURS, Contender, Target, Work
from .rivals import HIPS, JAX, MYGRAD, TORCH, by_threads, installed, jax_step

RATE, EPS, MOMENTUM = 0.01, 1e-5, 0.1
CHANNELS_LAST = ("PyTorch channels_last, 2 threads", "PyTorch channels_last, 1 thread")


class MLP(NamedTuple):
    """The widths of its layers, and the batch."""

    widths: tuple[int, ...]
    batch: int

    def layers(self, nn: Any) -> Any:
        """The network, of our `nn` or PyTorch's."""
        layers = []
        for n, m in zip(self.widths, self.widths[1:-1]):
            layers += [nn.Linear(n, m), nn.BatchNorm1d(m), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(*self.widths[-2:]))

    def inputs(self, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((self.batch, self.widths[0]))


class CNN(NamedTuple):
    """Its channels, classes, the size of an image, and the batch."""

    channels: tuple[int, ...]
    classes: int
    size: int
    batch: int

    def layers(self, nn: Any) -> Any:
        layers = []
        for n, m in zip(self.channels, self.channels[1:]):
            layers += [nn.Conv2d(n, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(self.channels[-1], self.classes))

    def inputs(self, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((self.batch, self.channels[0], self.size, self.size))


Network = MLP | CNN


def mlp(quick: bool) -> MLP:
    return MLP((2, 4, 4, 2), 8) if quick else MLP((2, *[32] * 17, 2), 100)


def works(quick: bool) -> Iterator[Work]:
    yield Work(
        "MLP" if quick else "MLP, 17 layers",
        partial(contenders, mlp(quick)),
        (Target(4.0, TORCH), Target(1.2, (JAX,))),
    )
    cnn = CNN((3, 4, 4), 2, 8, 4) if quick else CNN((3, 16, 32, 64), 10, 32, 64)
    yield Work(
        "CNN" if quick else "CNN, 3 stages",
        partial(convnets, cnn),
        (Target(1.2, TORCH), Target(0.8, CHANNELS_LAST)),
        burst=0.2,
    )


def numpy_only(quick: bool) -> Iterator[Work]:
    name = "MLP, NumPy alone" if quick else "MLP, 17 layers, NumPy alone"
    make = partial(ours_and_pytorch, mlp(quick))
    yield Work(name, make, (Target(1.8, TORCH),))


def data(network: Network) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Inputs, classes, and the state dict to begin with."""
    tg.manual_seed(0)
    state = {k: v.numpy().copy() for k, v in network.layers(tg.nn).state_dict().items()}
    random = np.random.default_rng(0)
    x = network.inputs(random).astype(np.float32)
    classes = next(v.shape[0] for v in reversed(state.values()) if v.ndim)
    return x, random.integers(0, classes, len(x)), state


def losses(step: Callable[[], Any]) -> list[np.ndarray]:
    return [np.array([float(step()) for _ in range(3)])]


def stepping(step: Callable[[], Any]) -> Contender:
    return Contender(step, partial(losses, step))


def ours_and_pytorch(network: Network) -> dict[str, Contender]:
    return {OURS: ours(network)} | (with_pytorch(network) if installed("torch") else {})


def contenders(network: MLP) -> dict[str, Contender]:
    found = ours_and_pytorch(network)
    if installed("jax"):
        found[JAX] = with_jax(network)
    if installed("mygrad"):
        found[MYGRAD] = with_mygrad(network)
    if installed("autograd"):
        found[HIPS] = with_hips_autograd(network)
    return found


def convnets(network: CNN) -> dict[str, Contender]:
    found = ours_and_pytorch(network)
    if installed("torch"):
        found |= with_pytorch(network, CHANNELS_LAST)
    return found


def ours(network: Network) -> Contender:
    x, classes, state = data(network)
    net = network.layers(tg.nn)
    net.load_state_dict(state)
    optimizer = tg.optim.SGD(net.parameters(), lr=RATE)
    x, classes = tg.tensor(x), tg.tensor(classes)

    def step():
        loss = tg.functional.cross_entropy(net(x), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return stepping(step)


def with_pytorch(network: Network, names: tuple[str, ...] = TORCH) -> dict[str, Contender]:
    """Two contenders, each with a network of its own."""
    import torch

    found = {}
    for name in names:
        x, classes, state = data(network)
        net = network.layers(torch.nn)
        net.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        x, classes = torch.tensor(x), torch.tensor(classes)
        if names is CHANNELS_LAST:
            net = net.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)

        def step(net=net, x=x, classes=classes, optimizer=optimizer):
            loss = torch.nn.functional.cross_entropy(net(x), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        found[name] = by_threads(step, partial(losses, step), names)[name]
    return found


def arrays(state: dict[str, np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Weight, bias, γ and β of every layer, but of the last only weight and bias. The weight is as
    PyTorch has it, (outputs, inputs)."""
    kept = [v for k, v in state.items() if "running" not in k and "num_batches" not in k]
    return [tuple(kept[k : k + 4]) for k in range(0, len(kept), 4)]


def logits(xp: Any, layers: list[tuple], x: Any) -> tuple[Any, list[tuple]]:
    """The MLP from primitives of an array module; and each batch's mean and variance."""
    statistics = []
    for weight, bias, gamma, beta in layers[:-1]:
        z = xp.dot(x, weight.T) + bias
        mu = xp.mean(z, axis=0)
        d = z - mu
        var = xp.mean(d * d, axis=0)
        statistics.append((mu, var))
        x = xp.maximum(d / xp.sqrt(var + np.float32(EPS)) * gamma + beta, np.float32(0))
    weight, bias = layers[-1]
    return xp.dot(x, weight.T) + bias, statistics


def cross_entropy(xp: Any, z: Any, classes: np.ndarray) -> Any:
    z = z - xp.max(z, axis=1, keepdims=True)
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=1)) - z[np.arange(len(classes)), classes])


def with_jax(network: MLP) -> Contender:
    import jax

    x, classes, state = data(network)

    def loss_of(layers, x):
        z, statistics = logits(jax.numpy, layers, x)
        return cross_entropy(jax.numpy, z, classes), statistics

    @jax.jit
    def update(layers, running, x):
        (loss, batch), slopes = jax.value_and_grad(loss_of, has_aux=True)(layers, x)
        correction = network.batch / (network.batch - 1)
        batch = [(mu, var * correction) for mu, var in batch]
        layers = jax.tree.map(lambda p, g: p - RATE * g, layers, slopes)
        running = jax.tree.map(lambda r, b: r + MOMENTUM * (b - r), running, batch)
        return loss, layers, running

    on_device = partial(jax.tree.map, jax.numpy.array)
    zero, one = np.zeros(network.widths[1], np.float32), np.ones(network.widths[1], np.float32)
    now = [on_device(arrays(state)), on_device([(zero, one)] * (len(network.widths) - 2))]
    x = jax.numpy.array(x)

    def step():
        loss, *now[:] = update(*now, x)
        return loss, now

    waiting = jax_step(step)
    return stepping(lambda: waiting()[0])


def with_mygrad(network: MLP) -> Contender:
    import mygrad
    from mygrad.nnet.activations import relu
    from mygrad.nnet.layers.batchnorm import batchnorm
    from mygrad.nnet.losses import softmax_crossentropy

    mygrad.turn_memory_guarding_off()  # faster
    x, classes, state = data(network)
    layers = [tuple(map(mygrad.tensor, (p[0].T.copy(), *p[1:]))) for p in arrays(state)]
    parameters = [p for layer in layers for p in layer]

    def step():
        h = x
        for weight, bias, gamma, beta in layers[:-1]:
            z = mygrad.matmul(h, weight) + bias
            h = relu(batchnorm(z, gamma=gamma, beta=beta, eps=EPS))
        weight, bias = layers[-1]
        loss = softmax_crossentropy(mygrad.matmul(h, weight) + bias, classes)
        loss.backward()
        for p in parameters:
            p.data -= np.float32(RATE) * p.grad
        return loss.item()

    return stepping(step)


def with_hips_autograd(network: MLP) -> Contender:
    import autograd

    x, classes, state = data(network)
    layers = arrays(state)

    def loss_of(layers):
        return cross_entropy(autograd.numpy, logits(autograd.numpy, layers, x)[0], classes)

    loss_and_slopes = autograd.value_and_grad(loss_of)

    def step():
        loss, slopes = loss_and_slopes(layers)
        for layer, slope in zip(layers, slopes):
            for p, g in zip(layer, slope):
                p -= np.float32(RATE) * g
        return loss

    return stepping(step)
