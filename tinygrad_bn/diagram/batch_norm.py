"""The worked example of batch norm, drawn: composed and fused, forward and backward."""

from pathlib import Path

import numpy as np

from ..creation import tensor
from ..engine import grad
from ..norm import IMPLEMENTATIONS
from ..ops import sum
from ..recording import scope, tracing
from ..tensor import named
from . import Diagram, draw


def record_batch_norm(implementation: str) -> tuple[Diagram, Diagram]:
    """The forward graph, with values and gradients, and the recorded backward pass.

    The batch is x = (0.5, 3.5, 4.5, 7.5) in one channel, with γ = 2, β = 1 and ε = 0, and
    ℓ = Σ wᵢ yᵢ with w = (1, −2, 0.5, 1.5). `implementation`: "composed" or "fused".

    >>> forward, backward = record_batch_norm("fused")
    >>> print(forward.graph.nodes[0].outputs[0].gradient.round(12).ravel())
    [ 0.936 -1.752  0.152  0.664]
    """

    def leaf(name, values):
        return named(name, tensor(np.reshape(values, (-1, 1)), np.float64, requires_grad=True))

    with tracing():
        x, gamma, beta = leaf("x", [0.5, 3.5, 4.5, 7.5]), leaf("γ", [2.0]), leaf("β", [1.0])
        w = named("w", tensor(np.reshape([1.0, -2.0, 0.5, 1.5], (4, 1))))
        normalize = IMPLEMENTATIONS[implementation].normalize
        y, mu, var = normalize(x, gamma, beta, axes=(0,), eps=0.0)
        named("y", y), named("μ_B", mu), named("σ²_B", var)
        loss = named("ℓ", sum(w * y))
        # A gradient at ℓ that is a leaf too, so that every step of the backward pass is recorded.
        seed = named("∂ℓ/∂ℓ", tensor(1.0, np.float64, requires_grad=True))
        with scope("backward"):
            gradients = grad(loss, [x, gamma, beta], seed, create_graph=True)
        for name, gradient in zip(("∂ℓ/∂x", "∂ℓ/∂γ", "∂ℓ/∂β"), gradients):
            named(name, gradient)
    return draw(loss), draw([loss, *gradients], gradients=False)


def draw_batch_norm(folder: str | Path) -> tuple[list[Path], str | None]:
    """Draw both implementations into `folder`, which is made if need be, as .dot and .svg.

    Returns the files written, and None, or the reason for which there are no .svg files among them
    (no Graphviz is installed, say).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, reason = [], None
    for implementation in IMPLEMENTATIONS:
        for diagram, half in zip(record_batch_norm(implementation), ("", "_backward")):
            stem = f"batch_norm_{implementation}{half}"
            paths.append(diagram.save(folder / f"{stem}.dot"))
            try:
                paths.append(diagram.save(folder / f"{stem}.svg"))
            except RuntimeError as error:
                reason = str(error)
    return paths, reason
