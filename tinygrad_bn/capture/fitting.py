"""What goes into a captured step, and what comes out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import array_of, describe, device_of, is_array, is_floating
from ..graph import Tensor


class CaptureError(RuntimeError):
    """A step that cannot be captured, or a call that does not fit the captured step."""


class Fitting:
    """What inputs must be like: the examples."""

    def __init__(self, device: str, examples: list) -> None:
        arrays = [_array_of(value) for value in examples]
        self.device = device
        self.kinds = [(getattr(a, "shape", None), getattr(a, "dtype", None)) for a in arrays]
        self.arrays(examples, "example_inputs")
        for k, array in enumerate(arrays):
            if array.dtype.kind not in "biu" and not is_floating(array.dtype):
                got = f"got {kind_of(array)}, wants real numbers"
                raise TypeError(f"example_inputs[{k}]: {got}")

    def arrays(self, inputs: Sequence, name: str = "inputs") -> list:
        """The arrays of inputs, there or on the host; a CaptureError if they do not fit."""
        if len(inputs) != len(self.kinds):
            raise CaptureError(f"{name}: got {len(inputs)}, wants {len(self.kinds)}")
        found = [_array_of(value) for value in inputs]
        for k, (value, array, (shape, dtype)) in enumerate(zip(inputs, found, self.kinds)):
            if not is_array(array):
                wants = "a Tensor or an array"
                raise CaptureError(f"{name}[{k}]: got {kind_of(value)}, wants {wants}")
            if array.shape != shape or array.dtype != dtype:
                wants = f"{dtype}{list(shape)}"
                raise CaptureError(f"{name}[{k}]: got {describe(array)}, wants {wants}")
            if device_of(array) not in ("cpu", self.device):
                wants = f"it on {self.device} or the host"
                raise CaptureError(f"{name}[{k}]: got {describe(array)}, wants {wants}")
            if isinstance(value, Tensor) and value.requires_grad:
                got = "a Tensor that requires a gradient"
                wants = "its detach(), of which the step may ask a gradient"
                raise CaptureError(f"{name}[{k}]: got {got}, wants {wants}")
        return found

    def __str__(self) -> str:
        return ", ".join(f"{dtype}{list(shape)}" for shape, dtype in self.kinds) or "none"


def _array_of(value: Any) -> Any:
    """The array of a Tensor or of a number of NumPy's; all else as it is."""
    array = array_of(value)
    return np.asarray(array) if isinstance(array, np.generic) else array


def kind_of(value: Any) -> str:
    """What a value is, in an error message: "a Tensor of float32[2]", "an array of …", "a list"."""
    if isinstance(value, Tensor) or is_array(value):
        return f"{'a Tensor' if isinstance(value, Tensor) else 'an array'} of {describe(value)}"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def constants(answer: Any) -> Any:
    """What a step returned, outside its graph."""
    if isinstance(answer, Tensor):
        return answer.detach()
    if isinstance(answer, (tuple, list)):
        make = getattr(answer, "_make", type(answer))  # a named tuple stays one
        return make([constants(part) for part in answer])
    if isinstance(answer, dict):
        return {key: constants(part) for key, part in answer.items()}
    if answer is not None:
        raise CaptureError(f"the step returned {kind_of(answer)}, wants Tensors, or None")
    return None


def tensors(answer: Any) -> list[Tensor]:
    """The Tensors in what a step returned."""
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer or ()
    return [tensor for part in parts for tensor in tensors(part)]
