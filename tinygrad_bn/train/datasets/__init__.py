"""The data sets that a network can be trained on, by name: made from a seed, or read from files."""

from pathlib import Path

from .cifar import cifar10
from .dataset import Dataset
from .idx import fashion_mnist, mnist
from .made import digits, digits_dataset, disc, disc_dataset, moons_dataset
from .table import csv_table

_MADE = {"disc": disc_dataset, "moons": moons_dataset, "digits": digits_dataset}
_IN_A_FOLDER = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10}
DATASETS = (*_MADE, *_IN_A_FOLDER, "csv")


def load(name: str, path: Path | None, seed: int, target: str | None) -> Dataset:
    """The data set of that name, one of `DATASETS`.

    `path` is the folder of mnist, fashion-mnist and cifar10, and the file of csv. `seed` decides
    the points of disc and moons, and which rows of digits and csv are to test on. `target` names
    the column of csv that holds the class; None is the last one.

    A ValueError names the argument, or the file and what is wrong in it; a file that is missing is
    a FileNotFoundError that says where it can be had. moons and digits without scikit-learn are a
    RuntimeError.

    >>> data = load("disc", None, seed=0, target=None)
    >>> data.x.shape, data.test_x.shape, data.classes
    ((1000, 2), (1000, 2), ('outside', 'inside'))
    >>> load("disc", Path("data"), seed=0, target=None)
    Traceback (most recent call last):
    ValueError: path: got data, wants none: disc is made from the seed
    """
    if name not in DATASETS:
        raise ValueError(f"data: got {name!r:.60}, wants one of {', '.join(DATASETS)}")
    if target is not None and name != "csv":
        raise ValueError(f"target: got {target!r:.60}, wants none: only csv has columns")
    if name in _MADE:
        if path is not None:
            raise ValueError(f"path: got {path}, wants none: {name} is made from the seed")
        return _MADE[name](seed)
    if path is None:
        kind = "file" if name == "csv" else "folder"
        raise ValueError(f"path: got none, wants the {kind} of the {name} data")
    if name == "csv":
        return csv_table(path, seed, target)
    return _IN_A_FOLDER[name](path)
