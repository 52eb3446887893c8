"""Batch norm over four numbers, one lane a sample: they meet in μ_B and σ²_B alone.

Run it as `python -m viz.batch_norm_scalars [folder]`.
"""

import sys
from pathlib import Path

import tinygrad_bn as tg
from tinygrad_bn import Scalar, named

from . import GALLERY


def loss() -> Scalar:
    """ℓ = Σ wᵢ yᵢ of the worked example, every number of it a Scalar."""
    xs = [named(f"x_{i}", Scalar(value)) for i, value in enumerate((0.5, 3.5, 4.5, 7.5), 1)]
    gamma, beta, eps = named("γ", Scalar(2.0)), named("β", Scalar(1.0)), 0.0
    mu = named("μ_B", Scalar.sum(xs) / len(xs))
    ds = [named(f"d_{i}", x - mu) for i, x in enumerate(xs, 1)]
    var = named("σ²_B", Scalar.sum(d * d for d in ds) / len(xs))
    s = named("s", (var + eps).sqrt())
    xhats = [named(f"x̂_{i}", d / s) for i, d in enumerate(ds, 1)]
    ys = [named(f"y_{i}", gamma * xhat + beta) for i, xhat in enumerate(xhats, 1)]
    return named("ℓ", Scalar.dot((1.0, -2.0, 0.5, 1.5), ys))


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    print(tg.draw(loss(), "scalars").save(f"{folder}/batch_norm_scalars.svg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
