"""Random programs that leave a graph: arithmetic, broadcasting, reductions, moves, names, reuse."""

import numpy as np
from helpers import grid, leaf
from hypothesis import strategies as st

import tinygrad_bn as tg

SHAPES = ((), (3,), (2, 3), (2, 1), (1, 3), (2, 1, 3))
UNARY = {
    "neg": lambda x: -x,
    "exp": lambda x: tg.exp(tg.tanh(x)),
    "square": lambda x: x * x,
    "root": lambda x: tg.sqrt(x * x + 1.5),
    "power": lambda x: tg.tanh(x) ** 3,
    "relu": tg.relu,
    "abs": tg.abs,
    "half": lambda x: x * 0.5,
    "shift": lambda x: 2.0 - x,
    "column": lambda x: tg.expand_dims(x, axis=-1),
    "row": lambda x: tg.expand_dims(x, axis=0),
    "flat": lambda x: tg.reshape(x, (-1,)),
    "where": lambda x: tg.where(tg.greater(x, 0.2), x, 0.0),
}
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (y * y + 0.5),
    "maximum": tg.maximum,
}
REDUCTIONS = {"sum": tg.sum, "mean": tg.mean, "var": tg.var}


def fits(x, y):
    try:
        return np.prod(np.broadcast_shapes(x.shape, y.shape)) <= 12
    except ValueError:
        return False


@st.composite
def losses(draw):
    """A recorded number: it depends on all that was computed and used for nothing else."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    with tg.tracing():
        made = [leaf(grid(shape, -1.2, 1.1, seed)) for seed, shape in enumerate(shapes)]
        unused = {}
        for _ in range(draw(st.integers(1, 7))):
            x = draw(st.sampled_from(made))
            kind = draw(st.sampled_from(["unary", "binary", "reduction"]))
            if kind == "unary":
                y = UNARY[draw(st.sampled_from([*UNARY]))](x)
            elif kind == "binary":
                other = draw(st.sampled_from([z for z in made if fits(x, z)]))
                y = BINARY[draw(st.sampled_from([*BINARY]))](x, other)
                unused.pop(id(other), None)
            else:
                axis = draw(st.sampled_from([None, *range(-len(x.shape), 0)]))
                keepdims = draw(st.booleans())
                y = REDUCTIONS[draw(st.sampled_from([*REDUCTIONS]))](x, axis, keepdims=keepdims)
            unused.pop(id(x), None)
            unused[id(y)] = y
            if len(y.shape) > 4:
                y = tg.reshape(y, (-1,))
            if draw(st.booleans()):
                tg.named(draw(st.sampled_from(["x̂", "μ_B", "a b", "d"])), y)
            made.append(y)
        ends = [y for y in unused.values()]
        total = tg.sum(ends[0] * tg.tensor(grid(ends[0].shape, 0.5, seed=9)))
        for k, end in enumerate(ends[1:]):
            total = total + tg.sum(end * tg.tensor(grid(end.shape, 0.5, seed=10 + k)))
    return total
