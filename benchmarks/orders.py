"""Where fused batch norms go wrong, order by order: `python benchmarks/orders.py`.

The gradient of order k is the gradient of a random combination of the gradient of order k − 1. Each
library's fused batch norm is held against the same function from its own primitive ops, in float64.
Needs PyTorch (pip install torch); the table that it prints is kept in results/orders.md.
"""

from pathlib import Path

import numpy as np
import torch

import tinygrad_bn as tg
from tinygrad_bn import functional as F

ORDERS = 4
EPS = 1e-5
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((6, 3))
WEIGHT, BIAS = RANDOM.standard_normal((2, 3))
PROBES = RANDOM.standard_normal((ORDERS, 6, 3))
RESULT = Path(__file__).parent / "results" / "orders.md"


def ours(impl: str) -> list[np.ndarray]:
    x = tg.tensor(X, requires_grad=True)
    weight, bias = tg.tensor(WEIGHT), tg.tensor(BIAS)
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS, impl=impl)
    chain = []
    for probe in PROBES:
        (y,) = tg.grad((y * tg.tensor(probe)).sum(), x, create_graph=True)
        chain.append(y.detach().numpy())
    return chain


def pytorchs(fused: bool) -> list[np.ndarray]:
    x = torch.tensor(X, requires_grad=True)
    weight, bias = torch.tensor(WEIGHT), torch.tensor(BIAS)
    if fused:
        y = torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, EPS)
    else:
        d = x - x.mean(0)
        y = weight * (d / torch.sqrt((d * d).mean(0) + EPS)) + bias
    chain = []
    for probe in PROBES:
        (y,) = torch.autograd.grad((y * torch.tensor(probe)).sum(), x, create_graph=True)
        chain.append(y.detach().numpy())
    return chain


def errors(fused: list[np.ndarray], primitive: list[np.ndarray]) -> list[str]:
    """max |fused − primitive| / max |primitive| of each order."""
    return [f"{np.abs(a - b).max() / np.abs(b).max():.0e}" for a, b in zip(fused, primitive)]


def main() -> None:
    rows = {
        "tinygrad_bn": errors(ours("fused"), ours("composed")),
        f"PyTorch {torch.__version__.split('+')[0]}": errors(pytorchs(True), pytorchs(False)),
    }
    lines = [
        "| error of the fused batch norm at order | " + " | ".join(map(str, range(1, ORDERS + 1))),
        "|---" * (ORDERS + 1),
        *(f"| {name} | " + " | ".join(cells) for name, cells in rows.items()),
    ]
    table = "\n".join(f"{line} |" for line in lines)
    RESULT.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
