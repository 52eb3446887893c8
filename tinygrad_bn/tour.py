"""The tour: what batch norm buys, and what an exact fused gradient is good for, as one page.

It trains a deep network on the disc of EE-559 for many scales of the initial weights, and a small
one on handwritten digits at two learning rates, each with and without batch norm; holds fused batch
norm against composed at every order to 4; shows where saved constants go wrong; and draws what is
recorded. All on the CPU; the same seed gives the same numbers, but for the times.
"""

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from . import backend
from .check import compare
from .creation import tensor
from .diagram.batch_norm import draw_batch_norm
from .graph import Tensor
from .norm import composed, fused
from .ops import mean, sqrt
from .primitive import op
from .train.experiments import FULL, QUICK, error_text, train_on_digits, train_on_disc
from .train.report import tour_page


def tour(out: Path, seed: int, quick: bool) -> None:
    """Run the tour and leave its page, numbers and pictures in the folder `out`.

    Until all is done nothing is put there; an OSError says that `out` cannot be written.
    """
    start, plan = time.perf_counter(), QUICK if quick else FULL
    results, seconds = {"seed": seed, "quick": quick}, {}
    with _all_or_nothing(out) as folder, backend.device("cpu"):
        with _timed("disc", seconds):
            results["disc"] = train_on_disc(plan, seed)
        with _timed("digits", seconds):
            results["digits"] = train_on_digits(plan, seed)
        with _timed("comparison", seconds):
            results["comparison"], forward_backward = compare_batch_norms()
            results["saved_constants"] = compare_saved_constants()
        with _timed("pictures", seconds):
            results["pictures"] = draw_pictures(folder)
        results["title"] = results["disc"]["title"]
        results["seconds"] = {"parts": seconds, "forward_backward": forward_backward}
        numbers = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "results.json").write_text(numbers + "\n", encoding="utf-8")
        (folder / "index.html").write_text(tour_page(results, folder), encoding="utf-8")
    print(f"\n{summary(results)}\n{time.perf_counter() - start:.0f} s.\n{out / 'index.html'}")


@contextlib.contextmanager
def _timed(part: str, seconds: dict) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


@contextlib.contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder whose files move into `out` when the block is done; if it fails, none does."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out) as folder:
            yield Path(folder)
            for path in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == ".html"):
                os.replace(path, out / path.name)  # the page last: what it links to is there
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


# --- Composed against fused -----------------------------------------------------------------------


def _example() -> list[Tensor]:
    """x (32, 16), γ and β (16,) in float64; always the same."""
    random = np.random.default_rng(0)
    x, gamma, beta = random.normal(size=(32, 16)), *random.normal(1, 0.5, size=(2, 16))
    return [tensor(v, requires_grad=True) for v in (x, gamma, beta)]


def compare_batch_norms() -> tuple[dict, tuple[float, float]]:
    """Print and return how composed and fused batch norm compare; the times are apart."""
    inputs, order = _example(), 4
    options = {"axes": (0,), "eps": 1e-5}
    result = compare(
        lambda *values: composed.normalize(*values, **options),
        lambda *values: fused.normalize(*values, **options),
        *inputs,
        order=order,
    )
    parting = _first_above(1e-9, result.differences)
    if parting is None:
        title = f"One fused op equals the composed formula at every order to {order}"
    else:
        title = f"Fused and composed batch norm part at order {parting}"
    return {
        "title": title,
        "shape": inputs[0].shape,
        "ops": result.ops,
        "held_bytes": result.held,
        "differences": result.differences,
    }, result.seconds


def _saved_constants_grads(gs, outs, x, gamma, _beta, *, needs, axes, eps):
    """∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β by the formula of `norm.fused`, with μ and σ² as bare constants."""
    g, m = gs[0], x.size // gamma.size
    mu, var = (v.detach() if isinstance(v, Tensor) else v for v in outs[1:])
    r = 1.0 / sqrt(var + eps)
    xhat = (x - mu) * r
    mean_g, mean_gxhat = (mean(v, axis=axes, keepdims=True) for v in (g, g * xhat))
    dx = gamma * r * (g - mean_g - xhat * mean_gxhat)
    return dx, mean_gxhat * m, mean_g * m


@op("batch norm, constants", joint=_saved_constants_grads, outputs=("_y", "mu", "var"))
def batch_norm_with_saved_constants(xp, x, gamma, beta, *, axes, eps):
    """Fused batch norm as other libraries write it, to show what goes wrong: for its gradient the
    statistics are constants, arrays without a history."""
    return fused.normalize_forward(x, gamma, beta, axes=axes, eps=eps)


def compare_saved_constants() -> dict:
    """How far y's gradients of orders 1 to 4 are from those of composed batch norm, with the
    statistics as saved constants and as outputs."""
    order = 4

    def differences(batch_norm) -> tuple[float, ...]:
        def only_y(implementation):
            return lambda *values: implementation(*values, axes=(0,), eps=1e-5)[0]

        with contextlib.redirect_stdout(io.StringIO()):  # compare prints; one table is enough
            both = only_y(composed.normalize), only_y(batch_norm)
            return compare(*both, *_example(), order=order, repeat=1).differences[1:]

    constants = differences(batch_norm_with_saved_constants)
    wrong_from = _first_above(1e-6, (0.0, *constants))
    if wrong_from is None:
        title = f"Statistics saved as constants did no harm up to order {order}"
    elif wrong_from == 1:
        title = "Statistics saved as constants give wrong gradients"
    else:
        right = "order 1" if wrong_from == 2 else f"orders 1 to {wrong_from - 1}"
        title = f"Statistics saved as constants: right at {right}, wrong from order {wrong_from}"
    return {
        "title": title,
        "orders": list(range(1, order + 1)),
        "constants": constants,
        "outputs": differences(fused.normalize),
        "wrong_from": wrong_from,
    }


def _first_above(bound: float, differences: Sequence[float]) -> int | None:
    return next((k for k, d in enumerate(differences) if not d <= bound), None)


# --- Pictures and the end -------------------------------------------------------------------------


def draw_pictures(folder: Path) -> dict:
    """Draw the recorded graphs; the names of the files, and why there are no SVGs, if so."""
    paths, reason = draw_batch_norm(folder)
    if reason:
        print(f"pictures: only .dot files, {reason}")
    return {
        "title": "What is recorded: forward and backward",
        "files": [path.name for path in paths],
        "reason": reason,
    }


def summary(results: dict) -> str:
    """The headline numbers, a line each."""
    saved, comparison = results["saved_constants"], results["comparison"]
    lines = [results["title"] + ".", results["disc"]["finding"]]
    for s in results["digits"].get("settings", ()):
        name = "with BN" if s["batch_norm"] else "without BN"
        lines.append(f"Digits, lr {s['lr']:g}, {name}: test error {error_text(s)}")
    lines += [
        f"{comparison['title']} (largest difference {max(comparison['differences']):.1e}).",
        f"{saved['title']} ({', '.join(f'{d:.1e}' for d in saved['constants'])}).",
    ]
    return "\n".join(lines)
