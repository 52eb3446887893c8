"""What a launch costs the host: seconds a call of small works, while nobody waits for the GPU."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import cupy
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.kernels import cuda, cuda_blas, cuda_norm

from ..speed.measure import quartiles
from .rival import PyTorch, pytorch
from .timing import one_stream, tried

SHAPE = (100, 32)
CALLS, ROUNDS = 200, 7


def rows(dry: bool) -> Iterator[dict]:
    rival = pytorch(dry)
    with one_stream(rival) as stream, tg.device("cuda"):
        for name, call in {**ours(), **(theirs(rival) if rival else {})}.items():
            yield tried(name, measured, call, stream, dry)


def measured(call: Callable[[], Any], stream: Any, dry: bool) -> dict:
    """Few enough calls at a time that they fit into the queue of the device."""
    found = []
    for _ in range(1 if dry else ROUNDS):
        call()
        stream.synchronize()
        start, calls = time.perf_counter(), 2 if dry else CALLS
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - start) / calls)
        stream.synchronize()
    return {"seconds": quartiles(found)}


def ours() -> dict[str, Callable[[], Any]]:
    x, y = (cupy.ones(SHAPE, np.float32) for _ in range(2))
    launched, raw = last_launch(partial(normalized, x))
    tensor, weight = (tg.ones(*shape, requires_grad=True) for shape in (SHAPE, (32, 32)))
    gamma, beta = (tg.ones(32, requires_grad=True) for _ in range(2))
    g, bias = tg.ones(*SHAPE), tg.ones(32, requires_grad=True)

    def batch_norm():
        return F.batch_norm(tensor, None, None, gamma, beta, training=True)

    out = batch_norm()
    return {
        "CuPy: RawKernel": raw,
        "CuPy: x + y": lambda: x + y,
        "CuPy: add(x, y, out=y)": lambda: cupy.add(x, y, out=y),
        "CuPy: x.sum(axis=0)": lambda: x.sum(axis=0),
        "CuPy: empty": lambda: cupy.empty(SHAPE, np.float32),
        "CuPy: x.T @ y": lambda: x.T @ y,
        "ours: launch": launched,
        "ours: the kernel of batch norm": lambda: normalized(x),
        "ours: product": lambda: cuda_blas.product(x.T, y),
        "ours: x + y": lambda: tensor + g,
        "ours: linear": lambda: F.linear(tensor, weight, bias),
        "ours: batch norm": batch_norm,
        "ours: the gradient of batch norm": lambda: tg.grad(
            out, (tensor, gamma, beta), g, retain_graph=True
        ),
    }


def normalized(x: Any) -> Any:
    return cuda_norm.normalize(x, None, None, axes=(0,), eps=1e-5)


def last_launch(call: Callable[[], Any]) -> tuple[Callable, Callable]:
    """The last launch in a call, by `cuda.launch`, and by the RawKernel that this calls."""
    with mock.patch.object(cuda_norm, "launch", wraps=cuda.launch) as launch:
        call()
    given, how = launch.call_args
    source, kernel, *_ = given
    key = next(key for key in cuda._kernels if key[:3] == (source, kernel, how["dtype"]))
    found = cuda._kernels[key]
    run = mock.Mock(wraps=found.run)
    with mock.patch.dict(cuda._kernels, {key: found._replace(run=run)}):
        cuda.launch(*given, **how)
    arguments = run.call_args.args
    return lambda: cuda.launch(*given, **how), lambda: found.run(*arguments)


def theirs(rival: PyTorch) -> dict[str, Callable[[], Any]]:
    torch, functional = rival.torch, rival.torch.nn.functional
    ones = partial(torch.ones, device=rival.device)
    x, weight, gamma, beta, bias = (
        ones(shape, requires_grad=True) for shape in (SHAPE, (32, 32), (32,), (32,), (32,))
    )
    g = ones(SHAPE)

    def batch_norm():
        return functional.batch_norm(x, None, None, gamma, beta, True)

    out = batch_norm()
    return {
        "PyTorch: x + y": lambda: x + g,
        "PyTorch: linear": lambda: functional.linear(x, weight, bias),
        "PyTorch: batch norm": batch_norm,
        "PyTorch: the gradient of batch norm": lambda: torch.autograd.grad(
            out, (x, gamma, beta), g, retain_graph=True
        ),
    }
