"""What goes into a captured step, and what comes out."""

from collections.abc import Sequence
from typing import Any

from ..backend import array_of, describe, device_of, is_array
from ..graph import Tensor


class CaptureError(RuntimeError):
    """A step that cannot be captured, or a call that does not fit the captured step."""


class Fitting:
    """What inputs must be like: the examples."""

    def __init__(self, device: str, examples: list) -> None:
        self.device = device
        self.kinds = [(getattr(x, "shape", None), getattr(x, "dtype", None)) for x in examples]
        self.arrays(examples)

    def arrays(self, inputs: Sequence) -> list:
        """The arrays of inputs, there or on the host; a CaptureError if they do not fit."""
        if len(inputs) != len(self.kinds):
            raise CaptureError(f"inputs: got {len(inputs)}, wants {len(self.kinds)}")
        found = [array_of(value) for value in inputs]
        for k, (value, array, (shape, dtype)) in enumerate(zip(inputs, found, self.kinds)):
            if not is_array(array) or array.shape != shape or array.dtype != dtype:
                wants = f"{dtype}{list(shape)}" if dtype else "a Tensor or an array"
                raise CaptureError(f"inputs[{k}]: got {describe(value)}, wants {wants}")
            if device_of(array) not in ("cpu", self.device):
                wants = f"it on {self.device} or the host"
                raise CaptureError(f"inputs[{k}]: got {describe(value)}, wants {wants}")
            if isinstance(value, Tensor) and value.requires_grad:
                wants = "its detach(), of which the step may ask a gradient"
                raise CaptureError(f"inputs[{k}]: it requires a gradient; wants {wants}")
        return found


def constants(answer: Any) -> Any:
    """What a step returned, outside its graph."""
    if isinstance(answer, Tensor):
        return answer.detach()
    if isinstance(answer, (tuple, list)):
        return type(answer)([constants(part) for part in answer])
    if isinstance(answer, dict):
        return {key: constants(part) for key, part in answer.items()}
    if answer is not None:
        raise CaptureError(f"the step returned {describe(answer)}, wants Tensors, or None")
    return None


def tensors(answer: Any) -> list[Tensor]:
    """The Tensors in what a step returned."""
    if isinstance(answer, Tensor):
        return [answer]
    parts = answer.values() if isinstance(answer, dict) else answer or ()
    return [tensor for part in parts for tensor in tensors(part)]
