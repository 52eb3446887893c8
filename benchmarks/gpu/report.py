"""What was found, in lines, against the targets, and as tables for the README."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..speed.report import digits, duration, table, verdict

MARK, END = "<!-- benchmarks/results/{}.md -->", "<!-- the end of {}.md -->"
OF_BOUND, TIMES_PYTORCH = 0.75, 1.2
AS_ON_CPU = 1e-5


# --- Lines ----------------------------------------------------------------------------------------


IN_THE_NAME = ("norm", "shape", "dtype", "which", "kind", "large", "losses")
TOLD_AT_THE_END = ("failed", "output", "where", "wrong", "other_bits")


def line(row: dict) -> str:
    """A row as it is told while the program runs."""
    parts = []
    for key, value in row.items():
        if key in (*IN_THE_NAME, *TOLD_AT_THE_END) or value in (None, [], {}):
            continue
        parts.append(value if key == "name" else f"{key.replace('_', ' ')}: {short(value, key)}")
    return "; ".join(parts)


def short(value: Any, key: str) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(each, key)}" for name, each in value.items())
    if key.endswith("seconds"):
        return duration(value)
    return few_digits(value) if isinstance(value, float) else str(value)


def few_digits(number: float) -> str:
    return digits(number) if number == 0 or abs(number) >= 0.01 else f"{number:.1e}"


def problems(found: dict) -> list[str]:
    """What went wrong, a line each, with the end of what a program printed."""
    lines = []
    for section, entry in found.items():
        for row in entry["problems"]:
            lines.append(f"problem in {section}: {row.get('name', '')} {row['problem']}")
            lines += row.get("where", "").splitlines()
        for row in entry["rows"]:
            lines += [f"wrong: {each}" for each in row.get("wrong", [])]
            lines += [f"other bits: {each}" for each in row.get("other_bits", [])]
            if row.get("status") not in (None, 0):
                lines += [f"{row['name']}: {each}" for each in row["failed"] or row["output"]]
    return lines


# --- Targets --------------------------------------------------------------------------------------


class Target(NamedTuple):
    """What is wanted, and what was reached; None where it was not measured."""

    what: str
    wanted: str
    reached: Callable[[dict], float | None]
    is_met: Callable[[float], bool]


def rows(found: dict, section: str) -> list[dict]:
    return found[section]["rows"] if section in found else []


def least(found: dict, key: str) -> float | None:
    """Over batch norm and layer norm of large arrays, forward and backward."""
    wanted = [r for r in rows(found, "norms") if r.get("large")]
    values = [r[key] for r in wanted if r["norm"] in ("batch norm", "layer norm")]
    return min([v for v in values if v is not None], default=None)


def ratio(found: dict, one: str, other: str) -> float | None:
    """Of the medians of two who do the MLP's step."""
    for row in rows(found, "networks"):
        if row["name"] == "MLP" and {one, other} <= row["seconds"].keys():
            return row["seconds"][one][1] / row["seconds"][other][1]
    return None


def from_cpu(found: dict) -> float | None:
    values = [r["from_cpu"] for r in rows(found, "kernels") if r["dtype"] == "float32"]
    return max(values, default=None)


def wrong(found: dict, key: str) -> float | None:
    values = [len(r[key]) for r in rows(found, "kernels")]
    return float(sum(values)) if values else None


def differing(found: dict) -> float | None:
    values = [r["different"] for r in rows(found, "conformity") if "different" in r]
    return float(sum(values)) if values else None


TARGETS = [
    Target(
        "Batch norm and layer norm of large arrays: of the speed of a copy",
        f"≥ {OF_BOUND}",
        lambda found: least(found, "of_bound"),
        lambda value: value >= OF_BOUND,
    ),
    Target(
        "The same: times as fast as PyTorch",
        f"≥ {TIMES_PYTORCH}",
        lambda found: least(found, "times_pytorch"),
        lambda value: value >= TIMES_PYTORCH,
    ),
    Target(
        "The MLP's step, captured: times as fast as PyTorch eager",
        "≥ 5",
        lambda found: ratio(found, "PyTorch", "ours, captured"),
        lambda value: value >= 5,
    ),
    Target(
        "The MLP's step, captured: times as fast as PyTorch's CUDA graph",
        "≥ 1",
        lambda found: ratio(found, "PyTorch, CUDA graph", "ours, captured"),
        lambda value: value >= 1,
    ),
    Target(
        "The MLP's step, eager: times as long as PyTorch eager",
        "≤ 1.5",
        lambda found: ratio(found, "ours", "PyTorch"),
        lambda value: value <= 1.5,
    ),
    Target(
        "Kernels in float32: how far from the CPU's results",
        "≤ 1e-5",
        from_cpu,
        lambda value: value <= AS_ON_CPU,
    ),
    Target(
        "Results that are further from float64 than rounding",
        "0",
        lambda found: wrong(found, "wrong"),
        lambda value: value == 0,
    ),
    Target(
        "Results that have other bits the second time",
        "0",
        lambda found: wrong(found, "other_bits"),
        lambda value: value == 0,
    ),
    Target(
        "Lines in which the test double differs from CuPy",
        "0",
        differing,
        lambda value: value == 0,
    ),
]


def verdicts(found: dict) -> list[dict]:
    """For each target what was reached, and whether that meets it; None where nobody measured."""
    lines = []
    for target in TARGETS:
        value = target.reached(found)
        met = None if value is None else target.is_met(value)
        lines.append({"what": target.what, "wanted": target.wanted, "reached": value, "met": met})
    return lines


def told(verdicts: list[dict]) -> list[str]:
    lines = [f"{v['what']}: {reached(v)} (wanted {v['wanted']}): {said(v)}" for v in verdicts]
    counts = {word: sum(v["met"] is met for v in verdicts) for word, met in COUNTED.items()}
    return [*lines, ", ".join(f"{number} {word}" for word, number in counts.items())]


COUNTED = {"met": True, "missed": False, "not measured": None}


def reached(one: dict) -> str:
    value = one["reached"]
    if value is None:
        return "–"
    if one["wanted"] == "0":
        return f"{value:.0f}"
    return few_digits(value)


def said(one: dict) -> str:
    return "not measured" if one["met"] is None else verdict(one["met"])


# --- Tables ---------------------------------------------------------------------------------------


def markdown(found: dict, device: str) -> str:
    """The text between the marks of the README, with them."""
    targets = [[v["what"], v["wanted"], reached(v), said(v)] for v in verdicts(found)]
    parts = [about(found), table(["target", "wanted", "reached", ""], targets)]
    for name, cells in (("norms", of_norms), ("networks", of_networks), ("launches", of_launches)):
        if rows(found, name):
            parts.append(cells(rows(found, name)))
    text = "\n\n".join(part for part in parts if part)
    return f"{MARK.format(device)}\n\n{text}\n\n{END.format(device)}\n"


def about(found: dict) -> str:
    machine = next(iter(rows(found, "environment")), None)
    if machine is None:
        return "The machine was not described."
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    copy = [row for row in rows(found, "norms") if row["name"] == "copy"]
    copies = [f"It copies {row['bytes_a_second'] / 1e12:.2f} TB/s." for row in copy]
    return " ".join(
        [
            f"Measured on {machine['date']}: {machine['device']}, "
            f"driver {machine['driver'] or '–'}, CUDA {machine['runtime_cuda']}, "
            f"Python {machine['python']}, {versions}.",
            *copies,
            "Medians (and quartiles) of interleaved runs. Of a norm: its time, its share of the "
            "speed of a copy, and how many times as long PyTorch takes.",
        ]
    )


def of_norms(rows: list[dict]) -> str:
    """A line for each norm and shape: the time, the share of a copy's speed, PyTorch's time."""
    measured = [row for row in rows if "of_bound" in row]
    columns = list(dict.fromkeys((row["dtype"], row["which"]) for row in measured))
    lines: dict[str, dict] = {}
    for row in measured:
        norm = f"{row['norm']} {tuple(row['shape'])}"
        lines.setdefault(norm, {})[row["dtype"], row["which"]] = cell(row)
    head = ["in a CUDA graph", *(f"{dtype} {which}" for dtype, which in columns)]
    return table(head, [[norm, *(of.get(c, "–") for c in columns)] for norm, of in lines.items()])


def cell(row: dict) -> str:
    time, _, _ = duration(row["seconds"]["ours"]).partition(" (")
    beside = row["times_pytorch"]
    return f"{time}, {row['of_bound']:.2f}" + (f", **{digits(beside)}×**" if beside else "")


def of_networks(rows: list[dict]) -> str:
    """A line for each who does a step."""
    lines = []
    for row in rows:
        ours = row["seconds"].get("ours")
        for who, times in row["seconds"].items():
            share = f"{digits(times[1] / ours[1])}×" if ours else "–"
            lines.append([row["name"], who, duration(times), share])
    return table(["a training step", "", "", "beside ours, eager"], lines)


def of_launches(rows: list[dict]) -> str:
    lines = [[row["name"], duration(row["seconds"])] for row in rows]
    return table(["the host's time for a call", ""], lines)
