"""Values that come from PyTorch, kept as data so that the tests need no PyTorch.

Run, where NumPy and PyTorch are installed: python tests/golden/make_torch.py

It writes, next to itself, `torch.npz` (the arrays) and `torch.json` (PyTorch's version, the cases,
and the texts of a nested model). Each case draws its inputs from a random stream that its own name
seeds, so adding a case leaves the others as they are. Random inputs are multiples of 1/64: exact in
float32 too, and small when compressed. All is float64 unless a case's "dtype" says float32; indices
are int64. On another processor the last bits of the results may differ.

A case has a "name" and "kwargs"; np.load("torch.npz")[name] is a structured array with a field for
each of its arrays, so that np.load("torch.npz")[name][field] is one of them.

The cases batch_norm/..., cross_entropy/..., mse_loss/... and ops/... call "function" with keywords
only: the fields named in "variables" and "constants", and "kwargs". (For indexing, "function" is an
expression in these names.) Gradients are taken with respect to the variables. The other fields:

    output           what the function returned
    after/CONSTANT   the value after the call of a constant that the call changed
    cotangent        the weights d of the output in the scalar s = sum(d * output)
    gradient/VAR     the gradient of s with respect to the variable VAR
    probe/VAR        weights of that gradient in t = sum over the variables of sum(probe * gradient)
    second/VAR       the gradient of t with respect to VAR; second/cotangent: with respect to d

The other cases:

    module/...       torch.nn.BatchNorm1d and 2d: weight and bias, `batches` (the training steps, in
                     order), after/BUFFER (after all the steps), then eval_input and eval_output
    sgd/...          20 steps of torch.optim.SGD on the cross entropy of linear2(relu(norm(linear1(
                     input)))), in some with an uncalled layer `unused`: initial/PARAMETER, target,
                     `losses` (each taken before its step), and final/KEY of the state_dict
    orders/...       gradients of gradients: g_1 is the gradient of sum(probes[0] * norm(x)) with
                     respect to x, and g_k that of sum(probes[k-1] * g_{k-1}). `fused` holds g_1 to
                     g_4 of PyTorch's own norm, `primitive` those of the same norm written with
                     mean, sqrt and arithmetic. Per order: `relative_difference` between the two,
                     and `primitive_against_quotients`, between the latter and central difference
                     quotients of that sum; both as max |a - b| / max |b|
"""

import json
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FOLDER = Path(__file__).resolve().parent
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
    if "[" in function:
        output = eval(function, inputs | fixed)
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


def make_batch_norm():
    def one(name, shape, words, buffers=True, dtype="float64", **changes):
        name, channels = f"batch_norm/{name}", shape[1]
        random = random_stream(name + "/running")
        mean, spread = draw(random, channels, dtype), draw(random, channels, dtype)
        constants = {"running_mean": mean, "running_var": abs(spread) + 0.25}
        variables = {"input": shape} | {word: (channels,) for word in words}
        kwargs = {"training": True, "momentum": 0.1, "eps": 1e-5} | changes
        if not buffers:
            constants, kwargs = {}, kwargs | dict.fromkeys(constants)
        record(name, FUNCTIONAL + "batch_norm", variables, constants, dtype, **kwargs)

    both, image = ("weight", "bias"), (3, 2, 2, 4)
    for shape in ((6, 3), (4, 3, 5), image, (2, 3, 2, 1, 3)):
        rank = f"{len(shape)}d"
        for words, kind in ((both, "affine"), ((), "plain")):
            one(f"{rank}-{kind}-train", shape, words)
            one(f"{rank}-{kind}-train-eps0.1-momentum0.7", shape, words, eps=0.1, momentum=0.7)
            one(f"{rank}-{kind}-eval", shape, words, training=False)
            one(f"{rank}-{kind}-eval-eps0.1", shape, words, training=False, eps=0.1)
    # The bias without the weight is absent: PyTorch has no second gradients there.
    one("2d-weight-only-train", (6, 3), ("weight",))
    one("2d-affine-train-no-buffers", (6, 3), both, buffers=False)
    one("4d-plain-train-no-buffers", image, (), buffers=False)
    one("4d-affine-train-float32", image, both, dtype="float32")
    one("4d-affine-eval-float32", image, both, dtype="float32", training=False)


def make_modules():
    settings = {f"momentum{m}": {"momentum": m} for m in (0.1, 0.7, None)}
    settings |= {"no-tracking": {"track_running_stats": False}, "no-affine": {"affine": False}}
    for shape in ((6, 3), (4, 3, 5), (3, 2, 2, 4)):
        for word, kwargs in settings.items():
            kind = "BatchNorm2d" if len(shape) == 4 else "BatchNorm1d"
            name = f"module/{kind}-{len(shape)}d-{word}"
            module = getattr(nn, kind)(shape[1], **kwargs).double()
            kwargs = {"num_features": shape[1]} | kwargs
            keys = list(module.state_dict())
            describe(name, kwargs, function=f"torch.nn.{kind}", state_dict_keys=keys)
            random = random_stream(name)
            for parameter in module.parameters():
                parameter.data = torch.tensor(draw(random, shape[1]))
            batches, eval_input = draw(random, (5, *shape)), draw(random, shape)
            for batch in batches:
                module(torch.tensor(batch))
            store(name, {"batches": batches, "eval_input": eval_input})
            store(name, dict(module.named_parameters()))
            store(name, {f"after/{key}": value for key, value in module.named_buffers()})
            store(name, {"eval_output": module.eval()(torch.tensor(eval_input))})


def make_losses():
    def one(layout, kind, reduction="mean", weight=False, smoothing=0.0, suffix="", **more):
        """`kind` is "indices", "ignored" (every third), "all-ignored" or "probabilities"."""
        words = [layout, kind, *["weight"] * weight, *["smoothing"] * (smoothing > 0), reduction]
        name = "cross_entropy/" + "-".join(words) + suffix
        shape = {"NC": (5, 4), "C": (4,), "NCd": (3, 4, 2), "NCdd": (2, 3, 2, 2)}[layout]
        class_axis = min(1, len(shape) - 1)
        classes, places = shape[class_axis], np.delete(shape, class_axis)
        random = random_stream(name + "/target")
        if kind == "probabilities":  # multiples of 1/64 whose sum is 1
            target = random.multinomial(64, [1 / classes] * classes, tuple(places)) / 64
            target = np.moveaxis(target, -1, class_axis)
        else:
            target = np.array(random.integers(0, classes, places))
            spacing = {"indices": target.size + 1, "ignored": 3, "all-ignored": 1}[kind]
            target.reshape(-1)[spacing - 1 :: spacing] = more.get("ignore_index", -100)
        constants = {"target": target}
        if weight:
            constants["weight"] = abs(draw(random, classes, more.get("dtype", "float64"))) + 0.25
        kwargs = {"reduction": reduction, "label_smoothing": smoothing} | more
        record(name, FUNCTIONAL + "cross_entropy", {"input": shape}, constants, **kwargs)

    for kind in ("indices", "probabilities"):
        for options in ((), (True,), (False, 0.1), (True, 0.1)):
            one("NC", kind, "mean", *options)
        for options in (("sum",), ("sum", True, 0.1), ("none",), ("none", True, 0.1)):
            one("NC", kind, *options)
        for layout in ("C", "NCd", "NCdd"):
            one(layout, kind, "none")
            one(layout, kind, "mean", True, 0.1)
    for options in (("mean",), ("none",), ("sum",), ("mean", True, 0.1), ("none", True, 0.1)):
        one("NC", "ignored", *options)
        one("NC", "all-ignored", *options)
    one("NCdd", "ignored", "mean", True, 0.1, suffix="-index1", ignore_index=1)
    one("NC", "indices", "mean", True, 0.1, suffix="-float32", dtype="float32")
    for reduction in ("mean", "sum", "none"):
        pair = {"input": (4, 3), "target": (4, 3)}
        record(f"mse_loss/{reduction}", FUNCTIONAL + "mse_loss", pair, reduction=reduction)


def make_operations():
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


def perceptron(has_unused_layer):
    layers = {"linear1": nn.Linear(4, 5), "norm": nn.BatchNorm1d(5), "linear2": nn.Linear(5, 3)}
    unused = {"unused": nn.Linear(3, 2)} if has_unused_layer else {}
    return nn.ModuleDict(layers | unused).double()


def make_sgd():
    random, parameters = random_stream("sgd"), perceptron(True).named_parameters()
    initial = {key: draw(random, parameter.shape) for key, parameter in parameters}
    data, labels = draw(random, (8, 4)), random.integers(0, 3, 8)
    plain, momentum = {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}
    decayed, nesterov = momentum | {"weight_decay": 0.01}, momentum | {"nesterov": True}
    settings = {"plain": plain, "momentum": momentum, "weight_decay": decayed}
    settings |= {"nesterov": nesterov, "frozen-parameter": decayed, "unused-parameter": decayed}
    for word, kwargs in settings.items():
        frozen = ["linear1.weight"] if word == "frozen-parameter" else []
        model = perceptron(word == "unused-parameter")
        for key, parameter in model.named_parameters():
            parameter.data = torch.tensor(initial[key])
            parameter.requires_grad_(key not in frozen)
        optimizer, losses = torch.optim.SGD(model.parameters(), **kwargs), []
        for _ in range(20):
            optimizer.zero_grad()
            hidden = torch.relu(model["norm"](model["linear1"](torch.tensor(data))))
            loss = F.cross_entropy(model["linear2"](hidden), torch.tensor(labels))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
        describe(f"sgd/{word}", kwargs, frozen=frozen, without_gradient=without)
        store(f"sgd/{word}", {"input": data, "target": labels, "losses": losses})
        used = {key: initial[key] for key, _ in model.named_parameters()}
        for stage, values in (("initial", used), ("final", model.state_dict())):
            store(f"sgd/{word}", {f"{stage}/{key}": value for key, value in values.items()})


def gradient_chain(norm, x, probes):
    """The gradients g_1, g_2, ... and the scalars they are the gradients of."""
    x = torch.tensor(x, requires_grad=True)
    value, gradients, scalars = norm(x), [], []
    for probe in probes:
        scalars.append((torch.tensor(probe) * value).sum())
        (value,) = torch.autograd.grad(scalars[-1], x, create_graph=True)
        gradients.append(value.detach().numpy())
    return np.array(gradients), np.array([scalar.item() for scalar in scalars])


def make_orders():
    eps, step = 1e-5, 1e-5
    for kind, dim in (("batch_norm", 0), ("layer_norm", 1)):
        name = f"orders/{kind}"
        random = random_stream(name)
        x, weight, bias, probes = (draw(random, shape) for shape in ((6, 3), 3, 3, (4, 6, 3)))
        w, b = torch.tensor(weight), torch.tensor(bias)

        def fused_norm(x, w=w, b=b, kind=kind):
            if kind == "layer_norm":
                return F.layer_norm(x, (3,), w, b, eps)
            return F.batch_norm(x, None, None, w, b, training=True, eps=eps)

        def primitive_norm(x, w=w, b=b, dim=dim):
            centered = x - x.mean(dim, keepdim=True)
            return centered / ((centered**2).mean(dim, keepdim=True) + eps).sqrt() * w + b

        fused, primitive = (gradient_chain(f, x, probes)[0] for f in (fused_norm, primitive_norm))
        quotients = []
        for shift in step * np.eye(x.size).reshape(-1, *x.shape):
            ends = (gradient_chain(primitive_norm, x + s, probes)[1] for s in (shift, -shift))
            quotients.append(np.subtract(*ends) / (2 * step))
        quotients = np.stack(quotients, axis=1).reshape(primitive.shape)
        describe(name, {"eps": eps}, function=FUNCTIONAL + kind)
        pairs = ((fused, primitive), (primitive, quotients))
        difference, error = (abs(a - b).max((1, 2)) / abs(b).max((1, 2)) for a, b in pairs)
        store(name, {"x": x, "weight": weight, "bias": bias, "probes": probes, "fused": fused})
        store(name, {"primitive": primitive, "relative_difference": difference})
        store(name, {"primitive_against_quotients": error})
        print(name, difference, error)


def main():
    torch.set_num_threads(1)
    for make in (make_batch_norm, make_losses, make_operations, make_modules, make_sgd):
        make()
    make_orders()
    packed = {name: pack(fields) for name, fields in arrays.items()}
    np.savez_compressed(FOLDER / "torch.npz", **packed)
    last = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    model = nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Flatten(), last)
    texts = {"repr": repr(model), "state_dict_keys": list(model.state_dict())}
    document = {"torch": torch.__version__, "sequential": texts, "cases": "CASES"}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = json.dumps(document, indent=1).replace('"CASES"', f"[\n{lines}\n]")
    (FOLDER / "torch.json").write_text(text + "\n")
    print(f"{len(cases)} cases, {sum(map(len, arrays.values()))} arrays")


if __name__ == "__main__":
    main()
