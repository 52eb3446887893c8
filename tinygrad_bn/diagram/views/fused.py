"""Composed beside fused: the same norm as primitive ops and as one op, and what sets them apart."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from ..drawing.sketch import Box, Column, Frame, Row, Sketch, Table, Text, joined, plain, separated
from ..drawing.text import clean, several
from ..formulas.formula import symbols
from ..formulas.typeset import as_text
from ..reading import Reading
from ..recorded.symbols import Place
from .ops import ops
from .twins import Cost, Norm, Twins, bound, compared, cost, difference, leading_to, saved, twins

_MOST_NAMES = 6  # names that fit in a table


def fused(reading: Reading) -> Sketch:
    """The graph up to its norms, with composed and with fused ones; errors are those of `twins`."""
    return side_by_side(twins(reading))


def side_by_side(pair: Twins) -> Sketch:
    """The graph up to its norms: with composed ones, and as it is, with fused ones, whose boxes say
    what they compute. Below is the table of `facts`."""
    ops_of = [norm.composed for norm in pair.norms]
    left = _half(pair.composed, "c", {number for numbers in ops_of for number in numbers})
    right = _half(pair.fused, "f", {norm.fused for norm in pair.norms})
    norms = {f"fn{norm.fused}": norm for norm in pair.norms}
    boxes = [_told(pair, norms[box.id], box) if box.id in norms else box for box in right.boxes]
    titles = (
        f"composed: {several(sum(map(len, ops_of)), 'op')}",
        f"fused: {several(len(norms), 'op')}, analytic gradient",
    )
    around = [
        Frame(plain(title), tuple(box.id for box in half.boxes))
        for title, half in zip(titles, (left, right))
    ]
    # A fused box stands beside the middle of the ops that it is made of.
    level = ((f"cn{n.composed[len(n.composed) // 2]}", f"fn{n.fused}") for n in pair.norms)
    return Sketch(
        "Composed and fused",
        "The same norm as primitive ops and as one op, with values ▸ and gradients ◂, and a table "
        "of what sets them apart.",
        (*left.boxes, *boxes, Table("facts", tuple(facts(pair)))),
        (*left.wires, *right.wires),
        (*around, *left.frames, *right.frames),
        right.notes,
        level=tuple(level),
    )


# --- The halves -----------------------------------------------------------------------------------


def _half(reading: Reading, prefix: str, ends: Collection[int]) -> Sketch:
    """The ops that lead to the nodes `ends`, and those; `prefix` stands before the names."""
    sketch = ops(reading)
    ids = {f"n{number}": f"{prefix}n{number}" for number in leading_to(reading, ends)}
    return replace(
        sketch,
        boxes=tuple(replace(b, id=ids[b.id]) for b in sketch.boxes if b.id in ids),
        wires=tuple(
            replace(wire, id=prefix + wire.id, start=ids[wire.start], end=ids[wire.end], label=())
            for wire in sketch.wires
            if wire.start in ids and wire.end in ids
        ),
        frames=tuple(
            replace(frame, boxes=tuple(ids[box] for box in frame.boxes if box in ids))
            for frame in sketch.frames
        ),
    )


def _told(pair: Twins, norm: Norm, box: Box) -> Box:
    """The box of a fused norm, which says what it computes, saves and hands on.

    What it computes is read off the composed twin; what it saves off the recorded node; what it
    hands on off its gradient rule.
    """
    rows = (*_computed(pair, norm), *_saved(pair, norm), *_handed_on(pair, norm))
    label = plain(clean(pair.fused.graph.nodes[norm.fused].label))
    columns = (Column((), rows),)
    return Box(box.id, "fused", label, (), plain("fused, 1 op"), columns, box.tooltip)


def _computed(pair: Twins, norm: Norm) -> Iterator[Row]:
    outputs = {there: here for here, there in norm.places.items() if here[0] == norm.fused}
    composed = pair.composed
    for place in _named(pair, norm):
        formulas = composed.of_symbols
        sides = composed.line([formulas.symbol(place), formulas.definitions[place]])
        values = (pair.fused.output(outputs[place]).value,) if place in outputs else ()
        label = joined("▸ ", separated(" = ", map(as_text, sides)), " =" if values else "")
        yield Row("forward", label, values)


def _named(pair: Twins, norm: Norm) -> list[Place]:
    """What the composed norm computes and the lecture has a symbol for."""
    return [(n, 0) for n in norm.composed if (n, 0) in pair.composed.lecture]


def _saved(pair: Twins, norm: Norm) -> Iterator[Row]:
    kept = saved(pair.fused, [norm.fused])
    places = [joined(_symbol(pair.fused, place), f" ({n})") for place, n in kept.items()]
    total = several(sum(kept.values()), "number")
    label = joined("saved for backward: ", separated(", ", places), f" = {total}")
    yield Row("saved", label)


def _symbol(reading: Reading, place: Place) -> Text:
    """The symbol of a place; an output that nobody has used or named has none."""
    return reading.symbol(place) if place in reading.names else plain(f"output {place[1]}")


def _handed_on(pair: Twins, norm: Norm) -> Iterator[Row]:
    reading, formulas = pair.fused, pair.fused.of_ops
    node = reading.graph.nodes[norm.fused]
    arrived = [o.index for o in node.outputs if o.gradient is not None]
    for index in arrived:
        place = node.id, index
        label = joined("◂ ", reading.slope(place), " =")
        yield Row("backward", label, (reading.output(place).gradient,))
    gradients = {index: reading.gradient((node.id, index)) for index in arrived}
    found = formulas.derivatives(node.id, gradients)
    defined = {pair.composed.names[place] for place in _named(pair, norm)}
    meanings = {s: meaning for d in found.values() for s, meaning in d.where.items()}
    used = {symbol for d in found.values() for symbol in symbols(d.gradient)}
    for symbol in reversed(meanings):  # a later one may be made of earlier ones
        if symbol in used and symbol.name not in defined:
            used |= symbols(meanings[symbol])
    for symbol, meaning in meanings.items():
        if symbol in used and symbol.name not in defined:
            sides = reading.line([symbol, meaning], [(node.id, index) for index in arrived])
            yield Row("note", separated(" = ", map(as_text, sides)))
    uses = Counter((e.start, e.output) for e in reading.graph.edges if e.contribution is not None)
    for place, derivative in found.items():
        sign = " = " if uses[place] == 1 else " += "  # others add to it
        sides = map(as_text, reading.line([reading.gradient(place), derivative.gradient]))
        yield Row("note", separated(sign, sides))


# --- The table ------------------------------------------------------------------------------------


def facts(pair: Twins) -> Iterator[tuple[Text, ...]]:
    """What sets fused norms apart from composed ones, counted on the two graphs: below a head, a
    row a fact, with its name, what it is of the composed norms, and of the fused ones."""
    costs = [cost(pair, implementation) for implementation in ("composed", "fused")]
    kept = [_kept(*each) for each in zip((pair.composed, pair.fused), costs)]
    yield (), plain("composed"), plain("fused")
    yield plain("ops recorded"), *[plain(str(c.ops)) for c in costs]
    launched = [plain(f"{c.forward} + {c.backward}") for c in costs]
    yield plain("kernels launched, forward + backward"), *launched
    yield plain("numbers saved for backward"), *kept
    what = joined("largest |difference| in ", separated(", ", _compared(pair)))
    yield what, plain("–"), plain(bound(difference(pair)))


def _kept(reading: Reading, one: Cost) -> Text:
    """How many numbers, and of which places if they are a few."""
    total = plain(f"{sum(one.saved.values())}")
    if not 0 < len(one.saved) <= _MOST_NAMES:
        return total
    return joined(total, " (", separated(", ", [_symbol(reading, p) for p in one.saved]), ")")


def _compared(pair: Twins) -> list[Text]:
    """What `difference` looks at."""
    if len(pair.norms) > 1:
        return [plain("outputs and gradients")]
    (places,) = [compared(pair, norm) for norm in pair.norms]
    return [pair.fused.slope(p) if is_slope else pair.fused.symbol(p) for p, is_slope in places]
