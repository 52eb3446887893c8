"""Line plots by matplotlib, as SVG: in a page they follow its light or dark theme, as files the
reader's."""

import html
import io
import itertools
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..diagram.drawing.style import FONTS

# The colours of a page by role, (light, dark). In an SVG the light one stands for a CSS variable.
PALETTE = {
    "blue": ("#005A9C", "#6CB6FF"),
    "red": ("#B03A00", "#FF9B6A"),
    "green": ("#103E17", "#4F9070"),
    "violet": ("#8F10FF", "#A65CFF"),
    "ochre": ("#78694B", "#EBDD3C"),
    "pink": ("#A54B78", "#F533B4"),
    "ink": ("#1B1F24", "#E6EDF3"),
    "muted": ("#57606A", "#9AA4AF"),
    "grid": ("#E4E8EC", "#262C34"),
    "background": ("#FFFFFF", "#0D1117"),
}
SERIES = ("blue", "red", "green", "violet", "ochre", "pink")  # the colours of lines
_MARKERS = "os^Dv<>"  # one more than colours, so that lines of one colour have several
MISSING = (
    "matplotlib is not installed, so the numbers stand in tables without plots: "
    'pip install "tinygrad_bn[viz]" draws them.'
)
_WIDTH, _HEIGHT, _FONT = 440, 250, 11  # points
_LEFT, _BOTTOM, _TOP = 44, 36, 28  # the margins; that on the right holds the labels
_GAP = 22  # from the end of the lines to their labels
_LABELS_FOOT, _LABELS_TOP = _BOTTOM + 2, _HEIGHT - _TOP + _FONT  # above the foot: "and 3 more"
_CROSSES = 0.96  # where the row of × stands: a share of the height
_MARKS = 12  # on a line, at most


@dataclass(frozen=True)
class Line:
    """One line of a plot: points (None: nothing there, the line breaks), the range of several runs
    around each, × at the x where a run diverged. The label stands at its right end."""

    label: str
    role: str  # one of SERIES
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    crosses: Sequence[float] = ()
    dashed: bool = False
    marker: str = "o"


def look(k: int) -> dict[str, Any]:
    """How the k-th of many lines is told from the others: its role, marker and dashes.

    >>> look(1)
    {'role': 'red', 'marker': 's', 'dashed': False}
    >>> look(7)  # of the same colour
    {'role': 'red', 'marker': 'o', 'dashed': True}
    """
    return {
        "role": SERIES[k % len(SERIES)],
        "marker": _MARKERS[k % len(_MARKERS)],
        "dashed": k // len(SERIES) % 2 == 1,
    }


def line_plot(
    lines: Sequence[Line],
    *,
    name: str,
    alt: str,
    xlabel: str,
    ylabel: str,
    ticks: Sequence[float],
    log_x: bool = False,
    log_y: bool = False,
    percent: bool = False,
) -> str | None:
    """The plot as an `<svg>` element of a page, or None where matplotlib is not installed.

    `name` keeps its ids apart from those of other plots in the page; `alt` says what it shows.
    Where the labels do not all fit, those of the first lines stay.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": _FONT}
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever the reader's settings are, these plots look so
        matplotlib.rcParams.update(settings)
        # The reader's fonts have characters that the one which matplotlib measures with lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
        axes = figure.add_axes(_box([line.label for line in lines]))
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        for line in lines:
            _draw(axes, line)
        _scales(axes, lines, ticks, percent, log_y)
        axes.set_xlabel(xlabel, color=PALETTE["muted"][0])
        axes.set_title(ylabel, loc="left", color=PALETTE["muted"][0], fontsize=_FONT, pad=10)
        _write_labels(axes, lines)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _embeddable(file.getvalue(), name, alt)


def _box(labels: Sequence[str]) -> tuple[float, float, float, float]:
    """Where the axes stand in the figure."""
    longest = max(_columns(part) for label in labels for part in label.split("\n"))
    right = _GAP + 0.6 * _FONT * longest
    return (
        _LEFT / _WIDTH,
        _BOTTOM / _HEIGHT,
        (_WIDTH - _LEFT - right) / _WIDTH,
        (_HEIGHT - _BOTTOM - _TOP) / _HEIGHT,
    )


def _columns(text: str) -> int:
    """How wide a text is, in letters: a Chinese character is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _draw(axes: Any, line: Line) -> None:
    colour, nan = PALETTE[line.role][0], float("nan")
    if line.low:
        low, high = ([nan if v is None else v for v in edge] for edge in (line.low, line.high))
        axes.fill_between(line.x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(
        line.x,
        [nan if v is None else v for v in line.y],
        color=colour,
        linestyle="--" if line.dashed else "-",
        linewidth=1.8,
        marker=line.marker,
        markersize=5,
        markevery=list(range(len(line.x) - 1, -1, -(len(line.x) // _MARKS + 1))),
    )
    if line.crosses:
        axes.plot(
            line.crosses,
            [_CROSSES] * len(line.crosses),
            transform=axes.get_xaxis_transform(),
            color=colour,
            linestyle="none",
            marker="x",
            markersize=7,
            markeredgewidth=2.2,
        )


def _scales(axes: Any, lines: Sequence[Line], ticks: Sequence[float], percent: bool, log_y: bool):
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogLocator,
        MaxNLocator,
        NullLocator,
    )

    muted, grid = PALETTE["muted"][0], PALETTE["grid"][0]
    axes.xaxis.set(
        major_locator=FixedLocator(ticks),
        minor_locator=NullLocator(),
        major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
    )
    values = _values(lines)
    if not values:  # × alone
        axes.yaxis.set(major_locator=NullLocator(), minor_locator=NullLocator())
    elif percent:
        top = max(values) or 1.0
        foot = min(values) if top / 2 < min(values) < top else 0  # far above 0 it is left out
        steps = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(foot, top)
        axes.set_ylim(min(steps), top)
        axes.yaxis.set(
            major_locator=FixedLocator(steps),
            major_formatter=FuncFormatter(lambda value, _: f"{round(100 * value, 6):g} %"),
        )
    elif log_y:
        few_decades = max(values) < 1e3 * min(values)
        axes.yaxis.set(
            major_locator=LogLocator(subs=(1, 3) if few_decades else (1,), numticks=7),
            minor_locator=NullLocator(),
            major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
        )
    _make_room(axes, 0.18 if any(line.crosses for line in lines) else 0.04)
    axes.grid(axis="y", color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(muted)
    axes.tick_params(colors=muted, length=0)
    axes.tick_params(axis="x", length=3)


def _make_room(axes: Any, share: float) -> None:
    """Let the y axis go on above the lines, for marks and ×, by a share of what it has. Up there it
    has no ticks: a × is no number."""
    from matplotlib.ticker import FixedLocator

    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    ticks = [t for t in axes.get_yticks() if scale.transform(t) <= high + 0.02 * (high - low)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.set_ylim(*scale.inverted().transform([low, high + share * (high - low)]))


def _values(lines: Sequence[Line]) -> list[float]:
    return [v for line in lines for v in (*line.y, *line.low, *line.high) if v is not None]


# --- Labels ---------------------------------------------------------------------------------------


def _write_labels(axes: Any, lines: Sequence[Line]) -> None:
    """The labels to the right of all lines, each at the height of its line's last mark. Those that
    would overlap are moved apart; to a label that is not beside its line's end leads a dotted
    line, with the mark of its line."""
    from matplotlib.lines import Line2D

    axes.autoscale_view()  # matplotlib would only now, on drawing, find where the marks stand
    labelled = lines[: _fitting(lines)]
    ends = [(_end(axes, line), line) for line in labelled]
    ends.sort(key=lambda spot: spot[0][1])
    right = max(_end(axes, line)[0] for line in lines)
    places = _apart([y for (_, y), _ in ends], [_height(line.label) for _, line in ends])
    for ((x, y), line), place in zip(ends, places):
        colour = PALETTE[line.role][0]
        if abs(place - y) > _FONT / 3 or x < right - 1:
            leader = Line2D([x + 4, right + _GAP - 9], [y, place], transform=None)
            leader.set(color=colour, linewidth=1, linestyle=":")
            leader.set(marker=line.marker, markevery=[1], markersize=4)
            axes.figure.add_artist(leader)
        _write(axes, line.label, right + _GAP, place, colour, fontweight="bold")
    if len(labelled) < len(lines):
        more = f"… and {len(lines) - len(labelled)} more"
        _write(axes, more, right + _GAP, _BOTTOM - _FONT / 2, PALETTE["muted"][0])


def _write(axes: Any, text: str, x: float, y: float, colour: str, **style: str) -> None:
    """Text at a place in the figure, in points."""
    axes.annotate(
        text,
        (x, y),
        xycoords="figure pixels",
        color=colour,
        verticalalignment="center",
        annotation_clip=False,
        parse_math=False,  # a $ in a name is a $
        **style,
    )


def _end(axes: Any, line: Line) -> tuple[float, float]:
    """Where the last mark of a line stands, in points."""
    points = [(x, y) for x, y in zip(line.x, line.y) if y is not None]
    end = tuple(axes.transData.transform(max(points))) if points else (0.0, 0.0)
    if line.crosses:
        across = axes.get_xaxis_transform().transform((max(line.crosses), _CROSSES))
        end = max(end, tuple(across))  # the × are further right, or on the left of it all
    return end


def _height(label: str) -> float:
    return 1.25 * _FONT * (label.count("\n") + 1)


def _fitting(lines: Sequence[Line]) -> int:
    """How many of the labels, from the first on, have room beside the axes."""
    below = itertools.accumulate(_height(line.label) for line in lines)
    return sum(height <= _LABELS_TOP - _LABELS_FOOT for height in below)


def _apart(places: list[float], heights: list[float]) -> list[float]:
    """These places, from the lowest up, moved so far that what has these heights does not overlap.
    All of it has room."""
    places, floor, ceiling = list(places), _LABELS_FOOT, _LABELS_TOP
    for k, height in enumerate(heights):
        places[k] = max(places[k], floor + height / 2)
        floor = places[k] + height / 2
    for k, height in reversed(list(enumerate(heights))):
        places[k] = min(places[k], ceiling - height / 2)
        ceiling = places[k] - height / 2
    return places


# --- SVG ------------------------------------------------------------------------------------------


def _embeddable(svg: str, name: str, alt: str) -> str:
    """matplotlib's file as an element of a page: colours by variables, ids of its own."""

    def in_page(tag: str) -> str:
        tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag)
        tag = re.sub(r'\bid="', f'id="{name}-', tag)
        tag = re.sub(r'(url\(|href=")#', rf"\1#{name}-", tag)
        for role, (light, _) in PALETTE.items():
            tag = re.sub(light, f"var(--{role})", tag, flags=re.IGNORECASE)
        return tag

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', svg).group()
    named = f'<svg {size} role="img" aria-label="{html.escape(alt)}">'
    return re.sub(r"<svg[^>]*>", lambda _: named, _in_tags(svg, in_page), count=1)


def svg_file(plot: str) -> str:
    """The element that `line_plot` made, as a file that is light or dark as the reader's system has
    it. Programs that know no style sheets show it light."""

    def with_colours(tag: str) -> str:
        return re.sub(r"var\(--(\w+)\)", lambda found: PALETTE[found[1]][0], tag)

    dark = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in PALETTE.values()
        for what in ("fill", "stroke")
    )
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{1.5 * _WIDTH:g}" height="{1.5 * _HEIGHT:g}"'
    )
    paper = f'<rect width="100%" height="100%" style="fill: {PALETTE["background"][0]}"/>'
    style = (
        f"<style>text{{font-family:{FONTS}!important}}"
        f"@media(prefers-color-scheme:dark){{{dark}}}</style>{paper}"
    )
    first, rest = _in_tags(plot, with_colours).split(">", 1)
    return f"{first.replace('<svg', start)}>{style}{rest}\n"


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """The SVG with its tags changed, and what stands between them, a user's words, as it was."""
    return re.sub(r"<[^>]*>", lambda tag: change(tag.group()), svg)
