"""Where boxes stand in swim lanes: from left to right, one lane a frame, as samples run through
batch norm.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from .shapes import Edges, Point, Size
from .sketch import Sketch

_PADDING = 14  # between the border of a lane and what is in it
_BETWEEN_COLUMNS, _BETWEEN_LANES, _BETWEEN_BOXES = 40, 12, 24


def stand_in_lanes(
    sketch: Sketch, sizes: Sequence[Size], titles: Sequence[int]
) -> tuple[list[Edges], list[Edges], list[Point]]:
    """The edges of boxes of these sizes and of each lane, and the middles of the lanes' titles.

    `titles`: their widths. A box of no lane stands in the middle, below one half of the lanes.
    """
    columns = _columns(sketch)
    lane_of = {box: k for k, frame in enumerate(sketch.frames) for box in frame.boxes}
    widths, stacks = defaultdict(int), defaultdict(lambda: defaultdict(list))
    for i, (box, (width, _)) in enumerate(zip(sketch.boxes, sizes)):
        widths[columns[i]] = max(widths[columns[i]], width)
        stacks[lane_of.get(box.id)][columns[i]].append(i)
    steps = [widths[column] + _BETWEEN_COLUMNS for column in range(max(widths) + 1)]
    lefts = [0, *accumulate(steps)]
    left, right = -max(titles) - 2 * _PADDING, lefts[-1] - _BETWEEN_COLUMNS + _PADDING

    boxes: list[Edges] = [(0, 0, 0, 0)] * len(sizes)
    lanes: list[Edges] = [(0, 0, 0, 0)] * len(titles)
    half = (len(titles) + 1) // 2
    top = 0
    for lane in (*range(half), None, *range(half, len(titles))):
        if lane not in stacks:
            continue
        heights = {
            column: sum(sizes[i][1] + _BETWEEN_BOXES for i in stack) - _BETWEEN_BOXES
            for column, stack in stacks[lane].items()
        }
        bottom = top + max(heights.values()) + 2 * _PADDING
        for column, stack in stacks[lane].items():
            y = (top + bottom - heights[column]) / 2
            for i in stack:
                width, height = sizes[i]
                x = lefts[column] + (widths[column] - width) / 2
                boxes[i] = (x, y, x + width, y + height)
                y += height + _BETWEEN_BOXES
        if lane is not None:
            lanes[lane] = (left, top, right, bottom)
        top = bottom + _BETWEEN_LANES
    spots = [
        (x0 + _PADDING + width / 2, (y0 + y1) / 2) for (x0, y0, _, y1), width in zip(lanes, titles)
    ]
    return boxes, lanes, spots


def _columns(sketch: Sketch) -> list[int]:
    """The column of each box: the longest way to it, but a box without a way to it stands just
    before the first that needs it."""
    numbers = {box.id: i for i, box in enumerate(sketch.boxes)}
    later, waiting = defaultdict(list), [0] * len(numbers)
    for wire in sketch.wires:
        if wire.ranked:
            start, end = numbers[wire.start], numbers[wire.end]
            if wire.role == "backward":
                start, end = end, start
            later[start].append(end)
            waiting[end] += 1
    sources = [i for i, count in enumerate(waiting) if not count]
    columns = [0] * len(numbers)
    ready = list(sources)
    for i in ready:  # grows as it is read
        for end in later[i]:
            columns[end] = max(columns[end], columns[i] + 1)
            waiting[end] -= 1
            if not waiting[end]:
                ready.append(end)
    if len(ready) < len(numbers):
        raise ValueError("lanes: got wires that run in a circle, wants an end of every way")
    for i in sources:
        columns[i] = min((columns[end] for end in later[i]), default=1) - 1
    return columns
