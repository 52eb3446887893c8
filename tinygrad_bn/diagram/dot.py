"""A graph in the DOT language of Graphviz: one table a node, drawn from top to bottom.

Values come ▸ forward in blue, gradients come ◂ backward in orange red.
"""

from html import escape
from textwrap import wrap

from .record import Graph, Node, Output
from .text import clean, summary

_FORWARD, _FORWARD_ROW = "#005A9C", "#DCEBF7"
_BACKWARD, _BACKWARD_ROW = "#B03A00", "#FCE5D8"
_INK, _MUTED, _BACKGROUND = "#1B1F24", "#57606A", "#FFFFFF"
_LINE = 48  # characters of a row of numbers; what is longer goes on below

_FRAMES = {  # what tells the kinds of nodes apart
    "leaf": f'BORDER="2" COLOR="{_INK}"',
    "op": f'BORDER="1" COLOR="{_MUTED}"',
    "constant": f'BORDER="1" COLOR="{_MUTED}" STYLE="DASHED"',
}


def dot_text(graph: Graph) -> str:
    """The graph as DOT text; the same graph gives the same text."""
    font = f'fontname="Helvetica,Arial,sans-serif" fontcolor="{_INK}"'
    lines = [
        "digraph {",
        "  graph [rankdir=TB ranksep=0.3 nodesep=0.3]",
        "  graph [ordering=in]",  # arguments from left to right: a − b is not b − a
        f'  graph [fontsize=12 bgcolor="{_BACKGROUND}" {font}]',
        f"  node [shape=plain fontsize=12 {font}]",
        f'  edge [color="{_FORWARD}" arrowsize=0.6]',
    ]
    lines += [f"  n{node.id} [label=<{_table(node)}>]" for node in graph.nodes]
    for edge in graph.edges:
        several = len(graph.nodes[edge.start].outputs) > 1
        lines.append(f"  n{edge.start}{f':o{edge.output}:s' if several else ''} -> n{edge.end}")
    if graph.notes:
        lines.append(f'  label="{"; ".join(graph.notes)}" labelloc=b fontcolor="{_MUTED}"')
    return "\n".join([*lines, "}", ""])


def _table(node: Node) -> str:
    """The label of a node; of several outputs, each has a column and a port for its edges."""
    what = node.label if node.kind == "op" else node.kind
    if len(node.outputs) == 1:
        rows = _rows(node, node.outputs[0], what)
    else:
        columns = [
            f'<TD PORT="o{output.index}"><TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0">'
            f"{_rows(node, output, f'output {output.index}')}</TABLE></TD>"
            for output in node.outputs
        ]
        rows = (
            f'<TR><TD COLSPAN="{len(columns)}">{_bold(what)}</TD></TR><TR>{"".join(columns)}</TR>'
        )
    if node.scope:
        rows += f'<TR><TD COLSPAN="{len(node.outputs)}">{_muted(node.scope)}</TD></TR>'
    return (
        f'<TABLE {_FRAMES[node.kind]} CELLBORDER="0" CELLSPACING="0" CELLPADDING="4" '
        f'BGCOLOR="{_BACKGROUND}">{rows}</TABLE>'
    )


def _rows(node: Node, output: Output, what: str) -> str:
    """The heading of an output, its value and its gradient."""
    name = clean(output.name or "")
    facts = [] if not name or len(node.outputs) > 1 else [what]
    facts += [str(output.shape)] if output.shape else []  # () would tell nobody anything
    rows = ""
    if name or output.shape or node.kind != "constant" or output.value is None:
        heading = f"{_bold(name or what)} {_muted(' '.join(facts))}"
        rows = f'<TR><TD ALIGN="LEFT">{heading}</TD></TR>'
    if output.value is not None:
        rows += _row(f"▸ {summary(output.value)}", _FORWARD, _FORWARD_ROW)
    if output.gradient is not None:
        rows += _row(f"◂ {summary(output.gradient)}", _BACKWARD, _BACKWARD_ROW)
    elif any(other.gradient is not None for other in node.outputs):
        rows += _row("◂ none", _BACKWARD, _BACKWARD_ROW)
    return rows


def _row(text: str, color: str, row_color: str) -> str:
    lines = '<BR ALIGN="LEFT"/>'.join(map(escape, wrap(text, _LINE)))
    return (
        f'<TR><TD ALIGN="LEFT" BALIGN="LEFT" BGCOLOR="{row_color}">'
        f'<FONT COLOR="{color}">{lines}</FONT></TD></TR>'
    )


def _bold(text: str) -> str:
    return f"<B>{_escaped(text)}</B>" if clean(text) else ""  # Graphviz takes no empty element


def _muted(text: str) -> str:
    if not clean(text):
        return ""
    return f'<FONT COLOR="{_MUTED}" POINT-SIZE="10">{_escaped(text)}</FONT>'


def _escaped(text: str) -> str:
    """A name as text of a label; Graphviz would put the node's name for \\N there too."""
    return escape(clean(text)).replace("\\", "\\\\")
