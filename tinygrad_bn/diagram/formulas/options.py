"""The options of a call as text: axis=1, [2:, 0]."""

from collections.abc import Iterator
from typing import Any

from ...backend import is_array, to_device
from ..drawing.text import LISTED, clean, number
from .computed import Call, hashable


def options_of(call: Call) -> Iterator[str]:
    """What is given by name, as far as it is not what would be taken anyhow; and a single axis."""
    defaults = {name: p.default for name, p in call.op.__signature__.parameters.items()}
    axis = {"axis": defaults["axis"]} if isinstance(defaults.get("axis"), int) else {}
    for name, value in (axis | dict(call.options)).items():
        default = defaults.get(name)
        if name in axis or type(value) is not type(default) or value != default:
            is_of_axes = call.name and name not in ("shape", "index")
            yield f"{name}={said(_one_for_all(value) if is_of_axes else value)}"


def _one_for_all(value: Any) -> Any:
    """What ops of the library are given for each axis, once if it is the same: stride=2."""
    parts = [_one_for_all(part) for part in value] if isinstance(value, tuple) else []
    return parts[0] if parts and len(set(map(hashable, parts))) == 1 else value


def getitem_index(call: Call) -> str:
    """What stands between the brackets of x[…]."""
    index = call.options["index"]
    return ", ".join(map(said, index if isinstance(index, tuple) else (index,)))


def said(value: Any) -> str:
    """An option, or a part of an index x[…], as in Python; of an array that is long, a dot."""
    if isinstance(value, slice):
        bounds = ["" if b is None else str(b) for b in (value.start, value.stop, value.step)]
        return ":".join(bounds if bounds[2] else bounds[:2])
    if isinstance(value, (tuple, list)):
        parts = ", ".join(map(said, value)) + "," * (isinstance(value, tuple) and len(value) == 1)
        return f"({parts})" if isinstance(value, tuple) else f"[{parts}]"
    if is_array(value):
        return said(to_device(value, "cpu").tolist()) if value.size <= LISTED else "·"
    if isinstance(value, float):
        return number(value)
    return "…" if value is Ellipsis else clean(str(value))
