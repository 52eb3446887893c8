"""Norms in training, forward and backward: y, and the gradients by x, γ and β for a given ∂ℓ/∂y.

No library keeps running statistics here; in the networks they do.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinygrad_bn as tg

from .measure import OURS, Contender, Target, Work
from .rivals import HIPS, JAX, MYGRAD, TORCH, TORCH_2, arrays, by_threads, installed, jax_step

EPS = 1e-5
GROUPS = 32


class Norm(NamedTuple):
    """A norm of `name` in `functional`, ours or PyTorch's, and as a formula: the input, reshaped to
    `seen`, over `axes`."""

    name: str
    call: Callable  # of `functional`, x, γ and β
    shape: tuple[int, ...]
    seen: tuple[int, ...]
    axes: tuple[int, ...]
    affine: tuple[int, ...]  # the shape of γ and β beside x
    centred: bool = True


def batch_norm(*shape: int) -> Norm:
    def call(F, x, gamma, beta):
        return F.batch_norm(x, None, None, gamma, beta, training=True, eps=EPS)

    axes = (0, *range(2, len(shape)))
    return Norm("batch norm", call, shape, shape, axes, (shape[1], *[1] * (len(shape) - 2)))


def layer_norm(*shape: int) -> Norm:
    def call(F, x, gamma, beta):
        return F.layer_norm(x, shape[1:], gamma, beta, eps=EPS)

    return Norm("layer norm", call, shape, shape, (1,), shape[1:])


def rms_norm(*shape: int) -> Norm:
    def call(F, x, gamma):
        return F.rms_norm(x, shape[1:], gamma, eps=EPS)

    return Norm("RMS norm", call, shape, shape, (1,), shape[1:], centred=False)


def group_norm(*shape: int) -> Norm:
    n, channels, *places = shape
    groups = min(GROUPS, channels // 2)

    def call(F, x, gamma, beta):
        return F.group_norm(x, groups, gamma, beta, eps=EPS)

    seen = (n, groups, channels // groups, *places)
    affine = (channels, *[1] * len(places))
    return Norm("group norm", call, shape, seen, tuple(range(2, len(seen))), affine)


BOUND = 0.4  # of the speed at which memory copies: the least for large images
LARGE = (Target(2.0, (TORCH_2,)),)
WIDE = (Target(1.2, (TORCH_2,), stretch=1.5),)
TINY = (Target(4.0, (TORCH_2,)),)
OTHERS = (Target(1.2, TORCH),)
WORKS = [
    (batch_norm(64, 64, 32, 32), LARGE),
    (batch_norm(32, 128, 28, 28), LARGE),
    (batch_norm(32, 256, 14, 14), LARGE),
    (batch_norm(32, 512, 7, 7), LARGE),
    (batch_norm(256, 1024), WIDE),
    (batch_norm(4096, 1024), WIDE),
    (batch_norm(100, 32), TINY),
    (layer_norm(256, 1024), OTHERS),
    (layer_norm(4096, 1024), OTHERS),
    (layer_norm(100, 32), OTHERS),
    (group_norm(64, 64, 32, 32), OTHERS),
    (group_norm(32, 256, 14, 14), OTHERS),
    (rms_norm(256, 1024), OTHERS),
    (rms_norm(4096, 1024), OTHERS),
]
QUICK = [batch_norm(4, 4, 3, 3), batch_norm(6, 4), layer_norm(4, 6), group_norm(2, 4, 3, 3)]
QUICK += [rms_norm(4, 6)]
NUMPY_ONLY = [(batch_norm(100, 32), (Target(1.5, TORCH),))]


def works(quick: bool) -> Iterator[Work]:
    for norm, targets in [(norm, ()) for norm in QUICK] if quick else WORKS:
        yield work(norm, targets)


def numpy_only(quick: bool) -> Iterator[Work]:
    for norm, targets in [(QUICK[1], ())] if quick else NUMPY_ONLY:
        name, make = f"{norm.name} {norm.shape}, NumPy alone", partial(ours_and_pytorch, norm)
        yield work(norm, targets)._replace(name=name, make=make)


def work(norm: Norm, targets: tuple[Target, ...]) -> Work:
    name = f"{norm.name} {norm.shape}"
    streamed = 5 * 4 * int(np.prod(norm.shape))  # reads x and writes y; reads x, ∂y and writes ∂x
    bound = BOUND if targets is LARGE else None
    return Work(name, partial(contenders, norm), targets, streamed=streamed, bound=bound)


def inputs(norm: Norm) -> tuple[list[np.ndarray], np.ndarray]:
    """x, γ and, unless it is RMS norm, β; and ∂ℓ/∂y. In float32."""
    random = np.random.default_rng(0)
    size = norm.shape[1]
    x, dy = (random.standard_normal(norm.shape).astype(np.float32) for _ in range(2))
    gamma, beta = (random.uniform(0.5, 1.5, size).astype(np.float32) for _ in range(2))
    return [x, gamma, beta] if norm.centred else [x, gamma], dy


def contenders(norm: Norm) -> dict[str, Contender]:
    found = ours_and_pytorch(norm)
    if installed("jax"):
        found[JAX] = with_jax(norm)
    if installed("mygrad") and norm.name == "batch norm":
        found[MYGRAD] = with_mygrad(norm)
    if installed("autograd"):
        found[HIPS] = with_hips_autograd(norm)
    return found


def ours_and_pytorch(norm: Norm) -> dict[str, Contender]:
    return {OURS: ours(norm)} | (with_pytorch(norm) if installed("torch") else {})


def ours(norm: Norm) -> Contender:
    values, dy = inputs(norm)
    tensors, arriving = [tg.tensor(v, requires_grad=True) for v in values], tg.tensor(dy)

    def step():
        y = norm.call(tg.functional, *tensors)
        return y, *tg.grad(y, tensors, arriving)

    return Contender(step, lambda: arrays(step()))


def with_pytorch(norm: Norm) -> dict[str, Contender]:
    import torch

    values, dy = inputs(norm)
    tensors, arriving = [torch.tensor(v, requires_grad=True) for v in values], torch.tensor(dy)

    def step():
        y = norm.call(torch.nn.functional, *tensors)
        return y, *torch.autograd.grad(y, tensors, arriving)

    return by_threads(step, lambda: arrays(step()))


def formula(xp: Any, norm: Norm, x: Any, gamma: Any, *beta: Any) -> Any:
    """The norm from primitives of an array module."""
    z = xp.reshape(x, norm.seen)
    d = z - xp.mean(z, axis=norm.axes, keepdims=True) if norm.centred else z
    var = xp.mean(d * d, axis=norm.axes, keepdims=True)
    y = xp.reshape(d / xp.sqrt(var + np.float32(EPS)), norm.shape) * xp.reshape(gamma, norm.affine)
    return y + xp.reshape(beta[0], norm.affine) if beta else y


def with_jax(norm: Norm) -> Contender:
    import jax

    values, dy = inputs(norm)

    @jax.jit
    def forward_and_backward(values, dy):
        y, pull = jax.vjp(partial(formula, jax.numpy, norm), *values)
        return y, *pull(dy)

    values, dy = [jax.numpy.array(v) for v in values], jax.numpy.array(dy)
    step = jax_step(lambda: forward_and_backward(values, dy))
    return Contender(step, lambda: arrays(step()))


def with_mygrad(norm: Norm) -> Contender:
    import mygrad
    from mygrad.nnet.layers.batchnorm import batchnorm

    mygrad.turn_memory_guarding_off()  # faster
    values, dy = inputs(norm)
    x, gamma, beta = map(mygrad.tensor, values)

    def step():
        y = batchnorm(x, gamma=gamma, beta=beta, eps=EPS)
        y.backward(dy)
        gradients = x.grad, gamma.grad, beta.grad
        for tensor in (x, gamma, beta):
            tensor.null_grad()
        return y, *gradients

    return Contender(step, lambda: arrays(step()))


def with_hips_autograd(norm: Norm) -> Contender:
    import autograd

    values, dy = inputs(norm)

    def step():
        pull, y = autograd.make_vjp(lambda v: formula(autograd.numpy, norm, *v))(tuple(values))
        return y, *pull(dy)

    return Contender(step, lambda: arrays(step()))
