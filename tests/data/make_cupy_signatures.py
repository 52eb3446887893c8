"""Writes cupy_signatures.json: the names and signatures of the CuPy that is installed.

The test double of CuPy binds every call against that file, so that it refuses what CuPy refuses
on machines where CuPy is not installed.  CuPy can be imported without a GPU, so this needs none:

    python tests/data/make_cupy_signatures.py

Every public name stands in the group of its kind: "functions" with their parameters (as in a
stub: `...` for a default; null for NumPy's own), "ufuncs", "classes", "constants", and "others"
(submodules and helper objects).  "from_numpy" lists the names that are NumPy's own objects, such
as float32 or newaxis.  "ndarray" lists the methods, the operators, and all names an array has;
"classes" lists the methods and the names of other classes.
"traits" is not extracted: it was read in CuPy's source, of which it says what no signature tells.
"""

import __future__

import importlib
import inspect
import json
import re
from pathlib import Path

import cupy
import numpy as np

MODULES = (
    *("cupy", "cupy.cuda", "cupy.lib.stride_tricks", "cupy.linalg", "cupy.random"),
    *("cupyx", "cupyx.scipy.special"),
)
ONLY = {  # of the many names of a module those that are used
    "cupy.lib.stride_tricks": ["as_strided"],
    "cupy.cuda": [
        *("Device", "Event", "Graph", "MemoryPool", "Stream"),
        *("get_current_stream", "get_elapsed_time", "using_allocator"),
    ],
    "cupyx.scipy.special": ["erf"],
}
CLASSES = ("cupy.cuda.Event", "cupy.cuda.Graph", "cupy.cuda.MemoryPool", "cupy.cuda.Stream")
TARGET = Path(__file__).with_name("cupy_signatures.json")

TRAITS = {
    # Make an array from no array.
    "create": """arange eye full identity linspace logspace ones random standard_normal tri
        zeros""",
    # Answer on the host, from shapes and dtypes alone.
    "answer_on_host": """can_cast common_type isscalar may_share_memory min_scalar_type ndim
        result_type shape shares_memory size""",
    # Know no axis of a 0-d array, where NumPy lets 0 and -1 pass.
    "reduce": "all amax amin any argmax argmin max mean min prod std sum var",
    # Give a view of their argument where they can, and launch no kernel for it.
    "view": """array_split as_strided ascontiguousarray atleast_1d atleast_2d atleast_3d
        broadcast_arrays broadcast_to diagonal dsplit expand_dims flip fliplr flipud hsplit imag
        matrix_transpose moveaxis permute_dims ravel real reshape rollaxis rot90 split squeeze
        swapaxes transpose view vsplit""",
    # Make the host wait, because the shape of the result depends on what is in the arrays.
    "synchronize": """argwhere bincount compress delete extract flatnonzero intersect1d nonzero
        setdiff1d setxor1d union1d unique unique_all unique_counts unique_inverse unique_values""",
    # Copy a table of addresses to the device if they join more than eight small arrays.
    "join": "column_stack concatenate dstack hstack stack vstack",
    # Call cuBLAS or cuSOLVER for floating point, unless the result is one number.
    "cublas": """cholesky det dot eig eigh eigvals eigvalsh einsum inner inv lstsq matmul
        matrix_power matrix_rank pinv qr slogdet solve svd tensordot tensorinv tensorsolve vdot""",
}
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
BINARY = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "matmul": "matmul",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}


def parameters_from_signature(function):
    """`a, axis=...` for a Python function."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return parameters_from_docstring(function)
    plain = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else ...,
        )
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(plain))[1:-1].replace("=Ellipsis", "=...")


def parameters_from_docstring(function):
    """The same for a Cython function, whose docstring begins with its C signature."""
    match = re.match(r"[\w.]+\((.*)\)(?: -> \w+)?$", function.__doc__.split("\n")[0])
    parameters = []
    for declaration in filter(None, match[1].split(", ")):
        name, has_default, _ = declaration.partition("=")
        parameters.append(name.split()[-1] + ("=..." if has_default else ""))
    return ", ".join(parameters)


def parameters_of_ufunc(ufunc):
    """What its __call__ takes: inputs, then outputs by position or as `out`, and two options."""
    inputs = [f"x{number}" for number in range(1, ufunc.nin + 1)]
    outputs = [f"out{number}=..." for number in range(1, ufunc.nout + 1)]
    return ", ".join([*inputs, *outputs, "/", "*", "out=...", "dtype=...", "casting=..."])


def describe_module(path):
    module = importlib.import_module(path)
    public = ONLY.get(path) or [name for name in dir(module) if not name.startswith("_")]
    names = {name: getattr(module, name) for name in public}
    from_numpy = [name for name, value in names.items() if value is vars(np).get(name, ...)]
    groups = {
        "functions": {},
        "ufuncs": {},
        "classes": [],
        "constants": [],
        "others": [],
        "from_numpy": from_numpy,
    }
    for name, value in names.items():
        if isinstance(value, __future__._Feature):
            continue
        if isinstance(value, cupy.ufunc):
            groups["ufuncs"][name] = {
                "name": value.name,
                "parameters": parameters_of_ufunc(value),
                "has_at": value._scatter_op is not None,
            }
        elif isinstance(value, type):
            groups["classes"].append(name)
        elif callable(value):
            # NumPy's own functions may change with NumPy, and need no binding.
            own = name not in from_numpy
            groups["functions"][name] = parameters_from_signature(value) if own else None
        else:
            is_constant = value is None or isinstance(value, float)
            groups["constants" if is_constant else "others"].append(name)
    return groups


def describe_ndarray():
    names = [name for name in dir(cupy.ndarray) if re.match(r"__(?!pyx)|[A-Za-z]", name)]
    public = [name for name in names if not name.startswith("_")]
    methods = [name for name in public if callable(getattr(cupy.ndarray, name))]
    operators = {f"__{symbol}__": [ufunc, "unary"] for symbol, ufunc in UNARY.items()}
    for symbol, ufunc in BINARY.items():
        operators[f"__{symbol}__"] = [ufunc, "left"]
        operators[f"__r{symbol}__"] = [ufunc, "right"]
        operators[f"__i{symbol}__"] = [ufunc, "in_place"]
    return {
        "methods": {
            name: parameters_from_signature(getattr(cupy.ndarray, name)) for name in methods
        },
        "operators": {name: operators[name] for name in operators if name in names},
        "names": names,
    }


def describe_class(path):
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    names = [name for name in dir(found) if not name.startswith("_")]
    functions = [name for name in ("__init__", *names) if inspect.isroutine(getattr(found, name))]
    described = [
        name for name in functions if "Initialize self." not in getattr(found, name).__doc__
    ]
    return {
        "methods": {name: parameters_from_signature(getattr(found, name)) for name in described},
        "names": names,
    }


def snapshot():
    return {
        "classes": {path: describe_class(path) for path in CLASSES},
        "cupy_version": cupy.__version__,
        "modules": {path: describe_module(path) for path in MODULES},
        "ndarray": describe_ndarray(),
        "traits": {trait: sorted(names.split()) for trait, names in TRAITS.items()},
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(snapshot(), indent=1, sort_keys=True) + "\n")
