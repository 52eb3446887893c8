"""The backward pass as text: a paragraph for each node, in the order in which it runs."""

import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import Tensor
from ..scalar import Scalar
from .drawing.sketch import Text
from .drawing.text import LISTED
from .formulas.derivatives import Derivative
from .formulas.formula import ONE, ZERO, Apply, Reshaped, Sigma, minus, plus, times, within
from .formulas.indices import Index, inside_sigma
from .formulas.latex import as_latex, latex_text
from .formulas.typeset import Mark, as_factor, as_text, indexed, marks, symbol_marks
from .reading import Reading
from .recorded.record import Node
from .recorded.symbols import Place, is_plain_number
from .steps import Share, Step, backward_steps, read_backward, told

_MOST_OPS = 1000  # a page of a book holds some ten of them
_WIDTH = 100  # of a line in a terminal, where formulas and numbers allow


@dataclass(frozen=True)
class Equation:
    """What `left` is equal to: formulas, then numbers. If the sign is +=, it is added to it."""

    left: Mark
    right: tuple[Mark, ...]
    sign: str = "="


@dataclass(frozen=True)
class Paragraph:
    """What a node computes, what arrives at it, what it hands on; the meaning of symbols that no
    place of the graph has; remarks."""

    computed: Equation
    arrived: tuple[Equation, ...]
    handed_on: tuple[Equation, ...]
    where: tuple[Equation, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """The backward pass of a graph in formulas and numbers: what is given, a paragraph for each
    node, remarks.

    `str()` of it is for a terminal, `markdown()` for a page, `latex()` for a paper or a slide. In a
    notebook it shows itself.
    """

    given: tuple[Equation, ...]
    paragraphs: tuple[Paragraph, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        given = [*map(_line, self.given)]
        blocks = [("\n" if _columns(", ".join(given)) > _WIDTH else ", ").join(given)]
        blocks += ["\n".join(_terminal_lines(paragraph)) for paragraph in self.paragraphs]
        lines = "\n\n".join([*blocks, *self.notes]).split("\n")
        return "\n".join(row for line in lines for row in _in_rows(line))

    def markdown(self) -> str:
        """Markdown with formulas in LaTeX, between dollar signs."""

        def block(paragraph: Paragraph) -> str:
            arrived = ", ".join(f"${_latex(equation)}$" for equation in paragraph.arrived)
            rows = _latex_rows([*paragraph.handed_on, *paragraph.where])
            return (
                f"${_latex(paragraph.computed)}$ receives {arrived} and hands on\n\n"
                f"$$\n\\begin{{aligned}}\n{rows}\n\\end{{aligned}}\n$$"
            )

        return self._blocks(block)

    def latex(self) -> str:
        """Equations for LaTeX with amsmath, aligned node by node, with the numbers under them."""

        def block(paragraph: Paragraph) -> str:
            equations = [paragraph.computed, *paragraph.arrived, *paragraph.handed_on]
            rows = _latex_rows([*equations, *paragraph.where])
            return f"\\begin{{align*}}\n{rows}\n\\end{{align*}}"

        return self._blocks(block)

    def _blocks(self, block: Callable[[Paragraph], str]) -> str:
        """What is given, a block for each node with its notes, remarks."""
        blocks = [", ".join(f"${_latex(equation)}$" for equation in self.given)]
        for paragraph in self.paragraphs:
            blocks += [block(paragraph), *(f"${latex_text(note)}$" for note in paragraph.notes)]
        return "\n\n".join([*blocks, *(f"${latex_text(note)}$" for note in self.notes)]) + "\n"

    _repr_markdown_ = markdown


def explain(loss: Tensor | Scalar, notation: str = "ioffe") -> Explanation:
    """The backward pass from `loss` as text: for each node, in the order in which it runs, what
    arrives, the local derivative as a formula and in numbers, what is handed on, and the sum where
    paths meet.

    Record inside `tracing()` (Scalars need not be). A ValueError if values were not kept, if `loss`
    is no single number, for more than 1,000 ops, or for an unknown notation. It is computed here,
    in a backward pass that runs hooks and changes no `.grad`.

    >>> from tinygrad_bn import Scalar
    >>> from tinygrad_bn.tensor import named
    >>> a, b = named("a", Scalar(2.0)), named("b", Scalar(-3.0))
    >>> print(explain(a * b + a))
    ℓ = −4
    <BLANKLINE>
    ℓ = u + a                         ◂ ∂ℓ/∂ℓ = 1
        ∂ℓ/∂u =  ∂ℓ/∂ℓ = 1
        ∂ℓ/∂a += ∂ℓ/∂ℓ = 1
    <BLANKLINE>
    u = a·b                           ◂ ∂ℓ/∂u = 1
        ∂ℓ/∂a += ∂ℓ/∂u · b = 1 · (−3) = −3
        ∂ℓ/∂a =  −2 in total
        ∂ℓ/∂b =  ∂ℓ/∂u · a = 1 · 2 = 2
    """
    reading = read_backward(loss, notation, _MOST_OPS)
    steps = backward_steps(reading)
    shares = [share for step in steps for share in step.shares]
    uses = Counter(share.place for share in shares)
    last = {share.place: share for share in shares}
    paragraphs = [_paragraph(reading, step, uses, last) for step in steps]
    leaves = [(n.id, 0) for n in reading.graph.nodes if n.kind == "leaf"]
    notes = (*reading.remarks, *_hooked(reading, leaves, last))
    return Explanation(tuple(_given(reading)), tuple(paragraphs), notes)


# --- Equations ------------------------------------------------------------------------------------


def _given(reading: Reading) -> Iterator[Equation]:
    """The loss, how many values go into a mean, and the constants that have a symbol."""
    numbers = {"m": reading.of_ops.m} if reading.of_ops.m else {}
    for place, name in reading.names.items():
        node = reading.graph.nodes[place[0]]
        if node.kind == "constant" and not is_plain_number(node):
            numbers[name] = reading.output(place).value
    loss = reading.output(reading.graph.drawn[0]).value
    for name, value in ((reading.loss, loss), *numbers.items()):
        yield Equation(symbol_marks(name), (value_marks(value),))


def _paragraph(reading: Reading, step: Step, uses: Counter, last: dict) -> Paragraph:
    arrived = [
        Equation(marks(reading.gradient(place)), (_arrived(reading, place),))
        for place in step.arrived
    ]
    handed_on: list[Equation] = []
    where: dict[str, Equation] = {}
    for share in step.shares:
        handed_on += _handed_on(reading, step, share, uses)
        for symbol, meaning in share.derivative.where.items() if share.derivative else ():
            left, right = reading.line([symbol, meaning], step.arrived)
            where[symbol.name] = Equation(left, (right,))
        uses[share.place] -= 1
    notes = tuple(_hooked(reading, step.arrived, last))
    computed = _computed(reading, step.node)
    return Paragraph(computed, tuple(arrived), tuple(handed_on), tuple(where.values()), notes)


def _computed(reading: Reading, node: Node) -> Equation:
    """x̂ᵢ = dᵢ/s; several outputs of a node side by side."""
    places = node.places
    symbols = [reading.of_ops.symbol(place) for place in places]
    formula = reading.of_ops.definitions[places[0]]
    if len(places) > 1 and isinstance(formula, Apply):
        formula = replace(formula, how=formula.how.of_all_outputs())
    index = indexed([symbols[0], formula])
    left = [mark for symbol in symbols for mark in (("text", ", "), marks(symbol, index))]
    return Equation(("row", *left[1:]), (marks(formula, index),))


def _handed_on(reading: Reading, step: Step, share: Share, uses: Counter) -> Iterator[Equation]:
    """What a place is handed; and, if something was there before, the sum. `uses`: how often the
    place is handed something from here on."""
    slope, derivative = reading.gradient(share.place), share.derivative
    sign = "=" if share.first and uses[share.place] == 1 else "+="
    amount = value_marks(share.amount)
    if derivative is None:
        yield Equation(marks(slope), (amount,), sign)
    else:
        index = indexed([slope, derivative.gradient])
        formulas = _chain_rule(reading, step, derivative, index)
        yield Equation(marks(slope, index), (*formulas, amount), sign)
    if not share.first:
        said = " in total" if uses[share.place] == 1 else " so far"
        total = value_marks(share.total)
        yield Equation(marks(slope), (("row", total, ("name", said)),))


def _chain_rule(
    reading: Reading, step: Step, derivative: Derivative, index: Index
) -> Iterator[Mark]:
    """What arrives times the local derivative, summed if the argument was broadcast; and the same
    in numbers if they are a few. Or else the formula of the rule."""
    total, factor = derivative.gradient, derivative.factor
    is_sum = isinstance(total, Sigma)
    body = total.body if is_sum else total
    inside, letters = inside_sigma(total, index) if is_sum else (index, "")

    def product(left: Mark, right: Mark) -> Mark:
        row = "row", left, ("text", " · "), right
        return ("sigma", row, letters) if is_sum else row

    gradient = reading.gradient(step.arrived[0])
    moved = (part for part in within(body) if isinstance(part, Reshaped) and part.body == gradient)
    came = next(moved, gradient)  # with the axes again that a sum dropped
    if factor in (None, ONE) or plus(times(factor, came), minus(body)) != ZERO:
        yield marks(total, index)
        return
    yield product(marks(came, inside), as_factor(factor, inside))
    numbers, values = derivative.numbers, reading.output(step.arrived[0]).gradient
    if numbers is not None and 0 < np.size(numbers) <= LISTED and np.size(values) <= LISTED:
        arrived = _arrived(reading, step.arrived[0])
        yield product(arrived, value_marks(_merged(numbers), in_product=True))


def _arrived(reading: Reading, place: Place) -> Mark:
    return value_marks(reading.output(place).gradient)


def _merged(numbers: Any) -> np.ndarray:
    """Numbers that repeat along an axis, once."""
    array = np.asarray(numbers)
    for axis in range(array.ndim):
        first = np.take(array, [0], axis)
        array = first if (array == first).all() else array
    return array


def _hooked(reading: Reading, places: Iterable[Place], last: dict[Place, Share]) -> Iterator[str]:
    """What hooks have made of the sums that arrived, which the last share of a place tells, where
    they are no longer the same."""
    for place in places:
        if place in last and place in reading.graph.hooked:
            name, given = _plain(reading.slope(place)), told(last[place].total)
            made = told(reading.output(place).gradient)
            yield f"hooks were given {name} = {given} and made {made} of it"


# --- Numbers --------------------------------------------------------------------------------------

_NUMBERS = re.compile(r"(−?(?:\d[\d.]*(?:e[+−]?\d+)?|inf|nan))")


def value_marks(value: Any, in_product: bool = False) -> Mark:
    """Numbers as a mark; a negative one stands in parentheses in a product."""
    said = told(value)
    pieces = []
    for k, piece in enumerate(_NUMBERS.split(said)):
        kind = "number" if k % 2 else "name" if piece.strip().isalpha() else "text"
        pieces += [(kind, piece)] * bool(piece)
    mark = pieces[0] if len(pieces) == 1 else ("row", *pieces)
    return ("paren", mark) if in_product and said.startswith("−") else mark


# --- On paper -------------------------------------------------------------------------------------

_BELOW = str.maketrans("0123456789+−=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
_ABOVE = str.maketrans("0123456789+−=()inT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁱⁿᵀ")


def _plain(text: Text) -> str:
    """Text on one line, with small letters below and above it where Unicode has them."""
    return "".join(_small(run, level) for run, level in text)


def _small(run: str, level: int) -> str:
    if not level:
        return run
    sign, small = ("_", _BELOW) if level < 0 else ("^", _ABOVE)
    if all(ord(character) in small for character in run):
        return run.translate(small)
    return f"{sign}{{{run}}}" if len(run) > 1 else sign + run


def _line(equation: Equation) -> str:
    sides = [_plain(as_text(side)) for side in equation.right]
    return f"{_plain(as_text(equation.left))} {equation.sign} {' = '.join(sides)}"


def _columns(line: str) -> int:
    """How many columns of a terminal a line takes."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide - sum(map(bool, map(unicodedata.combining, line)))


def _padded(line: str, columns: int) -> str:
    return line + " " * (columns - _columns(line))


def _terminal_lines(paragraph: Paragraph) -> Iterator[str]:
    computed, arrived = _line(paragraph.computed), ", ".join(map(_line, paragraph.arrived))
    heading = f"{_padded(computed, _HEADING)}  ◂ {arrived}"
    yield from [heading] if _columns(heading) <= _WIDTH else [computed, f"  ◂ {arrived}"]
    yield from _aligned(paragraph.handed_on)
    if paragraph.where:
        said = f"{_INDENT}where {', '.join(map(_line, paragraph.where))}"
        whole = {"break_long_words": False, "break_on_hyphens": False}
        yield from textwrap.wrap(said, _WIDTH, subsequent_indent=_INDENT, **whole)
    yield from (f"{_INDENT}{note}" for note in paragraph.notes)


def _aligned(equations: Iterable[Equation]) -> Iterator[str]:
    """Lines of equations, their signs below each other; a side that does not fit begins a line."""
    lefts = [_plain(as_text(equation.left)) for equation in equations]
    left_columns = max(map(_columns, lefts), default=0)
    sign_columns = max((len(equation.sign) for equation in equations), default=0)
    below = f"{_INDENT}{' ' * left_columns} "
    for left, equation in zip(lefts, equations):
        first, *others = [_plain(as_text(side)) for side in equation.right]
        line = f"{_INDENT}{_padded(left, left_columns)} {equation.sign.ljust(sign_columns)} {first}"
        for side in others:
            if _columns(f"{line} = {side}") <= _WIDTH:
                line += f" = {side}"
                continue
            yield line
            line = f"{below}{'='.ljust(sign_columns)} {side}"
            if _columns(line) > _WIDTH and " · (" in side:
                line, last = line.rsplit(" · (", 1)
                yield line
                line = f"{below}{' ' * sign_columns} · ({last}"
        yield line


def _in_rows(line: str) -> Iterator[str]:
    """A line; one that is too long with the rows of its matrices below each other."""
    indent = 0
    for row in re.split("(?<=;) ", line) if _columns(line) > _WIDTH else [line]:
        yield " " * indent + row
        indent += _columns(row[: row.rfind("(") + 1])


_INDENT = "    "
_HEADING = 32  # columns for what a node computes, before what arrives


def _latex(equation: Equation) -> str:
    """An equation on one line."""
    sign = _LATEX_SIGNS[equation.sign]
    return f"{as_latex(equation.left)} {sign} {' = '.join(map(as_latex, equation.right))}"


def _latex_rows(equations: Iterable[Equation]) -> str:
    """Equations below each other, and each side of one below the other, aligned at their signs."""
    rows = []
    for equation in equations:
        first, *others = map(as_latex, equation.right)
        rows.append(f"{as_latex(equation.left)} &{_LATEX_SIGNS[equation.sign]} {first}")
        rows += [f"&= {side}" for side in others]
    return " \\\\\n".join(rows)


_LATEX_SIGNS = {"=": "=", "+=": r"\mathrel{+}="}
