"""The benchmark of several ranks: what it counts, what it makes of it, and a quick run of two."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scaling import __main__ as scaling
from benchmarks.scaling import report
from benchmarks.scaling.steps import Watched
from tinygrad_bn.distributed import simulate

SIZES = [8, 4096, 2**25]
LATENCY, BANDWIDTH = 2e-5, 4e9
TINY = {"model": "mlp", "width": 3, "depth": 2, "batch": 8}


def collective(seconds, last, collectives, sent):
    return {"seconds": seconds, "last": last, "collectives": collectives, "bytes": sent}


def step(seconds):
    """What two ranks find of a step."""
    statistics = collective(seconds / 10, seconds / 20, 6, 120)
    gradients = collective(seconds / 5, seconds / 10, 1, 4e6)
    return {"seconds": seconds, "statistics": statistics, "gradients": gradients}


def found():
    """As `scaling.measured`: one round, and one while others keep a core busy, which takes long."""
    all_reduce = [LATENCY + size / BANDWIDTH for size in SIZES]
    own = f"2 × 1, {report.OWN}"
    columns = {"1 × 1": [step(0.02)], "2 × 1": [step(0.01)], own: [step(0.008)]}
    during = {report.DURING: [{"seconds": 0.01}], report.POLLED: [{"seconds": 0.02}]}
    norms = {"`BatchNorm2d`": {"1 × 1": [step(1e-3)]}, "`SyncBatchNorm`": {"2 × 1": [step(2e-3)]}}
    tables = {
        "training": {"MLP": columns},
        "all-reduce": {"": {"2 × 1": [{"ours": all_reduce, "MPI": all_reduce}]}},
        "overlapping 2 × 1": {"MLP": during},
        "norm": norms,
    }
    for cell in (
        cell for rows in tables.values() for row in rows.values() for cell in row.values()
    ):
        noisy = cell[0] | {"seconds": 9.0, "others": 1.0}
        cell[0]["others"] = 0.1
        cell.insert(0, noisy)
    return tables


ABOUT = {
    **{"date": "2026-01-01", "cores": 2, "cpu": "a CPU", "MPI": "MPICH 5", "python": "3.11"},
    **{"versions": {"numpy": "2", "numba": "0"}, "mpi4py": "4", "load": 0.04},
    **{"shape": [2, 3], "sizes": SIZES, "environment": {"A": "1"}},
}


def test_the_tables_hold_everything_against_one_rank():
    tables = report.markdown(found(), ABOUT)
    assert "2 cores of a CPU, MPICH 5, Python 3.11, numpy 2, numba 0, mpi4py 4" in tables
    assert "kept 0.10 cores busy" in tables
    assert "All ran with `A=1`." in tables
    step_1, step_2, own = "20.0 ms (20.0–20.0)", "10.0 ms (10.0–10.0)", "8.00 ms (8.00–8.00)"
    assert f"| MLP | {step_1} | {step_2}, **2.00×** | {own}, **2.50×** |" in tables
    predicted = 7 * LATENCY + (4e6 + 120) / BANDWIDTH
    spent = "3.00 ms (30.0 %) | 1.50 ms (15.0 %)"
    spent += f" | {predicted * 1e3:.2f} ms ({predicted * 1e4:.1f} %) | 1.00 ms (10.0 %)"
    assert f"| MLP | 6: 120 B | 1: 3.81 MiB | {spent} |" in tables
    assert f"| MLP | {step_2} | {step_2}, **1.00×** | {step_1}, **0.50×** | 1.11× |" in tables
    assert "| `SyncBatchNorm` | – | 2.00 ms (2.00–2.00), **0.50×** |" in tables
    assert "latency of 20.0 µs and a bandwidth of 4.00 GB/s" in tables


def test_latency_and_bandwidth_are_found_in_times_that_are_a_line():
    line = report.Line(SIZES, [LATENCY + size / BANDWIDTH for size in SIZES])
    np.testing.assert_allclose([line.latency, line.bandwidth], [LATENCY, BANDWIDTH])
    assert line.seconds(3, 1000) == pytest.approx(3 * LATENCY + 1000 / BANDWIDTH)


def test_collectives_are_counted_on_each_rank():
    def each(comm):
        watched = Watched(comm)
        for _ in range(2):  # steps
            watched.allreduce_(np.zeros(3, np.float32))
            watched.allgather(np.zeros(2))
        return watched.found(steps=2)

    for counted in simulate(2, each):
        assert (counted["collectives"], counted["bytes"]) == (2, 3 * 4 + 2 * 8)
        assert 0 < counted["last"] <= counted["seconds"]


def test_the_readme_shows_the_newest_tables_if_it_has_a_place_for_them(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("no place\n")
    scaling.into_readme(readme, "| new |\n")
    assert readme.read_text() == "no place\n"
    readme.write_text(f"before\n\n{scaling.MARK}{scaling.END}\n\nafter\n")
    for tables in ("| old |\n", "| new |\n"):
        scaling.into_readme(readme, tables)
        wanted = f"before\n\n{scaling.MARK}{tables}\n{scaling.END}\n\nafter\n"
        assert readme.read_text() == wanted


def why_there_is_no_mpi():
    if not importlib.util.find_spec("mpi4py"):
        return "mpi4py is not installed"
    beside = Path(sys.executable).with_name("mpiexec")
    return "" if beside.exists() or shutil.which("mpiexec") else "mpiexec is not installed"


@pytest.mark.skipif(bool(why_there_is_no_mpi()), reason=why_there_is_no_mpi())
def test_two_ranks_measure_tiny_works(cpu_only):
    with scaling.Job(2, 1) as job:
        assert re.search(r" \d+\.\d", job.ask("about", 0.0)["MPI"])
        trained = job.ask("training", 0.0, **TINY)
        norm = job.ask("norm", 0.0, shape=[4, 2, 2, 2], impl="fused", sync=True)
        summed = job.ask("all-reduce", 0.0, sizes=SIZES[:2])
        overlapped = job.ask("overlapping", 0.0, polls=True, **TINY)  # and holds it against the one
    assert min(one["seconds"] for one in (trained, norm, overlapped)) > 0
    assert [len(summed[way]) for way in ("ours", "MPI")] == [2, 2]
    # As the report says
    parameters, tensors, channels, norms = 784 * 3 + 3 * 3 + 4 * 3 + 10 * 3 + 10, 8, 6, 2
    gradients, statistics = trained["gradients"], trained["statistics"]
    assert (statistics["collectives"], gradients["collectives"]) == (4, 1)
    assert statistics["bytes"] == 32 * channels + 8 * norms
    assert gradients["bytes"] == 4 * (parameters + tensors + 4)
