"""Graphs made by hand for the view `collapsed`, and what its sketches say."""

from tinygrad_bn.diagram import Diagram
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import Edge, Graph, Node, Output
from tinygrad_bn.diagram.views.collapsed import collapsed


def titles(sketch):
    return [characters(box.symbol) for box in sketch.boxes]


def frames(sketch):
    """The titles of frames, and of the boxes in each."""
    names = dict(zip([box.id for box in sketch.boxes], titles(sketch)))
    return {characters(frame.title): [names[box] for box in frame.boxes] for frame in sketch.frames}


def node(number, kind, label="", scope=""):
    return Node(
        number, kind, label, (Output(0, None, (2,), "float64", None, None),), scope, "", None
    )


def chain(scopes, label=lambda number: "×"):
    """A leaf, and ops in a row that ran in these modules."""
    nodes = [node(0, "leaf")]
    nodes += [node(i, "op", label(i), scope) for i, scope in enumerate(scopes, 1)]
    edges = [Edge(i, i + 1, 0, 0) for i in range(len(scopes))]
    graph = Graph(tuple(nodes), tuple(edges), (), ((len(scopes), 0),))
    return Diagram(collapsed(Reading(graph, "ioffe")), graph, "auto")
