"""Every op: NumPy's values and dtypes, gradients of two orders, and whose memory is whose.

The tables have a row for each op and kind of input: an expression, and the shapes of its x, y and
z. Each claim below holds for every row.
"""

import numpy as np
import op_table
import op_table_conv
import op_table_linalg
import pytest
from helpers import LAYOUTS, assert_close, grid, host, laid_out, on_device, share_memory

import tinygrad_bn as tg
from tinygrad_bn import backend
from tinygrad_bn.check import gradcheck, gradgradcheck

CASES = [*op_table.table(), *op_table_conv.table(), *op_table_linalg.table()]
DIFFERENTIABLE = [c for c in CASES if not c.expression.startswith((*op_table.COMPARISONS, "arg"))]
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
