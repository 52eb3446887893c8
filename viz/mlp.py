"""The 17 hidden layers of EE-559 with batch norm, one box a module, equal ones folded.

Run it as `python -m viz.mlp [folder]`.
"""

import sys
from pathlib import Path

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

from . import GALLERY


def loss() -> tg.Tensor:
    """The loss of the network on a batch of 8 points, recorded."""
    tg.manual_seed(0)
    layers: list[nn.Module] = []
    for k in range(17):
        linear = nn.Linear(32 if k else 2, 32, dtype=tg.float64)
        layers += [linear, nn.BatchNorm1d(32, dtype=tg.float64), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(32, 2, dtype=tg.float64))
    points = tg.named("x", tg.randn(8, 2, dtype=tg.float64))
    with tg.tracing():
        return tg.named("ℓ", F.cross_entropy(net(points), tg.tensor(np.arange(8) % 2)))


def main(folder: str | Path = GALLERY) -> None:
    """Draw into `folder` and say what was written."""
    picture = tg.draw(loss(), "collapsed")
    print(picture.save(f"{folder}/mlp.svg"))


if __name__ == "__main__":
    main(*sys.argv[1:])
