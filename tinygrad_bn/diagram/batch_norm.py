"""The worked example of batch norm, recorded for every view, and its pictures for the tour."""

from pathlib import Path

import numpy as np

from ..creation import tensor
from ..functional import batch_norm
from ..graph import Tensor
from ..recording import tracing
from ..tensor import named
from . import draw, stepper


def worked_example(implementation: str) -> Tensor:
    """The loss of the worked example, "composed" or "fused", recorded.

    The batch is x = (0.5, 3.5, 4.5, 7.5) in one channel, with γ = 2, β = 1 and ε = 0, and
    ℓ = Σ wᵢ yᵢ with w = (1, −2, 0.5, 1.5).

    >>> from tinygrad_bn import diagram
    >>> print(diagram.draw(worked_example("fused")).graph.nodes[0].outputs[0].gradient.ravel())
    [ 0.936 -1.752  0.152  0.664]
    """
    column = np.array([[0.5, 1.0], [3.5, -2.0], [4.5, 0.5], [7.5, 1.5]])
    with tracing():
        x = named("x", tensor(column[:, :1], requires_grad=True))
        gamma = named("γ", tensor(np.array([2.0]), requires_grad=True))
        beta = named("β", tensor(np.array([1.0]), requires_grad=True))
        w = named("w", tensor(column[:, 1:]))
        y = batch_norm(x, None, None, gamma, beta, training=True, eps=0.0, impl=implementation)
        return named("ℓ", (w * y).sum())


PICTURES = {"symbols": "composed", "fused": "fused", "butterfly": "composed"}  # of which norm


def draw_batch_norm(folder: str | Path) -> tuple[list[Path], str | None]:
    """Draw the worked example into `folder`, which is made if need be: PICTURES, each as .dot and
    .svg, and the page that steps through it.

    Returns the files written, and None, or the reason for which there are only .dot files (no
    Graphviz is installed, say).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, reason = [], None
    for view, implementation in PICTURES.items():
        diagram, stem = draw(worked_example(implementation), view), f"batch_norm_{view}"
        paths.append(diagram.save(folder / f"{stem}.dot"))
        try:
            paths.append(diagram.save(folder / f"{stem}.svg"))
        except RuntimeError as error:
            reason = str(error)
    if reason is None:
        page = stepper(worked_example("composed"), title="Batch norm, one op at a time")
        paths.append(page.save(folder / "batch_norm_stepper.html"))
    return paths, reason
