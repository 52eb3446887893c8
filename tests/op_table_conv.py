"""Convolutions by rows."""

import numpy as np
from op_case import FORMULAS, Case


def convolution(x, weight, bias, *, stride, padding, dilation, groups):
    """By the definition, place by place."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *padding))
    spans = (np.array(weight.shape[2:]) - 1) * dilation + 1
    counts = (np.array(padded.shape[2:]) - spans) // stride + 1
    out = np.zeros((len(x), len(weight), *counts))
    for n, o, *p in np.ndindex(out.shape):
        total = 0.0 if bias is None else bias[o]
        first = o // (len(weight) // groups) * weight.shape[1]  # of the channels of o's group
        for c, *k in np.ndindex(weight.shape[1:]):
            place = np.array(p) * stride + np.array(k) * dilation
            total += padded[(n, first + c, *place)] * weight[(o, c, *k)]
        out[(n, o, *p)] = total
    return out.astype(x.dtype)


def derivative(shape, dtype, scalar):
    """The gradient of a linear function of an array of this shape: its values at the units."""
    size = np.prod(shape)
    units = np.eye(size).reshape(size, *shape)
    return np.array([scalar(unit) for unit in units], dtype).reshape(shape)


def convolution_input(g, weight, *, shape, **how):
    return derivative(shape, g.dtype, lambda x: np.sum(g * convolution(x, weight, None, **how)))


def convolution_weight(x, g, *, shape, **how):
    x = x.astype(np.float64)
    return derivative(shape, g.dtype, lambda w: np.sum(g * convolution(x, w, None, **how)))


FORMULAS.update(
    convolution=convolution,
    convolution_input=convolution_input,
    convolution_weight=convolution_weight,
)

ROWS = (  # the shapes of x, weight and the output; stride, padding, dilation, groups
    ((2, 2, 4), (3, 2, 2), (2, 3, 3), (1,), ((0, 0),), (1,), 1),
    ((1, 4, 6), (2, 2, 2), (1, 2, 3), (2,), ((1, 0),), (2,), 2),
    ((2, 2, 3, 2), (4, 1, 3, 1), (2, 4, 2, 3), (2, 1), ((1, 1), (0, 1)), (1, 2), 2),
    ((1, 1, 2, 3), (1, 1, 3, 2), (1, 1, 4, 1), (1, 3), ((2, 2), (1, 0)), (1, 2), 1),
    ((1, 1, 2, 3, 2), (2, 1, 2, 2, 1), (1, 2, 1, 2, 2), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 1),
    ((0, 2, 3), (2, 2, 2), (0, 2, 2), (1,), ((0, 0),), (1,), 1),
)


def table():
    for x, weight, out, stride, padding, dilation, groups in ROWS:
        how = f"stride={stride}, padding={padding}, dilation={dilation}, groups={groups}"
        yield Case(f"convolution(x, y, z, {how})", (x, weight, weight[:1]))
        yield Case(f"convolution_input(x, y, shape={x}, {how})", (out, weight))
        yield Case(f"convolution_weight(x, y, shape={weight}, {how})", (x, out))
