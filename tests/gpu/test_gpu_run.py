"""The one run on a GPU: its dry run has no mistakes, and nothing that fails stops the rest."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_run
from benchmarks.gpu import report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def dry(tmp_path_factory, request):
    """What a dry run printed, what it found, and the folder into which it has written."""
    if request.config.getoption("--device") != "cpu":
        pytest.skip("a dry run is always on the double; run without --device")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("g++ is missing, which compiles CUDA kernels for the CPU")
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks.gpu_run", "--dry", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "dry-run.json").read_text()), folder


def test_every_section_runs_on_the_double(dry):
    printed, found, _ = dry
    assert list(found) == list(gpu_run.SECTIONS)
    assert {name: entry["problems"] for name, entry in found.items() if entry["problems"]} == {}
    without_rows = [name for name, entry in found.items() if not entry["rows"]]
    assert (
        without_rows == []
        if found["environment"]["rows"][0]["compared_with_pytorch"]
        else ["compiled"]
    )
    assert "wrong:" not in printed
    assert {row["status"] for row in found["suite"]["rows"] if "status" in row} == {0}


def test_a_dry_run_says_that_it_measured_nothing_and_leaves_no_results(dry):
    printed, _, folder = dry
    assert {line[:31] for line in printed.splitlines()} == {"[dry run, nothing was measured]"}
    assert [path.name for path in folder.iterdir()] == ["dry-run.json"]
    assert not (RESULTS / "dry-run.json").exists()


def test_every_kernel_is_held_against_float64_and_goes_through_the_sanitizer(dry):
    _, found, _ = dry
    launched = set(found["suite"]["rows"][0]["last"].split()[1:])
    from tinygrad_bn.kernels import cuda

    sources = Path(cuda.__file__).parent.glob("*.cu")
    declared = {f"{s.stem}.{k}" for s in sources for k in cuda.declarations(s.read_text())}
    assert launched == declared
    kinds = {row["kind"] for row in found["kernels"]["rows"]}
    assert kinds == {
        *("norm", "norm and ReLU", "convolution", "max pool"),
        *("running statistics", "copies", "matrix product"),
    }


# --- Sections are apart ---------------------------------------------------------------------------

ROW = 'print(\'{"name": "a row"}\', flush=True)'


def program(code):
    return [sys.executable, "-c", code]


def test_a_section_that_raises_or_takes_too_long_does_not_stop_the_others():
    sections = {
        "raises": (5, program(f"{ROW}; raise ValueError")),
        "dies": (5, program(f"{ROW}; import os; os.kill(os.getpid(), 9)")),
        "sleeps": (1.5, program(f"{ROW}; import time; time.sleep(60)")),
        "works": (5, program(ROW)),
    }
    found = {}
    seen = [json.loads(json.dumps(found)) for _ in gpu_run.run(sections, 60, found)]
    assert [entry["rows"] for entry in found.values()] == [[{"name": "a row"}]] * 4
    problems = [row["problem"] for entry in found.values() for row in entry["problems"]]
    assert problems == [
        "ended with status 1",
        "ended with status -9",
        "took more than its 1.5 seconds",
    ]
    assert seen[0]["raises"]["rows"] == [{"name": "a row"}]  # at once
    assert seen[0].keys() == {"raises"}


def test_sections_without_time_are_not_begun():
    found = {}
    lines = list(gpu_run.run({"one": (5, ["no such program"]), "two": (5, [])}, 0.5, found))
    assert [entry["problems"] for entry in found.values()] == [
        [{"problem": "no time was left"}]
    ] * 2
    assert all("no time was left" in line for line in lines)


def test_what_a_section_raises_is_its_last_row():
    (row,) = gpu_run.rows_of(gpu_run.section("no_such_section", True), 30)
    assert row["problem"].startswith("ModuleNotFoundError: No module named 'benchmarks.gpu.no_such")


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_run", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu_run.main()
    return ended.value.code


def test_without_a_gpu_the_program_says_so_and_ends(monkeypatch):
    def none(device):
        raise RuntimeError(f"device {device!r} needs a GPU")

    monkeypatch.setattr(gpu_run, "module_on", none)
    assert run_main(monkeypatch) == "device 'cuda' needs a GPU"  # to stderr, with status 1


@pytest.mark.parametrize("arguments", [["--dry"], ["--only", "norms"], ["--only", "nothing"]])
def test_parts_of_results_are_not_kept(arguments, monkeypatch, capsys):
    assert run_main(monkeypatch, *arguments, "--out", str(RESULTS)) == 2


# --- The verdict ----------------------------------------------------------------------------------


def measured(share=0.8, pytorch=1.3, captured=1.0, eager=7.0, off=1e-6, other=(), lines=0):
    """A run that found this."""
    norm = {"norm": "layer norm", "large": True, "seconds": {"ours": [1, 1, 1]}}
    norm |= {"shape": [8, 4], "dtype": "float32", "which": "forward"}
    sections = {
        "norms": [
            {"name": "copy", "bytes_a_second": 4e12},
            {**norm, "name": "a norm", "of_bound": share, "times_pytorch": pytorch},
            {
                **norm,
                **{"name": "a small one", "shape": [2, 4], "which": "backward", "large": False},
                **{"of_bound": 0.1, "times_pytorch": None},
            },
        ],
        "networks": [
            {
                "name": "MLP",
                "seconds": {
                    "ours": [eager] * 3,
                    "ours, captured": [captured] * 3,
                    "PyTorch": [5.0] * 3,
                    "PyTorch, CUDA graph": [1.0] * 3,
                },
            }
        ],
        "kernels": [{"dtype": "float32", "from_cpu": off, "wrong": [], "other_bits": [*other]}],
        "conformity": [{"name": "values", "different": lines}],
    }
    return {name: {"rows": rows, "problems": []} for name, rows in sections.items()}


@pytest.mark.parametrize(
    ("found", "met", "missed"),
    [
        (measured(), 9, 0),
        (measured(share=0.74), 8, 1),
        (measured(pytorch=1.19), 8, 1),
        (measured(captured=1.01), 7, 2),
        (measured(eager=7.6), 8, 1),
        (measured(off=2e-5), 8, 1),
        (measured(other=["y"], lines=3), 7, 2),
        (measured(share=np.nan, pytorch=None), 7, 1),
        ({}, 0, 0),
    ],
)
def test_the_verdict_counts_what_is_met_and_what_is_missed(found, met, missed):
    *lines, counts = report.told(report.verdicts(found))
    assert counts == f"{met} met, {missed} missed, {9 - met - missed} not measured"
    assert sum("missed" in line for line in lines) == missed


def test_the_table_for_the_readme_stands_between_its_marks():
    text = report.markdown(measured(), "some-gpu")
    assert text.startswith("<!-- benchmarks/results/some-gpu.md -->\n\n")
    assert text.endswith("\n\n<!-- the end of some-gpu.md -->\n")
    assert "| in a CUDA graph | float32 forward | float32 backward |" in text
    assert "| layer norm (8, 4) | 1.00 s, 0.80, **1.30×** | – |" in text
    assert "| layer norm (2, 4) | – | 1.00 s, 0.10 |" in text
    assert "| MLP | PyTorch | 5.00 s (5.00–5.00) | 0.714× |" in text


# --- How it finds out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "wrong", "other_bits"),
    [
        ([[1.0, 2.0], [1.0, 2.0]], 0, 0),
        ([[1.0, 2.1], [1.0, 2.1]], 1, 0),
        ([[1.0, np.nan], [1.0, np.nan]], 1, 0),
        ([[1.0], [1.0]], 1, 0),
        ([[1.0, 2.0], [1.0, 2.0 + 1e-15]], 0, 1),
        ([], 1, 0),
    ],
)
def test_a_kernel_that_is_wrong_or_not_the_same_twice_is_noticed(results, wrong, other_bits, cupy):
    from benchmarks.gpu import cases, kernels

    answers = iter(results)

    def compute():
        return {"y": np.array(next(answers))}

    case = cases.Case("some", compute, lambda _: {"y": np.array([1.0, 2.0])}, None, lambda _: 1e-6)
    found = kernels.checked(case, beside_cpu=False)
    assert (len(found["wrong"]), len(found["other_bits"])) == (wrong, other_bits)


def test_a_graph_is_so_many_calls_each_with_its_number(cupy):
    from benchmarks.gpu import timing

    x = cupy.zeros(3)
    with timing.one_stream(None):
        launch = timing.graphed(lambda k: cupy.add(x[k : k + 1], 1, out=x[k : k + 1]), 3)
        before = x.tolist()
        launch(0)
    assert before == [1, 0, 0]  # of the call that came first, outside the graph
    assert x.tolist() == [2, 1, 1]


def test_what_cannot_be_captured_is_a_problem_and_the_next_can(cupy):
    from benchmarks.gpu import timing

    x = cupy.zeros(3)
    with timing.one_stream(None) as stream:
        makers = {"reads": lambda: timing.graphed(lambda k: x.get(), 1)}
        makers["adds"] = lambda: timing.graphed(lambda k: x + 1, 1)
        found, (problem,) = timing.made("graphs", makers)
        assert not stream.is_capturing()
    assert list(found) == ["adds"]
    assert problem["name"] == "graphs: reads"
    assert "D2H" in problem["problem"]
