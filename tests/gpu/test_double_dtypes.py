"""What dtype an operation of CuPy's gives, and that its double gives the same, bfloat16 included.

CuPy chooses a kernel by the dtypes of the operands alone, so it can be asked without a GPU.
"""

import itertools

import double
import numpy as np
import pytest
from test_double import of_real_cupy

BINARY = ["add", "subtract", "multiply", "true_divide", "power", "maximum", "minimum"]
BINARY += ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
UNARY = ["exp", "log", "log1p", "sqrt", "sin", "cos", "tanh", "absolute", "negative", "sign"]
UNARY += ["isfinite", "isnan"]
NUMBERS = {"1": 1, "1.5": 1.5}  # Python's
DTYPES = ["bfloat16", "float16", "float32", "float64", "int64", "uint8"]


def cases():
    for name, nin in [*((name, 1) for name in UNARY), *((name, 2) for name in BINARY)]:
        for operands in itertools.product([*DTYPES, *NUMBERS], repeat=nin):
            if not NUMBERS.keys() >= set(operands):
                yield name, operands
    for operands in itertools.product(DTYPES, [*DTYPES, "1.5"]):
        yield "where", ("bool", *operands)


def chosen_by_cupy(cupy):
    """The dtype of each result, as CuPy's tables say: [name, operands, dtype or None]."""
    import ml_dtypes  # noqa: F401 (which tells NumPy of bfloat16)
    from cupy._sorting.search import _where_ufunc

    found = []
    for name, operands in cases():
        kinds = [np.dtype({"1": int, "1.5": float}.get(x, x)) for x in operands]
        weak = tuple([type(NUMBERS[x]) if x in NUMBERS else False for x in operands])
        strong = [k for k, w in zip(kinds, weak) if not w]
        # A float beside integers alone widens them; see _check_should_use_weak_scalar in CuPy.
        if float in weak and all(kind.kind in "biu" for kind in strong):
            weak = (False,) * len(weak)
        ufunc = _where_ufunc if name == "where" else getattr(cupy, name)
        chosen = ufunc._ops._guess_routine_from_in_types(tuple(kinds), weak)
        found.append([name, operands, chosen and str(np.dtype(chosen.out_types[0]))])
    return found


def test_the_double_gives_the_dtype_that_cupy_chooses(cupy):
    pytest.importorskip("ml_dtypes")
    if cupy is not double.cupy:
        pytest.skip("about the double")
    different = []
    for name, operands, wanted in of_real_cupy(
        "__import__('test_double_dtypes').chosen_by_cupy(cupy)"
    ):
        values = [NUMBERS[x] if x in NUMBERS else cupy.ones(2, x) for x in operands]
        try:
            got = str(getattr(cupy, name)(*values).dtype)
        except TypeError:
            got = None
        if got != wanted:
            different.append((name, operands, got, wanted))
    assert different == []
