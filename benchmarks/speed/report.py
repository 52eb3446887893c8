"""What was measured, as tables in Markdown and as a plot."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from .measure import OURS

MARK = "<!-- benchmarks/results/speed.md -->\n\n"
END = "<!-- the end of speed.md -->"
TITLES = {
    "norms": "norm, forward and backward",
    "networks": "a training step",
    "NumPy alone": "without numba",
    "scalars": "a training step on numbers",
    "chains": "an op in a chain, forward and backward",
}
CACHED = 16e6  # bytes: less than that need not come from memory, and tell nothing of its speed
GREY = "#777777"  # is read on white and on black
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#9467bd")


def hold_against_bandwidth(found: dict) -> None:
    """Add to the rows which share of the speed of a copy each contender reaches."""
    speed = found["machine"]["copied_bytes_a_second"]
    for row in (row for kind in TITLES for row in found[kind]):
        if row["streamed"] >= CACHED:
            ideal = row["streamed"] / speed
            row["of_bandwidth"] = {name: ideal / t[1] for name, t in row["seconds"].items()}


def markdown(found: dict) -> str:
    parts = [about(found["machine"])]
    for kind, title in TITLES.items():
        for _, rows in itertools.groupby(found[kind], key=lambda row: tuple(row["seconds"])):
            parts.append(timings(title, list(rows)))
    if found["memory"]:
        parts.append(memory(found["memory"]))
    return "\n\n".join(parts) + "\n"


def about(machine: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"Measured on {machine['date']}: {machine['cores']} cores of {machine['cpu']}, "
        f"Python {machine['python']}, {versions}, float32. "
        f"Memory copies {machine['copied_bytes_a_second'] / 1e9:.0f} GB/s in two threads. "
        "Medians (and quartiles) of interleaved runs; × is how many times as long as ours."
    ]
    for threads, busy in machine["torch_cpu_seconds_a_second"].items():
        lines.append(f"Told to use {threads} of them, PyTorch keeps {busy:.1f} cores busy.")
    if machine["missing"]:
        lines.append(f"Not installed, so not measured: {', '.join(machine['missing'])}.")
    return " ".join(lines)


def timings(title: str, rows: list[dict]) -> str:
    names = list(rows[0]["seconds"])
    bounded = any("of_bandwidth" in row for row in rows)
    head = [title, *names, *(["of the bandwidth"] if bounded else []), "target"]
    return table(head, [cells(row, names, bounded) for row in rows])


def cells(row: dict, names: list[str], bounded: bool) -> list[str]:
    ours = row["seconds"][OURS]
    line = [row["work"], duration(ours)]
    for name in names[1:]:
        theirs = row["seconds"][name]
        line.append(f"{duration(theirs)}, **{digits(theirs[1] / ours[1])}×**")
    if bounded:
        line.append(f"{row['of_bandwidth'][OURS]:.2f}" if "of_bandwidth" in row else "–")
    return [*line, "; ".join(verdicts(row)) or "–"]


def verdicts(row: dict) -> list[str]:
    """The targets of a row, and whether they are met."""
    found = []
    for target in row["targets"]:
        hoped = f" (hoped for {target['stretch']:g}×)" if target["stretch"] else ""
        found.append(f"≥ {target['ratio']:g}×{hoped} {target['rival']}: {verdict(target['met'])}")
    if row["bound"] and "of_bandwidth" in row:
        met = row["of_bandwidth"][OURS] >= row["bound"]
        found.append(f"≥ {row['bound']:g} of the bandwidth: {verdict(met)}")
    return found


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def memory(rows: list[dict]) -> str:
    names = list(rows[0]["mebibytes"])
    lines = [
        [
            row["work"],
            *(f"{row['mebibytes'][name]:.0f} MiB" for name in names),
            f"≤ {row['most']:.0f} MiB: {verdict(row['met'])}",
        ]
        for row in rows
    ]
    return table(["peak of memory above the input", *names, "target"], lines)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(quartiles: list[float]) -> str:
    """The median and the quartiles: 8.51 ms (8.42–8.63)."""
    unit, scale = next((u, s) for u, s in UNITS if quartiles[1] * s >= 1 or u == "µs")
    first, median, third = (digits(q * scale) for q in quartiles)
    return f"{median} {unit} ({first}–{third})"


def digits(number: float) -> str:
    """Three of them, and all before the point."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"


UNITS = (("s", 1), ("ms", 1e3), ("µs", 1e6))


def plot(found: dict, path: Path) -> None:
    """A dot for each rival of each work: how many times as long as ours it takes."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for kind in reversed(TITLES) for row in reversed(found[kind])]
    rivals = list(dict.fromkeys(name for row in reversed(rows) for name in row["seconds"]))[1:]
    style = {"svg.hashsalt": "tinygrad_bn", "text.color": GREY, "axes.edgecolor": GREY}
    style |= {f"{axis}tick.{part}": GREY for axis in "xy" for part in ("color", "labelcolor")}
    with matplotlib.rc_context(style | {"font.size": 8, "axes.labelcolor": GREY}):
        figure = Figure(figsize=(8, 0.6 + 0.22 * len(rows)), layout="constrained")
        axes = figure.add_subplot(xscale="log", xlabel=f"times as long as {OURS} (logarithmic)")
        for y, row in enumerate(rows):
            ours = row["seconds"][OURS][1]
            for name in rivals:
                if name in row["seconds"]:
                    ratio = row["seconds"][name][1] / ours
                    axes.plot(ratio, y, "o", color=colour(rivals, name), markersize=4, label=name)
        axes.axvline(1, color=GREY, linewidth=1)
        axes.set_yticks(range(len(rows)), [row["work"] for row in rows])
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        named = dict(zip(*reversed(axes.get_legend_handles_labels())))
        if named:
            figure.legend(
                [named[name] for name in rivals], rivals, loc="outside upper center", ncols=4
            ).get_frame().set_alpha(0)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def colour(rivals: list[str], name: str) -> str:
    return COLOURS[rivals.index(name) % len(COLOURS)]


def into_readme(readme: Path, tables: str) -> None:
    """Write the tables into the README, between their marks."""
    before, rest = readme.read_text().split(MARK)
    _, after = rest.split(END)
    readme.write_text(f"{before}{MARK}{tables}\n{END}{after}")
