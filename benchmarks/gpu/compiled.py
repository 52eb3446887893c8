"""The MLP's step of PyTorch by torch.compile. It takes long to compile, so this comes last."""

from collections.abc import Iterator
from functools import partial

from ..speed.networks import mlp
from . import networks, timing
from .rival import PyTorch, pytorch


def rows(dry: bool) -> Iterator[dict]:
    rival = pytorch(dry)
    if rival is None:
        yield {"name": "MLP", "not_run": "PyTorch is not installed"}
        return
    with timing.one_stream(rival):
        yield timing.tried("MLP", measured, rival, dry)


def measured(rival: PyTorch, dry: bool) -> dict:
    how = {"backend": "eager"} if dry else {"mode": "reduce-overhead"}
    net = mlp(dry)
    steps = {
        "ours, captured": networks.captured(net),
        "PyTorch, compiled": networks.theirs(net, rival, partial(rival.torch.compile, **how)),
    }
    return {"seconds": timing.seconds(steps, dry, burst=networks.BURST)}
