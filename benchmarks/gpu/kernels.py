"""Every kernel against float64 on the host, against the library on the CPU, and against itself."""

from collections.abc import Iterator

import numpy as np

from .cases import DTYPES, Case, listed


def rows(dry: bool) -> Iterator[dict]:
    for dtype in DTYPES[:2] if dry else DTYPES:
        for kind, cases in listed(dtype, dry).items():
            found = [checked(case, dtype == "float32") for case in cases]
            if found:
                yield {"name": f"{kind}, {dtype}", "kind": kind, "dtype": dtype, **merged(found)}


def checked(case: Case, beside_cpu: bool) -> dict:
    """What is wrong with a case, and how far off it is: of what is allowed, and from the CPU."""
    found = {"share": 0.0, "of": case.name, "from_cpu": 0.0, "wrong": [], "other_bits": []}
    try:
        first, second = case.compute(), case.compute()
        exact = case.exact(first)
        for name, wanted in exact.items():
            what, got = f"{case.name}: {name}", first[name]
            error = distance(got, wanted) / (case.size(name, exact) or 1.0)
            share = np.divide(error, case.allowed(name)) if error else 0.0
            if not share <= 1 or got.shape != wanted.shape:
                found["wrong"].append(f"{what} is off by {error:.1e}")
            if not share <= found["share"]:
                found["share"], found["of"] = float(share), what
            if got.tobytes() != second[name].tobytes():
                found["other_bits"].append(what)
        for name, other in case.on_cpu(first).items() if beside_cpu else ():
            off = distance(first[name], other) / (case.size(name, exact) or 1.0)
            found["from_cpu"] = max(off, found["from_cpu"])
    except Exception as error:
        found["wrong"].append(f"{case.name}: {type(error).__name__}: {error}")
    return found


def merged(found: list[dict]) -> dict:
    worst = max(found, key=lambda one: one["share"])
    return {
        "cases": len(found),
        "worst": worst["of"],
        "share_of_allowed": worst["share"],
        "from_cpu": max(one["from_cpu"] for one in found),
        "wrong": [each for one in found for each in one["wrong"]],
        "other_bits": [each for one in found for each in one["other_bits"]],
    }


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; 0 between two NaN, or two infinities. NaN where one is NaN."""
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where((got == wanted) | (np.isnan(got) & np.isnan(wanted)), 0.0, abs(got - wanted))
    return float(np.max(off, initial=0.0))
