"""The sections of a tour's page about networks that were trained."""

from collections.abc import Sequence

from ..train.page import figure, paragraph, section, table
from ..train.plot import Line, line_plot
from ..train.summary import error_text

_IN_THE_PLOT = ("baseline", "BN", "BN ×5", "BN ×30")  # of the learning rates


def of_disc(disc: dict) -> str:
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
    numbers = table(["std", "without BN", "with BN"], rows)
    shown = figure(plot, numbers, _about_numbers(disc))
    return section(None, paragraph(disc["finding"]), paragraph(text), shown)


def of_learning_rates(found: dict) -> str:
    rows = {row["name"]: row for row in found["rows"]}
    lines = []
    for name, role, marker in zip(_IN_THE_PLOT, ("red", "blue", "green", "violet"), "so^D"):
        curves = list(zip(*rows[name]["curves"]))
        there = [[value for value in step if value is not None] for step in curves]
        lines.append(
            Line(
                name,
                role,
                [found["every"] * k for k in range(1, len(curves) + 1)],
                [sum(step) / len(step) if step else None for step in there],
                dashed=name == "baseline",
                marker=marker,
            )
        )
    last = rows["baseline"]["trained_for"]
    plot = line_plot(
        lines,
        name="rates",
        alt=f"Accuracy on held-out digits against the number of steps. {found['title']}",
        xlabel="steps",
        ylabel="accuracy on held-out digits",
        ticks=[0, rows["BN"]["trained_for"], last],
        percent=True,
    )
    cells = [
        [name, f"{row['lr']:g}", _spread(row["steps"], "{:.0f}"), _spread(row["near"], "{:.0f}"),
         _spread(row["best"], "{:.1%}")]
        for name, row in rows.items()
    ]  # fmt: skip
    words = (
        "The table of Ioffe & Szegedy 2015 (Figure 3) for a small convnet on scikit-learn's "
        "digits: how many steps each network needs until it is as good as the baseline, without "
        f"batch norm, ever is in {last:,} steps; and until it is a percentage point short of that. "
        "Gradient descent without momentum, at the baseline's rate and at multiples of it."
    )
    header = ["", "rate", "steps to its best", "steps to 1 point less", "own best"]
    numbers = table(header, cells)
    shown = figure(plot, numbers, _about_numbers(found))
    return section(found["title"], paragraph(words), shown)


def of_sigmoids(found: dict) -> str:
    lines = []
    for side, label, role in (("without", "without BN", "red"), ("with", "with BN", "blue")):
        low, median, high = zip(*found[side]["unit"][0])
        lines.append(Line(label, role, found["steps"], median, low, high, dashed=side == "without"))
    plot = line_plot(
        lines,
        name="sigmoids",
        alt=f"The middle of a unit's inputs, over training. {found['title']}",
        xlabel="steps",
        ylabel="a unit's input: median, and from the 15th to the 85th percentile",
        ticks=[found["steps"][0], found["steps"][-1]],
    )
    rows = [
        [f"{what}, {when}", *(_mean(found[side][key], k, form) for side in ("without", "with"))]
        for what, key, form in (
            ("accuracy on held-out digits", "accuracy", "{:.1%}"),
            ("width from the 15th to the 85th percentile", "width", "{:.2f}"),
            ("inputs where the sigmoid is flat", "saturated", "{:.1%}"),
        )
        for when, k in (("at first", 0), ("at the end", -1))
    ]
    words = (
        "Three hidden layers of 100 sigmoids on the digits (Figure 1 of the paper): what comes to "
        "a unit of the last of them, over all training images, while the network learns."
    )
    numbers = table(["", "without BN", "with BN"], rows)
    shown = figure(plot, numbers, _about_numbers(found))
    return section(found["title"], paragraph(words), shown)


def of_convnet(found: dict) -> str:
    name, count = found["file"], found["parameters"]
    words = (
        f"What tinygrad-bn train leaves of a run: a convnet of {count:,} parameters with batch "
        f"norm, {found['epochs']} epochs on four fifths of scikit-learn's 1,797 digits."
    )
    link = f'<p><a href="{name}">Its report</a>.</p>\n'
    return section(found["title"], paragraph(words), link)


def _spread(spread: dict, form: str) -> str:
    """The mean of several networks, and their range; a network that never was so good is ×."""
    if spread["mean"] is None:
        return "×"
    text, many = form.format(spread["mean"]), spread["lowest"] < spread["highest"]
    if many:
        text += f" ({form.format(spread['lowest'])}–{form.format(spread['highest'])})"
    missing = list(spread["each"]).count(None)
    return text + f", × {missing} of {len(spread['each'])}" * bool(missing)


def _mean(networks: Sequence[Sequence[float]], k: int, form: str) -> str:
    values = [values[k] for values in networks]
    return form.format(sum(values) / len(values))


def _about_numbers(experiment: dict) -> str:
    networks = experiment["networks"]
    several = f" (mean of {networks} networks; range from lowest to highest)" * (networks > 1)
    return f"numbers{several}"
