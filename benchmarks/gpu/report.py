"""What was found, in lines, against the targets, and as tables for the README."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..speed.report import digits, duration, table, verdict

MARK, END = "<!-- benchmarks/results/{}.md -->", "<!-- the end of {}.md -->"
OF_BOUND, TIMES_PYTORCH = 0.75, 1.2
AS_ON_CPU = 1e-5
AS_IT_IS = "as it is"  # of the constants in TUNED
TUNED = "tinygrad_bn/kernels/cuda_norm.py"


# --- Lines ----------------------------------------------------------------------------------------


IN_THE_NAME = ("norm", "shape", "dtype", "which", "kind", "large", "losses", "setting")
TOLD_AT_THE_END = ("failed", "output", "where", "wrong", "other_bits")
ONLY_A_GPU_TELLS = (
    *("compute_capability", "multiprocessors", "memory_bytes", "cache_bytes"),
    *("driver_cuda", "runtime_cuda"),
    *("seconds", "eager_seconds", "of_bound", "bytes_a_second", "times_pytorch", "nodes"),
    *("share_of_allowed", "worst", "from_cpu", "off", "off_from_cpu", "losses", "different"),
)


def unmeasured(row: dict) -> dict:
    """A row of a dry run, without what only a GPU can tell."""
    return {key: value for key, value in row.items() if key not in ONLY_A_GPU_TELLS}


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
    section: str  # whose rows tell
    wanted: str
    reached: Callable[[dict], float | None]
    is_met: Callable[[float], bool]
    look_at: str  # where it is not met


def rows(found: dict, section: str) -> list[dict]:
    return found[section]["rows"] if section in found else []


def least(found: dict, key: str) -> float | None:
    """Over batch norm and layer norm of large arrays, forward and backward."""
    wanted = [r for r in rows(found, "norms") if r.get("large")]
    values = [r[key] for r in wanted if r["norm"] in ("batch norm", "layer norm")]
    values = [v for v in values if v is not None]
    return float(np.min(values)) if values else None  # NaN if one is


def ratio(found: dict, one: str, other: str) -> float | None:
    """Of the medians of two who do the MLP's step."""
    for row in rows(found, "networks"):
        if row["name"] == "MLP" and {one, other} <= row["seconds"].keys():
            return row["seconds"][one][1] / row["seconds"][other][1]
    return None


def from_cpu(found: dict) -> float | None:
    values = [r["from_cpu"] for r in rows(found, "kernels") if r["dtype"] == "float32"]
    return float(np.max(values)) if values else None  # NaN if one is


def wrong(found: dict, key: str) -> float | None:
    values = [len(r[key]) for r in rows(found, "kernels")]
    return float(sum(values)) if values else None


def differing(found: dict) -> float | None:
    values = [r["different"] for r in rows(found, "conformity") if "different" in r]
    return float(sum(values)) if values else None


NORMS = f"_BLOCKS, _THREADS and _width in {TUNED}"
TARGETS = [
    Target(
        "Batch norm and layer norm of large arrays: of the speed of a copy",
        "norms",
        f"≥ {OF_BOUND}",
        lambda found: least(found, "of_bound"),
        lambda value: value >= OF_BOUND,
        NORMS,
    ),
    Target(
        "The same: times as fast as PyTorch",
        "norms",
        f"≥ {TIMES_PYTORCH}",
        lambda found: least(found, "times_pytorch"),
        lambda value: value >= TIMES_PYTORCH,
        NORMS,
    ),
    Target(
        "The MLP's step, captured: times as fast as PyTorch eager",
        "networks",
        "≥ 5",
        lambda found: ratio(found, "PyTorch", "ours, captured"),
        lambda value: value >= 5,
        "the nodes of its graph (captures), and what its norms take at (100, 32) (norms)",
    ),
    Target(
        "The MLP's step, captured: times as fast as PyTorch's CUDA graph",
        "networks",
        "≥ 1",
        lambda found: ratio(found, "PyTorch, CUDA graph", "ours, captured"),
        lambda value: value >= 1,
        "the nodes of its graph (captures), and what its norms take at (100, 32) (norms)",
    ),
    Target(
        "The MLP's step, eager: times as long as PyTorch eager",
        "networks",
        "≤ 1.5",
        lambda found: ratio(found, "ours", "PyTorch"),
        lambda value: value <= 1.5,
        "the calls that take the host longest (launches)",
    ),
    Target(
        "Kernels in float32: how far from the CPU's results",
        "kernels",
        "≤ 1e-5",
        from_cpu,
        lambda value: value <= AS_ON_CPU,
        "the rows of kernels, in which `worst` names the case",
    ),
    Target(
        "Results that are further from float64 than rounding",
        "kernels",
        "0",
        lambda found: wrong(found, "wrong"),
        lambda value: value == 0,
        "the lines `wrong:`",
    ),
    Target(
        "Results that have other bits the second time",
        "kernels",
        "0",
        lambda found: wrong(found, "other_bits"),
        lambda value: value == 0,
        "the lines `other bits:`",
    ),
    Target(
        "Lines in which the test double differs from CuPy",
        "conformity",
        "0",
        differing,
        lambda value: value == 0,
        "the rows `differs:` of conformity; tests/double is to be mended",
    ),
]


def verdicts(found: dict) -> list[dict]:
    """For each target what was reached, and whether that meets it; None where nobody measured.

    What the rows of a section miss is missed. They meet a target only if they are all there.
    """
    lines = []
    for target in TARGETS:
        value, why = target.reached(found), incomplete(found, target.section)
        met = None if value is None else target.is_met(value)
        if met and why:
            value = met = None
        row = {"what": target.what, "wanted": target.wanted, "reached": value, "met": met}
        lines.append({**row, "why": why, "look_at": target.look_at})
    return lines


def incomplete(found: dict, section: str) -> str:
    """Why the rows of a section are not all that it was to find; empty if they are."""
    if section not in found:
        return f"{section} did not run"
    entry = found[section]
    if entry["problems"]:
        return f"problem in {section}: {entry['problems'][-1]['problem']}"
    if "expected" not in entry:
        return f"{section} did not say which rows to expect"
    there = {row["name"] for row in entry["rows"]}
    absent = [name for name in entry["expected"] if name not in there]
    if absent:
        return f"{section} lacks {len(absent)} of {len(entry['expected'])} rows, as {absent[0]}"
    raised = [name for row in entry["rows"] for name in row.get("raised", [])]
    return f"{section}: {raised[0]} raised" if raised else ""


def told(verdicts: list[dict]) -> list[str]:
    lines = [f"{v['what']}: {reached(v)} (wanted {v['wanted']}): {said(v)}" for v in verdicts]
    counts = {word: sum(v["met"] is met for v in verdicts) for word, met in COUNTED.items()}
    return [*lines, ", ".join(f"{number} {word}" for word, number in counts.items())]


def reached_of_targets(found: dict) -> list[str]:
    """What a run says of the targets."""
    return [*told(verdicts(found)), *to_try(found)]


def not_measured() -> list[str]:
    """What a dry run says of the targets."""
    return [f"{t.what}: wanted {t.wanted}: not measured (dry run)" for t in TARGETS]


def to_try(found: dict) -> list[str]:
    """For each target that is missed where to look; and which constants made a norm faster."""
    lines = [
        f"to look at: {v['what']}: {v['look_at']}" for v in verdicts(found) if v["met"] is False
    ]
    norms: dict[str, dict[str, dict]] = {}  # the shares of each setting
    for row in rows(found, "tuning"):
        if "setting" in row and "of_bound" in row:
            norm = f"{row['norm']} {tuple(row['shape'])} {row['dtype']}"
            norms.setdefault(norm, {})[row["setting"]] = row["of_bound"]
    for norm, shares in norms.items():
        for which, share in shares.get(AS_IT_IS, {}).items():
            best = max(shares, key=lambda setting: shares[setting][which])
            if share < OF_BOUND and best != AS_IT_IS:
                better = f"{few_digits(shares[best][which])} of the speed of a copy"
                lines.append(
                    f"to try: {best} in {TUNED}: {norm} {which}: {better}, {few_digits(share)} "
                    f"{AS_IT_IS}"
                )
            elif share < OF_BOUND:
                lines.append(f"to try: another kernel: {norm} {which}: no constant tried is better")
    return lines


COUNTED = {"met": True, "missed": False, "not measured": None}


def reached(one: dict) -> str:
    value = one["reached"]
    if value is None:
        return "–"
    if one["wanted"] == "0":
        return f"{value:.0f}"
    return few_digits(value)


def said(one: dict) -> str:
    if one["met"] is None:
        return f"not measured ({one['why']})" if one["why"] else "not measured"
    return verdict(one["met"])


# --- Tables ---------------------------------------------------------------------------------------


def markdown(found: dict, device: str) -> str:
    """The text between the marks of the README, with them."""
    targets = [[v["what"], v["wanted"], reached(v), said(v)] for v in verdicts(found)]
    parts = [about(found), table(["target", "wanted", "reached", ""], targets)]
    for name, cells in (("norms", of_norms), ("networks", of_networks), ("launches", of_launches)):
        if rows(found, name):
            parts.append(cells(rows(found, name)))
    parts.append("\n".join(f"- {line}" for line in to_try(found)))
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
