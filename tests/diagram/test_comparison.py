"""The page of fused against composed: its facts, its times, and that it asks for nothing."""

import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import vector

from tinygrad_bn import functional as F
from tinygrad_bn.diagram import comparison
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.diagram.views import twins

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "results" / "fused_composed.json"


class Parsed(HTMLParser):
    """The cells of the tables, the tags and the attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.attributes, self._cell = [], [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data


def test_the_page_shows_the_facts_the_times_and_the_picture():
    benchmark = json.loads(BENCHMARK.read_text())
    html, again = (comparison(worked_example("fused"), benchmark).html for _ in range(2))
    assert html == again
    parsed = Parsed(html)
    head, *rows = parsed.rows
    assert head == ["", "composed", "fused"]
    assert ["kernels launched, forward + backward", "9 + 20", "1 + 1"] in rows
    times = [row for row in rows if row[0].startswith("time")]
    wanted = [row["seconds"]["composed"] * 1e3 for row in benchmark["rows"]]
    assert [float(row[1].removesuffix(" ms")) for row in times] == pytest.approx(wanted, rel=1e-3)
    assert parsed.tags.count("svg") == 1
    assert "29 kernels against 2" in html


def test_the_page_asks_the_network_for_nothing_and_reads_no_markup():
    benchmark = json.loads(BENCHMARK.read_text()) | {"machine": "<img src=x>"}
    html = comparison(worked_example("fused"), benchmark).html
    parsed = Parsed(html)
    assert "img" not in parsed.tags
    (policy,) = [v for k, v in parsed.attributes if k == "content" and "-src" in v]
    assert policy.startswith("default-src 'none'; ")
    assert not [v for k, v in parsed.attributes if k in ("src", "href")]
    assert set(re.findall(r"https?://[^\s\"]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_the_page_goes_without_times_and_refuses_a_benchmark_of_another_form():
    assert "ms (ratio" not in comparison(worked_example("fused")).html
    for benchmark, error, message in [
        ({}, ValueError, "got one without 'rows'"),
        ({"rows": [3]}, ValueError, "'int' object is not subscriptable"),
        (3, TypeError, "got int"),
        ("x", TypeError, "got str"),
        ([], TypeError, "got list"),
    ]:
        wanted = f"^benchmark: {message}, wants the dict that benchmarks/fused_composed.py writes$"
        with pytest.raises(error, match=wanted):
            comparison(worked_example("fused"), benchmark)


def untraced():
    x = vector(1.0, 2.0, 4.0).reshape(3, 1)
    return F.batch_norm(x, None, None, training=True).sum()


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda: np.ones(3), TypeError, "got ndarray, wants a Tensor"),
        (lambda: worked_example("composed"), ValueError, "got a graph without a fused norm"),
        (untraced, ValueError, "values were not kept"),
    ],
)
def test_what_cannot_be_compared_is_refused(loss, error, message):
    with pytest.raises(error, match=f"^loss: {message}"):
        comparison(loss())


def test_the_twin_is_recorded_once(monkeypatch):
    recorded = []
    monkeypatch.setattr(twins, "record", lambda loss: recorded.append(loss) or record(loss))
    comparison(worked_example("fused"))
    assert len(recorded) == 1
