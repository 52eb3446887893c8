"""Ops and activations: each case is an expression of PyTorch's."""

import numpy as np
from recorder import record

# From here on the functions are flat; erf and tanh are 1 to the last bit.
FAR = {"input": [-1000, -40, -6, 6, 40, 1000]}
THROUGH_ZERO = {"input": [-2, -0.5, 0, 0.5, 3]}
TIED = {"input": [[1, 3, 3, -1], [2, 2, 2, 2], [0, 1, 2, 3]]}
CUBE, MATRIX = {"input": (2, 3, 2)}, {"input": (4, 3)}
REDUCED = (("all", ""), ("dim1", ", dim=1"), ("dim0-keepdim", ", dim=0, keepdim=True"))


def one(name, expression, variables, constants=None):
    record(f"ops/{name}", expression, variables, constants)


def make():
    activations()
    elementwise()
    softmaxes_and_reductions()
    products_and_norms()
    matmul()
    moves()


def activations():
    for word in ("relu", "sigmoid", "tanh", "abs", "sin", "cos", "erf"):
        one(word, f"{word}(input)", THROUGH_ZERO)
    for word, options in (
        *(("gelu", ""), ("gelu", ", approximate='tanh'"), ("leaky_relu", "")),
        *(("leaky_relu", ", negative_slope=0.2"), ("leaky_relu", ", negative_slope=-1.5")),
        *(("softplus", ""), ("softplus", ", beta=2, threshold=1.5"), ("softplus", ", beta=0.4")),
    ):
        values = {"": THROUGH_ZERO, "-far": FAR, "-drawn": MATRIX}
        for where, input in values.items():
            name = (word + options).replace(", ", "-").replace("=", "").replace("'", "")
            one(f"{name}{where}", f"nn.functional.{word}(input{options})", input)


def elementwise():
    pair = {"input": [[1, 2, 3], [0, -1, 5]], "other": [[1, 0.5, 3], [0, 2, 5.5]]}
    one("maximum-ties", "maximum(input, other)", pair)
    one("maximum-ties-broadcast", "maximum(input, other)", pair | {"other": [1, -1, 5]})
    positive, at_zero = {"input": [0.25, 1, 1.5, 3]}, {"input": [0, 0, 0, 0]}
    one("sqrt", "sqrt(input)", positive)
    for exponent in (0, 1, 2, 3):
        one(f"pow-through-zero-exponent{exponent}", f"pow(input, {exponent})", THROUGH_ZERO)
    for exponent in (-1, 0.5, 2.5):
        one(f"pow-exponent{exponent}", f"pow(input, {exponent})", positive)
    power, zero_to_three = "pow(input, exponent)", [0.0, 1, 2, 3]
    one("pow-tensor", power, positive | {"exponent": [2, -1, 0, 1.5]})
    one("pow-tensor-broadcast", power, positive | {"exponent": [[2], [0.5], [-1]]})
    one("pow-tensor-at-zero", power, at_zero | {"exponent": zero_to_three})
    one("pow-constant-tensor-at-zero", power, at_zero, {"exponent": np.array(zero_to_three)})
    # Not at a bound: there PyTorch's gradient was 1 to 2.13, and is 0 in 2.15.
    for bounds in ("min=-0.75, max=0.25", "min=0.25", "max=-0.25", "min=1, max=1"):
        name = bounds.replace(", ", "-").replace("=", "")
        one(f"clamp-{name}", f"clamp(input, {bounds})", THROUGH_ZERO)
    tensors = {"low": [-1, -0.75, 0.25, -1, 0.25], "high": [0, 0.25, 0.75, 0.25, 2]}
    one("clamp-tensors", "clamp(input, low, high)", THROUGH_ZERO | tensors)


def softmaxes_and_reductions():
    large = {"input": [[1000, 999, -1000], [-1000, -1000.5, -1001]]}
    for word in ("softmax", "log_softmax"):
        for shape, dim in (((4,), 0), ((3, 4), -1), ((2, 3, 2), 1)):
            one(f"{word}-{len(shape)}d-dim{dim}", f"{word}(input, dim={dim})", {"input": shape})
        one(f"{word}-large", f"{word}(input, dim=1)", large)
    kept = "dim=(0, 2), keepdim=True"
    one("logsumexp-dim1", "logsumexp(input, dim=1)", CUBE)
    one("logsumexp-dim0_2-keepdim", f"logsumexp(input, {kept})", CUBE)
    one("logsumexp-large", "logsumexp(input, dim=1)", large)
    for correction in (0, 1):
        for word, options in (("all", ""), ("dim0_2-keepdim", f", {kept}")):
            expression = f"var(input, correction={correction}{options})"
            one(f"var-correction{correction}-{word}", expression, CUBE)
    for word, options in REDUCED:
        one(f"amax-ties-{word}", f"amax(input{options})", TIED)


def products_and_norms():
    zeros = {"input": [[2, 0.5, -3, 1], [2, 0, -3, 1], [0, 0.5, -3, 0], [0, 0, 0, 2]]}
    for word, options in REDUCED:
        one(f"prod-{word}", f"prod(input{options})", {"input": (4, 5)})
        one(f"prod-zeros-{word}", f"prod(input{options})", zeros)
    one("prod-one-zero", "prod(input)", {"input": [2, 0, -3, 1.5, 4]})
    for dim in (0, -1):
        one(f"cumsum-dim{dim}", f"cumsum(input, dim={dim})", CUBE)
    for ord in (1, 2, 3, 4, 1.5, 0.5, -1, "inf", "-inf"):
        for word, options in REDUCED[-2 if ord in (2, 3) else -1 :]:
            one(f"norm{ord}-{word}", f"vector_norm(input, {ord}{options})", {"input": (3, 4)})
        tied, zeros = {"input": [[3, -3, 3], [1, 1, 1]]}, {"input": [[0, 0], [3, -4]]}
        one(f"norm{ord}-ties", f"vector_norm(input, {ord}, dim=1)", tied)
        one(f"norm{ord}-zeros", f"vector_norm(input, {ord}, dim=1)", zeros)
        one(f"norm{ord}-a-zero", f"vector_norm(input, {ord})", {"input": [3, 0, -4]})


def matmul():
    pairs = "3-3 2x3-3 3-3x2 2x3-3x2 2x2x3-3 3-2x3x2 2x2x3-2x3x2 2x3-2x3x2 2x1x2x3-3x3x2"
    for word in pairs.split():
        a, b = (tuple(map(int, shape.split("x"))) for shape in word.split("-"))
        one(f"matmul-{word}", "matmul(input, other)", {"input": a, "other": b})


def moves():
    rows, columns = np.array([1, 1, -1, 0, 1]), np.array([2, 2, -1, 0, 2])
    mask = np.arange(12).reshape(4, 3) % 5 < 2
    one("index-rows", "input[rows]", MATRIX, {"rows": rows})
    one("index-2d-rows", "input[rows]", MATRIX, {"rows": np.array([[0, 3], [3, 3]])})
    one("index-columns", "input[:, columns]", MATRIX, {"columns": columns})
    one("index-both", "input[rows, columns]", MATRIX, {"rows": rows, "columns": columns})
    one("index-mask", "input[mask]", MATRIX, {"mask": mask})
    one("index-row-mask", "input[mask]", MATRIX, {"mask": mask[:, 0]})
    for dim in (0, 1):
        one(f"sort-ties-dim{dim}", f"sort(input, dim={dim}, stable=True)[0]", TIED)
    indices = {"indices": np.array([[2, 0, 0], [1, 1, 1], [0, 2, 1], [0, 0, 2]])}
    one("take-dim1", "take_along_dim(input, indices, dim=1)", MATRIX, indices)
    one("take-dim0", "take_along_dim(input, indices, dim=0)", {"input": (3, 3)}, indices)
    for dims in ((0,), (0, 2), (-1,)):
        one(f"flip-{'_'.join(map(str, dims))}", f"flip(input, dims={dims})", CUBE)
    for mode in ("constant", "reflect", "replicate", "circular"):
        for shape, pad in (((2, 4), (1, 2)), ((2, 4), (3, 0)), ((2, 3, 4), (2, 0, 1, 2))):
            name = f"pad-{mode}-{'_'.join(map(str, pad))}"
            one(name, f"nn.functional.pad(input, {pad}, mode='{mode}')", {"input": shape})
    one("pad-value", "nn.functional.pad(input, (1, 0, 2, 0), value=-1.5)", MATRIX)
    one("pad-negative", "nn.functional.pad(input, (-1, 2, 1, -2), value=3.0)", MATRIX)
