"""What `capture` refuses, and how many nodes the graph of the MLP's step has."""

import re
from collections.abc import Iterator

import test_capture_refusals as refusals

import tinygrad_bn as tg

from ..speed.networks import mlp
from .networks import our_step
from .timing import tried

SOME = ("reads", "counts", "freezes")


def rows(dry: bool) -> Iterator[dict]:
    with tg.device("cuda"):
        for name in SOME if dry else refusals.REFUSED:
            yield tried(f"refused: {name}", refused, name)
        yield tried("MLP", nodes, dry)


def refused(name: str) -> dict:
    """The words in which a step of the tests is refused; a RuntimeError if it is not."""
    steps = refusals.Counting()
    training = steps.training
    training.run(training.step, 2)
    before = training.all_state()
    try:
        tg.capture(getattr(steps, name), refusals.batches(1, training.shape)[0], training.state)
    except tg.CaptureError as error:
        said = str(error)
    else:
        raise RuntimeError("it was captured")
    if not re.search(refusals.REFUSED[name], said):
        raise RuntimeError(f"it was refused in other words: {said}")
    refusals.assert_same(training.all_state(), before)
    training.run(training.captured(), 1)  # one that does nothing of the kind can be
    return {"said": said}


def nodes(dry: bool) -> dict:
    step, inputs, state = our_step(mlp(dry))
    graph = tg.capture(step, inputs, state).graph
    return {"nodes": len(set(re.findall(r'"(graph_\w+?_node_\d+)" ?\[', graph.debug_dot_str())))}
