"""The README's snippets print what it says, and its tables are what the programs measured."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_snippet_prints_what_the_readme_says(cpu_only, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # one of them saves a file
    snippets = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)
    assert sum(bool(printed) for _, printed in snippets) >= 3
    names = {}  # later snippets may use what earlier ones made, as a reader does
    for code, printed in snippets:
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen):
            exec(compile(code, "README.md", "exec"), names)
        if printed:
            assert screen.getvalue() == printed


@pytest.mark.parametrize("table", re.findall(r"<!-- (benchmarks/results/\S+\.md) -->", README))
def test_tables_are_the_results_of_their_programs(table):
    after = README.split(f"<!-- {table} -->\n\n")[1]
    assert after.startswith((ROOT / table).read_text())


def test_every_link_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_there_are_tables_and_links_to_test():
    assert README.count("<!-- benchmarks/results/") == 5
    assert README.count("](") >= 8
