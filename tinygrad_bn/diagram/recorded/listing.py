"""A graph as a plain listing."""

from collections import defaultdict

from ..drawing.text import clean, summary
from .record import Graph, Output


def listing(graph: Graph) -> str:
    """The graph as lines of text, one a node: number, op (of which nodes), name and numbers.

    A node of several outputs has a line for each; "3.1" is output number 1 of node 3.
    """
    arguments = defaultdict(list)
    for edge in graph.edges:
        several = len(graph.nodes[edge.start].outputs) > 1
        arguments[edge.end].append(f"{edge.start}.{edge.output}" if several else f"{edge.start}")
    lines = []
    for node in graph.nodes:
        what = f"{clean(node.label)}({', '.join(arguments[node.id])})"
        what = what if node.kind == "op" else node.kind
        where = [f"in {clean(node.scope)}"] if node.scope else []
        where += [f"at {clean(node.source)}"] if node.source else []
        if len(node.outputs) == 1:
            lines.append("  ".join([f"{node.id}", what, *_facts(node.outputs[0]), *where]))
        else:
            lines.append("  ".join([f"{node.id}", what, *where]))
            lines += ["  ".join([f"{node.id}.{o.index}", *_facts(o)]) for o in node.outputs]
    return "\n".join([*lines, *graph.notes])


def _facts(output: Output) -> list[str]:
    facts = [clean(output.name)] if output.name else []
    facts += [f"{output.shape}"] if output.shape is not None else []
    facts += [f"▸ {summary(output.value)}"] if output.value is not None else []
    return facts + ([f"◂ {summary(output.gradient)}"] if output.gradient is not None else [])
