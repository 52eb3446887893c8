"""Norms of arrays, forward and backward: against the speed of a copy, and beside PyTorch.

Batch norm has to read x twice and write y, and backward to read x and ∂y twice and write ∂x: 3 and
5 passes over memory. Layer and RMS norm keep a row in registers: 2 and 3. The bound is the time in
which a copy moves as many bytes. Where the cache holds a part of x, a norm may be faster.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import cupy
import numpy as np

from tinygrad_bn.fusion import norm_relu
from tinygrad_bn.norm import fused

from . import timing
from .cases import dtype_of
from .rival import PyTorch, pytorch

EPS = 1e-5
DTYPES = ("float32", "bfloat16", "float16")
DIRECTIONS = ("forward", "backward")
LARGE = 24e6  # bytes of x
COPIED = 1 << 30  # bytes
MOST_SETS = 32


class Norm(NamedTuple):
    name: str
    shape: tuple[int, ...]
    passes: tuple[int, int]  # forward and backward
    op: Any  # with our kernels
    theirs: Callable  # of PyTorch's module, x, γ and β

    @property
    def axes(self) -> tuple[int, ...]:
        return (0, *range(2, len(self.shape))) if self.name.startswith("batch") else (1,)

    @property
    def affine(self) -> tuple[int, ...]:
        """The shape of γ and β, beside x."""
        return (1, self.shape[1], *[1] * (len(self.shape) - 2))


def batch_norm(*shape: int) -> Norm:
    def theirs(torch, x, gamma, beta):
        return torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0.1, EPS)

    return Norm("batch norm", shape, (3, 5), fused, theirs)


def batch_norm_relu(*shape: int) -> Norm:
    def theirs(torch, *args):
        return torch.relu(batch_norm(*shape).theirs(torch, *args))

    return Norm("batch norm and ReLU", shape, (3, 5), norm_relu, theirs)


def layer_norm(*shape: int) -> Norm:
    def theirs(torch, x, gamma, beta):
        return torch.nn.functional.layer_norm(x, shape[1:], gamma, beta, EPS)

    return Norm("layer norm", shape, (2, 3), fused, theirs)


def rms_norm(*shape: int) -> Norm:
    def theirs(torch, x, gamma, _):
        return torch.nn.functional.rms_norm(x, shape[1:], gamma, EPS)

    return Norm("RMS norm", shape, (2, 3), fused, theirs)


BATCH_SHAPES = [
    *((64, 64, 56, 56), (256, 256, 28, 28), (8192, 4096), (64, 3, 224, 224)),
    *((128, 512, 14, 14), (64, 2048, 7, 7), (65536, 256), (100, 32)),
]
ROW_SHAPES = [(8192, 4096), (32768, 1024), (4096, 8192)]
NORMS = [
    *(batch_norm(*shape) for shape in BATCH_SHAPES),
    *(layer_norm(*shape) for shape in ROW_SHAPES),
    *(batch_norm_relu(*shape) for shape in BATCH_SHAPES),
    *(rms_norm(*shape) for shape in ROW_SHAPES),
]
TINY = [batch_norm(2, 3, 4, 4), batch_norm_relu(8, 5), layer_norm(4, 8), rms_norm(4, 8)]


def rows(dry: bool) -> Iterator[dict]:
    rival = pytorch(dry)
    dtypes = DTYPES[:2] if dry else DTYPES
    cases = [(norm, dtype) for norm in (TINY if dry else NORMS) for dtype in dtypes]
    names = [f"{named(*case)} {which}" for case in cases for which in DIRECTIONS]
    yield {"expected": ["copy", *names]}
    with timing.one_stream(rival):
        speed = copied(dry)
        yield {"name": "copy", "bytes_a_second": speed}
        for norm, dtype in cases:
            yield from measured(norm, dtype, speed, rival, dry)
            timing.free_memory(rival)


def named(norm: Norm, dtype: str) -> str:
    return f"{norm.name} {norm.shape} {dtype}"


def copied(dry: bool) -> float:
    """Bytes read and written in a second by a copy of a large array."""
    source = cupy.ones(16 if dry else COPIED // 4, np.float32)
    target = cupy.empty_like(source)
    (_, median, _) = timing.seconds({"": lambda _: cupy.copyto(target, source)}, dry)[""]
    return 2 * source.nbytes / median


def measured(
    norm: Norm, dtype: str, speed: float, rival: PyTorch | None, dry: bool
) -> Iterator[dict]:
    """A row for each direction; and for each problem."""
    name = named(norm, dtype)
    sets = 2 if dry else number_of_sets(norm, dtype)
    makers = {"ours": partial(our_steps, norm, dtype, sets)}
    if rival is not None:
        makers["PyTorch"] = partial(their_steps, norm, dtype, sets, rival)
    steps, problems = timing.made(name, makers)
    yield from problems
    for which, passes in zip(DIRECTIONS, norm.passes):
        put = {"ours": timing.graphed, "PyTorch": rival and rival.graphed}
        graphs, problems = timing.made(
            f"{name} {which} in a graph",
            {who: partial(put[who], of[which], sets) for who, of in steps.items()},
        )
        yield from problems
        if "ours" not in graphs:
            continue
        times = timing.seconds(graphs, dry, sets)
        eager = timing.seconds({who: of[which] for who, of in steps.items()}, dry)
        size = size_of_x(norm, dtype)
        yield {
            "name": f"{name} {which}",
            "norm": norm.name,
            "shape": norm.shape,
            "dtype": dtype,
            "which": which,
            "large": size >= LARGE,
            "seconds": times,
            "eager_seconds": eager,
            "of_bound": passes * size / speed / times["ours"][1],
            "times_pytorch": times["PyTorch"][1] / times["ours"][1] if "PyTorch" in times else None,
        }


def number_of_sets(norm: Norm, dtype: str) -> int:
    """Of buffers, so many that the cache does not hold them."""
    cache = cupy.cuda.runtime.getDeviceProperties(0)["l2CacheSize"]
    return min(max(2, math.ceil(3 * cache / size_of_x(norm, dtype))), MOST_SETS)


def size_of_x(norm: Norm, dtype: str) -> int:
    """In bytes."""
    return math.prod(norm.shape) * dtype_of(dtype).itemsize


@lru_cache(maxsize=1)
def numbers(norm: Norm) -> list[np.ndarray]:
    """x, ∂y, γ and β, in float32."""
    generator = np.random.default_rng(0)
    x, dy = (generator.standard_normal(norm.shape, np.float32) for _ in range(2))
    gamma, beta = (generator.uniform(0.5, 1.5, norm.shape[1]).astype(np.float32) for _ in range(2))
    return [x, dy, gamma, beta]


def our_steps(norm: Norm, dtype: str, sets: int) -> dict[str, timing.Step]:
    """γ and β are float32."""
    x, dy, gamma, beta = map(cupy.asarray, numbers(norm))
    pairs = [[(a * (1 + k / sets)).astype(dtype_of(dtype)) for a in (x, dy)] for k in range(sets)]
    gamma, beta = gamma.reshape(norm.affine), beta.reshape(norm.affine)
    if norm.name == "RMS norm":
        beta = None
    how = {"axes": norm.axes, "eps": EPS, "centred": norm.name != "RMS norm"}
    needs = (True, True, beta is not None)

    def forward(k):
        return known(norm.op.normalize_forward.on_gpu(pairs[k % sets][0], gamma, beta, **how))

    answers = [forward(k) for k in range(sets)]

    def backward(k):
        x, dy = pairs[k % sets]
        gs, outs = (dy, None, None), answers[k % sets]
        return known(norm.op.normalize_grads.on_gpu(gs, outs, x, gamma, beta, needs=needs, **how))

    return {"forward": forward, "backward": backward}


def known(answer: Any) -> Any:
    """What a kernel gave; a TypeError where it left the work to the formula."""
    if answer is NotImplemented:
        raise TypeError("no kernel knows this norm")
    return answer


def their_steps(norm: Norm, dtype: str, sets: int, rival: PyTorch) -> dict[str, timing.Step]:
    """γ and β of batch norm are float32; the other norms of PyTorch want them in the dtype of x."""
    beside = "float32" if norm.name.startswith("batch") else dtype
    x, dy = (rival.tensor(array) for array in numbers(norm)[:2])
    pairs = [[(a * (1 + k / sets)).to(rival.dtype(dtype)) for a in (x, dy)] for k in range(sets)]
    gamma, beta = (rival.tensor(array, beside) for array in numbers(norm)[2:])
    wanted = [gamma] if norm.name == "RMS norm" else [gamma, beta]
    for tensor in [x for x, _ in pairs] + wanted:
        tensor.requires_grad_()

    def forward(k):
        return norm.theirs(rival.torch, pairs[k % sets][0], gamma, beta)

    answers = [forward(k) for k in range(sets)]

    def backward(k):
        x, dy = pairs[k % sets]
        return rival.torch.autograd.grad(answers[k % sets], [x, *wanted], dy, retain_graph=True)

    return {"forward": forward, "backward": backward}
