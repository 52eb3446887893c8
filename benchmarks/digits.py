"""What the small convnet makes of the digits, with each norm: `python -m benchmarks.digits`.

`tinygrad-bn train` with the settings below, for five seeds, which also choose the fifth of the
1,797 images of scikit-learn that is held out to test. Nothing is chosen by what the test finds: the
last epoch counts. The table that it prints is kept in results/digits.md.
"""

import contextlib
import io
import json
import tempfile
from pathlib import Path

from tinygrad_bn.train import training
from tinygrad_bn.train.config import Config
from tinygrad_bn.train.models import NORMS
from tinygrad_bn.train.summary import percent

RESULTS = Path(__file__).parent / "results"
SEEDS = range(5)
RATES = (0.02, 0.1)
SETTINGS = {"data": "digits", "model": "convnet", "schedule": "cosine", "validation": 0.0}


def trained(norm: str, seed: int, **more) -> dict:
    """The summary of one run; it leaves nothing else."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = Path(folder) / "run"
        if training.start(Config(**SETTINGS, norm=norm, seed=seed, **more), run) == 130:
            raise KeyboardInterrupt  # which the run has noted, and stopped
        return json.loads((run / "summary.json").read_text())


def accuracy(norm: str, **more) -> str:
    """The test accuracy over the seeds: mean and range, and how many runs diverged."""
    runs = [trained(norm, seed, **more) for seed in SEEDS]
    found = [run["test_accuracy"] for run in runs if run["state"] == "finished"]
    if not found:
        return "× all diverged"
    return percent(found, 2) + f", × {len(runs) - len(found)} diverged" * (len(found) < len(runs))


def main() -> None:
    header = ["norm", *(f"learning rate {rate}" for rate in RATES)]
    rows = [header, ["---"] * len(header)]
    for norm in NORMS:
        rows.append([norm, *(accuracy(norm, lr=rate) for rate in RATES)])
        print(*rows[-1], sep=" | ", flush=True)
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    (RESULTS / "digits.md").write_text(table)


if __name__ == "__main__":
    main()
