"""Every kernel against float64 on the host, against the library on the CPU, and against itself."""

from collections.abc import Iterator

import numpy as np

from .cases import DTYPES, OF_STATISTICS, Case, listed


def rows(dry: bool) -> Iterator[dict]:
    """What to expect, and a row for each kind of kernel and dtype."""
    dtypes = DTYPES[:2] if dry else DTYPES
    yield {"expected": [f"{kind}, {dtype}" for dtype in dtypes for kind in kinds(dtype)]}
    for dtype in dtypes:
        for kind, cases in listed(dtype, dry).items():
            found = [checked(case, dtype == "float32") for case in cases]
            if found:
                yield {"name": f"{kind}, {dtype}", "kind": kind, "dtype": dtype, **merged(found)}


def kinds(dtype: str) -> list[str]:
    """Those of `listed` that have cases of this dtype."""
    every = listed(dtype, small=True)
    return [kind for kind in every if kind != "running statistics" or dtype in OF_STATISTICS]


def checked(case: Case, beside_cpu: bool) -> dict:
    """What is wrong with a case, and how far off it is: of what is allowed, and from the CPU. Of
    all that is off NaN is furthest."""
    found = {"from_cpu": 0.0, "wrong": [], "other_bits": [], "raised": []}
    shares = {case.name: 0.0}
    try:
        first, second = case.compute(), case.compute()
        exact = case.exact(first)
        for name, wanted in exact.items():
            what, got = f"{case.name}: {name}", first[name]
            error = distance(got, wanted) / (case.size(name, exact) or 1.0)
            share = np.divide(error, case.allowed(name)) if error else 0.0
            if not share <= 1 or got.shape != wanted.shape:
                found["wrong"].append(f"{what} is off by {error:.1e}")
            shares[what] = float(share)
            if got.tobytes() != second[name].tobytes():
                found["other_bits"].append(what)
        for name, other in case.on_cpu(first).items() if beside_cpu else ():
            off = distance(first[name], other) / (case.size(name, exact) or 1.0)
            found["from_cpu"] = float(np.maximum(off, found["from_cpu"]))
    except Exception as error:
        found["wrong"].append(f"{case.name}: {type(error).__name__}: {error}")
        found["raised"].append(case.name)
    return {**found, "shares": shares}


def merged(found: list[dict]) -> dict:
    shares = {what: share for one in found for what, share in one["shares"].items()}
    worst = list(shares)[np.argmax(list(shares.values()))]  # the first NaN, if there is one
    return {
        "cases": len(found),
        "worst": worst,
        "share_of_allowed": shares[worst],
        "from_cpu": float(np.max([one["from_cpu"] for one in found])),
        **{
            key: [each for one in found for each in one[key]]
            for key in ("wrong", "other_bits", "raised")
        },
    }


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; 0 between two NaN, or two infinities. NaN where one is NaN."""
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where((got == wanted) | (np.isnan(got) & np.isnan(wanted)), 0.0, abs(got - wanted))
    return float(np.max(off, initial=0.0))
