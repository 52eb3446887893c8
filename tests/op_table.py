"""The ops by rows: elementwise, reductions, moves, indexing."""

from op_case import Case

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def table():
    elementwise = [(), (0, 3), (1,), (2, 3)]
    for op in ("neg", "abs", "exp", "sin", "cos", "tanh", "sigmoid", "erf"):
        yield from (Case(f"{op}(x)", (shape,)) for shape in elementwise)
    for op in ("relu", "leaky_relu", "softplus", "gelu"):
        yield from (Case(f"{op}(x)", (shape,)) for shape in elementwise)
    for op in ("log", "sqrt"):
        yield from (Case(f"{op}(x)", (shape,), 0.5) for shape in elementwise)

    broadcast = [
        *[((), ()), ((1,), (1,)), ((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3))],
        *[((), (2, 3)), ((2, 3), ()), ((3,), (2, 1, 1)), ((0, 3), (3,)), ((1, 3), (0, 1))],
    ]
    for op in ("add", "sub", "mul", "div", "pow", "maximum", "minimum", *COMPARISONS):
        yield from (Case(f"{op}(x, y)", shapes, 0.5) for shapes in broadcast)
    yield from (Case("where(greater(x, 1), x, y)", shapes, 0.5) for shapes in broadcast)
    yield Case("where(greater(x, 0), y, z)", ((2, 1), (3,), (4, 1, 1)))
    for expression in ("maximum(x, 1)", "minimum(1.5, x)", "pow(x, 3)", "pow(2, x)", "div(3, x)"):
        yield Case(expression, ((2, 3),), 0.5)
    yield from (Case(f"leaky_relu(x, {slope})", ((2, 3),)) for slope in (0.2, 0, -1.5))
    for bounds in ("-1, 0.8", "None, 0.8", "-1.0", "low=-1", "-3, 3"):
        yield Case(f"clip(x, {bounds})", ((2, 3),))
    for shapes in (((2, 3), (3,), ()), ((3,), (2, 1), (1, 3)), ((), (2,), (0, 1, 2))):
        yield Case("clip(x * 2, y, y + z)", shapes, 0.5)
    yield Case("clip(x, y)", ((2, 3), (3,)))
    yield Case("where(greater(x, 1), x, 0)", ((2, 3),), 0.5)
    yield Case("where(greater(x, 1), 2.0, x)", ((2, 3),), 0.5)

    axes = [
        *[((), None), ((1,), None), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((1, 3), 0)],
        *[((2, 1, 3), (0, 2)), ((2, 2, 3), (-1, 1)), ((2, 3), ()), ((0, 3), 1)],
    ]
    whatever = ("sum", "prod", "vector_norm")  # which know what to make of no values at all
    for op in (*whatever, "mean", "var", "max", "min", "amax", "amin", "logsumexp"):
        for shape, axis in axes:
            if 0 not in shape or op in whatever:
                yield Case(f"{op}(x, axis={axis})", (shape,))
                yield Case(f"{op}(x, axis={axis}, keepdims=True)", (shape,))
    yield from (Case(f"{op}(x, 0)", ((0, 3),)) for op in ("sum", "prod"))
    for ord in (1, 2, 3, 4, 1.5, 0.5, -1, -2, "float('inf')", "-float('inf')"):
        yield Case(f"vector_norm(x, axis=1, ord={ord})", ((2, 3),))
    for shape, axis in (((), None), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((0, 3), 0)):
        yield Case(f"cumsum(x, axis={axis})", (shape,))
    yield from (Case(f"var(x, axis=1, correction={c})", ((2, 3),)) for c in (0, 1, 2, 0.5))
    for op in ("softmax", "log_softmax"):
        for shape, axis in (((3,), -1), ((2, 3), 0), ((2, 3, 2), 1), ((0, 3), 1), ((2, 1), 1)):
            yield Case(f"{op}(x, {axis})", (shape,))
        yield Case(f"{op}(x)", ((2, 3),))
    for op in ("argmax", "argmin", "argsort"):
        yield from (Case(f"{op}(x, axis={axis})", ((2, 3),)) for axis in (None, 0, -1))

    yield Case("reshape(x, (3, 2))", ((2, 3),))
    yield Case("reshape(x, (-1,))", ((2, 3),))
    yield Case("reshape(x, ())", ((1, 1),))
    yield Case("reshape(x, (3, 0))", ((0, 3),))
    yield from (Case("transpose(x)", (shape,)) for shape in ((), (3,), (2, 1, 3), (0, 3)))
    yield Case("transpose(x, (1, -1, 0))", ((2, 1, 3),))
    yield Case("swapaxes(x, 0, -1)", ((2, 1, 3),))
    yield from (Case("expand_dims(x, 0)", (shape,)) for shape in ((), (2, 3), (0, 3)))
    yield Case("expand_dims(x, (0, -1))", ((2, 3),))
    yield Case("squeeze(x)", ((1, 3, 1),))
    yield Case("squeeze(x, -1)", ((1, 3, 1),))
    yield Case("squeeze(x, (0, 2))", ((1, 3, 1),))
    yield Case("broadcast_to(x, (2, 2, 3))", ((2, 1),))
    yield Case("broadcast_to(x, (2,))", ((),))
    yield Case("broadcast_to(x, (0, 3))", ((1, 3),))
    yield Case("sum_to(x, (2, 1))", ((2, 2, 3),))
    yield Case("concatenate([x, y])", ((2, 3), (1, 3)))
    yield Case("concatenate([x, y, x], axis=-1)", ((2, 3), (2, 0)))
    yield Case("concatenate([x])", ((2, 3),))
    yield Case("concatenate([x, y], axis=None)", ((2, 3), (1,)))
    yield Case("stack([x, y])", ((2, 3), (2, 3)))
    yield Case("stack([x, x, y], axis=-1)", ((2, 3), (2, 3)))
    yield Case("stack([x, y])", ((), ()))
    yield Case("split(x, 2)", ((4, 3),))
    yield Case("split(x, [1, 1, 3], axis=-1)", ((2, 4),))
    for axis in (None, 0, (0, -1)):
        yield from (Case(f"flip(x, {axis})", (shape,)) for shape in ((2, 3), (0, 3, 1)))
    yield Case("flip(x)", ((),))
    for widths in ("1", "(0, 2)", "((0, 2), (1, 0))", "[[0, 2], [1, 0]], value=-1.5"):
        yield from (Case(f"pad(x, {widths})", (shape,)) for shape in ((2, 3), (0, 3)))
    yield from (Case(f"sort(x, axis={axis})", ((2, 3),)) for axis in (None, 0, -1))
    yield from (Case("sort(x)", (shape,)) for shape in ((0,), (2, 0), (4,)))
    yield Case("take_along_axis(x, j, axis=1)", ((2, 3),))
    yield Case("take_along_axis(x, j, axis=0)", ((3, 2),))
    yield Case("take_along_axis(x, j[:1], axis=-1)", ((2, 3),))  # the same for every row
    yield Case("take_along_axis(x, j, axis=-1)", ((1, 3),))  # twice from the only row
    yield Case("take_along_axis(x, i, axis=None)", ((2, 3),))

    for index in ("1", "-1", "1, 2", "...", "None", ":, None, 1", "..., 0", "()", "True"):
        yield Case(f"x[{index}]", ((2, 3),))
    for index in ("1:", "::-1", ":, ::2", "::-1, 1:2", "2:"):
        yield Case(f"x[{index}]", ((2, 3),))
    for index in ("i", "j", ":, i", "i, i", "i[:, None], j[0]", "j, None", "[0, 0, 1]", "[]"):
        yield Case(f"x[{index}]", ((2, 3),))
    for index in ("rows", "mask", ":, i, 0", "rows, :, i[0]", "i, :, i", "mask, 0", "rows, 1:"):
        yield Case(f"x[{index}]", ((2, 3, 2),) if index != "mask" else ((2, 3),))
    yield Case("x[...]", ((),))
    yield Case("x[None]", ((),))
    yield Case("x[:, 1]", ((0, 3),))
