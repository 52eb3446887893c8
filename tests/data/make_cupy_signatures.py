"""Writes cupy_signatures.json, the names and signatures of the CuPy that is installed.

The test double of CuPy binds every call against that file, so that it refuses what CuPy refuses
on machines where CuPy is not installed.  CuPy can be imported without a GPU, so this needs none:

    python tests/data/make_cupy_signatures.py

Every public name stands in the group of its kind: "functions" with their parameters (as in a
stub: `...` for a default; null for NumPy's), "ufuncs", "classes", "constants", and
"others" (submodules and helper objects).  "from_numpy" lists the names that are NumPy's own
objects, such as float32 or newaxis.  "ndarray" lists the methods, and all names an array has.
"""

import __future__

import importlib
import inspect
import json
import re
from pathlib import Path

import cupy
import numpy as np

MODULES = ("cupy", "cupy.linalg", "cupy.random", "cupyx")
TARGET = Path(__file__).with_name("cupy_signatures.json")


def parameters_from_signature(function):
    """`a, axis=...` for a Python function; None where it has no signature to inspect."""
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
    match = re.match(r"[\w.]+\((.*)\)(?: -> \w+)?$", (function.__doc__ or "").split("\n")[0])
    if match is None:
        return None
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
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
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
    return {
        "methods": {
            name: parameters_from_signature(getattr(cupy.ndarray, name)) for name in methods
        },
        "names": names,
    }


def snapshot():
    return {
        "cupy_version": cupy.__version__,
        "modules": {path: describe_module(path) for path in MODULES},
        "ndarray": describe_ndarray(),
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(snapshot(), indent=1, sort_keys=True) + "\n")
