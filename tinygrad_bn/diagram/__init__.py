"""Pictures of a recorded graph, with the value and the gradient at every node.

>>> import tinygrad_bn as tg
>>> from tinygrad_bn.diagram import draw
>>> with tg.tracing():
...     x = tg.named("x", tg.tensor([1.0, 3.0], requires_grad=True))
...     y = tg.named("y", x.sum() * 2.0)
>>> print(draw(y).graph.nodes[1].outputs[0].value)
4.0
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_whole
from ..graph import Tensor
from ..scalar import Scalar
from .drawing.arguments import file_path, one_of
from .drawing.dot import dot_text
from .drawing.paint import paint
from .drawing.shapes import Picture
from .drawing.sketch import Sketch
from .drawing.style import PALETTES, THEMES, picture_css
from .drawing.svg import svg_text
from .explain import explain
from .pages.comparison import comparison
from .pages.stepper import stepper
from .reading import Reading
from .recorded.listing import listing
from .recorded.paths import paths
from .recorded.record import MOST_OPS, UNTRACED, Graph, ops_of, record
from .recorded.symbols import NOTATIONS
from .views.butterfly import butterfly
from .views.collapsed import collapsed
from .views.fused import fused
from .views.ops import ops
from .views.scalars import scalars
from .views.symbols import symbols

__all__ = [
    "NOTATIONS",
    "THEMES",
    "VIEWS",
    "Diagram",
    "comparison",
    "draw",
    "explain",
    "paths",
    "stepper",
]

_MOST_BOXES = 2000  # of a picture; the layout of more takes minutes, and nobody can read it
_READABLE = 80  # nodes; what is larger is collapsed unless another view is asked for


class Diagram:
    """A picture of a graph: what is on it, as plain data, and its ways onto paper.

    `graph`: the nodes and edges that were recorded. `sketch`: the boxes and wires that are drawn.
    `theme`: "light", "dark" or "auto", with which an SVG is as the reader's system has it, and the
    rest light. `str()` of it is a plain listing; in a notebook it shows itself.
    """

    def __init__(self, sketch: Sketch, graph: Graph, theme: str) -> None:
        self.sketch, self.graph, self.theme = sketch, graph, one_of("theme", theme, THEMES)

    def dot(self) -> str:
        """The picture in the DOT language, for Graphviz."""
        return dot_text(self.sketch, PALETTES[self.theme])

    def to_graphviz(self) -> Any:
        """The picture as a `graphviz.Source`; RuntimeError without the graphviz package."""
        try:
            import graphviz
        except ImportError:
            raise RuntimeError(
                'to_graphviz needs the graphviz package: pip install "tinygrad_bn[viz]"'
            ) from None
        return graphviz.Source(self.dot())

    def svg(self) -> str:
        """The picture as SVG; errors as of `save`."""
        return svg_text(self._painted(), picture_css(self.theme))

    def save(self, path: str | PathLike) -> Path:
        """Write the picture as its file's ending says: .svg, .html, .dot, .png or .pdf.

        All but .dot need pygraphviz or the `dot` program, .png and .pdf matplotlib as well, else
        RuntimeError. They are for pictures of up to 2,000 boxes, .png of up to 50 million pixels,
        else ValueError, as for other endings. A path that cannot be written is an OSError; whatever
        fails leaves no file.
        """
        path = file_path(path, _WRITERS)
        content = _WRITERS[path.suffix.lower()](self)
        write_whole(path, content.encode() if isinstance(content, str) else content)
        return path

    def _painted(self) -> Picture:
        count = len(self.sketch.boxes)
        if count > _MOST_BOXES:
            way = "draw a part of it"
            if UNTRACED in self.graph.notes:  # and so nothing is known of its modules
                way = 'record it inside tracing() and draw it with view="collapsed"'
            raise ValueError(
                f"a picture shows up to {_MOST_BOXES:,} boxes and this one has {count:,}; {way}, "
                "or save it as .dot"
            )
        return paint(self.sketch)

    def _page(self) -> str:
        from .pages.page import picture_page

        return picture_page(self)

    def _raster(self, file_format: str) -> bytes:
        try:
            from .drawing.raster import raster
        except ImportError:
            raise RuntimeError(
                f'a .{file_format} needs matplotlib: pip install "tinygrad_bn[viz]" '
                "(.svg goes without)"
            ) from None
        return raster(self._painted(), PALETTES[self.theme], file_format)

    def __str__(self) -> str:
        return listing(self.graph)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        try:
            svg = self.svg()
        except (RuntimeError, ValueError) as error:
            return {"text/plain": f"{self}\n({error})"}
        return {"image/svg+xml": svg, "text/plain": str(self)}


_WRITERS = {
    ".svg": Diagram.svg,
    ".html": Diagram._page,
    ".dot": Diagram.dot,
    ".png": lambda diagram: diagram._raster("png"),
    ".pdf": lambda diagram: diagram._raster("pdf"),
}


VIEWS: dict[str, Callable[[Reading], Sketch]] = {
    "symbols": symbols,
    "ops": ops,
    "butterfly": butterfly,
    "fused": fused,
    "scalars": scalars,
    "collapsed": collapsed,
}


def draw(
    output: Tensor | Scalar | Sequence[Tensor],
    view: str | None = None,
    notation: str = "ioffe",
    theme: str = "auto",
) -> Diagram:
    """A picture of the graph that leads to `output`: a Tensor, several of them, or a Scalar.

    Record inside `tracing()`, else the picture of Tensors shows the structure only and says so.
    Several Tensors, such as the answer of `grad(…, create_graph=True)`, are drawn as one graph.
    If `output` is one number, every node shows its gradient. It is computed here, in a backward
    pass that runs hooks and changes no `.grad`. A Tensor that was not recorded is a ValueError.

    `view`: "ops" shows every op; "symbols" what was named, with the local derivative on every arrow
    and what each path adds; "butterfly" the recorded backward pass beside the forward one; "fused"
    fused norms beside composed ones; "scalars" the single numbers, in a lane for each sample;
    "collapsed" a network by its modules. None: "ops", or "collapsed" above 80 nodes. A graph of
    more than 10,000 ops is a ValueError in all views but "collapsed", which must then have been
    recorded inside `tracing()`.
    `notation`: how the symbols of batch norm are written, "ioffe", "fleuret" or "hat".
    `theme`: "auto" (as the reader's system), "light" or "dark".

    >>> from tinygrad_bn import Scalar
    >>> a, b = Scalar(2.0), Scalar(-3.0)
    >>> print(draw(a * b + a))
    0  leaf  ()  ▸ 2  ◂ −2
    1  leaf  ()  ▸ −3  ◂ 2
    2  ×(0, 1)  ()  ▸ −6  ◂ 1
    3  +(2, 0)  ()  ▸ −4  ◂ 1
    """
    if view is not None:
        one_of("view", view, VIEWS)
    collapses = view in (None, "collapsed") and _is_traced(output)
    most = math.inf if collapses else MOST_OPS
    with np.errstate(all="ignore"):  # inf and NaN are shown, they are no reason to warn
        graph = record(output, "output", most, create_graph=view == "butterfly")
        reading = Reading(graph, notation)
        view = view or ("ops" if len(reading.graph.nodes) <= _READABLE else "collapsed")
        return Diagram(VIEWS[view](reading), reading.graph, theme)


def _is_traced(output: Tensor | Scalar | Sequence[Tensor]) -> bool:
    """Whether it is known in which module each op ran; Scalars have none."""
    ops = () if isinstance(output, Scalar) else ops_of(output)
    return all(node.trace is not None for node in ops)
