"""The error of batch norm in float32 at mean 1e4 and std 1: `python benchmarks/accuracy.py`.

Each library's y against the same sum in float64, largest absolute difference. Needs PyTorch (pip
install torch); the table that it prints is kept in results/accuracy.md.
"""

from pathlib import Path

import numpy as np
import torch

from tinygrad_bn import functional as F

SHAPES = [(64, 64, 32, 32), (256, 1024), (100, 32)]
EPS = 1e-5
RESULT = Path(__file__).parent / "results" / "accuracy.md"


def errors(shape: tuple[int, ...]) -> dict[str, float]:
    x = (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32)
    axes = (0, *range(2, len(shape)))
    d = x - x.mean(axis=axes, keepdims=True, dtype=np.float64)
    truth = d / np.sqrt((d * d).mean(axis=axes, keepdims=True) + EPS)

    def ours(impl: str) -> np.ndarray:
        return F.batch_norm(x, None, None, training=True, eps=EPS, impl=impl)

    theirs = torch.nn.functional.batch_norm(torch.tensor(x), None, None, training=True, eps=EPS)
    found = {
        "tinygrad_bn, fused": ours("fused"),
        "tinygrad_bn, composed": ours("composed"),
        f"PyTorch {torch.__version__.split('+')[0]}": theirs.numpy(),
    }
    return {name: float(np.abs(y - truth).max()) for name, y in found.items()}


def main() -> None:
    columns = [errors(shape) for shape in SHAPES]
    lines = [
        "| error of y in float32, mean 1e4, std 1 | " + " | ".join(map(str, SHAPES)),
        "|---" * (len(SHAPES) + 1),
        *(
            f"| {name} | " + " | ".join(f"{column[name]:.0e}" for column in columns)
            for name in columns[0]
        ),
    ]
    table = "\n".join(f"{line} |" for line in lines)
    RESULT.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
