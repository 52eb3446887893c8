"""What `benchmarks.scaling` measured, as tables in Markdown."""

import statistics
from collections.abc import Sequence

import numpy as np

from ..speed.measure import quartiles
from ..speed.report import digits, duration, table

OWN = "each by its own statistics"
AFTER = "one message after backward"
DURING = "two, the first during backward"
POLLED = "the same, polled at each gradient"


def markdown(found: dict, about: dict) -> str:
    found = {
        title: {row: {c: quieter(cell) for c, cell in cells.items()} for row, cells in rows.items()}
        for title, rows in found.items()
    }
    parts = [machine(found, about), training(found["training"])]
    for job in found.get("all-reduce", {"": ()})[""]:
        line = Line.of(found, job, about["sizes"])
        parts += [told(found["training"], job, line), all_reduce(found, job, about["sizes"], line)]
        parts.append(overlapping(found, job))
    parts += [norms(found["norm"], about["shape"]), ESTIMATE]
    return "\n\n".join(parts) + "\n"


def quieter(answers: list[dict]) -> list[dict]:
    """That half of a job's bursts during which others kept the fewest cores busy."""
    most = statistics.median(one["others"] for one in answers)
    return [one for one in answers if one["others"] <= most]


def machine(found: dict, about: dict) -> str:
    cells = [cell for rows in found.values() for row in rows.values() for cell in row.values()]
    others = statistics.median(one["others"] for cell in cells for one in cell)
    variables = ", ".join(f"`{name}={value}`" for name, value in about["environment"].items())
    versions = {n: v for n, v in about["versions"].items() if n in ("numpy", "numba")}
    versions["mpi4py"] = about["mpi4py"]
    return (
        f"Measured on {about['date']}: {about['cores']} cores of {about['cpu']}, "
        f"{about['MPI']}, Python {about['python']}, "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}, float32; the "
        f"load was {about['load']:.1f} when it began, and other programs kept {others:.2f} cores "
        f"busy meanwhile. Medians (and quartiles) of {min(map(len, cells))} interleaved bursts, "
        "the half during which other programs did the least. 2 × 1 is two ranks with one thread "
        "each, which share the batch; × is how many samples a second, as a multiple of one rank "
        f"with one thread. All ran with {variables}."
    )


def times(found: list[dict]) -> list[float]:
    """Quartiles of the seconds of a step."""
    return quartiles([one["seconds"] for one in found])


def ratio(slow: list[float], fast: list[float]) -> str:
    return f"**{slow[1] / fast[1]:.2f}×**"


def training(rows: dict) -> str:
    columns = list(next(iter(rows.values())))
    lines = []
    for row, cells in rows.items():
        seconds = {column: times(cells[column]) for column in columns}
        first, *others = columns
        line = [row, duration(seconds[first])]
        line += [f"{duration(seconds[c])}, {ratio(seconds[first], seconds[c])}" for c in others]
        lines.append(line)
    return table(["a training step", *columns], lines)


class Line:
    """The seconds of an all-reduce of n bytes: latency + n / bandwidth, where the sum of squares of
    the relative errors is least."""

    def __init__(self, sizes: Sequence[int], seconds: Sequence[float]) -> None:
        sizes, seconds = np.array(sizes, float), np.array(seconds)
        matrix = np.stack([1 / seconds, sizes / seconds], axis=1)
        (self.latency, slope), *_ = np.linalg.lstsq(matrix, np.ones(len(sizes)), rcond=None)
        self.bandwidth = 1 / slope

    @classmethod
    def of(cls, found: dict, job: str, sizes: list[int]) -> "Line":
        return cls(sizes, medians(found["all-reduce"][""][job], "ours"))

    def seconds(self, collectives: float, sent: float) -> float:
        return collectives * self.latency + sent / self.bandwidth


def medians(found: list[dict], way: str) -> list[float]:
    """For each size, of the rounds."""
    return [statistics.median(one) for one in zip(*(answer[way] for answer in found))]


def told(rows: dict, job: str, line: Line) -> str:
    """What ranks tell each other in a step."""
    lines = []
    for row, cells in rows.items():
        step = times(cells[job])[1]
        by = {kind: middle([one[kind] for one in cells[job]]) for kind in KINDS}
        both = {key: sum(by[kind][key] for kind in KINDS) for key in by["gradients"]}
        lines.append(
            [
                row,
                *(f"{by[kind]['collectives']:.0f}: {size(by[kind]['bytes'])}" for kind in KINDS),
                f"{share(both['seconds'], step)}",
                share(both["last"], step),
                share(line.seconds(both["collectives"], both["bytes"]), step),
                share(by["gradients"]["last"], step),
            ]
        )
    head = [
        f"in a step of {job}",
        "batch norm's collectives: bytes",
        "gradients'",
        "seconds in collectives",
        "without waiting for others",
        "latency · collectives + bytes / bandwidth",
        "without waiting, gradients' alone",
    ]
    return table(head, lines) + "\n\n" + WAITING


KINDS = ("statistics", "gradients")
WAITING = """\
Bytes are those that a rank hands in. Whoever comes last to a collective does not wait for the
others: its seconds are those "without waiting". The gradients' are all that sending them during
backward could gain."""


def middle(found: list[dict]) -> dict[str, float]:
    """The median of each entry."""
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def share(seconds: float, step: float) -> str:
    return f"{span(seconds)} ({100 * seconds / step:.1f} %)"


def span(seconds: float) -> str:
    return duration([seconds] * 3).partition(" (")[0]


def size(count: float) -> str:
    """Bytes, in a unit that fits: 1.28 MiB."""
    for unit, scale in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def all_reduce(found: dict, job: str, sizes: list[int], line: Line) -> str:
    answers = found["all-reduce"][""][job]
    ours, mpi = medians(answers, "ours"), medians(answers, "MPI")
    rows = [
        ["`comm.allreduce_`", *map(span, ours)],
        ["MPI_Allreduce, which waits", *map(span, mpi)],
        ["bytes a second, ours", *(f"{n / t / 1e9:.2g} GB" for n, t in zip(sizes, ours))],
        ["latency + bytes / bandwidth", *(span(line.seconds(1, n)) for n in sizes)],
    ]
    text = (
        f"So an all-reduce of {job.partition(' ')[0]} ranks here has a latency of "
        f"{span(line.latency)} and a bandwidth of {digits(line.bandwidth / 1e9)} GB/s (the line "
        "with the least squares of relative errors)."
    )
    return table([f"an all-reduce of {job}", *map(size, sizes)], rows) + "\n\n" + text


def overlapping(found: dict, job: str) -> str:
    lines = []
    for row, cells in found[f"overlapping {job}"].items():
        plain = found["training"][row][job]
        before = times(plain)
        alone = middle([one["gradients"] for one in plain])["last"]
        line = [row, duration(before)]
        for column in (DURING, POLLED):
            after = times(cells[column])
            line.append(f"{duration(after)}, {ratio(before, after)}")
        lines.append([*line, f"{before[1] / (before[1] - alone):.2f}×"])
    head = [f"a step of {job}", AFTER, DURING, POLLED, "if it cost nothing"]
    return table(head, lines) + "\n\n" + PROGRESS


PROGRESS = """\
Of two messages one has the gradients of the last layers, about half of all, and begins when
backward has them. MPICH moves it on only while it is called: by the collectives of batch norm, and,
where it is polled, at each gradient."""


def norms(rows: dict, shape: list[int]) -> str:
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    first = times(next(iter(rows.values()))[columns[0]])
    lines = []
    for row, cells in rows.items():
        line = [row]
        for column in columns:
            if column not in cells:
                line.append("–")
                continue
            seconds = times(cells[column])
            line.append(f"{duration(seconds)}, {ratio(first, seconds)}")
        lines.append(line)
    return table([f"forward and backward of {tuple(shape)}", *columns], lines) + "\n\n" + NORMS


NORMS = """\
Ranks have equal shares of the rows. `BatchNorm2d` goes by the statistics of a rank's own rows: that
is what a synchronized one would cost if ranks told each other what they found in no time, and
if it were as fast otherwise."""


ESTIMATE = """\
To estimate a cluster of your own: a step of n ranks takes about

    compute / n + (1 + 2 · norms) · latency + bytes / bandwidth
    bytes = 4 · (parameters + tensors + 4) + 32 · channels + 8 · norms

with the latency and bandwidth of an all-reduce of n ranks there (for large arrays in a ring, the
bandwidth is that of a link times n / (2 (n − 1))). A batch norm has two collectives a step: an
all-gather of a count and, 16 bytes a channel, means and squares; and in backward an all-reduce of
two sums, 16 bytes, too. `tensors` are the parameters counted as Tensors: that many numbers say
which have a gradient, and four more are for losses."""
