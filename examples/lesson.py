"""What the lessons share: how much they do, where their pictures go, and how they close."""

import argparse
import sys
from pathlib import Path
from typing import Any

import tinygrad_bn  # noqa: F401, before NumPy, as the README says of speed

try:
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit('The lessons draw with matplotlib: pip install "tinygrad_bn[viz,train]"')

_IN_NOTEBOOK = "ipykernel" in sys.modules
if not _IN_NOTEBOOK:
    plt.switch_backend("Agg")  # to files; a lesson opens no window

BLUE, RED, INK, MUTED = "#005A9C", "#B03A00", "#1B1F24", "#57606A"
PICTURES = Path("out") / "lessons"  # in the folder where the lesson is started

plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "figure.dpi": 72,
        "font.size": 10,
        "savefig.bbox": "tight",
        "svg.fonttype": "none",
        "svg.hashsalt": "lesson",
    }
)


def _asked() -> argparse.Namespace:
    about = (Path(sys.argv[0]).stem or "lesson").replace("_", " ")
    parser = argparse.ArgumentParser(description=f"Lesson {about}")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="the shortest that still shows it")
    length.add_argument("--full", action="store_true", help="minutes: more seeds, longer training")
    return parser.parse_args([] if _IN_NOTEBOOK else None)


_ASKED = _asked()


def pace(quick: Any, usual: Any, full: Any) -> Any:
    """The first if the lesson was started with `--quick`, the last with `--full`, else `usual`."""
    return quick if _ASKED.quick else full if _ASKED.full else usual


def save(picture: Any, name: str) -> None:
    """Write a figure of matplotlib or a Diagram as out/lessons/NAME.svg, and say so; in a notebook
    show it instead."""
    if _IN_NOTEBOOK:
        from IPython.display import display

        display(picture)
    else:
        path = PICTURES / f"{name}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, plt.Figure):
            picture.savefig(path, metadata={"Date": None})
        else:
            picture.save(path)
        print(f"picture: {path}")
    if isinstance(picture, plt.Figure):
        plt.close(picture)


def close(found: dict[str, float]) -> None:
    """The closing lines of a lesson: each number that it found, with its name."""
    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
