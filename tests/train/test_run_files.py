"""The files of a run are read, or it is said what is wrong with which of them."""

import json
import math
import os

import pytest
from sample_runs import diverged, epochs, finished, write_run

from tinygrad_bn.train.run_files import curve, measured, read_run


def test_a_run_is_its_settings_epochs_and_end(tmp_path):
    run = read_run(write_run(tmp_path / "run", epochs(4), finished(), norm="layer", lr=0.5))
    assert (run.config.norm, run.config.lr, run.config.momentum) == ("layer", 0.5, 0.9)
    assert [record["epoch"] for record in run.epochs] == [1, 2, 3, 4]
    assert run.epochs[0]["loss"] == 2
    assert (run.end, run.diverged_in, run.summary["test_accuracy"]) == ("finished", None, 0.9861)
    assert run.best("loss")["epoch"] == run.best("accuracy")["epoch"] == 4


def test_a_run_may_have_no_epoch_and_no_end(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert (run.epochs, run.end, run.best("loss")) == ([], "unfinished", None)
    run = read_run(write_run(tmp_path / "other", [], diverged(1)))
    assert (run.epochs, run.diverged_in) == ([], 1)


@pytest.mark.parametrize("rest", ["", "{", '{"epoch": 3, "lo', "\x00\x00", '{"epoch": 3}'[:-1]])
def test_an_unfinished_last_line_counts_for_nothing(rest, tmp_path):
    folder = write_run(tmp_path / "run", epochs(2))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(rest)
    assert len(read_run(folder).epochs) == 2


def test_a_last_line_may_lack_its_newline(tmp_path):
    folder = write_run(tmp_path / "run", epochs(2))
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().rstrip())
    assert len(read_run(folder).epochs) == 2


@pytest.mark.parametrize(
    "loss", ["NaN", "Infinity", "-Infinity", "1e999", "1e300", f"1{'0' * 400}"]
)
def test_a_number_that_is_not_finite_is_nan(loss, tmp_path):
    folder = write_run(tmp_path / "run", epochs(1))
    (folder / "metrics.jsonl").write_text(f'{{"epoch": 1, "loss": {loss}, "accuracy": 0.5}}\n')
    run = read_run(folder)
    assert math.isnan(run.epochs[0]["loss"])
    assert run.best("loss") is None
    assert curve([run], "loss") == {"x": [1], "y": [None], "crosses": [1]}


BAD_LINES = {
    "oops": "got 'oops', wants JSON",
    "": "got '', wants JSON",
    "[" * 100_000: "wants JSON",
    "4" * 5000: "wants JSON",
    "\udc80": "wants JSON",
    "[1]": r"got \[1\], wants names and values",
    '{"loss": 1, "accuracy": 0}': "epoch: got None, wants a whole number",
    '{"epoch": true, "loss": 1, "accuracy": 0}': "epoch: got True, wants a whole number",
    '{"epoch": 1e9, "loss": 1, "accuracy": 0}': "epoch: got 1000000000.0, wants a whole number",
    '{"epoch": 1000000000, "loss": 1, "accuracy": 0}': "epoch: got 1000000000, wants at most",
    '{"epoch": 2, "loss": 1, "accuracy": 0}': "epoch: got 2, wants a whole number ≥ 3",
    '{"epoch": 3, "accuracy": 0}': "loss: got none, wants a number",
    '{"epoch": 3, "loss": null, "accuracy": 0}': "loss: got none, wants a number",
    '{"epoch": 3, "loss": "<b>0.1</b>", "accuracy": 0}': "loss: got '<b>0.1</b>', wants a number",
    '{"epoch": 3, "loss": [0.1], "accuracy": 0}': r"loss: got \[0.1\], wants a number",
    '{"epoch": 3, "loss": true, "accuracy": 0}': "loss: got True, wants a number",
    '{"epoch": 3, "loss": 1, "accuracy": 98.6}': "accuracy: got 98.6, wants a share from 0 to 1",
    '{"epoch": 3, "loss": 1, "accuracy": 0, "lr": {}}': "lr: got {}, wants a number",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:50])
def test_a_bad_line_is_named_with_its_number(line, tmp_path):
    folder = write_run(tmp_path / "run", epochs(2))
    path = folder / "metrics.jsonl"
    more = json.dumps(epochs(4)[3])
    path.write_bytes(path.read_bytes() + f"{line}\n{more}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"^{path}, line 3: .*{BAD_LINES[line]}"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.toml", "data = 'digits'\nnorm = 'bad'", "norm: got 'bad', wants one of"),
        ("config.toml", "data = 'digits'\nlr = 1" + "0" * 400, "lr: got 1000"),
        ("config.toml", "data = <script>", "Invalid value"),
        ("config.toml", "data = 'digits'\nextra = 1", "got the unknown key 'extra'"),
        ("config.toml", "data = " + "[" * 100_000, "got lists in lists|wants"),
        ("config.toml", "#" * 2_000_000, "got more than 1,048,576 bytes"),
        ("summary.json", "", "Expecting value"),
        ("summary.json", "[]", r"got \[\], wants names and values"),
        ("summary.json", "[" * 100_000, "got lists in lists"),
        ("summary.json", '{"state": "won"}', "state: got 'won', wants one of finished"),
        ("summary.json", "{}", "state: got None, wants one of"),
        ("summary.json", '{"state": "diverged", "diverged": null}', "diverged: got None"),
        ("summary.json", '{"state": "diverged", "diverged": {"epoch": "<b>"}}', "epoch: got '<b>'"),
        (
            "summary.json",
            f'{{"state": "diverged", "diverged": {{"epoch": {10**30}}}}}',
            "diverged: epoch: got 1000000000000000000000000000000, wants at most 1,000,000",
        ),
        ("summary.json", '{"state": "finished", "seconds": "1"}', "seconds: got '1'"),
        ("summary.json", '{"state": "finished", "test_accuracy": 2}', "test_accuracy: got 2"),
        ("summary.json", " " * 2_000_000, "got more than 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(name, content, message, tmp_path):
    folder = write_run(tmp_path / "run", epochs(2), finished())
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"^{folder / name}: .*({message})"):
        read_run(folder)


def test_huge_metrics_are_refused(tmp_path):
    folder = write_run(tmp_path / "run")
    os.truncate(os.open(folder / "metrics.jsonl", os.O_CREAT | os.O_RDWR), 1 << 40)  # of holes
    with pytest.raises(ValueError, match="got more than 67,108,864 bytes"):
        read_run(folder)


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "summary.json"])
def test_what_is_no_plain_file_is_refused(name, tmp_path):
    folder = write_run(tmp_path / "run", epochs(1), finished())
    (folder / name).unlink()
    os.mkfifo(folder / name)  # to read it would take for ever
    with pytest.raises(ValueError, match=f"{name}: got no file, wants one"):
        read_run(folder)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_folder_that_is_no_run_is_refused(make, tmp_path):
    make(tmp_path / "folder")
    with pytest.raises(ValueError, match=r"folder: got no config\.toml, wants the folder of a run"):
        read_run(tmp_path / "folder")


# --- Runs together --------------------------------------------------------------------------------


def test_a_curve_is_the_mean_of_runs_with_its_range(tmp_path):
    runs = [read_run(write_run(tmp_path / f"{k}", epochs(n))) for k, n in enumerate((4, 2))]
    found = curve(runs, "accuracy")
    assert found["x"] == [1, 2]  # as far as both have come
    assert found["y"] == pytest.approx([(0.245 + 0.49) / 2, (0.49 + 0.98) / 2])
    assert (found["low"], found["high"]) == ([0.245, 0.49], [0.49, 0.98])
    assert found["crosses"] == []


def test_a_diverged_run_is_a_cross_and_not_in_the_mean(tmp_path):
    good = read_run(write_run(tmp_path / "good", epochs(4)))
    bad = read_run(write_run(tmp_path / "bad", epochs(1, best=0.1), diverged(2)))
    assert curve([good, bad], "loss") == curve([good], "loss") | {"crosses": [2]}
    assert curve([bad], "loss") == {"x": [1], "y": [2.0], "crosses": [2]}


def test_runs_are_measured_on_validation_data_if_all_have_it(tmp_path):
    held_out = read_run(write_run(tmp_path / "a", epochs(2)))
    without = read_run(write_run(tmp_path / "b", epochs(2, validation=False)))
    at_once = read_run(write_run(tmp_path / "c", [], diverged(1)))
    assert measured([held_out, at_once], "loss") == "validation_loss"
    assert measured([held_out, without], "loss") == "loss"
    assert measured([at_once], "accuracy") == "accuracy"
