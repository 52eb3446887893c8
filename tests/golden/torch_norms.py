"""Batch norm: functions and modules, and the orders at which PyTorch's fused norms go wrong.

module/...       torch.nn.BatchNorm1d and 2d: weight and bias, `batches` (the training steps, in
                 order), after/BUFFER (after all the steps), then eval_input and eval_output
orders/...       gradients of gradients: g_1 is the gradient of sum(probes[0] * norm(x)) with
                 respect to x, and g_k that of sum(probes[k-1] * g_{k-1}). `fused` holds g_1 to
                 g_4 of PyTorch's own norm, `primitive` those of the same norm written with
                 mean, sqrt and arithmetic. Per order: `relative_difference` between the two,
                 and `primitive_against_quotients`, between the latter and central difference
                 quotients of that sum; both as max |a - b| / max |b|
"""

import numpy as np
import torch
import torch.nn.functional as F
from recorder import FUNCTIONAL, describe, draw, random_stream, record, store
from torch import nn


def make():
    make_batch_norm()
    make_modules()
    make_orders()


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


def gradient_chain(norm, x, probes):
    """The gradients g_1, g_2, ... and the scalars they are the gradients of."""
    x = torch.tensor(x, requires_grad=True)
    value, gradients, scalars = norm(x), [], []
    for probe in probes:
        scalars.append((torch.tensor(probe) * value).sum())
        try:
            (value,) = torch.autograd.grad(scalars[-1], x, create_graph=True)
        except RuntimeError:  # as of 2.15 some refuse an order that was wrong before: NaN
            value = value * torch.nan
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
