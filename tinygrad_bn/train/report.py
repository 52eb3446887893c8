"""The page of a tour: findings as headings, plots with their numbers folded out, the pictures.

One self-contained file: it asks the network for nothing, and its content security policy forbids
to. Every number in it is read from the results that are written beside it.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from .experiments import error_text
from .plot import PALETTE, Line, line_plot

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body{font:16px/1.5 Helvetica,Arial,"Liberation Sans","DejaVu Sans",sans-serif;color:var(--ink);
 background:var(--background);max-width:44rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .5rem}
h2{font-size:1.2rem;line-height:1.3;margin:2.5rem 0 .4rem}
p{margin:.4rem 0 .8rem}
figure{margin:1rem 0}
figcaption,summary,footer{color:var(--muted);font-size:.9rem}
summary{cursor:pointer}
a{color:var(--blue)}
svg{display:block;width:100%;height:auto}
svg text{font-family:inherit!important}
.scroll{overflow-x:auto}
.pictures{width:min(62rem,100vw - 2rem);margin-left:calc(50% - min(31rem,50vw - 1rem));
 display:flex;flex-wrap:wrap;gap:1.5rem 1rem;align-items:flex-start}
.pictures figure{margin:0;max-width:100%}
.pictures img{display:block;max-width:100%;border:1px solid var(--grid);box-sizing:border-box}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{border-bottom:1px solid var(--grid);padding:.2rem .8rem .2rem 0;text-align:right}
th:first-child,td:first-child{text-align:left}
td+td{white-space:nowrap}
.note{border-left:4px solid var(--red);padding-left:.8rem}
footer{margin-top:3rem}
@media(max-width:30rem){svg text{font-size:13px!important}}
"""


def tour_page(results: dict, folder: Path) -> str:
    """The page that shows `results`, and the pictures that they name, which lie in `folder`."""
    sections = [
        _disc(results["disc"]),
        _digits(results["digits"]),
        _comparison(results["comparison"], results["seconds"]),
        _saved_constants(results["saved_constants"]),
        _pictures(results["pictures"], folder),
    ]
    notes = []
    if results["quick"]:
        notes.append(
            "This was the quick tour: fewer scales, networks and epochs than the full one."
        )
    if not any("<svg" in section for section in sections):
        notes.append(
            "matplotlib is not installed, so the numbers stand in tables without plots: "
            'pip install "tinygrad_bn[viz]" draws them.'
        )
    lead = "".join(map(_note, notes))
    seconds = ", ".join(f"{what} {s:.1f} s" for what, s in results["seconds"]["parts"].items())
    footer = (
        f'<footer>Seed {results["seed"]}. The numbers as JSON: <a href="results.json">results.json'
        f"</a>. Time on this machine: {html.escape(seconds)}.</footer>"
    )
    return _document(results["title"], lead + "".join(sections) + footer)


def _document(title: str, body: str) -> str:
    light, dark = (
        "".join(f"--{role}:{pair[theme]};" for role, pair in PALETTE.items()) for theme in (0, 1)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n:root{{{light}}}\n"
        f"@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


# --- The sections ---------------------------------------------------------------------------------


def _disc(disc: dict) -> str:
    sides = [(disc["without"], "without BN", "red", "s"), (disc["with"], "with BN", "blue", "o")]
    lines = [
        Line(
            label + ("\n× diverged" if any(s["diverged"] for s in settings) else ""),
            role,
            disc["stds"],
            [s["mean"] for s in settings],
            [s["lowest"] for s in settings],
            [s["highest"] for s in settings],
            [s["std"] for s in settings if s["diverged"]],
            dashed=role == "red",
            marker=marker,
        )
        for settings, label, role, marker in sides
    ]
    plot = line_plot(
        lines,
        name="disc",
        alt=f"Test error against the standard deviation of the initial weights. {disc['finding']}",
        xlabel="standard deviation of the initial weights",
        ylabel="test error",
        ticks=disc["stds"],
        log_x=True,
        percent=True,
    )
    rows = [
        [f"{a['std']:g}", error_text(a), error_text(b)]
        for a, b in zip(disc["without"], disc["with"])
    ]
    text = (
        f"A network of {disc['hidden_layers']} hidden layers ({disc['width']} units, ReLU) must "
        "tell the points of a disc from those around it (Fleuret, EE-559, 6.4). Weights and biases "
        "start normal with mean 0 and the standard deviation on the axis; batch norm starts with "
        "γ = 1 and β = 0. "
        f"SGD, learning rate {disc['lr']:g}, batches of {disc['batch_size']}, "
        f"{disc['points']:,} training points, {disc['epochs']} epochs, "
        f"{disc['test_points']:,} test points."
    )
    figure = _figure(plot, ["std", "without BN", "with BN"], rows, disc)
    return _section(None, _paragraph(disc["finding"]), _paragraph(text), figure)


def _digits(digits: dict) -> str:
    if digits["skipped"]:
        return _section(digits["title"], _note(digits["skipped"]))
    lines, rows = [], []
    for s in digits["settings"]:
        role, name = ("blue", "with BN") if s["batch_norm"] else ("red", "without BN")
        label = f"{name}, lr {s['lr']:g}"
        high = s["lr"] == max(digits["rates"])
        lines.append(
            Line(
                label,
                role,
                range(1, len(s["losses"]) + 1),
                s["losses"],
                crosses=s["diverged_in"],
                dashed=not s["batch_norm"],
                marker="^" if high else "",
            )
        )
        last = f"{s['losses'][-1]:.4f}" if s["losses"] else "—"
        rows.append([label, last, error_text(s)])
    plot = line_plot(
        lines,
        name="digits",
        alt=f"Training loss against the epoch for four settings. {digits['title']}",
        xlabel="epoch",
        ylabel="training loss",
        ticks=sorted({1, digits["epochs"] // 2, digits["epochs"]}),
        log_y=True,
    )
    text = (
        f"{digits['hidden_layers']} hidden layers of {digits['width']} units on the 1,797 "
        f"handwritten digits of scikit-learn, {digits['points']:,} of them to train on. SGD, "
        f"batches of {digits['batch_size']}, {digits['epochs']} epochs; PyTorch's default initial "
        "weights."
    )
    header = ["", "last training loss", "test error"]
    return _section(digits["title"], _paragraph(text), _figure(plot, header, rows, digits))


def _comparison(comparison: dict, seconds: dict) -> str:
    rows = [
        ["ops recorded", *comparison["ops"]],
        ["bytes held for backward", *(f"{held:,}" for held in comparison["held_bytes"])],
        ["forward + backward", *(f"{1e3 * s:.3f} ms" for s in seconds["forward_backward"])],
    ]
    for order, difference in enumerate(comparison["differences"]):
        what = "values" if order == 0 else f"gradients of order {order}"
        rows.append([f"difference of the {what}", "", f"{difference:.1e}"])
    n, channels = comparison["shape"]
    text = (
        "Batch norm from primitive ops, as in the paper, beside one op whose gradient is the "
        f"analytic formula; {n} × {channels} inputs in float64. A difference is the largest one, "
        "relative to the largest value; it counts the gradients to x, γ and β of a random "
        "combination of y, μ and σ² (order 1), of a random combination of these (order 2), and so "
        "on."
    )
    return _section(comparison["title"], _paragraph(text), _table(["", "composed", "fused"], rows))


def _saved_constants(saved: dict) -> str:
    orders = saved["orders"]
    tiny = 1e-17  # a difference of 0 has no place on a logarithmic axis: it stands at the foot
    lines = [
        Line("saved as\nconstants", "red", orders, [max(d, tiny) for d in saved["constants"]]),
        Line("outputs\nof the op", "blue", orders, [max(d, tiny) for d in saved["outputs"]]),
    ]
    plot = line_plot(
        lines,
        name="orders",
        alt=f"Difference from composed against the order of the gradient. {saved['title']}",
        xlabel="order of the gradient",
        ylabel="difference from composed batch norm",
        ticks=orders,
        log_y=True,
    )
    rows = [
        [order, f"{constants:.1e}", f"{outputs:.1e}"]
        for order, constants, outputs in zip(orders, saved["constants"], saved["outputs"])
    ]
    text = (
        "A fused gradient reads μ and σ². Where a library saves them as constants, they have no "
        "history, and the formula is wrong when it is differentiated again, without a word. The "
        "same formula is run here with such constants. In this library the statistics are outputs "
        "of the op and keep their place in the graph. PyTorch 2.13 has written out the second "
        "derivative as well, and parts at order 3."
    )
    header = ["order", "saved as constants", "outputs of the op"]
    return _section(saved["title"], _paragraph(text), _figure(plot, header, rows, {}))


def _pictures(pictures: dict, folder: Path) -> str:
    parts = []
    if pictures["reason"]:
        links = ", ".join(f'<a href="{name}">{name}</a>' for name in pictures["files"])
        parts.append(_note(f"The pictures are missing: {pictures['reason']}"))
        parts.append(f"<p>The graphs as DOT text: {links}.</p>\n")
    figures, pages = [], []
    for name in pictures["files"]:
        caption = Path(name).stem.replace("_", " ")
        if name.endswith(".svg"):
            data = base64.b64encode((folder / name).read_bytes()).decode()
            figures.append(
                f'<figure><figcaption>{caption} · <a href="{name}">{name}</a></figcaption>'
                f'<div class="scroll" tabindex="0"><img alt="the recorded graph: {caption}" '
                f'src="data:image/svg+xml;base64,{data}"></div></figure>\n'
            )
        elif name.endswith(".html"):
            pages.append(f'<p>One op at a time: <a href="{name}">{name}</a>.</p>\n')
    if figures:
        parts.append(f'<div class="pictures">\n{"".join(figures)}</div>')
    text = (
        "The graphs that were recorded for x = (0.5, 3.5, 4.5, 7.5), γ = 2, β = 1, ε = 0 and "
        "ℓ = Σ wᵢyᵢ with w = (1, −2, 0.5, 1.5), with values ▸ and gradients ◂: the symbols of the "
        "lecture and what each path adds; composed beside fused; and the backward pass, which is "
        "recorded in its turn."
    )
    return _section(pictures["title"], _paragraph(text), *pages, *parts)


# --- Their parts ----------------------------------------------------------------------------------


def _section(heading: str | None, *parts: str) -> str:
    title = f"<h2>{html.escape(heading)}</h2>\n" if heading else ""
    return f"<section>\n{title}{''.join(parts)}</section>\n"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>\n"


def _note(text: str) -> str:
    """Something that is missing, or less than usual."""
    return f'<p class="note">{html.escape(text)}</p>\n'


def _figure(plot: str | None, header: Sequence, rows: Sequence[Sequence], about: dict) -> str:
    """A plot with its numbers folded out below; without the plot, the numbers in the open."""
    table = _table(header, rows)
    if plot is None:
        return table
    networks = about.get("networks", 1)
    several = f" (mean of {networks} networks; range from lowest to highest)" * (networks > 1)
    return f"<figure>{plot}</figure>\n<details><summary>numbers{several}</summary>{table}</details>"


def _table(header: Sequence, rows: Sequence[Sequence]) -> str:
    def row(tag, cells):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>\n"

    body = "".join(row("td", cells) for cells in rows)
    return f'<div class="scroll"><table>\n{row("th", header)}{body}</table></div>\n'
