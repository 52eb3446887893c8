"""The page that holds fused norms against composed ones: the picture, the facts and the times."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...graph import Tensor
from ..drawing.paint import paint
from ..drawing.sketch import Table
from ..drawing.style import page_css
from ..drawing.svg import svg_text
from ..drawing.text import number, several
from ..reading import Reading
from ..recorded.record import MOST_OPS, check_single, record
from ..views.fused import side_by_side
from ..views.twins import Twins, bound, cost, difference, twins
from .page import Page, page, table_html, text_html

_BENCHMARK = "the dict that benchmarks/fused_composed.py writes"
_STYLES = """
.beside{display:flex;flex-wrap:wrap;gap:0 2rem;align-items:flex-start;padding-top:.5rem}
.beside>*{min-width:0;max-width:100%}
.beside>:first-child{flex:1 1 24rem;max-width:44rem}
.beside td{white-space:nowrap}
"""


@np.errstate(all="ignore")  # what is infinite or undefined is shown, not warned of
def comparison(loss: Tensor, benchmark: dict | None = None) -> Page:
    """A page about the fused norms of a graph that was recorded inside `tracing()`.

    It shows the picture of the view "fused" and its table; `benchmark`, what
    benchmarks/fused_composed.py has written, adds the times and the memory. Errors are those of
    `twins`; a ValueError for more than 10,000 ops, and for a benchmark of another form.
    """
    check_single("loss", loss)
    if not isinstance(benchmark, dict | None):
        raise TypeError(f"benchmark: got {type(benchmark).__name__}, wants {_BENCHMARK}")
    pair = twins(Reading(record(loss, "loss", MOST_OPS), "ioffe"), "loss")
    sketch = side_by_side(pair)
    (table,) = (box for box in sketch.boxes if isinstance(box, Table))
    picture = tuple(box for box in sketch.boxes if box is not table)
    rows = [[text_html(cell) for cell in row] for row in table.rows]
    notes = ["What stands first was counted on the two graphs of the picture."]
    if benchmark is not None:
        try:
            rows += [[text_html(cell) for cell in row] for row in _measured(benchmark)]
            notes.append(_circumstances(benchmark))
        except KeyError as error:
            raise ValueError(f"benchmark: got one without {error}, wants {_BENCHMARK}") from None
        except TypeError as error:
            raise ValueError(f"benchmark: {error}, wants {_BENCHMARK}") from None
    body = (
        f'<div class="beside"><div><p>{_prose(pair)}</p>\n'
        f"{table_html(rows)}\n<p>{text_html(' '.join(notes))}</p></div>\n"
        f'<div class="scroll" tabindex="0">{svg_text(paint(replace(sketch, boxes=picture)))}'
        "</div></div>"
    )
    return Page(page("The same function, the same gradients", body, styles=page_css() + _STYLES))


def _prose(pair: Twins) -> str:
    composed, fused_ = cost(pair, "composed"), cost(pair, "fused")
    kept = [sum(each.saved.values()) for each in (composed, fused_)]
    return (
        f"On one side {several(composed.ops, 'primitive op')}, whose gradient rules the engine "
        f"chains; on the other {several(fused_.ops, 'op')}, whose gradient is one formula. From "
        "the same inputs they compute the same function and the same gradients: the largest "
        f"difference is {bound(difference(pair))}. What sets them apart is what it takes: "
        f"{several(composed.forward + composed.backward, 'kernel')} against "
        f"{fused_.forward + fused_.backward}, and {several(kept[0], 'number')} kept for backward "
        f"against {kept[1]}."
    )


def _measured(benchmark: dict) -> Iterator[list[str]]:
    """The rows of a benchmark, under the head of the table."""
    for row in benchmark["rows"]:
        what = f"{' × '.join(map(str, row['shape']))} {row['dtype']}"
        seconds, memory = row["seconds"], row["peak_bytes"]
        yield [
            f"time of forward + backward, {what}",
            f"{number(1e3 * seconds['composed'])} ms",
            f"{number(1e3 * seconds['fused'])} ms (ratio {number(row['ratio'])})",
        ]
        yield [
            f"peak memory beyond the inputs, {what}",
            *[f"{number(memory[name] / 1e6)} MB" for name in ("composed", "fused")],
        ]


def _circumstances(benchmark: dict) -> str:
    runs = " and ".join(str(row["runs"]) for row in benchmark["rows"])
    return (
        f"Times are medians of {runs} interleaved runs with NumPy {benchmark['numpy']} and Python "
        f"{benchmark['python']} ({benchmark['machine']}); they and the memory were measured by "
        "benchmarks/fused_composed.py."
    )
