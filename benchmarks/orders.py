"""Where fused norms go wrong, order by order: `python benchmarks/orders.py`.

The gradient of order k, by x, γ and β, is that of a random combination of the gradient of order
k − 1. Each library's own norm is held against the same function from that library's primitive ops,
in float64: max |own − primitive| / max |primitive|. Where the norm is wrong earlier if γ is 0 in a
channel, a row says so.

The libraries that are installed are measured; the others keep their last measurement in
results/orders.json, from which the table results/orders.md is made. Chainer and DeZero want an
environment of their own, with Python 3.11 at most:

    pip install "setuptools<70" wheel
    pip install --no-build-isolation chainer dezero matplotlib "numpy<1.24"
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ORDERS = 4
EPS = 1e-5
GROUPS = 2
WRONG = 1e-6
RESULTS = Path(__file__).parent / "results"


class Norm(NamedTuple):
    """What is normalized: an input of `shape`, reshaped to `seen`, over `axes`."""

    shape: tuple[int, ...]
    seen: tuple[int, ...]
    axes: tuple[int, ...]
    affine: tuple[int, ...]  # the shape of γ and β beside `seen`
    centred: bool = True


NORMS = {
    "batch_norm": Norm((6, 4), (6, 4), axes=(0,), affine=(1, 4)),
    "layer_norm": Norm((4, 6), (4, 6), axes=(1,), affine=(1, 6)),
    "instance_norm": Norm((2, 3, 5), (2, 3, 5), axes=(2,), affine=(1, 3, 1)),
    "group_norm": Norm((2, 4, 3), (2, GROUPS, 2, 3), axes=(2, 3), affine=(1, GROUPS, 2, 1)),
    "rms_norm": Norm((4, 6), (4, 6), axes=(1,), affine=(1, 6), centred=False),
}


# --- The libraries --------------------------------------------------------------------------------


class Library(NamedTuple):
    """A library's norms, functions of x, γ and β; and what `primitive` and `gradients` need."""

    norms: dict[str, Callable]
    variable: Callable  # of an array
    mean: Callable  # of a variable over axes, which are kept
    grad: Callable  # of a number by variables; it can be differentiated again; None for 0
    array: Callable = lambda v: v.detach().numpy()  # of a variable
    version: str = ""


def norms_by_pytorchs_names(functional: Any, **options: Any) -> dict[str, Callable]:
    """The norms of PyTorch's functional, or of ours."""
    F, options = functional, {"eps": EPS, **options}
    return {
        "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, **options),
        "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b, **options),
        "instance_norm": lambda x, w, b: F.instance_norm(x, None, None, w, b, **options),
        "group_norm": lambda x, w, b: F.group_norm(x, GROUPS, w, b, **options),
        "rms_norm": lambda x, w, b: F.rms_norm(x, x.shape[1:], w, **options),
    }


def ours() -> Library:
    import tinygrad_bn as tg

    return Library(
        norms_by_pytorchs_names(tg.functional, impl="fused"),
        variable=lambda a: tg.tensor(a, requires_grad=True),
        mean=lambda v, axes: tg.mean(v, axis=axes, keepdims=True),
        grad=lambda y, xs: tg.grad(y, xs, create_graph=True, allow_unused=True),
    )


def pytorch() -> Library:
    import torch

    return Library(
        norms_by_pytorchs_names(torch.nn.functional),
        variable=lambda a: torch.tensor(a, requires_grad=True),
        mean=lambda v, axes: v.mean(axes, keepdim=True),
        grad=lambda y, xs: torch.autograd.grad(y, xs, create_graph=True, allow_unused=True),
        version=torch.__version__.split("+")[0],
    )


def chainer() -> Library:
    import chainer
    import chainer.functions as F

    return Library(
        {
            "batch_norm": lambda x, w, b: F.batch_normalization(x, w, b, eps=EPS),
            "layer_norm": lambda x, w, b: F.layer_normalization(x, w, b, eps=EPS),
            "group_norm": lambda x, w, b: F.group_normalization(x, GROUPS, w, b, eps=EPS),
        },
        variable=chainer.Variable,
        mean=lambda v, axes: F.mean(v, axis=axes, keepdims=True),
        grad=lambda y, xs: chainer.grad([y], xs, enable_double_backprop=True),
        array=lambda v: v.array,
        version=chainer.__version__,
    )


def dezero() -> Library:
    import dezero
    import dezero.functions as F

    def batch_norm(x, weight, bias):
        running_mean, running_var = np.zeros(weight.shape), np.ones(weight.shape)
        return F.BatchNorm(running_mean, running_var, 0.9, EPS)(x, weight, bias)

    def grad(y, xs):
        for x in xs:
            x.cleargrad()
        y.backward(create_graph=True)
        return [x.grad for x in xs]

    return Library(
        {"batch_norm": batch_norm},
        variable=dezero.Variable,
        mean=lambda v, axes: v.sum(axes, keepdims=True) / math.prod(v.shape[i] for i in axes),
        grad=grad,
        array=lambda v: v.data,
        version=version("dezero"),
    )


def tinygrad() -> Library:
    os.environ.setdefault("DEV", "PYTHON")  # its interpreter: float64, and no compiler is needed
    from tinygrad import Tensor, nn

    def norm(layer_of):
        def call(x, weight, bias):
            layer = layer_of(x.shape[1])
            layer.weight, layer.bias = weight, bias
            return layer(x)

        return call

    def grad(y, xs):  # a gradient that is a constant has no device
        return [g if g.device else g.clone(x.device) for g, x in zip(y.gradient(*xs), xs)]

    return Library(
        {
            "batch_norm": norm(lambda n: nn.BatchNorm(n, EPS, track_running_stats=False)),
            "layer_norm": norm(lambda n: nn.LayerNorm(n, EPS)),
            "instance_norm": norm(lambda n: nn.InstanceNorm(n, EPS)),
            "group_norm": norm(lambda n: nn.GroupNorm(GROUPS, n, EPS)),
            "rms_norm": norm(lambda n: nn.RMSNorm(n, EPS)),
        },
        variable=Tensor,
        mean=lambda v, axes: v.mean(axes, keepdim=True),
        grad=grad,
        array=lambda v: v.numpy(),
        version=version("tinygrad"),
    )


LIBRARIES = {
    "tinygrad_bn": ours,
    "PyTorch": pytorch,
    "Chainer": chainer,
    "DeZero": dezero,
    "tinygrad": tinygrad,
}


# --- The measurement ------------------------------------------------------------------------------


def primitive(library: Library, norm: Norm) -> Callable:
    """The norm from the library's primitive ops."""

    def call(x, weight, bias):
        d = x.reshape(norm.seen)
        if norm.centred:
            d = d - library.mean(d, norm.axes)
        xhat = d * (library.mean(d * d, norm.axes) + EPS) ** -0.5
        y = xhat * weight.reshape(norm.affine)
        return (y + bias.reshape(norm.affine) if norm.centred else y).reshape(norm.shape)

    return call


def gradients(library: Library, norm: Callable, values: list) -> Iterator[list[np.ndarray]]:
    """The gradients by the inputs of orders 1, 2, 3, …"""
    random = np.random.default_rng(1)
    inputs = [library.variable(v) for v in values]
    current = [norm(*inputs)]
    while True:
        total = 0.0
        for v in current:
            product = v * library.variable(random.standard_normal(v.shape))
            total = total + library.mean(product, tuple(range(len(v.shape)))).reshape(())
        found = library.grad(total, inputs)
        current = [
            library.variable(np.zeros(v.shape)) if g is None else g for v, g in zip(values, found)
        ]
        yield [library.array(g) for g in current]


def errors(library: Library, name: str, gamma_zero: bool) -> list[str]:
    """The error at orders 1, 2, …: up to ORDERS, or to the one that the library refuses."""
    norm, random = NORMS[name], np.random.default_rng(0)
    parameters = (math.prod(norm.affine),)
    values = [random.standard_normal(shape) for shape in (norm.shape, parameters, parameters)]
    if gamma_zero:
        values[1][0] = 0.0
    own = gradients(library, library.norms[name], values)
    right = gradients(library, primitive(library, norm), values)
    cells = []
    for b in itertools.islice(right, ORDERS):
        try:
            a = next(own)
        except Exception as refusal:
            return [*cells, f"refuses: {type(refusal).__name__}: {first_line(refusal)}"]
        difference = max_of(x - y for x, y in zip(a, b))
        cells.append(f"{difference / max_of(b):.0e}")
    return cells


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def max_of(arrays: Iterable[np.ndarray]) -> float:
    return np.max([np.abs(a).max() for a in arrays])  # NaN if there is one


def first_wrong(cells: list[str]) -> int:
    """Where the first error above WRONG stands."""
    answers = (not c.startswith("refuses") and not float(c) <= WRONG for c in cells)
    return next((k for k, wrong in enumerate(answers) if wrong), ORDERS)


def measured(library: Library) -> dict:
    rows = {}
    for name in library.norms:
        with np.errstate(divide="ignore", invalid="ignore"):  # of γ = 0
            plain, zero = (errors(library, name, gamma_zero) for gamma_zero in (False, True))
        rows[name] = plain
        if first_wrong(zero) < first_wrong(plain):
            rows[f"{name}, γ = 0"] = zero
    return rows


# --- The table ------------------------------------------------------------------------------------


def table(results: dict) -> str:
    """A row for each norm of each library; the first wrong order in bold, refusals in notes."""
    rows = [["error of the gradient of order", *map(str, range(1, ORDERS + 1))]]
    notes = []
    for name in itertools.chain(*(of_library(results, name) for name in LIBRARIES)):
        for norm, cells in results[name].items():
            title = f"{name}, {norm}"
            notes += [f"{title} {c.rstrip('.')}.\n" for c in cells if c.startswith("refuses")]
            shown = [c.partition(":")[0] for c in cells] + ["–"] * (ORDERS - len(cells))
            wrong = first_wrong(cells)
            rows.append([title, *(f"**{c}**" if k == wrong else c for k, c in enumerate(shown))])
    return "\n".join([markdown(rows), *notes])


def of_library(results: dict, name: str) -> list[str]:
    """The measured versions of a library, as "PyTorch 2.13.0"."""
    return sorted(title for title in results if title.split()[0] == name)


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is its head."""
    head, *rest = (f"| {' | '.join(row)} |\n" for row in rows)
    return head + "|---" * len(rows[0]) + "|\n" + "".join(rest)


def main() -> None:
    kept = RESULTS / "orders.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name, open_library in LIBRARIES.items():
        try:
            library = open_library()
        except (ImportError, AttributeError) as reason:  # not here, or not with this NumPy
            state = "kept" if of_library(results, name) else "left out"
            print(f"{name}: {state} ({first_line(reason)})")
        else:
            title = f"{name} {library.version}".strip()  # another version has rows of its own
            results[title] = measured(library)
            print(f"{title}: measured")
    kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "orders.md").write_text(table(results))
    print("", table(results), sep="\n")


if __name__ == "__main__":
    main()
