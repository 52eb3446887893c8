"""Layer, RMS, group and instance norm: functions, modules, and calls that PyTorch refuses.

layer/...        a module of torch.nn with "arguments": its repr and state_dict_keys, what it
                 made of `batches` in training (`outputs`), after/BUFFER, and of eval_input
errors/...       a call with arrays of ones of the shapes in "arrays", and the error that
                 PyTorch "raises" (null: none)
"""

import torch
import torch.nn.functional as F
from recorder import FUNCTIONAL, describe, draw, random_stream, record, store
from torch import nn

SHAPES = {"2d": (3, 6), "3d": (3, 4, 3), "4d": (2, 4, 3, 2), "5d": (2, 4, 1, 3, 2)}
BOTH = ("weight", "bias")
AFFINE = {"affine": BOTH, "weight": ("weight",), "plain": ()}


def make():
    for rank, shape in SHAPES.items():
        make_featurewise(rank, shape)
        make_group_norm(rank, shape)
        if rank != "2d":
            make_instance_norm(rank, shape)
    make_layers()
    make_errors()


def one(family, name, shape, words, parameter_shape, constants=None, dtype="float64", **kwargs):
    variables = {"input": shape} | {word: parameter_shape for word in words}
    record(f"{family}/{name}", FUNCTIONAL + family, variables, constants, dtype, **kwargs)


def make_featurewise(rank, shape):
    for axes in {1, len(shape) - 1, len(shape)}:
        last = shape[-axes:]
        for kind, words in AFFINE.items():
            name = f"{rank}-last{axes}-{kind}"
            one("layer_norm", name, shape, words, last, normalized_shape=last)
            if kind != "affine":
                one("rms_norm", name, shape, words, last, normalized_shape=last)
        one(
            "layer_norm",
            f"{rank}-last{axes}-eps",
            shape,
            BOTH,
            last,
            normalized_shape=last,
            eps=0.1,
        )
        words, options = ("weight",), {"normalized_shape": last, "eps": 0.1}
        one("rms_norm", f"{rank}-last{axes}-eps", shape, words, last, **options)
    last, float32 = shape[-1:], "float32"
    one("layer_norm", f"{rank}-f4", shape, BOTH, last, None, float32, normalized_shape=last)
    one("rms_norm", f"{rank}-f4", shape, ("weight",), last, None, float32, normalized_shape=last)


def make_group_norm(rank, shape):
    channels = shape[1]
    for groups in (1, 2) if rank == "2d" else (1, 2, channels):
        for kind, words in AFFINE.items():
            name = f"{rank}-groups{groups}-{kind}"
            one("group_norm", name, shape, words, (channels,), num_groups=groups)
    options = {"num_groups": 2, "eps": 0.1}
    one("group_norm", f"{rank}-eps", shape, BOTH, (channels,), **options)
    one("group_norm", f"{rank}-f4", shape, BOTH, (channels,), None, "float32", num_groups=2)


def make_instance_norm(rank, shape):
    channels = (shape[1],)

    def tracked(name, words, dtype="float64", **kwargs):
        random = random_stream(f"instance_norm/{name}/running")
        mean, spread = draw(random, channels, dtype), draw(random, channels, dtype)
        constants = {"running_mean": mean, "running_var": abs(spread) + 0.25}
        one("instance_norm", name, shape, words, channels, constants, dtype, **kwargs)

    for kind, words in AFFINE.items():
        one("instance_norm", f"{rank}-{kind}", shape, words, channels)
        tracked(f"{rank}-{kind}-track", words)
        tracked(f"{rank}-{kind}-eval", words, use_input_stats=False, eps=0.1)
    tracked(f"{rank}-affine-momentum0.7", BOTH, momentum=0.7, eps=0.1)
    tracked(f"{rank}-affine-f4", BOTH, "float32")


def make_layers():
    flags = [(False, False), (True, False), (False, True), (True, True)]
    for affine, track in flags:
        for rank, kind in (("3d", "1d"), ("4d", "2d"), ("5d", "3d")):
            arguments = {"num_features": 4, "affine": affine, "track_running_stats": track}
            layer(f"InstanceNorm{kind}", SHAPES[rank], arguments)
    momentum = {"num_features": 4, "momentum": None, "track_running_stats": True}
    layer("InstanceNorm1d", SHAPES["3d"], momentum)
    layer("InstanceNorm1d", SHAPES["3d"][1:], {"num_features": 4})  # without N
    for shape in SHAPES.values():
        layer("LayerNorm", shape, {"normalized_shape": shape[1:]})
        layer("RMSNorm", shape, {"normalized_shape": shape[-1]})
        layer("GroupNorm", shape, {"num_groups": 2, "num_channels": shape[1]})
    layer("LayerNorm", SHAPES["2d"], {"normalized_shape": 6, "elementwise_affine": False})
    layer("LayerNorm", SHAPES["2d"], {"normalized_shape": 6, "bias": False, "eps": 0.1})
    layer("RMSNorm", SHAPES["2d"], {"normalized_shape": 6, "elementwise_affine": False, "eps": 0.1})
    layer("GroupNorm", SHAPES["3d"], {"num_groups": 4, "num_channels": 4, "affine": False})


def layer(kind, shape, arguments):
    words = [f"{key}={value}" for key, value in arguments.items()]
    name = f"layer/{kind}-{len(shape)}d-" + "-".join(words).replace(" ", "")
    module, random = getattr(nn, kind)(**arguments).double(), random_stream(name)
    keys = list(module.state_dict())
    describe(name, {}, function=kind, arguments=arguments, repr=repr(module), state_dict_keys=keys)
    for parameter in module.parameters():
        parameter.data = torch.tensor(draw(random, tuple(parameter.shape)))
    batches, eval_input = draw(random, (3, *shape)), draw(random, shape)
    store(name, {"batches": batches, "eval_input": eval_input})
    store(name, dict(module.named_parameters()))
    store(name, {"outputs": torch.stack([module(torch.tensor(batch)) for batch in batches])})
    store(name, {f"after/{key}": value for key, value in module.named_buffers()})
    store(name, {"eval_output": module.eval()(torch.tensor(eval_input))})


def make_errors():
    calls = {
        "layer_norm/other-shape": ({"input": (2, 4)}, {"normalized_shape": [3]}),
        "layer_norm/no-shape": ({"input": (2, 4)}, {"normalized_shape": []}),
        "layer_norm/more-axes": ({"input": (4,)}, {"normalized_shape": [2, 4]}),
        "layer_norm/weight": ({"input": (2, 4), "weight": (3,)}, {"normalized_shape": [4]}),
        "layer_norm/bias": ({"input": (2, 4), "bias": (2, 4)}, {"normalized_shape": [4]}),
        "layer_norm/one-feature": ({"input": (2, 1)}, {"normalized_shape": [1]}),
        "layer_norm/no-samples": ({"input": (0, 4), "weight": (4,)}, {"normalized_shape": [4]}),
        "layer_norm/no-features": ({"input": (2, 0)}, {"normalized_shape": [0]}),
        "layer_norm/one-axis": ({"input": (4,)}, {"normalized_shape": [4]}),
        "rms_norm/other-shape": ({"input": (2, 4)}, {"normalized_shape": [3]}),
        "rms_norm/no-shape": ({"input": (2, 4)}, {"normalized_shape": []}),
        "rms_norm/weight": ({"input": (2, 4), "weight": (3,)}, {"normalized_shape": [4]}),
        "rms_norm/no-samples": ({"input": (0, 4)}, {"normalized_shape": [4]}),
        "group_norm/no-divisor": ({"input": (2, 4, 3)}, {"num_groups": 3}),
        "group_norm/zero-groups": ({"input": (2, 4, 3)}, {"num_groups": 0}),
        "group_norm/one-axis": ({"input": (4,)}, {"num_groups": 2}),
        "group_norm/weight": ({"input": (2, 4, 3), "weight": (3,)}, {"num_groups": 2}),
        "group_norm/one-value": ({"input": (1, 4)}, {"num_groups": 4}),
        "group_norm/one-value-of-each-sample": ({"input": (2, 4)}, {"num_groups": 4}),
        "group_norm/no-samples": ({"input": (0, 4, 3)}, {"num_groups": 2}),
        "instance_norm/one-place": ({"input": (2, 4, 1)}, {}),
        "instance_norm/no-places-axis": ({"input": (2, 4)}, {}),
        "instance_norm/weight": ({"input": (2, 4, 3), "weight": (3,)}, {}),
        "instance_norm/no-samples": ({"input": (0, 4, 3)}, {}),
        "instance_norm/no-places": ({"input": (2, 4, 0)}, {}),
        "instance_norm/statistics": (
            {"input": (2, 4, 3), "running_mean": (3,), "running_var": (3,)},
            {},
        ),
        "instance_norm/no-statistics": ({"input": (2, 4, 3)}, {"use_input_stats": False}),
        "batch_norm/one-value": (
            {"input": (1, 4), "running_mean": (4,), "running_var": (4,)},
            {"training": True},
        ),
        "batch_norm/no-samples": (
            {"input": (0, 4), "running_mean": (4,), "running_var": (4,)},
            {"training": True},
        ),
        "batch_norm/weight": (
            {"input": (2, 4), "running_mean": (4,), "running_var": (4,), "weight": (3,)},
            {},
        ),
        "batch_norm/statistics": ({"input": (2, 4), "running_mean": (3,), "running_var": (3,)}, {}),
        "batch_norm/one-axis": ({"input": (4,), "running_mean": (4,), "running_var": (4,)}, {}),
    }
    for name, (shapes, kwargs) in calls.items():
        arrays = {key: torch.ones(shape, dtype=torch.float64) for key, shape in shapes.items()}
        raises = None
        try:
            getattr(F, name.split("/")[0])(**arrays, **kwargs)
        except Exception as error:
            raises = type(error).__name__
        shapes = {key: list(shape) for key, shape in shapes.items()}
        describe(f"errors/{name}", kwargs, arrays=shapes, raises=raises)
