"""The modules of the double, and the names that each has by the snapshot of CuPy."""

import json
import types
from pathlib import Path

import numpy as np

SNAPSHOT = json.loads((Path(__file__).parent.parent / "data/cupy_signatures.json").read_text())


class Module(types.ModuleType):
    """A module of CuPy: what is set on it, and the names in the snapshot."""

    def __getattr__(self, name):
        from . import arrays

        groups = SNAPSHOT["modules"].get(self.__name__, {})
        if not any(name in group for group in groups.values()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        numpys = getattr(_NUMPYS.get(self.__name__), name, None)
        if name in groups["from_numpy"]:
            value = numpys
        elif name in groups["ufuncs"] and isinstance(numpys, np.ufunc):
            value = arrays.ufunc(numpys, **groups["ufuncs"][name])
        elif name in groups["functions"] and numpys is not None:
            value = arrays.function(name, groups["functions"][name], numpys)
        else:
            raise NotImplementedError(f"the double of CuPy lacks {self.__name__}.{name}")
        setattr(self, name, value)
        return value


_NUMPYS = {"cupy": np, "cupy.linalg": np.linalg, "cupy.lib.stride_tricks": np.lib.stride_tricks}
_NAMES = (*_NUMPYS, "cupy.lib", "cupy.random", "cupy.cuda", "cupyx", "cupyx.scipy")
_NAMES += ("cupy.cuda.memory",)
MODULES = {name: Module(name) for name in (*_NAMES, "cupyx.scipy.special")}
cupy, cupyx = MODULES["cupy"], MODULES["cupyx"]
for _name, _module in MODULES.items():
    if "." in _name:
        _parent, _, _child = _name.rpartition(".")
        setattr(MODULES[_parent], _child, _module)
