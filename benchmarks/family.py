"""The family of norms and what was measured of it: `python benchmarks/family.py`.

A row for each member of norm/axes.py. Fused against composed in float64: the largest difference of
any gradient of the order, relative to the largest gradient. In float32 at mean 1e4 and std 1: the
largest error of y, and of ∂x relative to the largest ∂x, over two shapes. Needs PyTorch (pip
install torch); the table that it prints is kept in results/family.md.
"""

import contextlib
import io

import numpy as np
from accuracy import PYTORCH, errors
from orders import RESULTS, markdown, norms_by_pytorchs_names

import tinygrad_bn as tg
from tinygrad_bn.check import compare
from tinygrad_bn.norm.axes import FAMILY, Member

SMALL = {"S": [(5, 4, 6), (3, 4, 3, 2), (2, 4, 2, 1, 3)], "F": [(5, 6), (3, 4, 5), (2, 3, 2, 3)]}
LARGE = {"S": [(64, 64, 32, 32), (100, 32, 49)], "F": [(256, 1024), (100, 32)]}


def axes(letters: str) -> str:
    return ", ".join("H·W" if letter == "S" else letter for letter in letters)


def formula(member: Member) -> str:
    """Which x, μ, σ², γ and β belong to each other: their indices, from the member's axes."""

    def at(letters: str) -> str:
        return f"[{','.join(letters).lower()}]"

    x, gamma = f"x{at(member.layout)}", f"γ{at(member.affine)}"
    group = at("".join(letter for letter in member.layout if letter not in member.shares))
    if not member.centred:  # then it has no β either
        return f"{gamma} {x} / √(mean(x²){group} + ε)"
    return f"{gamma} ({x} − μ{group}) / √(σ²{group} + ε) + β{at(member.affine)}"


def differences(name: str) -> tuple[float, float]:
    """Fused against composed: the largest at orders 1 and 2, and at orders 3 and 4."""
    composed, fused = (
        norms_by_pytorchs_names(tg.functional, impl=impl)[name] for impl in ("composed", "fused")
    )
    random, found = np.random.default_rng(0), []
    for shape in SMALL[FAMILY[name].layout[-1]]:
        parameters = shape[1:] if "F" in FAMILY[name].affine else shape[1:2]
        values = [random.standard_normal(s) for s in (shape, parameters, parameters)]
        inputs = [tg.tensor(v, requires_grad=True) for v in values]
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            found.append(compare(composed, fused, *inputs).differences)
    _, *orders = np.max(found, axis=0)
    return max(orders[:2]), max(orders[2:])


def row(name: str) -> list[str]:
    member = FAMILY[name]
    found = [errors(name, shape) for shape in LARGE[member.layout[-1]]]
    ours, theirs = (
        np.max([f[library] for f in found], axis=0) for library in ("tinygrad_bn, fused", PYTORCH)
    )
    return [
        f"`{name}`",
        axes(member.shares),
        axes(member.affine),
        f"`{formula(member)}`",
        *(f"{d:.0e}" for d in differences(name)),
        *(f"{a:.0e} / {b:.0e}" for a, b in zip(ours, theirs)),
    ]


def main() -> None:
    head = [
        "member",
        "one μ and σ² over",
        "γ, β along",
        "y",
        "fused − composed, orders 1–2",
        "orders 3–4",
        f"float32: error of y, ours / {PYTORCH}",
        "float32: error of ∂x",
    ]
    table = markdown([head, *map(row, FAMILY)])
    (RESULTS / "family.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
