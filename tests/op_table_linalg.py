"""The ops of linear algebra by rows."""

from op_case import Case


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
