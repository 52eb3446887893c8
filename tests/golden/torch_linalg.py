"""Linear algebra and einsum: expressions that read the same with our names.

What wants a symmetric matrix gets x xᵀ, which is positive definite, as x has more columns than
rows. Eigenvectors are only seen through what their signs do not change.
"""

from recorder import record

SQUARE = "matmul(input, swapaxes(input, -1, -2))"
EINSUM = {  # the shapes of the operands
    "ij->": ((2, 3),),
    "ji": ((2, 3),),
    "ii": ((3, 3),),
    "...ii->...i": ((2, 3, 3),),
    "iij->j": ((2, 2, 3),),
    "i,j": ((2,), (3,)),
    "ij,jk": ((2, 3), (3, 2)),
    "ij,jk->ki": ((2, 3), (3, 2)),
    "bij,bjk->bik": ((2, 2, 3), (2, 3, 2)),
    "ij,kj->i": ((2, 3), (4, 3)),
    "ij,ij->j": ((2, 3), (2, 3)),
    "ii,ij->j": ((3, 3), (3, 2)),
    "ik,kj": ((2, 1), (3, 2)),  # broadcast, as in the next three
    "...i,i": ((2, 3), (3,)),
    "i...,...j": ((2, 3), (1, 2)),
    "...ij,...j->...i": ((2, 1, 2, 3), (4, 3)),
    ",ij->ij": ((), (2, 3)),
    "ij,jk,kl->il": ((2, 3), (3, 2), (2, 2)),
    "i,ij,j": ((2,), (2, 3), (3,)),
    "ia,ja,ka->ijk": ((2, 3), (2, 3), (1, 3)),
    "ab,bc,cd,da": ((2, 3), (3, 2), (2, 1), (1, 2)),
}


def make():
    def one(name, function, variables):
        record(f"linalg/{name}", function, variables)

    for word, shape in (("matrix", (3, 7)), ("stack", (2, 3, 7)), ("number", (1, 2))):
        size = shape[:-1] + shape[-2:-1]
        for function in ("inv", "cholesky"):
            one(f"{function}-{word}", f"{function}({SQUARE})", {"input": shape})
        one(f"inv-{word}-not-symmetric", f"inv({SQUARE} + other)", {"input": shape, "other": size})
        one(f"eigh-{word}-values", f"eigh({SQUARE})[0]", {"input": shape})
        one(f"eigh-{word}-vectors", f"eigh({SQUARE})[1] ** 2", {"input": shape})
        scaled = f"eigh({SQUARE})[1] ** 2 * eigh({SQUARE})[0][..., None, :]"
        one(f"eigh-{word}-both", scaled, {"input": shape})
    for a, b in (((3, 7), (3,)), ((3, 7), (3, 2)), ((2, 3, 7), (2, 3, 2)), ((3, 7), (2, 3, 1))):
        name = f"solve-{'x'.join(map(str, a))}-{'x'.join(map(str, b))}"
        one(name, f"solve({SQUARE}, other)", {"input": a, "other": b})
    whitened = f"solve(cholesky({SQUARE}), other)"
    one("solve-cholesky", whitened, {"input": (3, 7), "other": (3, 2)})
    operands = ("input", "other", "third", "fourth")
    for subscripts, shapes in EINSUM.items():
        variables = dict(zip(operands, shapes, strict=False))
        expression = f"einsum({subscripts!r}, {', '.join(variables)})"
        one(f"einsum {subscripts}", expression, variables)
