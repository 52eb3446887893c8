"""The one run on a GPU: its dry run has no mistakes, and nothing that fails stops the rest."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import everything
import numpy as np
import pytest

from benchmarks import gpu_run
from benchmarks.gpu import report, suite

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def dry(tmp_path_factory, request):
    """What a dry run printed, what it found, and the folder into which it has written."""
    if request.config.getoption("--device") != "cpu":
        pytest.skip("a dry run is always on the double; run without --device")
    if shutil.which("g++") is None:
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


def test_what_is_held_against_targets_says_what_to_expect_and_all_of_it_is_there(dry):
    _, found, _ = dry
    for section in {target.section for target in report.TARGETS}:
        assert report.incomplete(found, section) == ""
        assert len(found[section]["expected"]) >= 2


def test_a_dry_run_says_that_it_measured_nothing_and_leaves_no_results(dry):
    printed, _, folder = dry
    assert {line[:31] for line in printed.splitlines()} == {"[dry run, nothing was measured]"}
    assert [path.name for path in folder.iterdir()] == ["dry-run.json"]
    assert not (RESULTS / "dry-run.json").exists()


def test_a_dry_run_tells_no_numbers_and_no_verdicts(dry):
    printed, found, _ = dry
    lines = [line[32:] for line in printed.splitlines()]
    rows, targets = lines[: -len(report.TARGETS)], lines[-len(report.TARGETS) :]
    numbers = re.compile(r"\d\.\d|\de[-+]\d|\d [mµ]?s\b")
    assert [line for line in rows[1:] if numbers.search(line)] == []  # the first has versions
    assert targets == report.not_measured()
    assert all(line.endswith(": not measured (dry run)") for line in targets)
    assert not re.search(r"\b(met|missed)\b", printed)
    assert {row["compared"] for row in found["conformity"]["rows"]} == {"the double with itself"}


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
    assert not any("expected" in entry for entry in found.values())
    assert seen[0].keys() == {"raises"}


def test_what_a_section_expects_is_kept_beside_its_rows():
    found = {}
    says = 'print(\'{"expected": ["a row", "another"]}\', flush=True)'
    lines = list(gpu_run.run({"one": (5, program(f"{says}; {ROW}"))}, 60, found))
    assert found["one"]["expected"] == ["a row", "another"]
    assert found["one"]["rows"] == [{"name": "a row"}]
    assert len(lines) == 1


def test_all_that_is_promised_fits_into_the_limit():
    *promised, last = gpu_run.SECTIONS
    assert sum(gpu_run.SECTIONS[name].seconds for name in promised) <= gpu_run.LIMIT
    assert last == "compiled"  # which is run if there is time left
    assert promised.index("suite") < promised.index("tuning")


def test_the_programs_of_the_suite_fit_into_its_seconds_and_its_tests_are_there():
    programs = suite.programs(dry=False)
    starts = 2  # seconds for Python to begin
    longest = sum(seconds + suite.ENDING for _, _, seconds in programs)
    assert longest + starts <= gpu_run.SECTIONS["suite"].seconds
    files = [test.partition("::")[0] for test in suite.TESTS]
    assert [path for path in files if not (ROOT / path).is_file()] == []
    assert not {*files} & {*everything.ANYWHERE}


def test_sections_without_time_are_not_begun():
    found = {}
    lines = list(gpu_run.run({"one": (5, ["no such program"]), "two": (5, [])}, 0.5, found))
    assert [entry["problems"] for entry in found.values()] == [
        [{"problem": "no time was left"}]
    ] * 2
    assert [line for _, line in lines] == [f"{name}: problem: no time was left" for name in found]


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
    said = run_main(monkeypatch)  # to stderr, with status 1
    assert re.fullmatch("device 'cuda' needs a GPU; without a GPU, --dry runs .*", said)


def test_what_is_missing_is_named_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(gpu_run, "NEEDED", ("no_such_package", "pytest", "nor_this"))
    said = run_main(monkeypatch, "--dry")
    assert said == 'missing: no_such_package, nor_this; install with: pip install -e ".[dev]"'
    assert capsys.readouterr().out == ""


def test_a_dry_run_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert run_main(monkeypatch, "--dry").startswith("missing: g++")


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([{"name": "works"}], 0),
        ([{"name": "works"}, {"problem": "none such"}], 1),
        ([{"name": "norms", "wrong": ["y is off by 1"]}], 1),
        ([{"name": "pytest", "status": 2, "failed": [], "output": ["2 failed"]}], 1),
    ],
)
def test_the_exit_status_is_1_if_a_section_had_a_problem(rows, status, monkeypatch, capsys):
    code = "".join(f"print({json.dumps(row)!r});" for row in rows)
    monkeypatch.setattr(gpu_run, "section", lambda name, dry: program(code))
    monkeypatch.setattr(gpu_run, "check_installed", lambda dry: None)
    monkeypatch.setattr(sys, "argv", ["gpu_run", "--dry", "--only", "launches"])
    assert gpu_run.main() == status
    assert "nothing is stored: no --out was given\n" in capsys.readouterr().out


def test_a_whole_run_keeps_its_results_and_a_part_does_not(tmp_path, monkeypatch, capsys):
    slow = {
        **{"name": "a norm", "norm": "layer norm", "shape": [8, 4], "dtype": "float32"},
        **{"which": "forward", "large": True, "seconds": {"ours": [1, 1, 1]}},
        **{"of_bound": 0.5, "times_pytorch": 1.3},
    }
    monkeypatch.setattr(gpu_run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu_run, "device_name", lambda: "some-gpu")
    monkeypatch.setattr(gpu_run, "SECTIONS", {"norms": gpu_run.SECTIONS["norms"]})
    monkeypatch.setattr(gpu_run, "section", lambda *_: program(f"print({json.dumps(slow)!r})"))
    monkeypatch.setattr(sys, "argv", ["gpu_run", "--only", "norms"])
    assert gpu_run.main() == 0
    assert capsys.readouterr().out.startswith("nothing is stored: no --out was given\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["gpu_run"])
    assert gpu_run.main() == 0  # though it misses a target of speed
    said = capsys.readouterr().out
    assert "of the speed of a copy: 0.500 (wanted ≥ 0.75): **missed**\nThe same" in said
    assert said.endswith("some-gpu.json and .md: open a pull request with them\n")
    assert json.loads((tmp_path / "results" / "some-gpu.json").read_text())["norms"]["rows"]
    assert "- to look at: " in (tmp_path / "results" / "some-gpu.md").read_text()


@pytest.mark.parametrize("limit", ["-5", "0", "nan", "ten"])
def test_a_limit_is_more_than_no_seconds(limit, monkeypatch, capsys):
    assert run_main(monkeypatch, "--dry", "--limit", limit) == 2
    assert f"argument --limit: got {limit}, wants seconds, more than 0\n" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "below"])
def test_a_place_that_is_no_folder_is_refused(place, tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_text("as it was")
    monkeypatch.setattr(gpu_run, "check_installed", lambda dry: None)
    assert run_main(monkeypatch, "--dry", "--out", str(file / place)) == 2
    assert f"--out: got {file / place}, wants a folder to write into" in capsys.readouterr().err
    assert file.read_text() == "as it was"


def test_help_tells_of_every_section_and_where_results_go(monkeypatch, capsys):
    assert run_main(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    assert all(
        f"  {name} " in said and each.what in said for name, each in gpu_run.SECTIONS.items()
    )
    assert f"(default: {gpu_run.LIMIT})" in said
    assert "benchmarks/results/<device>.json" in said
    assert "pull request" in said


@pytest.mark.parametrize("arguments", [["--dry"], ["--only", "norms"], ["--only", "nothing"]])
def test_parts_of_results_are_not_kept(arguments, monkeypatch, capsys):
    assert run_main(monkeypatch, *arguments, "--out", str(RESULTS)) == 2


# --- How it finds out -----------------------------------------------------------------------------


def test_the_settings_that_are_tried_exist(cupy):
    from benchmarks.gpu import tuning
    from tinygrad_bn.kernels import cuda_norm

    assert next(iter(tuning.SETTINGS.items())) == (report.AS_IT_IS, {})
    for setting, values in tuning.SETTINGS.items():
        for name in values:
            assert hasattr(cuda_norm, name)
            assert name in setting
            assert name in report.NORMS


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
    assert found["raised"] == ([] if results else ["some"])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_nan_is_furthest_wherever_it_comes(first, cupy):
    from benchmarks.gpu import cases, kernels

    values = {"a": 1.0 + 1e-9, "b": np.nan, "c": 1.0}
    names = [*values][first:] + [*values][:first]

    def some(name, of):
        ones = {each: np.array([1.0]) for each in of}
        given = {each: np.array([values[each]]) for each in of}
        return cases.Case(name, lambda: given, lambda _: ones, lambda _: ones, lambda _: 1e-6)

    together = [kernels.checked(some("all", names), beside_cpu=True)]
    apart = [kernels.checked(some(name, [name]), beside_cpu=True) for name in names]
    for found, worst in ((together, "all: b"), (apart, "b: b")):
        row = kernels.merged(found)
        assert row["worst"] == worst
        assert np.isnan([row["share_of_allowed"], row["from_cpu"]]).all()
        assert len(row["wrong"]) == 1


def test_the_files_of_libraries_are_told(cupy, monkeypatch):
    from benchmarks.gpu import environment
    from tinygrad_bn.kernels import cuda_blas

    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    nvrtc = SimpleNamespace(getVersion=lambda: (13, 1))
    monkeypatch.setattr(cupy.cuda, "nvrtc", nvrtc, raising=False)
    monkeypatch.setattr(cuda_blas, "library", lambda: SimpleNamespace(_name="/lib/libcublas.so.13"))
    found = environment.libraries()
    assert (found["nvrtc"], found["cublas_path"]) == ("13.1", "/lib/libcublas.so.13")
    assert any(Path(path).name.startswith("libc.so") for path in environment.loaded("libc.so"))
    assert environment.loaded("no such") == []


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
