"""`tinygrad-bn draw`: batch norm, or what a function of the user's returns, as a file."""

import importlib.util

import pytest
from pictures import boxes

from tinygrad_bn import cli

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)

MODULE = """
import tinygrad_bn as tg

def variance():
    x = tg.named("x", tg.tensor([1.0, 3.0], requires_grad=True))
    return tg.named("v", ((x - x.mean()) ** 2).mean())

def array():
    return tg.tensor([1.0]).data

def failing():
    raise ValueError("of its own")

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # the command adds the working folder itself; this undoes
    (tmp_path / "drawable.py").write_text(MODULE)
    return tmp_path


@needs_graphviz
def test_batch_norm_is_drawn_in_a_view_and_a_notation(folder, capsys):
    assert (
        cli.main(
            ["draw", "batch-norm", "--view", "symbols", "--notation", "fleuret", "-o", "bn.svg"]
        )
        == 0
    )
    assert capsys.readouterr().out == "bn.svg\n"
    assert boxes(folder / "bn.svg")["v̂"][-2:] == ["◂ ∂𝓛/∂v̂ =", "−0.192"]


@needs_graphviz
def test_the_file_is_called_after_the_target(folder, capsys):
    assert cli.main(["draw", "drawable:variance"]) == 0
    assert capsys.readouterr().out == "drawable.variance.svg\n"
    assert boxes(folder / "drawable.variance.svg")["v"][-1] == "1"


def test_dot_needs_no_graphviz(folder):
    assert (
        cli.main(["draw", "batch-norm", "--view", "fused", "--theme", "dark", "-o", "bn.dot"]) == 0
    )
    assert "normalize" in (folder / "bn.dot").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("draw", "target"),
        ("draw batchnorm", "batchnorm: wants batch-norm or module:function"),
        ("draw ../x:f", "../x:f: wants batch-norm or module:function"),
        ("draw :f", ":f: wants batch-norm or module:function"),
        ("draw missing_module:f", "missing_module:f: No module named 'missing_module'"),
        ("draw drawable:f", "drawable:f: module 'drawable' has no attribute 'f'"),
        ("draw drawable:number", "drawable:number: TypeError: 'int' object is not callable"),
        ("draw drawable:array", "drawable:array: output: got ndarray, wants a Tensor"),
        ("draw drawable:failing", "drawable:failing: ValueError: of its own"),
        ("draw drawable:variance --view fused", "drawable:variance: fused: "),
        ("draw drawable:variance --view upside-down", "invalid choice: 'upside-down'"),
        ("draw batch-norm -o bn.jpg", "bn.jpg"),
        ("draw batch-norm -o missing/bn.dot", "--out: cannot write missing/bn.dot: No such file"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments.split())
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in folder.iterdir() if path.suffix not in (".py", "")] == []
