"""How wide a text will be, from the metrics of Helvetica; Arial and Liberation Sans have the same.

A picture is laid out before any font is known, so every text is drawn as wide as is said here.
"""

import unicodedata
from functools import cache

from .sketch import Text

SHIFTED_SIZE = 0.7  # of a sub- or superscript, as a part of the size of the text
SHIFT = {-1: 0.22, 0: 0.0, 1: -0.36}  # down from the line, as a part of the size of the text

# Advance widths in thousandths of the size, and the characters that have them.
_REGULAR = {
    191: "'′",
    222: "ijlιłı",
    260: "|",
    278: " !,./:;I[\\]ft·∫Ι",
    333: "()-`r",
    334: "{}",
    355: '"',
    389: "*",
    430: "ℓ⟨⟩",
    441: "εζξτ",
    469: "^",
    500: "Jcksvxyzγκλν▸◂↑↓‖∥",
    549: "÷±√∞≈≠≤≥υ",
    556: "#$0123456789?L_abdeghnopquδηθορΓ–",
    584: "+<=>~−×",
    597: "αμ",
    611: "FTZσ∘ΖΤ",
    667: "&ABEKPSVXYφΔΛΞΑΒΕΚΡΥΧ",
    700: "πψ∇∂∑Σℒ",
    722: "CDHNRUwΠΗΝ",
    778: "GOQωΘΩΦΟ",
    833: "MmΨ∏⊙⊞Μ",
    889: "%∈æ",
    944: "Wœ",
    1000: "…—→←▲▼ÆŒ",
    1015: "@",
}
_BOLD = {
    238: "'",
    278: " ,./I\\ijl",
    280: "|",
    333: "!()-:;[]`ft",
    389: "*r{}",
    474: '"',
    500: "z",
    556: "#$0123456789J_aceksvxy",
    584: "+<=>^~",
    611: "?FLTZbdghnopqu",
    667: "EPSVXY",
    722: "&ABCDHKNRU",
    778: "GOQw",
    833: "M",
    889: "%m",
    944: "W",
    975: "@",
}
_WIDTHS = {character: width for width, line in _REGULAR.items() for character in line}
_BOLD_WIDTHS = {character: width for width, line in _BOLD.items() for character in line}
_BOLDER = 1.06  # bold against regular, where Helvetica has no such character
_SMALLER = 0.6  # ² against 2
_UNKNOWN, _WIDE = 600, 1000


def text_width(text: Text, size: float, bold: bool = False) -> float:
    """The width of a text in the unit of `size`.

    >>> text_width((("x", 0),), 10), text_width((("x", 0), ("x", -1)), 10)
    (5.0, 8.5)
    """
    return sum(
        size * (SHIFTED_SIZE if level else 1) * sum(_advance(c, bold) for c in run) / 1000
        for run, level in text
    )


@cache
def _advance(character: str, bold: bool) -> float:
    """The width of a character in thousandths of the size."""
    if bold and character in _BOLD_WIDTHS:
        return _BOLD_WIDTHS[character]
    if character in _WIDTHS:
        return _WIDTHS[character] * (_BOLDER if bold else 1)
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc", "Cs"):  # x̂ is as wide as x
        return 0
    if unicodedata.east_asian_width(character) in ("W", "F"):
        return _WIDE
    base = unicodedata.normalize("NFKD", character)[0]  # é → e, ² → 2, 𝓛 → L
    if base != character:
        raised = unicodedata.decomposition(character).startswith(("<super>", "<sub>"))
        return _advance(base, bold) * (_SMALLER if raised else 1)
    return _UNKNOWN
