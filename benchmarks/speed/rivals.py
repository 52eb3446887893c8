"""Which other libraries are installed, and what is the same for each of them in every work."""

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .measure import Contender

LIBRARIES = {  # the name of the module and of the distribution
    "torch": "torch",
    "jax": "jax",
    "mygrad": "mygrad",
    "autograd": "autograd",
    "micrograd": "micrograd",
}
JAX, MYGRAD, HIPS, MICROGRAD = "JAX jit", "MyGrad", "HIPS autograd", "micrograd"
TORCH_2, TORCH_1 = "PyTorch, 2 threads", "PyTorch, 1 thread"
TORCH = (TORCH_2, TORCH_1)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def by_threads(
    step: Callable[[], Any], numbers: Callable[[], Sequence], names: Sequence[str] = TORCH
) -> dict[str, Contender]:
    """A step of PyTorch as two contenders, with two threads and with one."""
    import torch

    return {
        name: Contender(step, numbers, partial(torch.set_num_threads, threads))
        for name, threads in zip(names, (2, 1))
    }


def jax_step(step: Callable[[], Any]) -> Callable[[], Any]:
    """JAX computes in the background: a step waits for the result."""
    import jax

    return lambda: jax.block_until_ready(step())


def arrays(results: Sequence[Any]) -> list[np.ndarray]:
    """The results of a library as arrays."""
    return [np.asarray(getattr(one, "data", one)) for one in results]
