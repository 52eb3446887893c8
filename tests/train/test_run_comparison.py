"""Runs beside each other: who did best, by how much, and what is different between them."""

import sys

import pytest
from parsed_page import Page
from sample_runs import diverged, epochs, finished, write_run

from tinygrad_bn.train.comparison import compare_runs

pytest.importorskip("matplotlib")


@pytest.fixture
def compared(tmp_path, capsys):
    """compared(run, run, …), each (records, summary, settings): the page, what it is made of, and
    the lines that were printed."""

    def compare(*runs):
        folders = [
            write_run(tmp_path / f"run{k}", records, summary, **settings)
            for k, (records, summary, settings) in enumerate(runs)
        ]
        out = tmp_path / "new" / "compare.html"
        compare_runs(folders, out)
        text = out.read_text(encoding="utf-8")
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == str(out)
        page = Page(text)
        assert page.text["title"] == page.text["h1"] == lines[-2]
        return page, text, lines

    return compare


def run(test_accuracy=0.98, n=3, **settings):
    return epochs(n, best=test_accuracy), finished(test_accuracy), settings


GONE = [], diverged(1), {"norm": "none"}

FINDINGS = {
    "norm batch does best: 98.0 % of the test set right, 2.0 points ahead of norm layer": [
        *(run(0.96, norm="layer"), run(0.98, norm="batch")),
    ],
    "norm batch and norm layer do equally well: 98.0 % of the test set right": [
        *(run(0.98, norm="batch"), run(0.98, norm="layer")),
    ],
    "lr 0.1 does best: 98.0 % of the test set right, 8.0 points ahead of lr 0.01": [
        *(run(0.9, lr=0.01), run(0.98), (epochs(1), diverged(2), {"lr": 1.0})),
    ],
    "norm batch does best: 97.0 % (96.0–98.0) of the test set right, "
    "2.0 points ahead of norm layer": [
        *(run(0.96, seed=0), run(0.98, seed=1), run(0.95, norm="layer")),
    ],
    "norm batch does best: 97.0 % (96.0–98.0) of the test set right, "
    "0.5 points ahead of norm layer, but their ranges overlap": [
        *(run(0.96, seed=0), run(0.98, seed=1), run(0.965, norm="layer")),
    ],
    "2 runs: 97.0 % (96.0–98.0) of the test set right": [run(0.96, seed=0), run(0.98, seed=1)],
    "norm batch alone came through: 98.0 % of the test set right": [GONE, run(0.98)],
    "No run came through": [GONE, ([], diverged(1), {"norm": "layer"})],
    "2 runs: 98.0 % of the test set right (× 1 of 2 runs diverged)": [
        *(run(0.98), (epochs(1), diverged(2), {"seed": 1})),
    ],
    "norm batch does best: 97.0 % of the validation data right, 1.0 points ahead of norm layer": [
        *((epochs(3), None, {}), run(0.97, norm="layer")),
    ],
    "norm batch does best: 98.0 % of the training data right, 1.0 points ahead of norm layer": [
        *((epochs(3, validation=False), None, {}), run(0.97, norm="layer")),
    ],
}


@pytest.mark.parametrize("finding", FINDINGS)
def test_the_title_says_who_did_best_and_by_how_much(finding, compared, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # which takes time
    page, _, _ = compared(*FINDINGS[finding])
    assert page.text["h1"] == finding
    assert 'pip install "tinygrad_bn[viz]"' in page.text["p"]


def test_the_table_has_what_differs_and_the_best_first(compared):
    unfinished = epochs(2, best=0.5), None, {"norm": "none", "lr": 0.02}
    _, text, lines = compared(unfinished, run(0.96, norm="layer"), run(0.98), GONE)
    assert [" ".join(line.split()) for line in lines[:5]] == [
        "run norm lr best validation accuracy in epoch test accuracy seconds end",
        "run2 batch 0.1 97.02 % 3 98.00 % 25.1 epoch 3",
        "run1 layer 0.1 95.04 % 3 96.00 % 25.1 epoch 3",
        "run0 none 0.02 49.50 % 2 — 1.0 unfinished, epoch 2",
        "run3 none 0.1 × — × 4.0 × diverged, epoch 1",
    ]
    assert "<td>run2</td><td>batch</td><td>0.1</td><td>97.02 %</td>" in text
    assert len({len(line) for line in lines[:5]}) == 1  # columns stand under each other


def test_runs_are_drawn_together(compared):
    page, text, _ = compared(run(0.98), run(0.96, norm="layer"), GONE)
    assert len(page.all("svg")) == 2
    for label in ("norm batch", "norm layer", "norm none", "× diverged"):
        assert text.count(f">{label}<") >= 2
    assert "Validation loss by epoch" in page.text["h2"]
    assert "<td>2</td><td>1.25</td><td>1.25</td><td></td>" in text
    assert "settings that all runs share" in page.text["summary"]
    assert "<td>data</td><td>digits</td>" in text
    assert "with other seeds the order may be another" in page.text["p"]


def test_seeds_are_one_line_with_their_mean(compared):
    gone = epochs(1), diverged(2), {"seed": 2, "norm": "layer"}
    page, text, _ = compared(run(0.96), run(0.98, seed=1), run(0.9, norm="layer"), gone)
    assert "<td>norm batch</td><td>2</td><td></td><td>97.0 % (96.0–98.0)</td>" in text
    assert "<td>norm layer</td><td>2</td><td>1</td><td>90.0 %</td>" in text
    assert "<td>3</td><td>0.8333</td><td>0.8333</td>" in text
    assert ">norm batch<" in text
    assert "with other seeds" not in page.text["p"]


def test_other_data_are_no_comparison(compared):
    page, _, printed = compared(run(0.96), run(0.98, data="disc"))
    finding = "The runs learned different data, so their numbers do not compare"
    assert page.text["h1"] == page.text["title"] == finding
    assert finding in printed
    assert "best:" not in printed


def test_names_are_text_and_long_ones_are_cut(compared):
    hostile = '</TD><script>alert(1)</script>"&amp;\u202e$x^{ ' + "long " * 100
    page, text, lines = compared(run(0.96), run(0.98, path=hostile))
    assert not page.all("script")
    assert "&lt;/TD&gt;&lt;script&gt;" in text
    assert "\u202e" not in text + "".join(lines)
    assert max(map(len, lines)) < 200


def test_runs_of_one_name_are_told_by_their_paths(tmp_path, capsys):
    folders = [write_run(tmp_path / name / "run", *run(0.98)[:2]) for name in "ab"]
    compare_runs(folders, tmp_path / "compare.html")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        str(folder) for folder in folders
    ]


# --- Bad input ------------------------------------------------------------------------------------


def test_a_run_without_an_epoch_is_refused(tmp_path):
    folders = [write_run(tmp_path / "a", *run()[:2]), write_run(tmp_path / "b", [])]
    with pytest.raises(ValueError, match="b: got no complete epoch, wants one or more"):
        compare_runs(folders, tmp_path / "compare.html")
    assert not (tmp_path / "compare.html").exists()


@pytest.mark.parametrize("again", ["a", "b/../a"])
def test_the_same_folder_twice_is_refused(again, tmp_path):
    folder = write_run(tmp_path / "a", *run()[:2])
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"folders: got .*a twice, wants different runs"):
        compare_runs([folder, tmp_path / again], tmp_path / "compare.html")


def test_one_run_is_no_comparison(tmp_path):
    with pytest.raises(ValueError, match="folders: got 1, wants two or more"):
        compare_runs([tmp_path], tmp_path / "compare.html")


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    folders = [write_run(tmp_path / name, *run()[:2]) for name in "ab"]
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="there"):
        compare_runs(folders, tmp_path / "there")
