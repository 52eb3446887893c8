"""Line plots by matplotlib, as SVG that stands in a page and follows its light or dark theme."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# The colours of a page by role, (light, dark). In an SVG the light one stands for a CSS variable.
PALETTE = {
    "blue": ("#005A9C", "#6CB6FF"),
    "red": ("#B03A00", "#FF9B6A"),
    "ink": ("#1B1F24", "#E6EDF3"),
    "muted": ("#57606A", "#9AA4AF"),
    "grid": ("#E4E8EC", "#262C34"),
    "background": ("#FFFFFF", "#0D1117"),
}
_WIDTH, _HEIGHT, _FONT = 440, 250, 11  # points
_CROSSES = 0.96  # where the row of × stands: a share of the height


@dataclass(frozen=True)
class Line:
    """One line of a plot: points (None: nothing there, the line breaks), the range of several runs
    around each, × at the x where a run diverged. The label stands at its right end."""

    label: str
    role: str  # "blue" or "red"
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    crosses: Sequence[float] = ()
    dashed: bool = False
    marker: str = "o"


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
    """The plot as an `<svg>` element, or None where matplotlib is not installed.

    `name` keeps its ids apart from those of other plots in the page; `alt` says what it shows.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return None
    settings = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": _FONT}
    with matplotlib.rc_context(settings):
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
    """Where the axes stand in the figure: the margin on the right holds the labels."""
    longest = max(len(part) for label in labels for part in label.split("\n"))
    left, right, bottom, top = 44, 14 + 0.6 * _FONT * longest, 36, 28
    return (
        left / _WIDTH,
        bottom / _HEIGHT,
        (_WIDTH - left - right) / _WIDTH,
        (_HEIGHT - bottom - top) / _HEIGHT,
    )


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
    if percent:
        top = max(_values(lines), default=1.0)
        steps = [t for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, top) if t <= top]
        axes.set_ylim(0, 1.18 * top)  # above the lines and the grid there is room for the ×
        axes.yaxis.set(
            major_locator=FixedLocator(steps),
            major_formatter=FuncFormatter(lambda value, _: f"{100 * value:.0f} %"),
        )
    elif log_y:
        values = _values(lines) or [1.0]
        few_decades = max(values) < 1e3 * min(values)
        axes.yaxis.set(
            major_locator=LogLocator(subs=(1, 3) if few_decades else (1,), numticks=7),
            minor_locator=NullLocator(),
            major_formatter=FuncFormatter(lambda value, _: f"{value:g}"),
        )
    axes.grid(axis="y", color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(muted)
    axes.tick_params(colors=muted, length=0)
    axes.tick_params(axis="x", length=3)


def _values(lines: Sequence[Line]) -> list[float]:
    return [v for line in lines for v in (*line.y, *line.high) if v is not None]


def _write_labels(axes: Any, lines: Sequence[Line]) -> None:
    """Each label to the right of its line's last mark; those that would overlap are moved apart."""
    axes.autoscale_view()  # matplotlib would only now, on drawing, find where the marks stand
    spots = []
    for line in lines:
        points = [(x, y) for x, y in zip(line.x, line.y) if y is not None]
        x, y = axes.transData.transform(max(points)) if points else (0, 0)
        if line.crosses:
            across = axes.get_xaxis_transform().transform((max(line.crosses), _CROSSES))
            x, y = max((x, y), tuple(across))  # the × are further right, or on the left of it all
        spots.append([y, x, line])
    spots.sort(key=lambda spot: spot[0])
    floor = float("-inf")
    for y, x, line in spots:
        height = 1.25 * _FONT * (line.label.count("\n") + 1)
        y = max(y, floor + height / 2)
        floor = y + height / 2
        axes.annotate(
            line.label,
            (x + 8, y),
            xycoords="figure pixels",
            color=PALETTE[line.role][0],
            fontweight="bold",
            verticalalignment="center",
            annotation_clip=False,
        )


def _embeddable(svg: str, name: str, alt: str) -> str:
    """matplotlib's file as an element of a page: colours by variables, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for role, (light, _) in PALETTE.items():
        svg = re.sub(light, f"var(--{role})", svg, flags=re.IGNORECASE)
    size = re.search(r'viewBox="[^"]*"', svg).group()
    return re.sub(
        r"<svg[^>]*>", f'<svg {size} role="img" aria-label="{html.escape(alt)}">', svg, count=1
    )
