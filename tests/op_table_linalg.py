"""The ops of linear algebra by rows."""

from op_case import Case

EINSUM = {  # the shapes of the operands
    "ij->": ((2, 3),),
    " i j -> j ": ((0, 3),),
    "ba": ((2, 3),),
    "...": ((2, 3),),
    "ii": ((3, 3),),
    "jiji->j": ((2, 3, 2, 3),),
    "...ii->i...": ((2, 3, 3),),
    "i,i": ((3,), (3,)),
    "i,J": ((2,), (3,)),  # sorted: J before i
    ",": ((), ()),
    "...,...": ((2, 3), (3,)),
    "ij,jk": ((2, 3), (3, 2)),
    "ij,kj->ki": ((2, 3), (2, 3)),
    "bij,bjk->bik": ((2, 2, 3), (2, 3, 2)),
    "ij,k->i": ((2, 3), (4,)),
    "ii,i->i": ((2, 2), (2,)),
    "ik,kj": ((2, 1), (3, 2)),  # lengths 1, broadcast
    "i...,...j": ((2, 3), (1, 2)),
    "...ij,...j->...i": ((2, 1, 2, 3), (2, 3)),
    "i,i->": ((1,), (0,)),
    "ij,jk,kl->il": ((2, 3), (3, 2), (2, 1)),
    "i,ij,j": ((2,), (1, 3), (3,)),
    "ia,ja,ka->ijk": ((2, 3), (2, 3), (2, 1)),
}


def table():
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

    # Positive definite, as x has more columns than rows, and far from singular.
    square = "matmul(x, swapaxes(x, -1, -2))"
    for shape in ((3, 9), (2, 2, 6), (1, 2), (0, 2, 4)):
        for function in ("inv({})", "cholesky({})", "sqrtm({})", "eigh({})[0]", "eigh({})[1] ** 2"):
            yield Case(function.format(square), (shape,), -0.7, 0.7)
    for left, right in (
        *[((3, 9), (3,)), ((3, 9), (3, 2)), ((2, 2, 6), (2,)), ((2, 2, 6), (2, 2, 2))],
        *[((2, 6), (2, 1, 2, 1)), ((2, 1, 2, 6), (3, 2, 1)), ((2, 6), (2, 0)), ((0, 4), (0,))],
    ):
        yield Case(f"solve({square}, y)", (left, right), -0.7, 0.7)
    yield Case(f"solve({square} - 0.3 * y, z)", ((2, 6), (2, 2), (2,)), -0.7, 0.7)
    for left, right in (((3, 9), (3, 3)), ((2, 2, 6), (2, 2)), ((2, 6), (2, 2, 2))):
        yield Case(f"lyapunov({square}, y)", (left, right), -0.7, 0.7)
    for subscripts, shapes in EINSUM.items():
        operands = ", ".join("xyz"[: len(shapes)])
        yield Case(f"einsum({subscripts!r}, {operands})", shapes)
