"""Ops."""

import numpy as np
from recorder import record


def make():
    def one(name, function, variables, constants=None, **kwargs):
        function = function if "[" in function else f"torch.{function}"
        record(f"ops/{name}", function, variables, constants, **kwargs)

    through_zero = {"input": [-2, -0.5, 0, 0.5, 3]}
    large = {"input": [[1000, 999, -1000], [-1000, -1000.5, -1001]]}
    for function in ("relu", "sigmoid", "tanh", "abs"):
        one(function, function, through_zero)
    for function in ("softmax", "log_softmax"):
        for shape, dim in (((4,), 0), ((3, 4), -1), ((2, 3, 2), 1)):
            one(f"{function}-{len(shape)}d-dim{dim}", function, {"input": shape}, dim=dim)
        one(f"{function}-large", function, large, dim=1)
    cube, matrix, kept = {"input": (2, 3, 2)}, {"input": (4, 3)}, {"dim": (0, 2), "keepdim": True}
    one("logsumexp-dim1", "logsumexp", cube, dim=1)
    one("logsumexp-dim0_2-keepdim", "logsumexp", cube, **kept)
    one("logsumexp-large", "logsumexp", large, dim=1)
    for correction in (0, 1):
        for word, kwargs in (("all", {}), ("dim0_2-keepdim", kept)):
            one(f"var-correction{correction}-{word}", "var", cube, correction=correction, **kwargs)
    tied = {"input": [[1, 3, 3, -1], [2, 2, 2, 2], [0, 1, 2, 3]]}
    for word, kwargs in (("all", {}), ("dim1", {"dim": 1}), ("dim0-keepdim", kept | {"dim": 0})):
        one(f"amax-ties-{word}", "amax", tied, **kwargs)
    pair = {"input": [[1, 2, 3], [0, -1, 5]], "other": [[1, 0.5, 3], [0, 2, 5.5]]}
    one("maximum-ties", "maximum", pair)
    one("maximum-ties-broadcast", "maximum", pair | {"other": [1, -1, 5]})
    positive, at_zero = {"input": [0.25, 1, 1.5, 3]}, {"input": [0, 0, 0, 0]}
    one("sqrt", "sqrt", positive)
    for exponent in (0, 1, 2, 3):
        one(f"pow-through-zero-exponent{exponent}", "pow", through_zero, exponent=exponent)
    for exponent in (-1, 0.5, 2.5):
        one(f"pow-exponent{exponent}", "pow", positive, exponent=exponent)
    one("pow-tensor", "pow", positive | {"exponent": [2, -1, 0, 1.5]})
    one("pow-tensor-broadcast", "pow", positive | {"exponent": [[2], [0.5], [-1]]})
    one("pow-tensor-at-zero", "pow", at_zero | {"exponent": [0, 1, 2, 3]})
    one("pow-constant-tensor-at-zero", "pow", at_zero, {"exponent": np.array([0.0, 1, 2, 3])})
    pairs = "3-3 2x3-3 3-3x2 2x3-3x2 2x2x3-3 3-2x3x2 2x2x3-2x3x2 2x3-2x3x2 2x1x2x3-3x3x2"
    for word in pairs.split():
        a, b = (tuple(map(int, shape.split("x"))) for shape in word.split("-"))
        one(f"matmul-{word}", "matmul", {"input": a, "other": b})
    rows, columns = np.array([1, 1, -1, 0, 1]), np.array([2, 2, -1, 0, 2])
    mask = np.arange(12).reshape(4, 3) % 5 < 2
    one("index-rows", "input[rows]", matrix, {"rows": rows})
    one("index-2d-rows", "input[rows]", matrix, {"rows": np.array([[0, 3], [3, 3]])})
    one("index-columns", "input[:, columns]", matrix, {"columns": columns})
    one("index-both", "input[rows, columns]", matrix, {"rows": rows, "columns": columns})
    one("index-mask", "input[mask]", matrix, {"mask": mask})
    one("index-row-mask", "input[mask]", matrix, {"mask": mask[:, 0]})
