"""The error of batch norm in float32 at mean 1e4 and std 1: `python benchmarks/accuracy.py`.

Each library's y against PyTorch's in float64, largest absolute difference. Needs PyTorch (pip
install torch); the table that it prints is kept in results/accuracy.md.
"""

import numpy as np
import torch
from orders import RESULTS, markdown, norms_by_pytorchs_names

import tinygrad_bn as tg

SHAPES = [(64, 64, 32, 32), (256, 1024), (100, 32)]
PYTORCH = f"PyTorch {torch.__version__.split('+')[0]}"
LIBRARIES = {  # its functional and options, how to make a tensor, how to take a gradient
    "tinygrad_bn, fused": (tg.functional, {"impl": "fused"}, tg.tensor, tg.grad),
    "tinygrad_bn, composed": (tg.functional, {"impl": "composed"}, tg.tensor, tg.grad),
    PYTORCH: (torch.nn.functional, {}, torch.tensor, torch.autograd.grad),
}


def y_and_dx(library: str, norm: str, x: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """The norm of x without γ and β, and the gradient by x if g arrives."""
    functional, options, tensor, grad = LIBRARIES[library]
    leaf = tensor(x, requires_grad=True)
    y = norms_by_pytorchs_names(functional, **options)[norm](leaf, None, None)
    (dx,) = grad(y, leaf, tensor(g))
    return [y.detach().numpy(), dx.numpy()]


def errors(norm: str, shape: tuple[int, ...]) -> dict[str, list[float]]:
    """Of each library: the largest error of y, and that of ∂x relative to the largest ∂x."""
    random = np.random.default_rng(0)
    x = (random.standard_normal(shape) + 1e4).astype(np.float32)
    g = random.standard_normal(shape).astype(np.float32)
    y, dx = y_and_dx(PYTORCH, norm, x.astype(np.float64), g.astype(np.float64))
    found = {}
    for library in LIBRARIES:
        v, dv = y_and_dx(library, norm, x, g)
        found[library] = [np.abs(v - y).max(), np.abs(dv - dx).max() / np.abs(dx).max()]
    return found


def main() -> None:
    columns = [errors("batch_norm", shape) for shape in SHAPES]
    rows = [["error of y in float32, mean 1e4, std 1", *map(str, SHAPES)]]
    rows += [[name, *(f"{column[name][0]:.0e}" for column in columns)] for name in LIBRARIES]
    (RESULTS / "accuracy.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
