"""The report of a run says what the run left, and is whole."""

import errno
import os
import sys
import xml.etree.ElementTree
from html import escape
from pathlib import Path

import pytest
from parsed_page import Page
from sample_runs import diverged, epochs, finished, write_run

from tinygrad_bn.train.plot import Line, look
from tinygrad_bn.train.run_report import plot_by_epoch, write_report

pytest.importorskip("matplotlib")

HOSTILE = '</TD><script>alert(1)</script>"&amp;\u202e$x^{'


def report(folder):
    write_report(folder)
    text = (folder / "index.html").read_text(encoding="utf-8")
    return Page(text), text


ENDS = {
    "digits, convnet with batch norm: 98.6 % of the test set right": (epochs(3), finished()),
    "digits, convnet with batch norm: 98.6 % of the test set right, stopped early after 3 epochs": (
        epochs(3),
        finished(state="stopped early"),
    ),
    "digits, convnet with batch norm: diverged in epoch 3": (epochs(2), diverged(3)),
    "digits, convnet with batch norm: diverged in epoch 1": ([], diverged(1)),
    "digits, convnet with batch norm: interrupted after 1 epoch": (
        epochs(1),
        {"state": "interrupted"},
    ),
    "digits, convnet with batch norm: interrupted after 0 epochs": ([], {"state": "interrupted"}),
    "digits, convnet with batch norm: unfinished after 3 epochs": (epochs(3), None),
    "digits, convnet with batch norm: unfinished after 0 epochs": (None, None),
}


@pytest.mark.parametrize("title", ENDS)
def test_the_title_is_the_finding_however_the_run_ended(title, tmp_path):
    records, summary = ENDS[title]
    page, _ = report(write_run(tmp_path / "run", records, summary))
    assert page.text["title"] == page.text["h1"] == title
    assert len(page.all("svg")) == 2 * bool(records)
    assert (tmp_path / "run" / "loss.svg").exists() == bool(records)
    assert "note" in {p.get("class") for p in page.all("p")} or "98.6" in title


@pytest.mark.parametrize(
    ("norm", "said"),
    [("none", "mlp without norm"), ("rms", "mlp with RMS norm"), ("layer", "mlp with layer norm")],
)
def test_the_title_names_the_norm(norm, said, tmp_path):
    page, _ = report(write_run(tmp_path / "run", epochs(1), finished(), norm=norm, model="mlp"))
    assert f"digits, {said}: " in page.text["h1"]


def test_the_last_epoch_stands_beside_the_best(tmp_path):
    records = epochs(3)
    records[1]["validation_loss"] = 0.01
    page, text = report(write_run(tmp_path / "run", records, finished()))
    assert "<th></th><th>last epoch, 3</th><th>best epoch, 2</th>" in text
    assert "<td>test accuracy</td><td>98.61 %</td><td>98.89 %</td>" in text
    assert "<td>validation loss</td><td>0.8333</td><td>0.01</td>" in text
    assert "Validation loss lowest in epoch 2: 0.01" in page.text["h2"]
    assert "Validation accuracy highest in epoch 3: 97.02 %" in page.text["h2"]


def test_without_validation_data_the_training_data_tell(tmp_path):
    page, _ = report(write_run(tmp_path / "run", epochs(2, validation=False), finished()))
    assert "Training loss lowest in epoch 2: 1" in page.text["h2"]
    assert "validation loss" not in page.text["body"]


def test_every_plot_has_labels_on_its_lines_and_its_numbers_folded_out(tmp_path):
    page, text = report(write_run(tmp_path / "run", epochs(3), finished()))
    for label in ("training 0.6667", "validation 0.8333", "test 0.05", "test 98.61 %"):
        assert f">{label}<" in text
    assert len(page.all("svg")) == 2
    assert len(page.all("details")) == 3  # and all settings
    assert "<td>2</td><td>0.1</td><td>65.33 %</td><td>64.68 %</td>" in text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_diverged_run_is_a_cross_and_has_no_test_accuracy(tmp_path):
    page, text = report(write_run(tmp_path / "run", epochs(2), diverged(3)))
    assert text.count("× diverged<") == 2
    assert "test accuracy" not in page.text["body"]
    assert "epoch 3, step 7: the loss is nan" in page.text["p"]
    assert "exp made the first inf" in page.text["p"]


def test_settings_that_were_chosen_are_told_from_all(tmp_path):
    page, text = report(write_run(tmp_path / "run", epochs(1), finished(), norm="group"))
    assert "What was chosen: data digits, model convnet, norm group" in page.text["p"]
    assert "<td>momentum</td><td>0.9</td>" in text
    assert "momentum" not in page.text["p"]


def test_plots_are_files_too(tmp_path):
    folder = write_run(tmp_path / "run", epochs(2), finished())
    report(folder)
    for name in ("loss.svg", "accuracy.svg"):
        root = xml.etree.ElementTree.parse(folder / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_of_many_epochs_some_are_listed_and_the_last(tmp_path):
    page, text = report(write_run(tmp_path / "run", epochs(1001)))
    assert len(page.all("tr")) < 2 * 200 + 50
    assert "numbers of one epoch in 6" in page.text["summary"]
    assert "<td>1001</td>" in text


def test_names_are_text(tmp_path):
    summary = diverged(2) | {"versions": {HOSTILE: HOSTILE}, "machine": HOSTILE}
    summary["diverged"] |= {"what": HOSTILE, "where": HOSTILE}
    settings = {"path": HOSTILE, "target": HOSTILE, "device": HOSTILE}
    page, text = report(write_run(tmp_path / "run", epochs(1), summary, **settings))
    assert not page.all("script")
    assert not page.all("b")
    assert text.count(escape(HOSTILE.replace("\u202e", ""))) >= 8
    assert "\u202e" not in text


def test_a_page_links_only_to_what_is_there(tmp_path):
    folder = write_run(tmp_path / "run", epochs(1))
    page, _ = report(folder)
    links = {a["href"] for a in page.all("a")}
    assert links == {"config.toml", "metrics.jsonl", "loss.svg", "accuracy.svg"}


def test_without_matplotlib_there_are_tables_and_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = write_run(tmp_path / "run", epochs(2), finished())
    page, text = report(folder)
    assert not page.all("svg")
    assert not list(folder.glob("*.svg"))
    assert 'pip install "tinygrad_bn[viz]"' in page.text["p"]
    assert "<td>2</td><td>0.1</td><td>98.00 %</td><td>97.02 %</td>" in text
    assert len(page.all("details")) == 1


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", epochs(1))
    (folder / "index.html").write_text("the one before")
    real = os.replace

    def full(source, target):
        if Path(target).name == "index.html":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"index\.html"):
        write_report(folder)
    assert (folder / "index.html").read_text() == "the one before"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("what", "y"),
    [
        *(("loss", y) for y in ([], [0.0, 0.0], [1e37, -1e37], [5e-324, None, 1e37])),
        *(("accuracy", y) for y in ([], [0.0], [0.98, 0.98, None])),
    ],
    ids=str,
)
def test_any_numbers_are_drawn_without_a_warning(what, y):
    line = Line("label", x=range(1, len(y) + 1), y=y, crosses=[len(y) + 1], **look(0))
    assert ">label<" in plot_by_epoch([line], what, "")
