"""The tour as a user runs it, and the other commands."""

import errno
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from helpers import complaints
from parsed_page import Page

import tinygrad_bn as tg
from tinygrad_bn import cli, tour
from tinygrad_bn.experiments import disc
from tinygrad_bn.tour.page import tour_page

ON_DIGITS = ("learning_rates", "sigmoids", "convnet")


def run(*arguments, **environment):
    """`python -m tinygrad_bn …` with stdout and stderr in pipes."""
    root = str(Path(tg.__file__).parents[1])
    path = os.pathsep.join([*environment.pop("first", []), root])
    return subprocess.run(
        [sys.executable, "-m", "tinygrad_bn", *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, **environment},
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def on_the_cpu(request):
    if request.config.getoption("--device") != "cpu":
        pytest.skip("the tour runs on the CPU")


@pytest.fixture(scope="module")
def quick(on_the_cpu, tmp_path_factory):
    """The quick tour: how it ended, and its folder."""
    out = tmp_path_factory.mktemp("tour") / "new" / "out"
    return run("tour", "--quick", "--seed", "1", "--out", str(out)), out


@pytest.fixture(scope="module")
def bare(on_the_cpu, tmp_path_factory):
    """The same without scikit-learn, matplotlib, pygraphviz and the `dot` program."""
    start = tmp_path_factory.mktemp("start")  # None in sys.modules: as if it were not installed
    (start / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('sklearn', 'matplotlib', 'pygraphviz', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
    )
    out = tmp_path_factory.mktemp("bare")
    options = ("--quick", "--seed", "1", "--out", str(out))
    return run("tour", *options, first=[str(start)], PATH=""), out


def results_in(out):
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def page_in(out):
    return Page((out / "index.html").read_text(encoding="utf-8"))


# --- What it leaves -------------------------------------------------------------------------------


def test_the_tour_ends_well_and_leaves_its_files(quick):
    done, out = quick
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    views = ("symbols", "butterfly", "fused")
    graphs = {f"batch_norm_{view}.{ending}" for view in views for ending in ("dot", "svg")}
    pages = {"index.html", "batch_norm_stepper.html"}
    assert {path.name for path in out.iterdir()} == {
        *("results.json", "training_run"),
        *pages,
        *graphs,
    }


def test_every_link_of_its_pages_leads_to_a_file(quick):
    _, out = quick
    pages = [out / "index.html", out / "training_run" / "index.html"]
    links = {p: [a["href"] for a in Page(p.read_text("utf-8")).all("a")] for p in pages}
    assert [len(found) for found in links.values()] == [6, 5]
    for page, found in links.items():
        assert [link for link in found if not (page.parent / link).is_file()] == []


def test_its_output_is_plain_and_ends_with_the_headline_and_the_page(quick):
    done, out = quick
    assert not re.search(r"[^\n -~\u00a0-\uffff]", done.stdout)  # no control characters
    assert done.stdout.splitlines()[-1] == str(out / "index.html")
    assert results_in(out)["title"] in done.stdout
    assert results_in(out)["saved_constants"]["title"] in done.stdout


def test_the_page_has_the_finding_as_title_and_fetches_nothing(quick):
    _, out = quick
    page = page_in(out)
    assert page.text["title"] == page.text["h1"] == results_in(out)["title"]
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href"):
            where = attributes.get(key, "#")
            assert where.startswith(("#", "data:")) or (tag == "a" and (out / where).is_file())


def test_every_plot_has_its_numbers_folded_out_and_ids_are_unique(quick):
    page = page_in(quick[1])
    plots = [svg for svg in page.all("svg") if not svg["aria-label"].startswith("∂y/∂x of ")]
    assert len(plots) == len(page.all("details")) == 5
    assert len(page.all("svg")) == len(plots) + 2
    assert len(page.all("img")) == 3
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(svg["aria-label"] for svg in page.all("svg"))


def test_the_page_is_made_of_the_results_alone(quick):
    _, out = quick
    assert tour_page(results_in(out), out) == (out / "index.html").read_text(encoding="utf-8")


def test_the_results_say_what_the_lecture_says(quick):
    results = results_in(quick[1])
    assert set(results) == {
        *("seed", "quick", "title", "disc", *ON_DIGITS, "coupling", "ignored_mean"),
        *("comparison", "saved_constants", "pictures", "seconds"),
    }
    disc = results["disc"]
    assert all(setting["learns"] for setting in disc["with"])
    assert not all(setting["learns"] for setting in disc["without"])
    (large,) = [s for s in disc["without"] if s["std"] == 1.0]
    assert (large["errors"], large["diverged"]) == ([None], 1)
    steps = {row["name"]: row["steps"]["mean"] for row in results["learning_rates"]["rows"]}
    assert steps["BN ×5"] <= steps["baseline"] / 2
    ends = {side: results["sigmoids"][side]["accuracy"][0][-1] for side in ("without", "with")}
    assert ends["without"] < 0.5 < 0.9 < ends["with"]
    assert results["convnet"]["test_accuracy"] > 0.8
    assert results["coupling"]["between_samples"] == {"batch": pytest.approx(1 / 3), "layer": 0}
    ignored, whole = (results["ignored_mean"][name] for name in ("ignored", "whole"))
    np.testing.assert_allclose(ignored["b"], 0.4 * np.arange(40))  # by lr · 4 in each step
    np.testing.assert_allclose(ignored["loss"], ignored["loss"][0], rtol=1e-13)
    np.testing.assert_allclose(whole["b"], 0, atol=1e-14)


def test_saved_constants_are_right_at_order_1_and_wrong_from_2(quick):
    results = results_in(quick[1])
    first, *higher = results["saved_constants"]["constants"]
    assert first < 1e-12
    assert min(higher) > 1e-3
    assert results["saved_constants"]["wrong_from"] == 2
    assert max(results["saved_constants"]["outputs"]) < 1e-10
    assert max(results["comparison"]["differences"]) < 1e-10


def test_a_diverged_run_is_a_cross_and_no_number(quick):
    _, out = quick
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "<td>1</td><td>× diverged</td>" in text


# --- What is missing ------------------------------------------------------------------------------


def test_what_is_missing_is_said_and_the_rest_is_done(bare):
    done, out = bare
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    why = 'the digits need scikit-learn, which is not installed: pip install "tinygrad_bn[train]"'
    assert [line for line in done.stdout.splitlines() if "pip install" in line] == [
        *(f"{part.replace('_', ' ')}: left out, {why}" for part in ON_DIGITS),
        "pictures: only .dot files, the layout of a picture needs Graphviz: "
        'pip install "tinygrad_bn[viz]" (.dot goes without)',
    ]
    page = page_in(out)
    assert len(page.all("svg")) == 2  # which need no matplotlib
    assert not page.all("img")
    assert len(page.all("table")) == 4  # in the open
    assert not page.all("details")
    for what in ("scikit-learn", "matplotlib", "Graphviz"):
        assert what in page.text["p"]


def test_the_same_seed_gives_the_same_numbers(quick, bare):
    first, second = results_in(quick[1]), results_in(bare[1])
    for result in (first, second):
        del result["comparison"]["seconds"]
    for part in ("title", "disc", "coupling", "ignored_mean", "comparison", "saved_constants"):
        assert first[part] == second[part]


# --- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seed", "-1"], "tinygrad-bn tour: argument --seed: got '-1', wants a whole number ≥ 0"),
        (["--out", "file"], "tinygrad-bn tour: --out: file is a file, wants a folder"),
        (["--out", "file/x"], "tinygrad-bn tour: --out: cannot write to file/x: Not a directory"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    arguments, sentence, tmp_path, monkeypatch, capsys, cpu_only
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tour", "--quick", *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", sentence + "\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("existing", [True, False])
def test_a_tour_that_fails_leaves_nothing(existing, tmp_path, monkeypatch, capsys, cpu_only):
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "index.html").write_text("the last one")

    def fail(folder, epochs, seed):
        (folder / "half.html").write_text("")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for part in (tour.disc, tour.learning_rates, tour.sigmoids):
        monkeypatch.setattr(part, "run", lambda **_: {"title": "so much was done"})
    monkeypatch.setattr(tour, "train_convnet", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tour", "--quick", "--out", str(out)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("No space left on device\n")
    assert [path.read_text() for path in tmp_path.rglob("*.*")] == ["the last one"] * existing
    assert out.exists() == existing


# --- Its parts ------------------------------------------------------------------------------------


def test_a_seed_is_its_numbers(cpu_only):
    first, again, other = (disc.run((0.2,), networks=1, epochs=1, seed=s) for s in (5, 5, 6))
    assert first == again
    assert first["with"] != other["with"]


def test_ops_prints_every_op_with_its_rules(capsys):
    assert cli.main(["ops"]) == 0
    out = capsys.readouterr().out
    assert '@op("×", lambda g, _out, _x, y: g * y, lambda g, _out, x, _y: g * x)\ndef mul(' in out
    assert "def _var_grad(" in out
    for name in tg.ops.__all__:
        if isinstance(getattr(tg.ops, name), tg.Op):
            assert out.count(f"\ndef {getattr(tg.ops, name).name}(") == 1


def test_compare_prints_the_table(capsys, cpu_only):
    assert cli.main(["compare"]) == 0
    assert "difference, gradient of order 4" in capsys.readouterr().out


def test_version_is_that_of_the_installed_package(capsys, monkeypatch):
    monkeypatch.setattr(metadata, "version", {"tinygrad_bn": "1.2.3"}.get)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "tinygrad_bn 1.2.3\n"


def test_without_a_command_the_help_is_printed(capsys):
    assert cli.main([]) == 0
    assert "tour" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error(on_the_cpu):
    command = f"{sys.executable} -m tinygrad_bn ops | head -n 1"
    root = str(Path(tg.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert done.stdout.count("\n") == 1
    assert complaints(done.stderr) == []
