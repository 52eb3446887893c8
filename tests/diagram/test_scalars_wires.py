"""The wires of the view `scalars`: from what a number is computed, whatever the numbers are."""

import numpy as np
import pytest
from helpers import leaf, vector
from test_scalars import traced

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.drawing.sketch import characters


def test_without_tracing_the_wires_are_there_and_the_values_are_not():
    x = vector(1.0, 2.0)
    y = (x * x.exp()).sum()
    sketch = draw(y, "scalars").sketch
    assert any("values were not kept" in note for note in sketch.notes)
    assert sketch.wires == draw(traced(lambda: (x * x.exp()).sum()), "scalars").sketch.wires
    y.backward()
    with pytest.raises(ValueError, match=r"^scalars: values were not kept: record inside tracing"):
        draw(y, "scalars")


@pytest.mark.parametrize(
    ("function", "pole"),
    [
        (tg.log, 0.0),
        (tg.sqrt, 0.0),
        (lambda x: 1.0 / x, 0.0),
        (lambda x: x**-0.5, 0.0),
        (lambda x: tg.log(1.0 - x), 1.0),
        (lambda x: x * tg.tensor([1.0, 2.0, 3.0]), np.nan),
        (lambda x: tg.tensor([1.0, np.inf, np.nan]) * x, np.inf),
        (lambda x: F.softmax(x.reshape(3, 1), 0), np.inf),
    ],
)
def test_what_depends_on_what_does_not_depend_on_the_numbers(function, pole):
    with np.errstate(all="ignore"):
        usual, strange = (traced(function, vector(0.25, 0.5, x)) for x in (0.75, pole))
    wires = [draw(loss, "scalars").sketch.wires for loss in (usual, strange)]
    ends = [{(wire.start, wire.end) for wire in each} for each in wires]
    assert ends[0] == ends[1]


def test_a_traced_graph_that_backward_has_freed_has_its_wires():
    x = vector(1.0, 2.0)
    y = traced(lambda: (x * x.exp()).sum())
    before = draw(y, "scalars").sketch
    y.backward()
    assert draw(y, "scalars").sketch.wires == before.wires


def test_an_element_of_a_numbered_name_is_no_element_of_the_name():
    x, other = leaf(np.array([[1.0, 2.0], [3.0, 4.0]])), vector(5.0, 6.0)
    boxes = draw(traced(lambda: (x * other).sum()), "scalars").sketch.boxes
    symbols = [characters(box.symbol) for box in boxes]
    assert {"x_{2,1}", "(x_2)_1"} <= set(symbols)
    assert len(set(symbols)) == len(symbols)
