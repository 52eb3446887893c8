"""Marks (`typeset.py`) as LaTeX for math mode, and for amsmath's `\\text`."""

import itertools
import unicodedata

from .typeset import PLAIN, Mark, signed_terms, subscript

_LATEX = {
    "ℓ": r"\ell ", "𝓛": r"\mathcal{L}", "∂": r"\partial ", "−": "-", "·": r"\cdot ",
    "×": r"\times ", "²": "{}^{2}", "³": "{}^{3}", "½": r"\frac{1}{2}", "∞": r"\infty ",
    "±": r"\pm ", "…": r"\dots ", "≈": r"\approx ", "@": r"\,", " ": r"\ ", "~": r"\sim ", "′": "'",
    "\\": r"\backslash ", "^": r"\wedge ", "<": "{<}", ">": "{>}"  # in Markdown no tags
}  # fmt: skip
_LATEX |= {c: f"\\{c}" for c in "#$%&_{}"}
_GREEK = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"  # the others are as Latin letters
_COMMANDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
_LATEX |= {letter: f"\\{name} " for letter, name in zip(_GREEK, _COMMANDS.split())}
_FUNCTIONS = {"cos", "exp", "log", "max", "min", "sin", "tanh"}  # which LaTeX has commands for
_ACCENTS = {
    "\u0300": "grave", "\u0301": "acute", "\u0302": "hat", "\u0303": "tilde", "\u0304": "bar",
    "\u0306": "breve", "\u0307": "dot", "\u0308": "ddot", "\u030c": "check"
}  # fmt: skip


def as_latex(mark: Mark) -> str:
    """Marks for LaTeX's math mode: 2(x_{i}-\\mu_{B})/m as a fraction."""
    kind, *inside = mark
    match kind:
        case "symbol":
            base, raised, below, above, index = inside
            below, above = subscript(below, index), raised.translate(PLAIN) + above
            below = f"_{{{latex_characters(below)}}}" if below else ""
            above = f"^{{{latex_characters(above)}}}" if above else ""
            return latex_characters(base) + below + above
        case "name" | "words":
            return latex_text(inside[0])
        case "function":
            (name,) = inside
            return rf"\{name}" if name in _FUNCTIONS else latex_text(name)
        case "number":
            return latex_number(inside[0])
        case "row" | "call":
            return "".join(map(as_latex, inside))
        case "terms":
            return "".join(
                [_LATEX.get(sign, sign) + as_latex(t) for sign, t in signed_terms(inside)]
            )
        case "fraction":
            return rf"\frac{{{as_latex(inside[0])}}}{{{as_latex(inside[1])}}}"
        case "power":
            return f"{{{as_latex(inside[0])}}}^{{{as_latex(inside[1])}}}"
        case "root":
            return rf"\sqrt{{{as_latex(inside[0])}}}"
        case "paren":
            return rf"\left({as_latex(inside[0])}\right)"
        case "sigma":
            body, letters = inside
            return (rf"\sum_{{{letters}}} " if letters else r"\sum ") + as_latex(body)
    return latex_characters(*inside).replace("\\ ", " ")  # math mode has spaces of its own


def latex_characters(text: str) -> str:
    """Characters for math mode, the field's symbols as commands: μ as \\mu, x̂ as \\hat{x}."""
    written: list[str] = []
    for composed in text:
        letter, *marks = unicodedata.normalize("NFD", composed)
        for character in (letter, *marks) if set(marks) <= _ACCENTS.keys() else composed:
            if character in _ACCENTS and written:
                written[-1] = rf"\{_ACCENTS[character]}{{{written[-1].strip()}}}"
            else:
                written.append(_LATEX.get(character, character))
    return "".join(written)


def latex_text(text: str) -> str:
    r"""Words for math mode: upright, what is not a letter or a figure as in formulas.

    >>> print(latex_text("my_weight"))
    \text{my}\_\text{weight}
    """
    words = _LATEX.keys() - {" "}
    runs = itertools.groupby(unicodedata.normalize("NFC", text), lambda c: c not in words)
    return "".join(
        rf"\text{{{''.join(run)}}}" if is_word else latex_characters("".join(run))
        for is_word, run in runs
    )


def latex_number(text: str) -> str:
    r"""A number as `text.number` writes it, for math mode.

    >>> print(latex_number("−1.5e−05"))
    -1.5\cdot 10^{-5}
    """
    size, _, exponent = text.replace("−", "-").partition("e")
    if exponent:
        return rf"{size}\cdot 10^{{{int(exponent)}}}"
    sign, digits = ("-", size[1:]) if size.startswith("-") else ("", size)
    return sign + {"inf": r"\infty ", "nan": r"\text{nan}", "½": r"\frac{1}{2}"}.get(digits, digits)
