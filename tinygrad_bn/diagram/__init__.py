"""Pictures of a recorded graph, with the value and the gradient at every node.

>>> import tinygrad_bn as tg
>>> from tinygrad_bn.diagram import draw
>>> with tg.tracing():
...     x = tg.named("x", tg.tensor([1.0, 3.0], requires_grad=True))
...     y = tg.named("y", x.sum() * 2.0)
>>> print(draw(y).graph.nodes[1].outputs[0].value)
4.0
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ..graph import Tensor, describe
from ..scalar import Scalar
from .dot import dot_text
from .layout import render, write_whole
from .record import Graph, scalar_graph, tensor_graph
from .text import listing

__all__ = ["Diagram", "draw"]

_PICTURES = ("svg", "png", "pdf")
_LARGEST = 2000  # nodes; the layout of more takes minutes, and nobody can read it


class Diagram:
    """A graph as plain data (`graph.nodes`, `graph.edges`), and its ways onto paper.

    `str()` of it is a plain listing; in a notebook it shows itself.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def dot(self) -> str:
        """The graph in the DOT language, for Graphviz."""
        return dot_text(self.graph)

    def save(self, path: str | PathLike) -> Path:
        """Write the picture as its file's ending says: .dot, .svg, .png or .pdf.

        All but .dot need pygraphviz or the `dot` program, else RuntimeError, and are for graphs of
        up to 2,000 nodes, else ValueError, as for other endings. A path that cannot be written is
        an OSError; whatever fails leaves no file.
        """
        path = Path(path)
        ending = path.suffix.lower().removeprefix(".")
        if ending == "dot":
            write_whole(path, self.dot().encode())
        elif ending in _PICTURES:
            write_whole(path, self._picture(ending))
        else:
            known = ", ".join(f".{known}" for known in ("dot", *_PICTURES))
            raise ValueError(f"save: got {path.name!r:.60}, wants a name that ends in {known}")
        return path

    def _picture(self, file_format: str) -> bytes:
        if len(self.graph.nodes) > _LARGEST:
            raise ValueError(
                f"a picture shows up to {_LARGEST:,} nodes and this graph has "
                f"{len(self.graph.nodes):,}; draw a part of it, or save it as .dot"
            )
        return render(self.dot(), file_format)

    def __str__(self) -> str:
        return listing(self.graph)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        try:
            svg = self._picture("svg").decode()
        except (RuntimeError, ValueError) as error:
            return {"text/plain": f"{self}\n({error})"}
        return {"image/svg+xml": svg, "text/plain": str(self)}


def draw(output: Tensor | Scalar | Sequence[Tensor], gradients: bool = True) -> Diagram:
    """A picture of the graph that leads to `output`: a Tensor, several of them, or a Scalar.

    Record inside `tracing()`, else the picture of Tensors shows the structure only and says so.
    Several Tensors, such as the answer of `grad(…, create_graph=True)`, are drawn as one graph.
    `gradients`: show, at every node, the gradient of `output`, if that is one number. It is
    computed here, in a backward pass that changes no `.grad`; a graph that `backward()` has freed
    is a RuntimeError, and a Tensor that was not recorded a ValueError.

    >>> from tinygrad_bn import Scalar
    >>> a, b = Scalar(2.0), Scalar(-3.0)
    >>> print(draw(a * b + a))
    0  leaf  ()  ▸ 2  ◂ −2
    1  leaf  ()  ▸ −3  ◂ 2
    2  ×(0, 1)  ()  ▸ −6  ◂ 1
    3  +(2, 0)  ()  ▸ −4  ◂ 1
    """
    if isinstance(output, Scalar):
        return Diagram(scalar_graph(output, gradients))
    outputs = list(output) if isinstance(output, (list, tuple)) else [output]
    for tensor in outputs:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"draw: got {type(tensor).__name__}, wants a Tensor, a sequence of Tensors or a "
                "Scalar"
            )
    if all(tensor.node is None for tensor in outputs):
        got = ", ".join(describe(tensor.data) for tensor in outputs) or "no Tensor"
        raise ValueError(
            f"draw: got {got} without a graph, wants what ops made of Tensors with "
            "requires_grad=True, outside no_grad()"
        )
    return Diagram(tensor_graph(outputs, gradients))
