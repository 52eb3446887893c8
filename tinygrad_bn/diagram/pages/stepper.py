"""The stepper: a page on which a recorded graph computes, forward and then backward, op by op.

All that the page can show is rendered here: the finished graph with every running sum, and for each
step its formulas and numbers. The page's script only says what is visible and what is lit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...graph import Tensor
from ...scalar import Scalar
from ..drawing.paint import paint
from ..drawing.sketch import Sketch, Text, characters, joined, plain, separated
from ..drawing.style import page_css
from ..drawing.svg import svg_text
from ..formulas.formula import Formula, Gradient, Symbol, number, symbols
from ..formulas.typeset import as_mathml, as_text, indexed, marks
from ..reading import Reading, is_plain_number
from ..recorded.record import Node, Output
from ..recorded.symbols import Place
from ..steps import Share, Step, backward_steps, read_backward, told
from ..views.ops import ops
from .code import python_code
from .page import Page, legend, notes_html, page, static, table_html, text_html

_MOST_OPS = 40  # of which each is two steps: nobody goes through more than 80
_FACTS = 8  # numbers that stand beside the heading
_LONGEST_LINE = 120  # characters of a line of code


@dataclass(frozen=True)
class _Number:
    """What a number is, and the number. While the pointer rests on one of the boxes `about`, it is
    shown, too."""

    what: Text
    number: str
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """A formula as MathML, and numbers as a table below it."""

    formula: str
    numbers: tuple[_Number, ...]


@dataclass(frozen=True)
class _Scene:
    """What the page shows after a step through `node`, which is None at the start.

    `half` is "start", "forward" or "backward". Lit are the edges `wires`, by their numbers; at the
    places in `writes` the gradient becomes that of its running sums which is given beside.
    """

    half: str
    heading: str
    sentence: Text
    parts: tuple[_Part, ...]
    node: Node | None = None
    wires: tuple[int, ...] = ()
    writes: tuple[tuple[Place, int], ...] = ()


def stepper(loss: Tensor | Scalar, notation: str = "ioffe", title: str | None = None) -> Page:
    """A page that steps through the graph of `loss`, a single number, of up to 40 ops.

    Record inside `tracing()` (Scalars need not be). A larger graph is a ValueError, and so is one
    without values or gradients; the layout has errors as in `Diagram.save`. The gradients are
    computed here, in a backward pass that runs hooks and changes no `.grad`.
    """
    if not isinstance(title, str | None):
        raise TypeError(f"title: got {type(title).__name__}, wants text")
    reading = read_backward(loss, notation, _MOST_OPS)
    steps = backward_steps(reading)
    if not steps:
        raise ValueError("loss: got a leaf, wants the result of an op")
    scenes = _scenes(reading, steps)
    code = _code(reading)
    lines = "".join(f"<li>{line}</li>" for line in code.values())
    articles = [_article(reading, scene, list(code)) for scene in scenes]
    picture = paint(_sketch(reading, steps))
    body = (
        f'<div class="program">\n<ol class="code">{lines}</ol>\n{_all_steps(scenes)}</div>\n'
        f'<div class="graph" style="--width:{picture.width}px">{svg_text(picture)}{_MARKER}</div>\n'
        '<div class="sheet">\n<div class="formula" role="region" tabindex="0" '
        f'aria-label="the current step">\n<code id="line"></code>\n{"".join(articles)}</div>\n'
        f"{static('controls.html')}</div>\n"
    )
    return Page(
        page(
            title or "One op at a time, forward and backward",
            body,
            lead=_lead(reading),
            styles=page_css() + static("stepper.css"),
            script=static("stepper.js"),
        )
    )


def _shown(reading: Reading) -> list[Node]:
    """The nodes that are boxes of the view `ops`, in its order."""
    return [node for node in reading.graph.nodes if not is_plain_number(node)]


# --- The graph ------------------------------------------------------------------------------------

# The head of an arrow that points backwards, for a wire on which a gradient travels.
_MARKER = (
    '<svg class="marker" aria-hidden="true"><marker id="upward" viewBox="0 0 8 8" refX="1" '
    'refY="4" markerWidth="4" markerHeight="4" orient="auto"><path d="M0 4 8 0v8z"/></marker></svg>'
)


def _sketch(reading: Reading, steps: list[Step]) -> Sketch:
    """The view `ops`, in which the row of a gradient has all its running sums. Without labels at
    the wires: the sums tell the same."""
    sums = defaultdict(list)
    for step in steps:
        for share in step.shares:
            sums[share.place].append(share.total)
    drawn = ops(reading)
    boxes = []
    for box, node in zip(drawn.boxes, _shown(reading)):
        columns = []
        for column, place in zip(box.columns, node.places):
            rows = [
                replace(row, values=tuple(sums[place]) or row.values)
                if row.role == "backward"
                else row
                for row in column.rows
            ]
            columns.append(replace(column, rows=tuple(rows)))
        boxes.append(replace(box, columns=tuple(columns)))
    wires = tuple(replace(wire, label=()) for wire in drawn.wires)
    return replace(drawn, boxes=tuple(boxes), wires=wires, notes=())


# --- The scenes -----------------------------------------------------------------------------------


def _scenes(reading: Reading, steps: list[Step]) -> list[_Scene]:
    computed = [node for node in reading.graph.nodes if node.kind == "op"]
    handed: Counter = Counter()  # how many shares of its gradient each place has by now
    scenes = [_start(reading)]
    scenes += [_forward(reading, node, k, len(computed)) for k, node in enumerate(computed, 1)]
    scenes.append(_turn(reading))
    scenes += [_backward(reading, step, k, len(steps), handed) for k, step in enumerate(steps, 1)]
    return scenes


def _start(reading: Reading) -> _Scene:
    given = [p for node in _shown(reading) if node.kind != "op" for p in node.places]
    sentence = joined("given: ", separated(", ", [reading.symbol(place) for place in given]))
    return _Scene("start", "Start", sentence, (_Part("", _results(reading, given)),))


def _forward(reading: Reading, node: Node, k: int, count: int) -> _Scene:
    edges = reading.edges[node.id]
    read = dict.fromkeys((edge.start, edge.output) for edge in edges)
    named = [place for place in read if not is_plain_number(reading.graph.nodes[place[0]])]
    results = _results(reading, node.places)
    said = [joined(result.what, f" = {result.number}") for result in results]
    part = _Part(_definition(reading, node), (*_values(reading, named), *results))
    wires = tuple(i for i, edge in enumerate(reading.graph.edges) if edge.end == node.id)
    heading = f"Forward {k} of {count}"
    return _Scene("forward", heading, separated("; ", said), (part,), node, wires)


def _turn(reading: Reading) -> _Scene:
    drawn = reading.graph.drawn[0]
    sentence = joined(reading.slope(drawn), " = 1; from here gradients go back")
    part = _Part(_equation([reading.gradient(drawn)], "=", number(1.0)), ())
    node = reading.graph.nodes[drawn[0]]
    return _Scene("backward", "Turn", sentence, (part,), node, (), ((drawn, 0),))


def _backward(reading: Reading, step: Step, k: int, count: int, handed: Counter) -> _Scene:
    """Brings `handed` up to date."""
    arrived = [
        _Number(joined(reading.slope(p), " arrives"), told(reading.output(p).gradient))
        for p in step.arrived
    ]
    parts, said, writes = [_Part("", tuple(arrived))], [], []
    for share in step.shares:
        parts.append(_share(reading, step, share))
        what = joined(reading.slope(share.place), " = " if share.first else " += ")
        total = "" if share.first else f", so far {told(share.total)}"
        said.append(joined(what, told(share.amount), total))
        writes.append((share.place, handed[share.place]))
        handed[share.place] += 1
    wires = tuple(
        i
        for i, edge in enumerate(reading.graph.edges)
        if edge.end == step.node.id and edge.contribution is not None
    )
    sentence = separated("; ", said)
    heading = f"Backward {k} of {count}"
    return _Scene("backward", heading, sentence, tuple(parts), step.node, wires, tuple(writes))


def _share(reading: Reading, step: Step, share: Share) -> _Part:
    """What one place is handed, by which formula, and what it has by then."""
    numbers = [*_local(reading, step, share)]
    receives = joined(reading.symbol(share.place), " receives")
    numbers.append(_Number(receives, told(share.amount)))
    if not share.first:
        so_far = joined(reading.slope(share.place), " so far")
        numbers.append(_Number(so_far, told(share.total)))
    formula = ""
    if share.derivative is not None:
        slope, sign = reading.gradient(share.place), "=" if share.first else "+="
        formula = _equation([slope], sign, share.derivative.gradient)
    return _Part(formula, tuple(numbers))


def _local(reading: Reading, step: Step, share: Share) -> Iterator[_Number]:
    """The local derivative along the way of a share, if it is a factor: the formula, its number.
    It is told of the node, and of a leaf, too."""
    derivative, start = share.derivative, share.place
    if derivative is None or derivative.factor is None or derivative.numbers is None:
        return
    (end,) = step.arrived
    numbers = np.ravel(derivative.numbers)
    if numbers.size < max(np.size(reading.output(place).gradient) for place in (start, end)):
        return  # the rule has summed them already: they are those of the factor no more
    name = as_text(marks(Gradient(reading.names[end], reading.names[start])))
    if symbols(derivative.factor):
        name = joined(name, " = ", as_text(reading.marks_of(derivative.factor, end, start)))
    alike = numbers.size > 1 and np.all(numbers == numbers[0])
    shown = told(numbers[0] if alike else derivative.numbers)
    is_of_leaf = reading.graph.nodes[start[0]].kind == "leaf"
    yield _Number(name, shown, (f"n{end[0]}", *([f"n{start[0]}"] if is_of_leaf else [])))


# --- Formulas and numbers -------------------------------------------------------------------------


def _definition(reading: Reading, node: Node) -> str:
    """What a node computes: y = γ x̂ᵢ + β."""
    places = node.places
    results = [reading.of_ops.symbol(place) for place in places]
    return _equation(results, "=", reading.of_ops.definitions[places[0]])


def _equation(left: list[Symbol | Gradient], sign: str, right: Formula) -> str:
    """An equation on a line of its own, as MathML."""
    index = indexed([*left, right])
    names = [mark for one in left for mark in (("text", ","), marks(one, index))][1:]
    mark = ("row", *names, ("text", sign), marks(right, index))
    length = len(characters(as_text(mark)))
    return f'<math display="block" style="--length:{length}">{as_mathml(mark)}</math>'


def _values(reading: Reading, places: Iterable[Place]) -> tuple[_Number, ...]:
    return tuple(_Number(reading.symbol(p), _told_value(reading.output(p))) for p in places)


def _results(reading: Reading, places: Iterable[Place]) -> tuple[_Number, ...]:
    """The values of places where they are first told of."""
    return tuple(
        replace(number, about=(f"n{place[0]}",))
        for number, place in zip(_values(reading, places), places)
    )


def _told_value(output: Output) -> str:
    """Values that were changed in place since are left out of a graph."""
    return "not kept" if output.value is None else told(output.value)


# --- As HTML --------------------------------------------------------------------------------------


def _lead(reading: Reading) -> str:
    """The single numbers that are given, what the colours mean, and what is missing."""
    m = reading.of_ops.m
    facts = [plain(f"m = {m}")] if m else []
    for node in reading.graph.nodes:
        for output in node.outputs:
            if node.kind != "op" and output.name and np.size(output.value) == 1:
                value = _told_value(output)
                facts.append(joined(reading.symbol((node.id, output.index)), f" = {value}"))
    given = text_html(separated(", ", facts[:_FACTS]))
    return (
        f"{f'<p>{given}</p>' if given else ''}\n"
        f"{legend(f'gradient ∂{reading.loss}/∂·')}\n"
        f"{notes_html(reading.remarks)}"
    )


def _code(reading: Reading) -> dict[int, str]:
    """The line of each op, by the number of its node."""
    computed = (node.id for node in reading.graph.nodes if node.kind == "op")
    lines = (
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
        for line in python_code(reading)
    )
    return {number: f"<code>{text_html(line)}</code>" for number, line in zip(computed, lines)}


def _article(reading: Reading, scene: _Scene, lines: list[int]) -> str:
    """A scene; what it lights stands in its attributes, for the script. `lines`: of which node each
    line of the code is."""
    facts = {"half": scene.half}
    if scene.node is not None:
        facts["box"] = f"n{scene.node.id}"
        facts["line"] = str(lines.index(scene.node.id))
        facts["wires"] = " ".join(f"e{number}" for number in scene.wires)
    # A box has a column for each output of its node.
    facts["writes"] = " ".join(
        f"n{place[0]}.{reading.graph.nodes[place[0]].places.index(place)}.{state}"
        for place, state in scene.writes
    )
    attributes = "".join(f' data-{key}="{value}"' for key, value in facts.items() if value)
    hidden = "" if scene.half == "start" else " hidden"
    return (
        f'<article class="scene"{attributes}{hidden}><h2>{scene.heading}</h2>'
        f"{''.join(map(_part, scene.parts))}</article>\n"
    )


def _part(part: _Part) -> str:
    rows = "".join(map(_row, part.numbers))
    return f'<div class="part">{part.formula}<table>{rows}</table></div>'


def _row(number: _Number) -> str:
    about = f' data-about="{" ".join(number.about)}"' if number.about else ""
    return f"<tr{about}><th>{text_html(number.what)}</th><td>{number.number}</td></tr>"


def _all_steps(scenes: list[_Scene]) -> str:
    rows = [["step", "what it does"]]
    rows += [
        [f'<a href="#step={k}">{scene.heading}</a>', text_html(scene.sentence)]
        for k, scene in enumerate(scenes)
    ]
    return (
        '<details class="steps" open><summary>All steps as a table</summary>'
        f"{table_html(rows)}</details>\n"
    )
