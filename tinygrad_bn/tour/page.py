"""The page of a tour: findings as headings, plots with their numbers folded out, the pictures.

Every number in it is read from the results that are written beside it.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from ..train.page import document, figure, note, paragraph, section, table
from ..train.plot import MISSING, Line, line_plot
from . import trained


def tour_page(results: dict, folder: Path) -> str:
    """The page that shows `results`, and the pictures that they name, which lie in `folder`."""
    parts = {
        "disc": trained.of_disc,
        "learning_rates": trained.of_learning_rates,
        "sigmoids": trained.of_sigmoids,
        "convnet": trained.of_convnet,
        "coupling": _coupling,
        "ignored_mean": _ignored_mean,
        "comparison": _comparison,
        "saved_constants": _saved_constants,
        "pictures": lambda found: _pictures(found, folder),
    }
    sections = [
        _left_out(name, results[name]["skipped"])
        if "skipped" in results[name]
        else shown(results[name])
        for name, shown in parts.items()
    ]
    notes = []
    if results["quick"]:
        notes.append(
            "This was the quick tour: fewer scales, networks and epochs than the full one."
        )
    if not any("<details" in section for section in sections):
        notes.append(MISSING)
    lead = "".join(map(note, notes))
    seconds = [f"{what.replace('_', ' ')} {s:.1f} s" for what, s in results["seconds"].items()]
    footer = (
        f'<footer>Seed {results["seed"]}. The numbers as JSON: <a href="results.json">results.json'
        f"</a>. Time on this machine: {html.escape(', '.join(seconds))}.</footer>"
    )
    return document(results["title"], lead + "".join(sections) + footer)


def _left_out(name: str, why: str) -> str:
    return section(f"Left out: {name.replace('_', ' ')}", note(why))


# --- What a few samples show ----------------------------------------------------------------------


def _coupling(found: dict) -> str:
    pictures = "".join(
        f"<figure><figcaption>{name} norm</figcaption>{_heat(found[name], f'∂y/∂x of {name} norm')}"
        "</figure>\n"
        for name in ("batch", "layer")
    )
    words = (
        f"The derivative of every output by every input, for {found['samples']} samples of "
        f"{found['features']} features: blue where they go together, red where one takes from the "
        "other, nothing where the derivative is 0. A sample has three rows and three columns. Of "
        "the entries between two different samples batch norm fills "
        f"{100 * found['between_samples']['batch']:.0f} %, layer norm "
        f"{100 * found['between_samples']['layer']:.0f} %."
    )
    return section(found["title"], paragraph(words), f'<div class="pair">\n{pictures}</div>\n')


def _heat(matrix: Sequence[Sequence[float]], alt: str) -> str:
    """A matrix as an `<svg>` of cells: the stronger the colour, the larger the number."""
    largest = max(abs(value) for row in matrix for value in row)
    cells = "".join(
        f'<rect x="{x}" y="{y}" width="1" height="1" '
        f'fill="var(--{"blue" if value > 0 else "red"})" opacity="{abs(value) / largest:.2f}"/>'
        for y, row in enumerate(matrix)
        for x, value in enumerate(row)
        if value
    )
    side = len(matrix)
    frame = (
        f'<rect width="{side}" height="{side}" fill="none" stroke="var(--grid)" stroke-width=".2"/>'
    )
    return (
        f'<svg viewBox="-.2 -.2 {side + 0.4} {side + 0.4}" role="img" '
        f'aria-label="{html.escape(alt)}">{frame}{cells}</svg>'
    )


def _ignored_mean(found: dict) -> str:
    whole, ignored = found["whole"], found["ignored"]
    steps = range(len(whole["b"]))
    plot = line_plot(
        [
            Line(
                "b, mean taken\nfor a constant", "red", steps, ignored["b"], dashed=True, marker="s"
            ),
            Line("b, whole\ngradient", "blue", steps, whole["b"]),
        ],
        name="ignored",
        alt=f"The bias b against the number of steps. {found['title']}",
        xlabel="steps",
        ylabel="b",
        ticks=[steps[0], steps[-1]],
    )
    rows = [
        [k, f"{ignored['b'][k]:.1f}", f"{ignored['loss'][k]:.6f}", f"{whole['b'][k]:.1f}",
         f"{whole['loss'][k]:.6f}"]
        for k in (0, 1, len(steps) // 2, len(steps) - 1)
    ]  # fmt: skip
    words = (
        "The paper's example: x̂ = u + b − E[u + b], with a loss that x̂ cannot please. A step that "
        "takes E for a constant moves b, which moves E, and output and loss are what they were. "
        "With the gradient through E, that of b is 0: nothing is gained by moving it."
    )
    header = ["step", "b, E a constant", "loss", "b, whole gradient", "loss"]
    return section(found["title"], paragraph(words), figure(plot, table(header, rows)))


# --- One formula, twice ---------------------------------------------------------------------------


def _comparison(comparison: dict) -> str:
    rows = [
        ["ops recorded", *comparison["ops"]],
        ["bytes held for backward", *(f"{held:,}" for held in comparison["held_bytes"])],
        ["forward + backward", *(f"{1e3 * s:.3f} ms" for s in comparison["seconds"])],
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
    return section(comparison["title"], paragraph(text), table(["", "composed", "fused"], rows))


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
    return section(saved["title"], paragraph(text), figure(plot, table(header, rows)))


def _pictures(pictures: dict, folder: Path) -> str:
    parts = []
    if pictures["reason"]:
        links = ", ".join(f'<a href="{name}">{name}</a>' for name in pictures["files"])
        parts.append(note(f"The pictures are missing: {pictures['reason']}"))
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
    return section(pictures["title"], paragraph(text), *pages, *parts)
