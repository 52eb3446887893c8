"""Vectors that stay in registers, for numba: a few operations on several numbers at once.

The compiler makes vectors of an innermost loop by itself, if the loop is long, but not of a matrix
product that keeps its sums in registers, nor of a loop over few channels: they must say so. Indices
count from 0 along the memory of a contiguous array, and are not checked.
"""

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

# The bytes of a vector, and of the widest of which eight sums fit in the registers.
_avx512 = llvmlite.binding.get_host_cpu_features().get("avx512f")
BYTES, WIDEST = (64, 128) if _avx512 else (32, 32)


class Vector(types.Type):
    """numba's type of `lanes` numbers of one type."""

    def __init__(self, number: types.Type, lanes: int) -> None:
        self.number, self.lanes = number, lanes
        super().__init__(f"Vector({number}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector) -> None:
        bits = isinstance(vector.number, types.Boolean)
        number = ir.IntType(1) if bits else manager.lookup(vector.number).get_value_type()
        super().__init__(manager, vector, ir.VectorType(number, vector.lanes))


@intrinsic(prefer_literal=True)
def zeros(typing, array, size):
    """As many zeros, of the dtype of an array, as this number of bytes holds; or one."""
    vector = Vector(array.dtype, max(1, size.literal_value * 8 // array.dtype.bitwidth))
    return vector(array, size), lambda context, builder, _, values: context.get_constant_null(
        vector
    )


@intrinsic
def load(typing, array, i, like):
    """The vector that begins at place i of an array, and is as long as `like`."""
    vector = Vector(array.dtype, like.lanes)

    def generate(context, builder, signature, values):
        address = _address(context, builder, array, *values[:2], vector)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, like), generate


@intrinsic
def store(typing, array, i, vector):
    """Write a vector into an array, from place i on."""

    def generate(context, builder, signature, values):
        address = _address(context, builder, array, *values[:2], vector)
        builder.store(values[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def repeat(typing, number, like):
    """A number, as often as the vector `like` has lanes."""
    vector = Vector(number, like.lanes)
    return vector(number, like), lambda context, builder, _, values: _repeated(
        builder, values[0], vector.lanes
    )


@intrinsic
def plus(typing, a, b):
    return a(a, b), lambda context, builder, _, values: builder.fadd(*values)


@intrinsic
def plus_product(typing, total, a, b):
    """total + a · b."""
    return total(total, a, b), lambda context, builder, _, values: _fused(builder, *values)


@intrinsic
def plus_multiple(typing, total, array, i, vector):
    """total + array[i] · vector."""

    def generate(context, builder, signature, values):
        total, data, i, factor = values
        number = builder.load(_address(context, builder, array, data, i, array.dtype))
        return _fused(builder, total, _repeated(builder, number, vector.lanes), factor)

    return vector(vector, array, types.intp, vector), generate


@intrinsic
def exceeds(typing, a, b):
    """Where a > b, or a is NaN."""

    def generate(context, builder, signature, values):
        larger = builder.fcmp_ordered(">", *values)
        return builder.or_(larger, builder.fcmp_unordered("uno", values[0], values[0]))

    return Vector(types.boolean, a.lanes)(a, b), generate


@intrinsic
def equals(typing, a, b):
    """Where whole numbers are equal."""
    bits = Vector(types.boolean, a.lanes)
    return bits(a, b), lambda context, builder, _, values: builder.icmp_signed("==", *values)


@intrinsic
def choose(typing, where, a, b):
    """a where it is so, else b."""
    return a(where, a, b), lambda context, builder, _, values: builder.select(*values)


@intrinsic
def long_vectors(typing):
    """Called first in a function, it lets the compiler make better vectors of the loops there.

    They fill registers of `BYTES`, where it would take half of that. And it may count on it that an
    array which the function writes into overlaps none of its other arguments.
    """

    def generate(context, builder, signature, values):
        width = f'"prefer-vector-width"="{BYTES * 8}"'
        set.add(builder.function.attributes, width)  # llvmlite's own `add` does not know it
        for argument in builder.function.args:
            of = getattr(argument.type, "pointee", None)
            if isinstance(of, (ir.FloatType, ir.DoubleType)):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), generate


def _fused(builder, total, a, b):
    product = builder.fmul(a, b, flags=["contract"])
    return builder.fadd(total, product, flags=["contract"])


def _repeated(builder, number, lanes):
    nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
    return builder.shuffle_vector(first, nothing, zeros)


def _address(context, builder, array, data, i, of):
    """Where place i of an array is in memory, as a pointer to a value of type `of`."""
    first = context.make_array(array)(context, builder, data).data
    return builder.bitcast(builder.gep(first, [i]), context.get_value_type(of).as_pointer())
