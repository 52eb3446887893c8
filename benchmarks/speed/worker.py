"""One kind of work, in a process of its own: `python -m benchmarks.speed.worker KIND [--quick]`.

Only the libraries that do this work are imported there: to the garbage collector, all that has been
imported is more to look at. What was measured is printed as JSON.
"""

import json
import sys
from collections.abc import Iterable

from . import chains, machine, memory, networks, norms, scalars
from .measure import Work, measured


def timed(works: Iterable[Work], quick: bool) -> list[dict]:
    """The rows of works."""
    rows = []
    for work in works:
        print(f"  {work.name}", file=sys.stderr, flush=True)
        rows.append(measured(work._replace(rounds=1, burst=0.0) if quick else work))
    return rows


def without_numba(quick: bool) -> list[dict]:
    sys.modules["numba"] = None  # as where it is not installed
    return timed([*norms.numpy_only(quick), *networks.numpy_only(quick)], quick)


KINDS = {
    "machine": machine.described,
    "norms": lambda quick: timed(norms.works(quick), quick),
    "networks": lambda quick: timed(networks.works(quick), quick),
    "NumPy alone": without_numba,
    "scalars": lambda quick: timed(scalars.works(quick), quick),
    "chains": lambda quick: timed(chains.works(quick), quick),
    "memory": memory.rows,
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]]("--quick" in sys.argv)))
