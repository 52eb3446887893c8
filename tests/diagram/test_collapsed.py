"""The view `collapsed`: a box a module, and of blocks that repeat the first."""

import importlib.util
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from collapsed_graphs import chain, frames, node, titles
from helpers import host, leaf
from hypothesis import given
from hypothesis import strategies as st
from pictures import boxes, seconds, texts, wires

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.drawing.text import summary
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import Edge, Graph
from tinygrad_bn.diagram.views.collapsed import collapsed

ROOT = Path(__file__).parents[2]
needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)


def layers(*widths):
    """Linear, batch norm and ReLU between these widths, and no norm after the last."""
    parts = []
    for inside, outside in pairwise(widths[:-1]):
        parts += [nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(*widths[-2:]))


def loss_of(net, x, name="x"):
    with tg.tracing():
        return tg.named("ℓ", (net(tg.named(name, x)) ** 2).mean())


def view(*arguments):
    return draw(loss_of(*arguments), "collapsed")


def counted(sketch, what):
    """How many ops or parameters the boxes say they have, each as often as its frame says."""
    times = {box: int(characters(f.title)[1:]) for f in sketch.frames for box in f.boxes}
    found = 0
    for box in sketch.boxes:
        match = re.search(rf"([0-9,]+) {what}", characters(box.detail))
        alone = what == "op" and box.kind in ("op", "fused")
        found += (int(match[1].replace(",", "")) if match else alone) * times.get(box.id, 1)
    return found


# --- The MLP of the lecture -----------------------------------------------------------------------

TITLES = [
    *["x", "0: Linear", "1: BatchNorm1d", "2: ReLU"],
    *["3, 6 … 48: Linear", "4, 7 … 49: BatchNorm1d", "5, 8 … 50: ReLU", "51: Linear", "pow", "ℓ"],
]


@pytest.fixture(scope="module")
def mlp():
    tg.manual_seed(0)
    return layers(2, *[32] * 17, 2)


@needs_graphviz
def test_of_17_layers_the_16_that_are_equal_are_drawn_once(mlp, tmp_path):
    diagram = view(mlp, tg.randn(8, 2))
    assert list(boxes(diagram.save(tmp_path / "mlp.svg"))) == TITLES
    assert frames(diagram.sketch) == {"×16": TITLES[4:7]}
    assert set(wires(diagram.svg())) == {f"{a} → {b}" for a, b in pairwise(TITLES)}
    assert "a block that comes so often" in " ".join(diagram.sketch.notes)


def test_boxes_count_the_ops_and_parameters_of_the_network(mlp):
    diagram = view(mlp, tg.randn(8, 2))
    assert counted(diagram.sketch, "parameter") == sum(p.size for p in mlp.parameters())
    assert counted(diagram.sketch, "op") == sum(n.kind == "op" for n in diagram.graph.nodes)


def test_a_box_tells_what_came_out_and_what_gradient_came_back(mlp):
    """In a block that repeats, of the first and of the last."""
    outputs = []
    for module in mlp:
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    loss = loss_of(mlp, tg.randn(8, 2))
    gradients = tg.grad(loss, outputs, retain_graph=True)
    said = {characters(b.symbol): b for b in draw(loss, "collapsed").sketch.boxes}
    for title, first, last in (("0: Linear", 0, 0), ("4, 7 … 49: BatchNorm1d", 4, 49)):
        numbers = [summary(host(outputs[k])) for k in dict.fromkeys((first, last))]
        slopes = [summary(host(gradients[k])) for k in dict.fromkeys((first, last))]
        rows = [characters(row.label) for row in said[title].columns[0].rows]
        assert rows == [f"▸ {' … '.join(numbers)}", f"◂ {' … '.join(slopes)}"]
        assert "(8, 32)" in characters(said[title].detail)


def test_the_mlp_is_drawn_in_under_a_second(mlp):
    loss = loss_of(mlp, tg.randn(8, 2))
    assert len(draw(loss, "collapsed").sketch.boxes) == len(TITLES)
    assert seconds(lambda: draw(loss, "collapsed")) < 1


# --- What repeats ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "folded"),
    [
        ((8, 8, 8, 8), {"×2": ["0, 3: Linear", "1, 4: BatchNorm1d", "2, 5: ReLU"]}),
        ((2, 8, 8, 8, 2), {"×2": ["3, 6: Linear", "4, 7: BatchNorm1d", "5, 8: ReLU"]}),
        ((2, 4, 8, 16), {}),
    ],
)
def test_blocks_fold_if_their_shapes_are_equal(widths, folded):
    tg.manual_seed(0)
    assert frames(view(layers(*widths), tg.randn(4, widths[0])).sketch) == folded


def test_blocks_of_other_classes_or_in_another_order_do_not_fold():
    class Rectifier(nn.ReLU):
        pass

    def folded(*parts):
        tg.manual_seed(0)
        return frames(view(nn.Sequential(*parts), tg.randn(4, 8)).sketch)

    square = [nn.Linear(8, 8) for _ in range(4)]
    assert folded(square[0], nn.ReLU(), square[1], Rectifier()) == {}
    assert folded(square[0], nn.ReLU(), square[1], nn.Tanh()) == {}
    assert folded(square[0], nn.ReLU(), nn.Tanh(), square[1], nn.Tanh(), nn.ReLU()) == {}
    assert folded(*square) == {"×4": ["0, 1 … 3: Linear"]}
    assert folded(square[0], nn.Linear(8, 8, bias=False), square[1]) == {}


@pytest.mark.parametrize("settings", [(0.1, 0.9, 0.5), (2.0, 3.0, -1.0)])
def test_blocks_with_other_options_or_numbers_do_not_fold(settings):
    class Power(nn.Module):
        def __init__(self, exponent):
            super().__init__()
            self.exponent = exponent

        def forward(self, x):
            return x**self.exponent

    for kind in (nn.LeakyReLU, Power):
        unequal = nn.Sequential(*[kind(setting) for setting in settings])
        equal = nn.Sequential(*[kind(settings[0]) for _ in settings])
        x = leaf(np.ones(3, np.float32))
        assert frames(view(unequal, x).sketch) == {}
        assert list(frames(view(equal, x).sketch)) == ["×3"]


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (lambda outputs: outputs[-1], [["0, 1 … 5: Linear"]]),
        (lambda outputs: [outputs[-1], outputs[2]], [["0, 1: Linear"], ["3, 4, 5: Linear"]]),
        (lambda outputs: outputs[-1] + outputs[2], [["0, 1, 2: Linear"], ["3, 4, 5: Linear"]]),
    ],
)
def test_a_block_ends_where_its_output_is_drawn_or_used_elsewhere(result, wanted):
    tg.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])
    outputs = []
    for module in net:
        module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with tg.tracing():
        net(tg.randn(2, 4))
        sketch = draw(result(outputs), "collapsed").sketch
    names = dict(zip([box.id for box in sketch.boxes], titles(sketch)))
    assert [[names[box] for box in frame.boxes] for frame in sketch.frames] == wanted


def test_what_several_blocks_use_comes_from_the_side_and_must_be_the_same():
    tg.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])

    def folded(*scales):
        with tg.tracing():
            x = tg.randn(2, 4)
            for module, scale in zip(net, scales):
                x = module(x) * scale
            return draw(x, "collapsed").sketch

    a, b = (tg.named(name, leaf(np.ones(4, np.float32))) for name in "ab")
    assert sorted(titles(folded(a, a, a, a))) == ["0, 1 … 3: Linear", "a", "c", "×"]
    assert sorted(titles(folded(a, b, a, b))) == ["0, 2: Linear", "1, 3: Linear", *"abc××"]
    assert sorted(titles(folded(a, a, b, b))) == ["0, 1: Linear", "2, 3: Linear", *"abc××"]


# --- Modules in modules ---------------------------------------------------------------------------


class Block(nn.Module):
    """relu(x + f(x)), where f has three modules and an op."""

    def __init__(self, size):
        super().__init__()
        self.first, self.norm = nn.Linear(size, size), nn.BatchNorm1d(size)
        self.second = nn.Linear(size, size)

    def forward(self, x):
        return tg.relu(x + self.second(tg.relu(self.norm(self.first(x)))))


class Residual(nn.Module):
    def __init__(self, count, size=8):
        super().__init__()
        self.stem, self.head = nn.Linear(3, size), nn.Linear(size, 2)
        self.blocks = nn.Sequential(*[Block(size) for _ in range(count)])

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def test_modules_are_opened_as_long_as_the_picture_can_be_read():
    tg.manual_seed(0)
    x = tg.randn(5, 3)
    assert titles(view(Residual(1), x).sketch) == [
        *["x", "stem: Linear", "blocks.0.first: Linear", "blocks.0.norm: BatchNorm1d", "relu"],
        *["blocks.0.second: Linear", "+, relu", "head: Linear", "pow", "ℓ"],
    ]
    sketch = view(Residual(6), x).sketch
    repeated = "blocks.0, blocks.1 … blocks.5: Block"
    assert titles(sketch) == ["x", "stem: Linear", repeated, "head: Linear", "pow", "ℓ"]
    assert frames(sketch) == {"×6": [repeated]}
    assert counted(sketch, "parameter") == sum(p.size for p in Residual(6).parameters())


def test_one_module_alone_is_one_box():
    assert titles(view(nn.Linear(3, 2), tg.randn(4, 3)).sketch) == ["x", "Linear", "pow", "ℓ"]


class Cell(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.input, self.state = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x, h):
        return (self.input(x) + self.state(h)).tanh()


class Recurrent(nn.Module):
    """A cell that is called for every step; between the calls the state is damped."""

    def __init__(self, size):
        super().__init__()
        self.cell, self.head = Cell(size), nn.Linear(size, 2)

    def forward(self, x):
        h = tg.zeros(x.shape[1:])
        for step in x:
            h = self.cell(step, h) * 0.9
        return self.head(h)


def test_a_module_that_a_path_leaves_and_enters_again_has_a_box_a_call():
    sketch = chain(["A", "A", "", "A", "B", "A", "B"], label="op {}".format).sketch
    assert titles(sketch) == ["x", "A #1", "op 3", "A #2", "B #1", "A #3", "B #2"]


def test_the_calls_of_a_cell_are_equal_and_fold():
    """What does not depend on the state, such as W x, belongs to the call that needs it."""
    tg.manual_seed(0)
    x = leaf(np.random.default_rng(0).standard_normal((10, 3, 4)).astype(np.float32))
    sketch = view(Recurrent(4), x).sketch
    assert frames(sketch) == {"×9": ["[ ], ×", "cell: Cell #2, #3 … #10"]}
    cells = [box for box in sketch.boxes if characters(box.symbol).startswith("cell")]
    assert [characters(box.detail) for box in cells] == ["4 ops, (3, 4)"] * 2
    names = dict(zip([box.id for box in sketch.boxes], titles(sketch)))
    shared = [w for w in sketch.wires if names[w.start].startswith(("weight", "bias"))]
    assert [w.end for w in shared].count(cells[0].id) == 4  # of the two Linears in the cell
    assert [w.end for w in shared].count(cells[1].id) == 4


# --- What a network is fed, and what it has learned -----------------------------------------------


class Matmul(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(tg.ones(2, 3))

    def forward(self, x):
        return x @ self.weight.T


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (nn.Linear(3, 2), 8),
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), 8),
        (nn.BatchNorm1d(3, impl="fused"), 6),
        (nn.BatchNorm1d(3, impl="fused").eval(), 6),
        (Matmul(), 6),
    ],
)
def test_the_input_has_a_box_and_parameters_are_part_of_modules(net, parameters, requires_grad):
    x = tg.tensor(np.ones((4, 3), np.float32), requires_grad=requires_grad)
    sketch = view(net, x).sketch
    assert [box.kind for box in sketch.boxes if box.kind in ("leaf", "constant")] == [
        "leaf" if requires_grad else "constant"
    ]
    assert titles(sketch)[0] == "x"
    assert counted(sketch, "parameter") == parameters


@pytest.mark.parametrize("first", [nn.Flatten(), nn.ReLU()])
@pytest.mark.parametrize(
    "more", [lambda y: y, nn.Linear(3, 2), lambda y: tg.named("w", leaf(np.float32(2))) * y]
)
def test_an_input_that_meets_no_parameter_at_once_has_a_box_too(first, more):
    sketch = view(lambda x: more(first(x)), leaf(np.ones((4, 3), np.float32))).sketch
    assert "x" in titles(sketch)
    assert counted(sketch, "parameter") == (8 if isinstance(more, nn.Linear) else 0)


# --- Any graph ------------------------------------------------------------------------------------

SCOPES = ["", "A", "B", "A.0:C", "A.1:C", "A.1:C.x:D", "B.0:C"]


@given(st.lists(st.tuples(st.sampled_from(SCOPES), st.lists(st.integers(0, 40), max_size=3))))
def test_boxes_are_all_ops_once_and_their_wires_run_in_no_circle(program):
    """Whatever modules the ops ran in, in whatever order."""
    kinds = ["leaf", *["op"] * (len(program) + 1)]
    nodes, edges = [node(0, kinds[0])], []
    for number, (scope, starts) in enumerate([*program, ("", [])], 1):
        nodes.append(node(number, "op", "+", scope))
        starts = [start % number for start in starts or [number - 1]]
        edges += [Edge(start, number, k, 0) for k, start in enumerate(starts)]
    drawn = tuple((number, 0) for number in range(len(nodes)))
    sketch = collapsed(Reading(Graph(tuple(nodes), tuple(edges), (), drawn), "ioffe"))
    assert counted(sketch, "op") == len(nodes) - 1
    remaining = {(wire.start, wire.end) for wire in sketch.wires}
    assert {box for pair in remaining for box in pair} <= {box.id for box in sketch.boxes}
    while remaining:
        ends = {end for _, end in remaining}
        first = {pair for pair in remaining if pair[0] not in ends}
        assert first, "a circle"
        remaining -= first


# The numbers of the worked example; inside the fused op the second have no place.
NUMBERS = {
    "x": ["▸ 0.5, 3.5, 4.5, 7.5", "◂ 0.936, −1.752, 0.152, 0.664"],
    "γ": ["▸ 2", "◂ 1.2"],
    "β": ["▸ 1", "◂ 1"],
    "w": ["▸ 1, −2, 0.5, 1.5"],
    "ℓ": ["▸ 3.4", "◂ 1"],
}
INSIDE = {
    "μB": ["▸ 4", "◂ −0.8"],
    "σ²B": ["▸ 6.25", "◂ −0.192"],
    "x̂": ["▸ −1.4, −0.2, 0.2, 1.4", "◂ 2, −4, 1, 3"],
    "y": ["▸ −1.8, 0.6, 1.4, 3.8", "◂ 1, −2, 0.5, 1.5"],
}


@needs_graphviz
@pytest.mark.parametrize(
    ("implementation", "numbers"), [("composed", NUMBERS | INSIDE), ("fused", NUMBERS)]
)
def test_the_worked_example_stands_in_the_saved_picture(tmp_path, implementation, numbers):
    saved = draw(worked_example(implementation), "collapsed").save(tmp_path / "bn.svg")
    said = {heading: [text for text in rest if text[0] in "▸◂"] for heading, *rest in texts(saved)}
    assert said.items() >= numbers.items()


def test_graphs_without_modules_have_their_ops_as_boxes():
    assert len(draw(worked_example("composed"), "collapsed").sketch.boxes) == 16
    x = Scalar(2.0)
    assert titles(draw(x * x + 1.0, "collapsed").sketch)[:2] == ["x", "×"]


def test_without_tracing_modules_are_not_known_and_it_says_so(mlp):
    sketch = draw((mlp(tg.randn(8, 2)) ** 2).mean(), "collapsed").sketch
    assert any("record inside tracing()" in note for note in sketch.notes)
    assert not [box for box in sketch.boxes if box.kind == "module"]
