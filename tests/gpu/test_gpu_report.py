"""What a run on a GPU says of its targets, and how it is told."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import report

ROOT = Path(__file__).parents[2]


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
        "kernels": [
            {
                **{"name": "norm, float32", "dtype": "float32", "from_cpu": off},
                **{"wrong": [], "other_bits": [*other], "raised": []},
            }
        ],
        "conformity": [{"name": "values", "different": lines}],
    }
    return {
        name: {"rows": rows, "problems": [], "expected": [row["name"] for row in rows]}
        for name, rows in sections.items()
    }


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


SECTIONS = {"norms": 2, "networks": 3, "kernels": 3, "conformity": 1}  # and their targets
CUT = {
    "a row failed": lambda entry: entry["problems"].append({"name": "a norm", "problem": "failed"}),
    "it took too long": lambda entry: entry["problems"].append(
        {"problem": "took more than its 150.0 seconds"}
    ),
    "it crashed": lambda entry: entry["problems"].append({"problem": "ended with status -11"}),
    "a row is absent": lambda entry: entry["expected"].append("one more"),
    "it did not say what to expect": lambda entry: entry.pop("expected"),
    "a case raised": lambda entry: entry["rows"][0].update(raised=["a case"]),
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("cut", CUT)
def test_what_is_left_of_a_section_meets_no_target(cut, section):
    found = measured()
    CUT[cut](found[section])
    *lines, counts = report.told(report.verdicts(found))
    number = SECTIONS[section]
    assert counts == f"{9 - number} met, 0 missed, {number} not measured"
    unknown = [line for line in lines if "not measured" in line]
    assert len(unknown) == number
    assert all(": – (wanted" in line and section in line for line in unknown)  # and it says why


@pytest.mark.parametrize("cut", CUT)
def test_what_is_left_of_a_section_may_miss_a_target(cut):
    found = measured(share=0.5, captured=2.0, eager=9.0, off=1.0, other=["y"], lines=3)
    for section in SECTIONS:
        CUT[cut](found[section])
    missed = [verdict for verdict in report.verdicts(found) if verdict["met"] is False]
    assert len(missed) == 7  # all that it does not reach
    assert not any(verdict["met"] for verdict in report.verdicts(found))


@pytest.mark.parametrize("nan_first", [True, False])
def test_nan_meets_no_target_wherever_it_stands(nan_first):
    found = measured()
    for section, key in (("norms", "of_bound"), ("kernels", "from_cpu")):
        entry = found[section]
        good = next(row for row in entry["rows"] if key in row)
        bad = {**good, key: np.nan, "name": "NaN"}
        entry["rows"] = [bad, *entry["rows"]] if nan_first else [*entry["rows"], bad]
    missed = [verdict["what"] for verdict in report.verdicts(found) if verdict["met"] is False]
    assert missed == [report.TARGETS[0].what, report.TARGETS[5].what]


def test_the_table_for_the_readme_stands_between_its_marks():
    text = report.markdown(measured(), "some-gpu")
    assert text.startswith("<!-- benchmarks/results/some-gpu.md -->\n\n")
    assert text.endswith("\n\n<!-- the end of some-gpu.md -->\n")
    assert "| in a CUDA graph | float32 forward | float32 backward |" in text
    assert "| layer norm (8, 4) | 1.00 s, 0.80, **1.30×** | – |" in text
    assert "| layer norm (2, 4) | – | 1.00 s, 0.10 |" in text
    assert "| MLP | PyTorch | 5.00 s (5.00–5.00) | 0.714× |" in text


def test_what_is_missed_tells_where_to_look():
    missed = report.to_try(measured(share=0.7, eager=8.0))
    assert len(missed) == 2
    assert "_BLOCKS, _THREADS and _width in tinygrad_bn/kernels/cuda_norm.py" in missed[0]
    assert missed[1].endswith("the calls that take the host longest (launches)")
    assert report.to_try(measured()) == []
    assert (ROOT / report.TUNED).exists()


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"as it is": 0.76, "_BLOCKS = 4": 0.9}, []),
        (
            {"as it is": 0.7, "_BLOCKS = 2": 0.74, "_BLOCKS = 4": 0.78},
            [
                "to try: _BLOCKS = 4 in tinygrad_bn/kernels/cuda_norm.py: layer norm (8, 4) "
                "float32 forward: 0.780 of the speed of a copy, 0.700 as it is"
            ],
        ),
        (
            {"as it is": 0.7, "_BLOCKS = 2": 0.6},
            [
                "to try: another kernel: layer norm (8, 4) float32 forward: "
                "no constant tried is better"
            ],
        ),
    ],
)
def test_of_the_constants_that_were_tried_the_best_is_told(shares, said):
    norm = {"norm": "layer norm", "shape": [8, 4], "dtype": "float32"}
    tried = [{**norm, "setting": s, "of_bound": {"forward": of}} for s, of in shares.items()]
    found = {"tuning": {"rows": [{"name": "convolution"}, *tried], "problems": []}}
    assert report.to_try(found) == said
    assert all(f"- {line}\n" in report.markdown(found, "some-gpu") for line in said)
