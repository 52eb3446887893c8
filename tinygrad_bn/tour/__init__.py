"""The tour: what batch norm buys, and what an exact fused gradient is good for, as one page.

It trains networks with and without batch norm, from many initial scales, at higher learning rates,
with sigmoids; shows which samples a norm couples, and what comes of a mean that is taken for a
constant; holds fused batch norm against composed at every order to 4; draws what is recorded; and
trains a convnet on the digits as `tinygrad-bn train` does. All on the CPU; the same seed gives the
same numbers, but for the times.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import backend
from ..diagram.batch_norm import draw_batch_norm
from ..experiments import disc, learning_rates, sigmoids
from ..files import UNFINISHED
from ..train import training
from ..train.config import Config
from .comparison import compare_batch_norms, compare_saved_constants
from .demonstrations import coupling, ignored_mean
from .page import tour_page


@dataclass(frozen=True)
class Plan:
    """How much a tour trains: `networks` from different seeds for each setting."""

    disc: dict
    learning_rates: dict
    sigmoids: dict
    epochs: int  # of the convnet


_ON_DIGITS = ("learning_rates", "sigmoids", "convnet")  # which come with scikit-learn
FULL = Plan(
    disc={"stds": (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0), "networks": 3, "epochs": 30},
    learning_rates={"networks": 3, "baseline_steps": 600, "other_steps": 200},
    sigmoids={"networks": 3, "count": 600, "every": 20},
    epochs=10,
)
QUICK = Plan(
    disc={"stds": (0.03, 0.2, 1.0), "networks": 1, "epochs": 15},
    learning_rates={"networks": 1, "baseline_steps": 300, "other_steps": 100},
    sigmoids={"networks": 1, "count": 200, "every": 20},
    epochs=1,
)


def tour(out: Path, seed: int, quick: bool) -> None:
    """Run the tour and leave its page, numbers and pictures in the folder `out`.

    Until all is done nothing is put there; an OSError says that `out` cannot be written.
    """
    start, plan = time.perf_counter(), QUICK if quick else FULL
    with _all_or_nothing(out) as folder, backend.device("cpu"):
        parts = {
            "disc": lambda: disc.run(**plan.disc, seed=seed),
            "learning_rates": lambda: learning_rates.run(**plan.learning_rates, seed=seed),
            "sigmoids": lambda: sigmoids.run(**plan.sigmoids, seed=seed),
            "convnet": lambda: train_convnet(folder, plan.epochs, seed),
            "coupling": coupling,
            "ignored_mean": ignored_mean,
            "comparison": compare_batch_norms,
            "saved_constants": compare_saved_constants,
            "pictures": lambda: draw_pictures(folder),
        }
        results, seconds = {"seed": seed, "quick": quick}, {}
        for name, part in parts.items():
            since = time.perf_counter()
            results[name] = _or_why_not(name, part) if name in _ON_DIGITS else part()
            seconds[name] = time.perf_counter() - since
        results |= {"title": results["disc"]["title"], "seconds": seconds}
        numbers = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "results.json").write_text(numbers + "\n", encoding="utf-8")
        (folder / "index.html").write_text(tour_page(results, folder), encoding="utf-8")
    print(f"\n{summary(results)}\n{time.perf_counter() - start:.0f} s.\n{out / 'index.html'}")


def _or_why_not(name: str, part: Callable) -> dict:
    """What a part found; or, where a package that it needs is missing, what to install."""
    try:
        return part()
    except RuntimeError as error:
        print(f"{name.replace('_', ' ')}: left out, {error}")
        return {"skipped": str(error)}


@contextlib.contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder whose files move into `out` when the block is done; if it fails, none does."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=out) as folder:
            yield Path(folder)
            page = Path(folder) / "index.html"  # comes last: what it links to is there
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            for path in sorted(files, key=lambda path: path == page):
                place = out / path.relative_to(folder)
                place.parent.mkdir(exist_ok=True)
                os.replace(path, place)
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


# --- Its last parts, and the end ------------------------------------------------------------------


def train_convnet(folder: Path, epochs: int, seed: int) -> dict:
    """Train the convnet with batch norm on the digits, as the command does; keep what that leaves
    but for the checkpoints."""
    config = Config("digits", model="convnet", schedule="cosine", epochs=epochs, seed=seed)
    with tempfile.TemporaryDirectory() as elsewhere:
        run = Path(elsewhere) / "digits-convnet-batch"
        print("convnet: training", flush=True)
        with contextlib.redirect_stdout(io.StringIO()):  # which names a folder that will be gone
            status = training.start(config, run)
        if status == 130:
            raise KeyboardInterrupt  # which the training has noted, and stopped
        if status:
            raise RuntimeError("its training failed")
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        shutil.copytree(run, folder / "training_run", ignore=shutil.ignore_patterns("checkpoints"))
    title = f"A small convnet names {100 * found['test_accuracy']:.1f} % of new digits right"
    return {"title": title, "file": "training_run/index.html", "parameters": found["parameters"],
            "epochs": epochs, "test_accuracy": found["test_accuracy"]}  # fmt: skip


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
    trained = [results[name] for name in _ON_DIGITS]
    lines = [
        results["title"] + ".",
        results["disc"]["finding"],
        *(f"{part['title']}." for part in trained if "title" in part),
        f"{comparison['title']} (largest difference {max(comparison['differences']):.1e}).",
        f"{saved['title']} ({', '.join(f'{d:.1e}' for d in saved['constants'])}).",
    ]
    return "\n".join(lines)
