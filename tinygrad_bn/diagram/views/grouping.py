"""Which nodes of a graph are one box of a collapsed picture, and which blocks of boxes repeat."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ...graph import toposort
from ..reading import Reading, is_plain_number
from ..recorded.record import Graph, Node
from ..recorded.symbols import Place

_MOST_BOXES = 20  # modules are opened while there are no more
_LONGEST_BLOCK = 64  # boxes of a block that repeats

Path = tuple[str, ...]  # the modules that an op ran in, outermost first, as "name:Class"


@dataclass(eq=False)
class Group:
    """What one box stands for: the ops of a module, with the leaves and constants that only they
    use; or a node that is in no module, and then `path` is empty."""

    path: Path = ()
    call: int = 0  # counted from 1, of a module that a path leaves and enters again
    nodes: list[Node] = field(default_factory=list)
    outputs: set[Place] = field(default_factory=set)  # that others use


Owners = list[Group | None]  # the group of every node; none for numbers that are no boxes
Links = dict[Group, dict[Group, None]]
Repeat = list[list[Group]]  # equal blocks of groups in a row


def grouped(reading: Reading) -> tuple[Owners, list[Repeat]]:
    """Modules opened to the depth at which a picture shows most and can be read; and what repeats.

    That is the first depth at which there are several, or the last at which 20 boxes suffice.
    """
    scopes = {node.scope for node in reading.graph.nodes if node.scope}
    paths = {scope: tuple(scope.split(".")) for scope in scopes}
    found = None
    for depth in _depths(paths.values()):
        owners = _owners(reading, paths, depth)
        repeats = list(_repeats(reading, paths, owners))
        count = len(groups_of(owners)) - sum(len(block) for r in repeats for block in r[1:])
        if found is not None and count > _MOST_BOXES:
            break
        found = owners, repeats
    return found


def _depths(paths: Collection[Path]) -> list[int]:
    """The depths at which modules are told apart that were not before; one at least."""
    counts = [0]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        counts.append(len({path[:depth] for path in paths}))
    depths = [depth for depth in range(1, len(counts)) if counts[depth] > counts[depth - 1]]
    return [depth for depth in depths if counts[depth] > 1] or depths or [0]


def class_of(part: str) -> str:
    return part.rpartition(":")[2]


def parameters_of(group: Group) -> int:
    """The number of elements of the leaves that are part of a module."""
    leaves = [node.outputs[0].shape for node in group.nodes if node.kind == "leaf"]
    return sum(prod(shape or ()) for shape in leaves) if group.path else 0


# --- Which nodes are one box ----------------------------------------------------------------------


def _owners(reading: Reading, paths: dict[str, Path], depth: int) -> Owners:
    modules = {path[:depth]: Group(path[:depth]) for path in paths.values()}
    by_scope = {scope: modules[path[:depth]] for scope, path in paths.items()}
    owners: Owners = [
        None if is_plain_number(node) else by_scope[node.scope] if node.scope else Group()
        for node in reading.graph.nodes
    ]
    owners = _by_calls(reading, owners)
    _take_in_sources(reading, owners)
    for node, group in zip(reading.graph.nodes, owners):
        if group is not None:
            group.nodes.append(node)
    for edge in reading.graph.edges:
        if owners[edge.start] not in (None, owners[edge.end]):
            owners[edge.start].outputs.add((edge.start, edge.output))
    for place in reading.graph.drawn:
        if owners[place[0]] is not None:
            owners[place[0]].outputs.add(place)
    return owners


def groups_of(owners: Owners) -> list[Group]:
    """All groups, in the order of their first nodes."""
    return [group for group in dict.fromkeys(owners) if group is not None]


def _links(graph: Graph, owners: Owners) -> tuple[Links, Links]:
    """For each group those that use it, and those that it uses."""
    later: Links = {group: {} for group in groups_of(owners)}
    earlier: Links = {group: {} for group in later}
    for edge in graph.edges:
        start, end = owners[edge.start], owners[edge.end]
        if start is not None and start is not end:
            later[start][end] = earlier[end][start] = None
    return later, earlier


def _by_calls(reading: Reading, owners: Owners) -> Owners:
    """The same with a group for each call of those modules that a path leaves and enters again.

    A call is told by how many modules the longest path has entered on its way, among those that
    such paths connect.
    """
    circles = _circles(*_links(reading.graph, owners))
    if not circles:
        return owners
    entries: dict[int, int] = {}  # by node
    sooner: dict[int, int] = {}  # the fewest entries of what uses a node

    def inside(node: Node) -> Iterator[tuple[int, bool]]:
        """The nodes of the same circle that it uses, and whether the way from there enters."""
        group = owners[node.id]
        for edge in reading.edges[node.id] if group in circles else ():
            start = owners[edge.start]
            if start in circles and circles[start] is circles[group]:
                yield edge.start, bool(group.path) and start is not group

    for node in reading.graph.nodes:
        entries[node.id] = max(
            (entries[start] + enters for start, enters in inside(node)), default=0
        )
    for node in reversed(reading.graph.nodes):  # an op belongs to the first call that needs it
        entries[node.id] = sooner.get(node.id, entries[node.id])
        for start, enters in inside(node):
            sooner[start] = min(entries[node.id] - enters, sooner.get(start, entries[node.id]))
    calls: dict[Group, dict[int, Group]] = defaultdict(dict)
    for number, group in enumerate(owners):
        if group in circles and group.path:
            calls[group][entries[number]] = Group(group.path)
    for of_module in calls.values():
        for call, (_, group) in enumerate(sorted(of_module.items(), key=lambda item: item[0]), 1):
            group.call = call if len(of_module) > 1 else 0
    return [
        calls[group][entries[number]] if group in calls else group
        for number, group in enumerate(owners)
    ]


def _circles(later: Links, earlier: Links) -> dict[Group, Group]:
    """For the groups from which a way leads back to themselves: one of those on all such ways.

    Kosaraju's algorithm: what leads to a group that comes first in topological order and was not
    reached before is on a circle with it.
    """
    first: dict[Group, Group] = {}
    for root in toposort(later, later.__getitem__):
        if root not in first:
            for group in toposort([root], lambda g: [e for e in earlier[g] if e not in first]):
                first[group] = root
    sizes = Counter(first.values())
    return {group: root for group, root in first.items() if sizes[root] > 1}


def _take_in_sources(reading: Reading, owners: Owners) -> None:
    """Make leaves and constants part of the only module that uses them, but for a network's input:
    what is data where no other data comes in."""
    graph = reading.graph
    users: dict[int, dict[Group, None]] = defaultdict(dict)
    entered = set()
    for edge in graph.edges:
        start, end = owners[edge.start], owners[edge.end]
        if start is not None and graph.nodes[edge.start].kind != "op":
            users[edge.start][end] = None
        elif start is not None and start is not end:
            entered.add(end)
    data = _data(reading, owners)
    for source, groups in users.items():
        (group, *others) = groups
        if group.path and not others and (group in entered or source not in data):
            owners[source] = group


def _data(reading: Reading, owners: Owners) -> set[int]:
    """The leaves and constants that lead, over ops of one argument, out of all modules or to an op
    of several of which they are the first: x in x @ W.T, as against W."""
    ends: dict[int, int | None] = {}  # where a chain of such ops begins
    found: set[int | None] = set()
    for node, group in zip(reading.graph.nodes, owners):
        starts = [ends[e.start] for e in reading.edges[node.id] if owners[e.start] is not None]
        if node.kind != "op":
            ends[node.id] = node.id
            continue
        ends[node.id] = starts[0] if len(starts) == 1 else None
        if not group.path:
            found.update(starts)
        elif len(starts) > 1 and None not in starts:
            found.add(starts[0])
    return {*found, *(ends[number] for number, _ in reading.graph.drawn)} - {None}


# --- What repeats ---------------------------------------------------------------------------------


def _repeats(reading: Reading, paths: dict[str, Path], owners: Owners) -> Iterator[Repeat]:
    """The equal blocks in a row: each box the only consumer of the one before."""
    later, earlier = _links(reading.graph, owners)
    drawn = {owners[place[0]] for place in reading.graph.drawn}
    classes = {scope: tuple(map(class_of, path)) for scope, path in paths.items()}
    after: dict[Group, Group] = {}
    numbers: dict[tuple, int] = {}
    alike: dict[Group, int] = {}  # the same number for groups that look the same
    for group in later:
        used = list(earlier[group])
        computed = [g for g in used if _is_computed(g)]
        mains = computed or used
        # Beside what is computed, leaves that others use too, such as a mask, come from the side.
        sides = tuple(g.nodes[0].id for g in used if not _is_computed(g)) if computed else ()
        if len(mains) == 1 and len(later[mains[0]]) == 1:
            after[mains[0]] = group
        kept = group in drawn and bool(later[group])  # and not only at the end
        looks = _looks(reading, classes, group), len(mains), sides, kept
        alike[group] = numbers.setdefault(looks, len(numbers))
    followers = set(after.values())
    for group in later:
        if group in followers:
            continue
        chain = [group]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        weights = [parameters_of(g) for g in chain]
        for start, length, times in _runs([alike[g] for g in chain], weights):
            ends = range(start, start + times * length, length)
            yield [chain[k : k + length] for k in ends]


def _is_computed(group: Group) -> bool:
    return bool(group.path) or group.nodes[0].kind == "op"


def _looks(reading: Reading, classes: dict[str, Path], group: Group) -> tuple:
    """What must be equal for two groups to be equal: classes of modules, ops with their options,
    numbers, and shapes. Arrays differ from block to block."""
    names = () if group.path else tuple(output.name for output in group.nodes[0].outputs)
    inside = tuple(
        (
            classes.get(node.scope, ())[len(group.path) :],
            node.kind,
            node.label,
            tuple(output.shape for output in node.outputs),
            _settings(reading, node),
        )
        for node in group.nodes
    )
    shapes = tuple(reading.output(place).shape for place in sorted(group.outputs))
    return names, tuple(map(class_of, group.path[-1:])), inside, shapes


def _settings(reading: Reading, node: Node) -> tuple:
    """The numbers among the arguments of an op, and its options; but for an index, which goes from
    one entry of a sequence to the next."""
    nodes = reading.graph.nodes
    numbers = [(e.argument, nodes[e.start]) for e in reading.edges.get(node.id, ())]
    values = [(k, repr(n.outputs[0].value)) for k, n in numbers if is_plain_number(n)]
    options = getattr(node.origin, "kwargs", None) or {}
    shown = [(k, np.shape(v) if hasattr(v, "shape") else repr(v)) for k, v in options.items()]
    return (*values, *(shown if node.label != "[ ]" else ()))


def _runs(numbers: Sequence[int], weights: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Where a sequence repeats itself: start, length of what repeats, and how often it comes.

    From left to right, what leaves out most; a run that could start at several places starts where
    the weight is largest, as a block does with its weights.
    """
    array, size = np.array(numbers), len(numbers)
    saved, lengths, matches = (np.zeros(size, int) for _ in range(3))
    for length in range(1, min(_LONGEST_BLOCK, size // 2) + 1):
        same = array[:-length] == array[length:]
        here = np.arange(len(same))
        ends = np.where(same, len(same), here)
        counts = np.minimum.accumulate(ends[::-1])[::-1] - here  # of matches from here on
        saving = counts // length * length
        better = np.flatnonzero(saving > saved[: len(same)])
        saved[better], lengths[better], matches[better] = saving[better], length, counts[better]
    start = 0
    while start < size:
        length = int(lengths[start])
        if not length:
            start += 1
            continue
        times, spare = divmod(int(matches[start]) + length, length)
        start = max(range(start, start + spare + 1), key=lambda k: weights[k])
        yield start, length, times
        start += times * length
