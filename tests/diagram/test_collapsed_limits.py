"""The view `collapsed` of large graphs, of modules with any name, and in another process."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from collapsed_graphs import chain, frames
from helpers import leaf

import tinygrad_bn as tg
from tinygrad_bn import recording
from tinygrad_bn.diagram import draw

ROOT = Path(__file__).parents[2]
needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


@pytest.mark.parametrize(
    ("scope", "count"),
    [
        (lambda i: "Net", 2),
        (lambda i: f"Net.{i // 25}:Linear", 2),
        (lambda i: f"Net.{i // 2500}:L{i // 2500}", 5),
        (lambda i: "Net.cell:Cell" if i % 10 else "Net", 3),
        (lambda i: ".".join(["Net"] * 300 + [f"{i // 5000}:Linear"]), 2),
    ],
)
def test_ten_thousand_ops_in_modules_collapse(scope, count):
    assert len(chain([scope(i) for i in range(10**4)]).sketch.boxes) == count


def test_a_hundred_thousand_ops_in_modules_collapse_within_seconds():
    start = time.process_time()
    sketch = chain([f"Net.{i // 40}:Block.{i % 40 // 4}:Linear" for i in range(10**5)]).sketch
    assert frames(sketch) == {"×25000": ["0.0, 0.1 … 2499.9: Linear"]}
    assert time.process_time() - start < 30


@needs_graphviz
def test_a_large_graph_that_cannot_be_collapsed_is_refused_with_a_sentence():
    diagram = chain([""] * 3000, label="op {}".format)
    with pytest.raises(ValueError, match=r"up to 2,000 boxes and this one has 3,001; draw a part"):
        diagram.svg()


@needs_graphviz
@pytest.mark.parametrize(
    "name", ["", ".", ":", "..:", "</g>&", "a:b:c", "x" * 10_000, "\u202ea", "\x00", "\ud800"]
)
def test_any_name_of_a_module_draws(name):
    with tg.tracing():
        x = leaf(np.ones(2))
        with recording.scope(name):
            x = x * x
        with recording.scope("Net"), recording.scope(name):
            x = x + x
    assert draw(x, "collapsed").svg().count('<g id="n') == 3


PROGRAM = """
import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.diagram import draw
tg.manual_seed(0)
net = nn.Sequential(*[part for _ in range(4) for part in (nn.Linear(3, 3), nn.BatchNorm1d(3))])
with tg.tracing():
    print(draw(net(tg.randn(2, 3)).sum(), "collapsed").dot())
"""


def test_the_same_program_gives_the_same_picture_in_another_process():
    def said(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    assert said("1") == said("2")
