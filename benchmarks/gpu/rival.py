"""PyTorch, measured side by side: on the same device and the same stream."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..speed.rivals import installed


class PyTorch:
    """PyTorch on the GPU; in a dry run on the CPU, where nothing is put into graphs."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, device
        # As CuPy's and ours: all digits of float32 count.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True

    def tensor(self, array: np.ndarray, dtype: str | None = None) -> Any:
        values = self.torch.tensor(array, device=self.device)
        return values if dtype is None else values.to(self.dtype(dtype))

    def dtype(self, name: str) -> Any:
        return getattr(self.torch, name)

    def on(self, stream: Any) -> contextlib.AbstractContextManager:
        """A context in which a stream of CuPy's is the current one."""
        if self.device == "cpu":
            return contextlib.nullcontext()
        cuda = self.torch.cuda
        return cuda.stream(cuda.ExternalStream(stream.ptr))

    def graphed(self, step: Callable[[int], Any], turns: int) -> Callable[[int], Any]:
        """A step that is the calls 0 to `turns` − 1 of this one, as a CUDA graph."""
        for _ in range(3):
            step(0)
        if self.device == "cpu":
            return lambda _: [step(k) for k in range(turns)]
        cuda = self.torch.cuda
        graph = cuda.CUDAGraph()
        with cuda.graph(graph, stream=cuda.current_stream()):
            answers = [step(k) for k in range(turns)]

        def launch(_: int, holds: Any = answers) -> None:
            graph.replay()

        return launch


def pytorch(dry: bool) -> PyTorch | None:
    """None where it is not installed, or finds no GPU: then there is nobody to measure beside."""
    if not installed("torch"):
        return None
    rival = PyTorch("cpu" if dry else "cuda")
    return rival if dry or rival.torch.cuda.is_available() else None
