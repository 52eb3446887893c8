"""Records what PyTorch answers: a case, its arrays, and its first and second gradients.

A case has a "name" and "kwargs"; its arrays are the fields of one structured array. Each case draws
its inputs from a random stream that its own name seeds, so adding a case leaves the others as they
are. Random inputs are multiples of 1/64: exact in float32 too, and small when compressed. All is
float64 unless a case's "dtype" says float32; indices are int64.

A case of a function calls "function" with keywords only: the fields named in "variables" and
"constants", and "kwargs". (With brackets in it, "function" is an expression in these names and
those of torch and torch.linalg.) Gradients are taken with respect to the variables. The other
fields:

    output           what the function returned
    after/CONSTANT   the value after the call of a constant that the call changed
    cotangent        the weights d of the output in the scalar s = sum(d * output)
    gradient/VAR     the gradient of s with respect to the variable VAR
    probe/VAR        weights of that gradient in t = sum over the variables of sum(probe * gradient)
    second/VAR       the gradient of t with respect to VAR; second/cotangent: with respect to d
"""

import zlib
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F

FUNCTIONAL = "torch.nn.functional."
cases, arrays = [], defaultdict(dict)


def random_stream(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw(random, shape, dtype="float64"):
    return np.array(np.round(random.standard_normal(shape) * 64) / 64, dtype)


def store(name, values):
    for key, value in values.items():
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        arrays[name][key] = np.array(value)


def pack(fields):
    # The widest types come first, so that every field is aligned without padding.
    fields = dict(sorted(fields.items(), key=lambda field: -field[1].itemsize))
    kinds = [(key, value.dtype, value.shape) for key, value in fields.items()]
    return np.array(tuple(fields.values()), kinds)


def describe(name, kwargs, **more):
    if any(case["name"] == name for case in cases):
        raise ValueError(f"two cases are named {name!r}")
    cases.append({"name": name, **more, "kwargs": kwargs})


def record(name, function, variables, constants=None, dtype="float64", **kwargs):
    """Store a call with its first and second gradients; variables are values, or shapes to draw."""
    random, constants = random_stream(name), constants or {}
    words = {"variables": list(variables), "constants": list(constants), "dtype": dtype}
    describe(name, kwargs, function=function, **words)
    drawn = {k: draw(random, v) if isinstance(v, tuple) else v for k, v in variables.items()}
    values = {key: np.array(value, dtype) for key, value in drawn.items()}
    inputs = {key: torch.tensor(value, requires_grad=True) for key, value in values.items()}
    fixed = {key: torch.tensor(np.array(value)) for key, value in constants.items()}
    if "[" in function or "(" in function:
        output = eval(function, {**vars(torch), **vars(torch.linalg), **inputs, **fixed})
    else:
        module, _, word = function.rpartition(".")
        output = getattr(torch if module == "torch" else F, word)(**inputs, **fixed, **kwargs)
    changed = {k: v for k, v in fixed.items() if not np.array_equal(v.numpy(), constants[k])}
    store(name, values | constants | {f"after/{k}": v for k, v in changed.items()})

    cotangent = torch.tensor(draw(random, output.shape, dtype), requires_grad=True)
    sources = inputs | {"cotangent": cotangent}  # the cotangent last: only `seconds` reaches it
    gradients = torch.autograd.grad(output, [*inputs.values()], cotangent, create_graph=True)
    probes = [torch.tensor(draw(random, value.shape, dtype)) for value in values.values()]
    total = sum((source * 0).sum() for source in sources.values())  # a graph to all the sources
    total = total + sum((p * g).sum() for p, g in zip(probes, gradients, strict=True))
    seconds = torch.autograd.grad(total, [*sources.values()])
    results = {"output": output, "cotangent": cotangent}
    for word, found in (("gradient", gradients), ("probe", probes), ("second", seconds)):
        results |= {f"{word}/{key}": g for key, g in zip(sources, found, strict=False)}
    store(name, results)
