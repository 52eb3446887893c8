"""Names that a careless program would read as markup, cut, or choke on."""

HOSTILE = [
    "</TD><script>alert(1)</script>",
    'a"b\\n\\N\\G',
    "a|b{c}<d>",
    "x\x00\x07y",
    "\ud800lone",
    "σ²_B & γ",
    "line\nbreak\u2028and\x85more",
    "a" * 10_000,
    "",
    " ",
    "نص-rtl",
    "\u202eoverride\u2066isolate",
    "😀 emoji 👩\u200d🔬",
    "%s &#x41; &amp;",
    "--><!--",
    "]]>",
    '"]; evil [label="',
    "\ufffe\U0001ffff",
]
