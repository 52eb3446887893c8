"""Convolutions and pooling, of 1, 2 and 3 axes, and their layers.

indices/...      max pooling with return_indices of an input with ties, NaN and infinities: input,
                 output and indices
padding_mode/... a layer torch.nn.Conv2d: input, weight, bias and output
layers/all       the repr and the state_dict_keys of a model of `layers`
"""

import numpy as np
import torch
import torch.nn.functional as F
from recorder import FUNCTIONAL, describe, draw, random_stream, record, store
from torch import nn

SIZES = ((7,), (5, 4), (3, 4, 3))
LAYERS = (
    "Conv1d(3, 4, 3)",
    "Conv2d(3, 8, 3, padding=1)",
    "Conv2d(4, 8, (3, 5), 2, (1, 2), 2, 2, False, 'reflect')",
    "Conv2d(4, 8, 3, padding='same')",
    "Conv3d(1, 2, (1, 2, 3), padding='valid')",
    "MaxPool1d(2)",
    "MaxPool2d((2, 3), 1, 1, 2, True, True)",
    "MaxPool3d(2)",
    "AvgPool1d(2)",
    "AvgPool2d(2, ceil_mode=True)",
    "AvgPool3d((1, 2, 3), 1, 1)",
    "AdaptiveAvgPool1d(3)",
    "AdaptiveAvgPool2d((None, 1))",
    "AdaptiveAvgPool3d(1)",
)


def make():
    make_convolutions()
    make_pools()
    make_indices()
    make_layers()


def make_convolutions():
    def one(name, sizes, kernel, channels=(2, 3), batch=(2,), bias=True, dtype="float64", **kwargs):
        groups = kwargs.get("groups", 1)
        variables = {"input": (*batch, channels[0], *sizes)}
        variables["weight"] = (channels[1], channels[0] // groups, *kernel)
        variables |= {"bias": channels[1:]} if bias else {}
        function = f"conv{len(sizes)}d"
        record(f"{function}/{name}", FUNCTIONAL + function, variables, dtype=dtype, **kwargs)

    for sizes in SIZES:
        rank = len(sizes)
        kernel = (3, 2, 1)[:rank]
        one("plain", sizes, kernel)
        one("strided-padded", sizes, kernel, stride=2, padding=1, bias=False)
        one("groups-one-image", sizes, kernel, (4, 2), (), groups=2)
        one("dilated-same", sizes, kernel, dilation=2, padding="same", bias=False)
    one("depthwise", (5, 4), (3, 2), (3, 6), groups=3, stride=(2, 1), padding=(0, 1))
    one("dilated-uneven", (5, 7), (2, 3), stride=(1, 2), padding=(2, 1), dilation=(3, 1))
    one("valid-float32", (5, 4), (3, 3), dtype="float32", padding="valid")
    one("padding-above-kernel", (2, 3), (1, 2), padding=2, stride=3)


def make_pools():
    def one(kind, rank, name, input, **kwargs):
        function = f"{kind}_pool{rank}d"
        record(f"{function}/{name}", FUNCTIONAL + function, {"input": input}, **kwargs)

    for sizes in SIZES:
        rank, input = len(sizes), (2, 2, *sizes)
        for kind in ("max", "avg"):
            one(kind, rank, "plain", input, kernel_size=2)
            one(kind, rank, "overlapping", input, kernel_size=3, stride=1, padding=1)
            ceil = {"kernel_size": 2, "padding": 1, "stride": 3, "ceil_mode": True}
            one(kind, rank, "ceil-one-image", input[1:], **ceil)
        one("max", rank, "dilated", input, kernel_size=2, stride=1, dilation=2, padding=1)
        one("avg", rank, "ceil-without-padding", input, count_include_pad=False, **ceil)
        for size in (1, 2, 3):
            one("adaptive_avg", rank, f"{size}", input, output_size=size)
    ties = random_stream("ties").integers(0, 2, (2, 2, 5, 4))
    one("max", 2, "ties", ties, kernel_size=3, stride=2, padding=1)
    one("avg", 2, "divisor", (2, 1, 4, 5), kernel_size=(2, 3), divisor_override=5)
    one("avg", 2, "ceil-above-image", (1, 1, 3, 3), kernel_size=5, ceil_mode=True)
    one("avg", 3, "divisor", (1, 1, 3, 4, 3), kernel_size=2, divisor_override=-3)
    one("adaptive_avg", 2, "none-and-more", (2, 1, 3, 4), output_size=[None, 7])
    one("adaptive_avg", 3, "uneven-one-image", (2, 3, 4, 5), output_size=[2, None, 3])


def make_indices():
    for rank, sizes in enumerate(SIZES, start=1):
        name = f"indices/{rank}d"
        input = np.round(draw(random_stream(name), (2, 2, *sizes)))
        kwargs = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
        function = f"max_pool{rank}d"
        describe(name, kwargs | {"return_indices": True}, function=FUNCTIONAL + function)
        input[0, 0] = -np.inf
        input[0, 1].reshape(-1)[1:3] = np.nan
        input[1, 0].reshape(-1)[3:] = np.inf
        output, indices = getattr(F, function)(torch.tensor(input), return_indices=True, **kwargs)
        store(name, {"input": input, "output": output, "indices": indices})


def make_layers():
    options = {"in_channels": 2, "out_channels": 4, "kernel_size": [3, 2], "groups": 2}
    for mode in ("zeros", "reflect", "replicate", "circular"):
        for padding in ([2, 1], "same"):
            name = f"padding_mode/{mode}-{'same' if padding == 'same' else '2-1'}"
            kwargs = options | {"padding": padding, "padding_mode": mode}
            describe(name, kwargs, function="torch.nn.Conv2d")
            random, layer = random_stream(name), nn.Conv2d(**kwargs).double()
            for parameter in layer.parameters():
                parameter.data = torch.tensor(draw(random, tuple(parameter.shape)))
            input = draw(random, (2, 2, 3, 4))
            store(name, dict(layer.named_parameters()) | {"input": input})
            store(name, {"output": layer(torch.tensor(input))})
    model = nn.Sequential(*[eval(f"nn.{line}") for line in LAYERS])
    describe(
        "layers/all", {"layers": LAYERS}, repr=repr(model), state_dict_keys=list(model.state_dict())
    )
