"""Formulas as Text for pictures and as MathML for pages; `latex.py` has LaTeX.

A formula is first laid out as a tree of marks (fractions, powers, roots, …); then there is one
short printer for each of the three. Names are data: one that looks like a symbol (`symbols.SYMBOL`)
is set as one, all others as they are.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from html import escape
from typing import Any

from ..drawing.sketch import Text, characters, joined, plain
from ..drawing.text import clean, number
from ..recorded.symbols import SYMBOL
from .computed import Call
from .formula import Apply, Formula, Gradient, Product, Reshaped, Sigma, Sum, Symbol, shape_of
from .indices import (
    LETTERS,
    NO_INDEX,
    Index,
    index_of,
    inside_reshaped,
    inside_sigma,
    is_elementwise,
    is_of_matrices,
    only_ones_differ,
)
from .indices import indexed as indexed
from .options import getitem_index, options_of, said

# A tree of marks: ("symbol", base, raised, below, above, index); ("name" | "words" | "function" |
# "number" | "text", characters), where words are a name that is no single one; ("row" | "call" |
# "terms", *marks); ("fraction", above, below); ("power", base, exponent); ("sigma", mark, index
# below); ("root" | "paren", mark).
Mark = tuple


# --- The marks of a formula -----------------------------------------------------------------------


def symbol_marks(name: str, index: str = "") -> Mark:
    """A name as a symbol if it looks like one; with `index`, that entry of it.

    >>> symbol_marks("σ²_B", "i"), symbol_marks("my_weight"), symbol_marks("a+b")
    (('symbol', 'σ', '²', 'B', '', 'i'), ('name', 'my_weight'), ('words', 'a+b'))
    """
    name = clean(name)
    match = SYMBOL.fullmatch(name)
    if match is None:
        literal = ("name" if _ONE_WORD.fullmatch(name) else "words", name)
        return ("row", _in_parentheses(literal), _below(index)) if index else literal
    base, raised, below, above = (group or "" for group in match.groups())
    return "symbol", base, raised, below.strip("{}"), above.strip("{}"), index


_ONE_WORD = re.compile(r"[\w.\u0300-\u036f]+")


def marks(formula: Formula, index: Index = NO_INDEX) -> Mark:
    """The tree of marks of a formula; symbols get the letters of the axes along which they vary."""
    if isinstance(formula, Symbol):
        return symbol_marks(formula.name, index_of(formula.shape, index))
    if isinstance(formula, Gradient):
        letters = "", index_of(formula.shape, index)
        of, by = map(_in_parentheses, map(symbol_marks, (formula.of, formula.by), letters))
        return "fraction", ("row", ("text", "∂"), of), ("row", ("text", "∂"), by)
    if isinstance(formula, Sigma):
        inside, letters = inside_sigma(formula, index)
        return "sigma", _factor(formula.body, inside), letters
    if isinstance(formula, Reshaped):
        return marks(formula.body, inside_reshaped(formula, index))
    if isinstance(formula, Apply):
        return _call(formula, index)
    if isinstance(formula, Sum):
        return "terms", *[marks(term, index) for term in formula.terms]
    return _product(formula, index)


def as_factor(formula: Formula, index: Index) -> Mark:
    """A formula as the right side of a product: in parentheses if it is a sum or negative."""
    inside = _factor(formula, index)
    return ("paren", inside) if inside[0] == "row" and inside[1] == ("text", "−") else inside


def _factor(formula: Formula, index: Index) -> Mark:
    """A formula as part of a product."""
    return _in_parentheses(marks(formula, index))


def _in_parentheses(mark: Mark) -> Mark:
    """A sum, or a name that might be read as one, in parentheses; all others as they are."""
    return ("paren", mark) if mark[0] in ("terms", "words") else mark


def _call(formula: Apply, index: Index) -> Mark:
    """A function of its arguments. Where it mixes their entries, the index is that of the result:
    softmax(x)_i. Of a stack of matrices it tells which: X_iᵀ."""
    if is_elementwise(formula):
        return _written(formula, [index] * len(formula.arguments))
    stack = {axis: index[axis] for axis in index if axis < -2} if is_of_matrices(formula) else {}
    taken = {0: "".join(index.values())}  # a Σ in an argument takes no letter from outside
    whole = _written(formula, [indexed([x]) | taken | stack for x in formula.arguments])
    letters = index_of(formula.shape, {a: index[a] for a in index if a not in stack})
    if not letters:
        return whole
    return "row", whole if whole[0] == "call" else ("paren", whole), _below(letters)


def _written(formula: Apply, indices: Sequence[Index]) -> Mark:
    """A function, with the indices of its arguments, as it is written."""
    pairs = list(zip(formula.arguments, indices))
    if formula.name in ("@", "·") and len(pairs) == 2:
        left, right = (_matrix(formula, *pair) for pair in pairs)
        return "row", left, ("text", f" {formula.name} "), right
    if formula.name == "ᵀ":
        return "power", _base(_argument(formula, *pairs[0])), ("text", "T")
    own = formula.how.name if isinstance(formula.how, Call) else formula.name
    if own == "pow" and len(pairs) == 2:
        return "power", _base(marks(*pairs[0])), marks(*pairs[1])
    if own == "getitem":
        return "call", _base(marks(*pairs[0])), ("text", f"[{getitem_index(formula.how)}]")
    if own == "reshape":
        return _call_of(own, [marks(*pairs[0]), ("text", said(formula.shape))])
    arguments, which = [_argument(formula, *pair) for pair in pairs], []
    if isinstance(formula.how, Call):
        arguments += [("text", option) for option in options_of(formula.how)]
        if formula.how.op.keeps_outputs and formula.how.output is not None:
            which = [("text", f"[{formula.how.output}]")]
    return _call_of(formula.name, arguments, *which)


def _call_of(name: str, arguments: Sequence[Mark], *which: Mark) -> Mark:
    listed = [mark for each in arguments for mark in (("text", ", "), each)]
    if not listed:
        return "name", clean(name)
    return "call", ("function", clean(name)), ("paren", ("row", *listed[1:])), *which


def _argument(function: Apply, formula: Formula, index: Index) -> Mark:
    """An argument. One that mixes entries depends on the shape in which it gets them; to @, a
    vector is what it is as a row or a column."""
    mark = marks(formula, index)
    if is_elementwise(function) or not isinstance(formula, Reshaped):
        return mark
    is_moved = math.prod(formula.before) == math.prod(shape_of(formula.body))
    if is_moved and is_of_matrices(function) and only_ones_differ(formula):
        return mark
    name = "reshape" if is_moved else "broadcast_to"
    return _call_of(name, [mark, ("text", said(formula.after))])


def _below(letters: str) -> Mark:
    """An index at what is no symbol."""
    return "symbol", "", "", "", "", letters


def _matrix(function: Apply, formula: Formula, index: Index) -> Mark:
    """A factor of @: what is multiplied entry by entry stands in parentheses."""
    inside = _in_parentheses(_argument(function, formula, index))
    is_product = isinstance(formula, Product) and (
        len(formula.factors) > 1 or formula.coefficient < 0
    )
    return ("paren", inside) if is_product else inside


def _product(formula: Product, index: Index) -> Mark:
    """A sign, a fraction or a row of factors, then gradients, then what is summed: −, 1/m, Σ x."""
    over, under, last = [], [], []
    for base, exponent in sorted(formula.factors, key=lambda factor: factor[1] < 0):
        if exponent == 1 and isinstance(_unmoved(base), (Sigma, Gradient)):
            last.append(marks(base, index))
        elif exponent < 0 and (exponent == Fraction(-1, 2) or exponent == int(exponent)):
            under.append(_power(base, -exponent, index))
        else:
            over.append(_power(base, exponent, index))
    above, below = _ratio(abs(formula.coefficient), bool(under))
    over = [("number", above)] * (above != "1") + over
    under = [("number", below)] * (below != "1") + under
    if not over and (under or not last):
        over = [("number", "1")]
    pieces = [("fraction", _times(over), _times(under))] if under else over
    *others, final = sorted(last, key=lambda mark: mark[0] == "sigma") or [None]
    last = [("paren", mark) if mark[0] == "sigma" else mark for mark in others] + [final]
    product = _times(pieces + [mark for mark in last if mark is not None])
    return ("row", ("text", "−"), product) if formula.coefficient < 0 else product


def _unmoved(formula: Formula) -> Formula:
    return _unmoved(formula.body) if isinstance(formula, Reshaped) else formula


def _ratio(size: Fraction | float, in_fraction: bool) -> tuple[str, str]:
    """A number as what stands above and below a line: below 1, unless it belongs into a fraction
    that is there, or as a decimal it would be rounded."""
    if size == Fraction(1, 2):
        return ("1", "2") if in_fraction else ("½", "1")
    decimal = number(float(size))
    if isinstance(size, float) or size.denominator > 9999 or Fraction(decimal) == size:
        return decimal, "1"
    return number(size.numerator), number(size.denominator)


def _power(base: Formula, exponent: Any, index: Index) -> Mark:
    if exponent == 1:
        inside, core = _factor(base, index), _unmoved(base)
        is_matrix_product = isinstance(core, Apply) and core.name == "@"
        return ("paren", inside) if is_matrix_product and inside[0] == "row" else inside
    if exponent == Fraction(1, 2):
        return "root", marks(base, index)
    size = number(float(abs(exponent)))
    if isinstance(exponent, Fraction) and exponent.denominator == 2:
        size = f"{abs(exponent.numerator)}/2"
    inside = _base(marks(base, index))
    return "power", inside, ("text", f"−{size}" if exponent < 0 else size)


def _base(mark: Mark) -> Mark:
    """What stands below an exponent: in parentheses, unless it is a letter, a number or a call."""
    is_simple = mark[0] in ("name", "call", "paren", "number")
    is_letter = mark[0] == "symbol" and not (mark[2] + mark[4])
    return mark if is_simple or is_letter else ("paren", mark)


def _times(factors: list[Mark]) -> Mark:
    """Factors side by side, with a dot where two would read as one."""
    row = factors[:1]
    for before, factor in itertools.pairwise(factors):
        is_figures = before[0] == "number" and not {*before[1]} - {*"0123456789.½"}
        is_coefficient = is_figures and factor[0] not in ("number", "name")
        if factor[0] == "sigma":
            row.append(("text", " "))
        elif not is_coefficient and not _is_closed(before) and not _is_closed(factor):
            row.append(("text", "·"))
        row.append(factor)
    return row[0] if len(row) == 1 else ("row", *row)


def _is_closed(mark: Mark) -> bool:
    return mark[0] == "paren" or (mark[0] == "power" and mark[1][0] == "paren")


PLAIN = str.maketrans("²³", "23")  # where they stand above a letter anyhow


# --- Two printers ---------------------------------------------------------------------------------


def as_text(mark: Mark, tight: bool = False) -> Text:
    """Marks on one line: 2(xᵢ−μ_B)/m. `tight`: no spaces around + and −, as inside parentheses."""
    kind, *inside = mark
    match kind:
        case "symbol":
            base, raised, below, above, index = inside
            runs = (base + raised, 0), (subscript(below, index), -1), (above, 1)
            return tuple((run, at) for run, at in runs if run)
        case "row" | "call":
            texts = [as_text(part, True) for part in inside]
            for k, (part, after) in enumerate(itertools.pairwise(inside)):
                if part[0] == "fraction" and not _is_gradient(part) and after != ("text", " "):
                    texts[k] = joined("(", texts[k], ")")  # x/m·y would be read in two ways
            return joined(*texts)
        case "terms":
            space = "" if tight else " "
            return joined(
                *[
                    piece
                    for sign, term in signed_terms(inside)
                    for piece in (f"{space}{sign}{space}" if sign else "", as_text(term, True))
                ]
            )
        case "fraction":
            over, under = (as_text(part, True) for part in inside)
            over = joined("(", over, ")") if inside[0][0] == "terms" else over
            simple = inside[1][0] in ("symbol", "name", "number", "power", "root", "paren")
            is_closed = simple or _is_gradient(mark)
            return joined(over, "/", under if is_closed else joined("(", under, ")"))
        case "power":
            exponent = characters(as_text(inside[1], True))
            return joined(as_text(inside[0], True), ((exponent, 1),))
        case "root":
            body = as_text(inside[0], True)
            return joined(
                "√", body if inside[0][0] in ("symbol", "name") else joined("(", body, ")")
            )
        case "paren":
            return joined("(", as_text(inside[0], True), ")")
        case "sigma":
            body, letters = inside
            below = () if _goes_without_saying(letters, body) else ((letters, -1),)
            return joined("Σ", below, " ", as_text(body, True))
    return plain(*inside)


def subscript(below: str, index: str) -> str:
    """What stands below a symbol: what belongs to its name, and an index."""
    return below + ("," if below and index else "") + index


def _is_gradient(fraction: Mark) -> bool:
    return fraction[1][1] == ("text", "∂")


def _goes_without_saying(letters: str, body: Mark) -> bool:
    """Whether a Σ can only run over i, j, …: then it is Σ xᵢ."""
    return LETTERS.startswith(letters) and _indices(body) <= {*letters}


def _indices(mark: Mark) -> set[str]:
    """The letters of indices below symbols."""
    if mark[0] == "symbol":
        return {*mark[5]}
    return {letter for part in mark if isinstance(part, tuple) for letter in _indices(part)}


def signed_terms(terms: Sequence[Mark]) -> list[tuple[str, Mark]]:
    """Terms with the sign before each: none, +, or the − with which it begins."""
    pairs = [("", terms[0])]
    for term in terms[1:]:
        negative = term[0] == "row" and term[1] == ("text", "−")
        pairs.append(("−", ("row", *term[2:])) if negative else ("+", term))
    return pairs


def as_mathml(mark: Mark) -> str:
    """Marks as MathML, to stand inside <math>. A root is √ and parentheses: <msqrt> loses its sign
    in some fonts of Chromium."""
    kind, *inside = mark
    match kind:
        case "symbol":
            base, raised, below, above, index = inside
            comma = '<mo rspace="0">,</mo>' if below and index else ""
            under = _mathml_row([_mathml_word(below), comma, *map(_mathml_word, index)])
            over = _mathml_word(raised.translate(PLAIN) + above)
            tag = f"m{'sub' * bool(under)}{'sup' * bool(over)}" if under or over else "mrow"
            return f"<{tag}>{_mathml_letter(base)}{under}{over}</{tag}>"
        case "name" | "words" | "function":
            return f"<mtext>{escape(inside[0])}</mtext>"
        case "number":
            return f"<mn>{escape(inside[0])}</mn>"
        case "row" | "call":
            return f"<mrow>{''.join(map(as_mathml, inside))}</mrow>"
        case "terms":
            pieces = [
                (f"<mo>{sign}</mo>" if sign else "") + as_mathml(t)
                for sign, t in signed_terms(inside)
            ]
            return f"<mrow>{''.join(pieces)}</mrow>"
        case "fraction" | "power":
            tag = "mfrac" if kind == "fraction" else "msup"
            return f"<{tag}>{as_mathml(inside[0])}{as_mathml(inside[1])}</{tag}>"
        case "root":
            body = as_mathml(inside[0])
            simple = inside[0][0] in ("symbol", "name", "number")
            return f"<mrow><mo>√</mo>{body if simple else f'<mo>(</mo>{body}<mo>)</mo>'}</mrow>"
        case "paren":
            return f"<mrow><mo>(</mo>{as_mathml(inside[0])}<mo>)</mo></mrow>"
        case "sigma":
            body, letters = inside
            under = _mathml_row(map(_mathml_word, letters))
            sign = f"<munder><mo>∑</mo>{under}</munder>" if under else "<mo>∑</mo>"
            return f"<mrow>{sign}{as_mathml(body)}</mrow>"
    return f"<mo>{escape(inside[0])}</mo>"


def _mathml_word(text: str) -> str:
    """One letter is set in italics, several are upright."""
    tag = "mn" if text.isdigit() else "mi"
    return f"<{tag}>{escape(text)}</{tag}>" if text else ""


def _mathml_row(parts: Iterable[str]) -> str:
    """Parts that are not empty, as one element."""
    row = [part for part in parts if part]
    return f"<mrow>{''.join(row)}</mrow>" if len(row) > 1 else "".join(row)


def _mathml_letter(base: str) -> str:
    letter, accent = base[:1], base[1:]
    if not accent:
        return f"<mi>{escape(letter)}</mi>"
    mark = {"\u0302": "^", "\u0303": "~", "\u0304": "¯", "\u0307": "˙"}.get(accent)
    if mark is None:
        return f"<mi>{escape(base)}</mi>"
    return f'<mover accent="true"><mi>{escape(letter)}</mi><mo>{mark}</mo></mover>'
