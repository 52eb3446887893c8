"""A whole network: one box a module, and of blocks that repeat the first."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ...graph import toposort
from ..drawing.sketch import Box, Column, Frame, Row, Sketch, Wire, joined, plain
from ..drawing.text import clean, several, summary
from ..reading import Reading, shape_of, tooltip
from ..recorded.record import Graph, Node
from ..recorded.symbols import Place
from .grouping import Group, Owners, Path, Repeat, class_of, grouped, groups_of, parameters_of

_FEW = 4  # outputs of a box, or ops in its title, which are shown one by one
_EQUAL = "×: a block that comes so often in a row, with the numbers of the first … of the last"


def collapsed(reading: Reading) -> Sketch:
    """A box a module; what is in none, or is used by several, has a box of its own.

    Modules are opened until several stand beside each other, and then further, all to the same
    depth, as long as there are up to 20 boxes. Of equal blocks in a row the first is drawn, in a
    frame that says how many they are. A module that a path leaves and enters again has a box a
    call.
    """
    owners, repeats = grouped(reading)
    shown_by = {
        group: first
        for repeat in repeats
        for block in repeat[1:]
        for group, first in zip(block, repeat[0])
    }
    members = {group: [group] for group in groups_of(owners) if group not in shown_by}
    for group, first in shown_by.items():
        members[first].append(group)
    pairs = _pairs(reading.graph, owners, repeats, shown_by)
    used: dict[Group, list[Group]] = {group: [] for group in members}
    for start, end in pairs:
        used[end].append(start)
    shown = toposort(members, used.__getitem__)[::-1]  # each after what it is computed from
    opened = {group.path[:k] for group in members for k in range(1, len(group.path))}
    return Sketch(
        "The network",
        "A box a module, with its output ▸ on the way forward and the gradient of that ◂ on the "
        "way back. A frame with × is a block that comes so often.",
        tuple(_box(reading, members[group], opened) for group in shown),
        tuple(Wire(f"e{k}", _id(start), _id(end)) for k, (start, end) in enumerate(pairs)),
        tuple(Frame(plain(f"×{len(repeat)}"), tuple(map(_id, repeat[0]))) for repeat in repeats),
        (*reading.graph.notes, *[_EQUAL] * bool(repeats)),
    )


def _pairs(
    graph: Graph, owners: Owners, repeats: Sequence[Repeat], shown_by: Mapping[Group, Group]
) -> list[tuple[Group, Group]]:
    """The groups that are drawn and use each other; not the last of a block and the first of the
    next, which is drawn as the same block."""
    blocks = {
        group: (k, turn)
        for k, repeat in enumerate(repeats)
        for turn, block in enumerate(repeat)
        for group in block
    }
    pairs: dict[tuple[Group, Group], None] = {}
    for edge in graph.edges:
        start, end = owners[edge.start], owners[edge.end]
        if start is None or start is end:
            continue
        (first, turn), (second, next_turn) = blocks.get(start, (-1, 0)), blocks.get(end, (-2, 0))
        if first != second or turn == next_turn:
            pairs[shown_by.get(start, start), shown_by.get(end, end)] = None
    return list(pairs)


def _id(group: Group) -> str:
    return f"n{group.nodes[0].id}"


def _box(reading: Reading, same: Sequence[Group], opened: Collection[Path]) -> Box:
    """The box of groups that are equal."""
    group = same[0]
    outputs = sorted(group.outputs)
    shapes = dict.fromkeys(shape_of(reading.output(place)) for place in outputs)
    facts = list(filter(None, shapes)) if len(outputs) <= _FEW else [f"{len(outputs)} outputs"]
    ops = [node for node in group.nodes if node.kind == "op"]
    (node, *others) = group.nodes
    if others or (group.path and group.path not in opened):
        parameters = parameters_of(group)
        sums = [several(len(ops), "op"), *[several(parameters, "parameter")] * bool(parameters)]
        kind, facts, where = "module", [*sums, *facts], f"in {clean('.'.join(group.path))}"
        symbol = plain(_labels(ops) if group.path in opened else _title(same))
    else:
        kind, where = "fused" if len(node.outputs) > 1 else node.kind, tooltip(node)
        place = node.id, node.outputs[0].index
        named = place in reading.lecture or kind != "op"
        symbol = reading.symbol(place) if named else plain(clean(node.label))
        facts = [clean(node.label), *facts] if named and node.label else facts
    rows = tuple(_rows(reading, outputs, sorted(same[-1].outputs)))
    return Box(_id(group), kind, symbol, (), plain(", ".join(facts)), (Column((), rows),), where)


def _labels(ops: Sequence[Node]) -> str:
    """What is left of a module beside the modules in it: its own ops."""
    return ", ".join([clean(op.label) for op in ops[:_FEW]] + ["…"] * (len(ops) > _FEW))


def _title(same: Sequence[Group]) -> str:
    """The names of equal modules, their class, and which calls: 3, 6 … 48: Linear."""
    names = _abridged(map(_name, same))
    calls = _abridged(f"#{group.call}" for group in same if group.call)
    title = clean(class_of(same[0].path[-1]))
    return f"{names}: {title} {calls}".removeprefix(": ").rstrip()


def _abridged(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} … {names[-1]}"


def _name(group: Group) -> str:
    """The name of a module as in a state dict."""
    return clean(".".join(filter(None, (part.rpartition(":")[0] for part in group.path))))


def _rows(reading: Reading, firsts: Sequence[Place], lasts: Sequence[Place]) -> Iterator[Row]:
    """The values and gradients of outputs: of the first of equal groups, and of the last."""
    for places in zip(firsts, lasts) if len(firsts) <= _FEW else ():
        outputs = [reading.output(place) for place in dict.fromkeys(places)]
        symbol = reading.symbol(places[0]) if len(firsts) > 1 else ()
        for role, sign, values in (
            ("forward", "▸", [output.value for output in outputs]),
            ("backward", "◂", [output.gradient for output in outputs]),
        ):
            if all(value is not None for value in values):
                words = " … ".join(map(summary, values))
                yield Row(role, joined(symbol, " " * bool(symbol), f"{sign} {words}"))
