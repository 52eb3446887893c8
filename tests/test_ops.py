"""Every op: NumPy's values and dtypes, gradients of two orders, and whose memory is whose.

The table has a row for each op and kind of input: an expression that reads the same with our names
and with NumPy's, and the shapes of its x, y and z. Each claim below the table holds for every row.
"""

from typing import NamedTuple

import numpy as np
import pytest
from helpers import LAYOUTS, assert_close, grid, host, laid_out, listed, on_device, share_memory

import tinygrad_bn as tg
from tinygrad_bn import backend
from tinygrad_bn.check import gradcheck, gradgradcheck


def softmax(x, axis=-1):
    return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)


FORMULAS = {  # where NumPy has another name, or no such function
    "neg": np.negative,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.true_divide,
    "pow": np.power,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "logsumexp": lambda x, *axis, **options: np.log(np.sum(np.exp(x), *axis, **options)),
    "softmax": softmax,
    "log_softmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "linear": lambda x, weight, bias=0: np.matmul(x, weight.T) + bias,
    "sum_to": lambda x, shape: np.sum(x, axis=(0, 2)).reshape(shape),
}
INDICES = {
    "i": np.array([1, 0, 1]),  # with repeats
    "j": np.array([[0, -1], [1, 1]]),
    "rows": np.array([False, True]),
    "mask": np.array([[True, False, True], [False, False, True]]),
}


class Case(NamedTuple):
    """An expression, the shapes of x, y and z, and the range of their values."""

    expression: str
    shapes: tuple
    low: float = -2.0
    high: float = 2.0

    def __str__(self):
        return f"{self.expression} {' '.join(map(str, self.shapes))}"

    def inputs(self, dtype=np.float64):
        """NumPy arrays, with values away from each other and from 0."""
        return [
            grid(shape, self.low, self.high, seed).astype(dtype)
            for seed, shape in enumerate(self.shapes)
        ]

    def ours(self, *inputs):
        """The outputs for Tensors or arrays, by our ops; always a list."""
        indices = {name: on_device(index) for name, index in INDICES.items()}
        return listed(eval(self.expression, {**vars(tg), **indices, **dict(zip("xyz", inputs))}))

    def theirs(self, *inputs):
        """The outputs for NumPy arrays, by NumPy or a formula."""
        names = {**vars(np), **FORMULAS, **INDICES, **dict(zip("xyz", inputs))}
        return listed(eval(self.expression, names))


def table():
    elementwise = [(), (0, 3), (1,), (2, 3)]
    for op in ("neg", "abs", "exp", "tanh", "sigmoid", "relu"):
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
    yield Case("where(greater(x, 1), x, 0)", ((2, 3),), 0.5)
    yield Case("where(greater(x, 1), 2.0, x)", ((2, 3),), 0.5)

    axes = [
        *[((), None), ((1,), None), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((1, 3), 0)],
        *[((2, 1, 3), (0, 2)), ((2, 2, 3), (-1, 1)), ((2, 3), ()), ((0, 3), 1)],
    ]
    for op in ("sum", "mean", "var", "max", "min", "amax", "amin", "logsumexp"):
        for shape, axis in axes:
            if 0 not in shape or op == "sum":
                yield Case(f"{op}(x, axis={axis})", (shape,))
                yield Case(f"{op}(x, axis={axis}, keepdims=True)", (shape,))
    yield Case("sum(x, 0)", ((0, 3),))
    yield from (Case(f"var(x, axis=1, correction={c})", ((2, 3),)) for c in (0, 1, 2, 0.5))
    for op in ("softmax", "log_softmax"):
        for shape, axis in (((3,), -1), ((2, 3), 0), ((2, 3, 2), 1), ((0, 3), 1), ((2, 1), 1)):
            yield Case(f"{op}(x, {axis})", (shape,))
        yield Case(f"{op}(x)", ((2, 3),))
    for op in ("argmax", "argmin"):
        yield from (Case(f"{op}(x, axis={axis})", ((2, 3),)) for axis in (None, 0, -1))

    vector, matrix, stack = (3,), (2, 3), (2, 2, 3)
    for left in (vector, matrix, stack, (2, 1, 2, 3)):
        for right in ((3,), (3, 2), (2, 3, 2), (2, 1, 3, 2)):
            yield Case("matmul(x, y)", (left, right))
    for shapes in (((1, 1), (1, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 2)), ((0, 2, 3), (3, 2))):
        yield Case("matmul(x, y)", shapes)
    for shape in (vector, matrix, stack, (0, 3), (0, 2, 3)):
        yield Case("linear(x, y, z)", (shape, (2, 3), (2,)))
        yield Case("linear(x, y)", (shape, (2, 3)))
    yield Case("linear(x, y, z)", ((2, 3, 0), (2, 0), (2,)))  # no inputs
    yield Case("linear(x, y, z)", ((2, 3, 2), (0, 2), (0,)))  # no outputs

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


COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
CASES = list(table())
DIFFERENTIABLE = [c for c in CASES if not c.expression.startswith((*COMPARISONS, "arg"))]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_derivative = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])


def leaves(inputs, layout="contiguous"):
    """The inputs as leaves whose arrays have a certain order in memory."""
    return [tg.Tensor(laid_out(x, layout), requires_grad=True) for x in inputs]


def seeds(outputs):
    """A gradient for each output."""
    return [tg.tensor(grid(y.shape, 0.5).astype(y.dtype)) for y in outputs]


def gradients(outputs, inputs, **options):
    """The gradients at the inputs that the outputs depend on."""
    found = tg.grad(outputs, inputs, seeds(outputs), allow_unused=True, **options)
    return [g for g in found if g is not None]


@every_case
@every_dtype
def test_values_and_dtypes_are_numpys(case, dtype):
    inputs = case.inputs(dtype)
    for got, wanted in zip(case.ours(*leaves(inputs)), case.theirs(*inputs), strict=True):
        assert isinstance(got, tg.Tensor)
        assert_close(got, wanted)


@every_case
def test_on_arrays_an_op_gives_the_same_arrays_and_records_nothing(case):
    inputs = [on_device(x) for x in case.inputs()]
    recorded = case.ours(*map(tg.Tensor, inputs))
    for got, wanted in zip(case.ours(*inputs), recorded, strict=True):
        assert backend.is_array(got) or isinstance(got, np.generic)
        np.testing.assert_array_equal(host(got), host(wanted))
        assert not wanted.requires_grad


@every_derivative
def test_first_and_second_derivatives_are_those_of_finite_differences(case):
    inputs = leaves(case.inputs())
    assert gradcheck(case.ours, inputs, atol=1e-8, rtol=1e-7)
    assert gradgradcheck(case.ours, inputs, atol=1e-8, rtol=1e-7)


@every_derivative
@every_dtype
def test_a_gradient_has_the_dtype_of_its_input_and_the_value_of_the_float64_one(case, dtype):
    rounded = case.inputs(dtype)
    narrow, wide = leaves(rounded), leaves([x.astype(np.float64) for x in rounded])
    for got, wanted in zip(
        gradients(case.ours(*narrow), narrow), gradients(case.ours(*wide), wide), strict=True
    ):
        assert_close(got, host(wanted).astype(dtype), ulps=8, scale=1.0)


@every_derivative
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_the_order_of_values_in_memory_changes_nothing(case, layout):
    plain, other = leaves(case.inputs()), leaves(case.inputs(), layout)
    outputs, other_outputs = case.ours(*plain), case.ours(*other)
    for got, wanted in zip(other_outputs, outputs, strict=True):
        assert_close(got, wanted)
    for got, wanted in zip(gradients(other_outputs, other), gradients(outputs, plain), strict=True):
        assert_close(got, wanted)


@every_derivative
def test_inputs_are_not_changed_and_gradients_share_no_memory(case):
    inputs = leaves(case.inputs())
    outputs = case.ours(*inputs)
    given = seeds(outputs)
    found = list(tg.grad(outputs, inputs, given, retain_graph=True, allow_unused=True))
    for y, seed in zip(outputs, given):
        y.backward(seed, retain_graph=True)
    found = [g for g in (*found, *(x.grad for x in inputs)) if g is not None]
    for k, g in enumerate(found):
        for other in (*inputs, *outputs, *given, *found[:k]):
            assert not share_memory(g, other)
    for x, before in zip(inputs, case.inputs(), strict=True):
        np.testing.assert_array_equal(host(x), before)
    for seed, before in zip(given, seeds(outputs), strict=True):
        np.testing.assert_array_equal(host(seed), host(before))


@pytest.mark.parametrize("case", [c for c in CASES if c not in DIFFERENTIABLE], ids=str)
def test_comparisons_and_positions_are_constants(case):
    assert not any(y.requires_grad for y in case.ours(*leaves(case.inputs())))


def test_the_table_has_every_op():
    used = " ".join(case.expression for case in CASES)
    elsewhere = {"getitem", "scatter_add", "astype", "sign", "isfinite"}
    elsewhere |= {"bitwise_and", "bitwise_or", "invert"}  # test_ops_limits: masks
    assert [op for op in tg.ops.__all__ if f"{op}(" not in used and op not in elsewhere] == []
