"""A table in a CSV file: a line with the names of the columns, then a line for each row."""

import csv
import io
import math
from pathlib import Path

import numpy as np

from ..streams import DATA, stream
from .dataset import Dataset, content_of, split

_LARGEST = float(np.finfo(np.float32).max)
_MOST_CLASSES = 1000


def csv_table(path: Path, seed: int, target: str | None) -> Dataset:
    """The rows of a CSV file (commas, UTF-8), of which the seed holds out a fifth to test on.

    The column `target` (None: the last) holds the class, text or a number; classes are in the order
    of their numbers, or else of the alphabet, and told apart as texts: 1 and 1.0 are two. More than
    ten of them, and more than a tenth of the rows, are a quantity and refused, as are more than
    1,000. All other cells are finite numbers, the features (n, F) float32. Blank lines are passed
    over; an error names the line and the column.
    """
    header, *rows = _lines(path)
    names = _names(path, header)
    if target is None:
        target = names[-1]
    elif target not in names:
        raise ValueError(f"target: got {target!r:.60}, wants a column of {path}: {_listed(names)}")
    features, answers = [], []
    for line, cells in rows:
        if len(cells) != len(names):
            raise ValueError(f"{path}, line {line}: got {len(cells)} cells, wants {len(names)}")
        row = dict(zip(names, cells))
        answers.append(row.pop(target).strip())
        if not answers[-1]:
            raise ValueError(f"{path}, line {line}, column {target!r}: got none, wants a class")
        features.append([_number(path, line, name, cell) for name, cell in row.items()])
    classes = _in_order(set(answers))
    got = f"{len(rows):,} rows of {len(classes):,} classes in column {target!r:.60}"
    if len(rows) < 5 or len(classes) < 2:
        raise ValueError(f"{path}: got {got}, wants at least 5 rows of 2")
    most = min(max(10, len(rows) // 10), _MOST_CLASSES)
    if len(classes) > most:
        raise ValueError(f"{path}: got {got}, wants at most {most:,}: classes, not a quantity")
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([index[answer] for answer in answers], np.int64)
    train, test = split(np.array(features, np.float32), labels, len(rows) // 5, stream(seed, DATA))
    return Dataset(*train, *test, tuple(classes))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, each with its number and its cells; at least one."""
    content = content_of(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        got = f"the byte 0x{error.object[error.start]:02x}"
        raise ValueError(f"{path}, line {line}: got {got}, wants UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: got a NUL byte, wants text")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: got {error}, wants CSV") from error
    if not lines:
        raise ValueError(f"{path}: got an empty file, wants a line with the names of the columns")
    return lines


def _names(path: Path, header: tuple[int, list[str]]) -> list[str]:
    """The names of the columns: at least two, and each once."""
    line, cells = header
    names = [cell.strip() for cell in cells]
    before = set()
    for k, name in enumerate(names, 1):
        if not name or name in before:
            got = f"{name!r:.60} again" if name else "none"
            wants = "a name: the first line names the columns"
            raise ValueError(f"{path}, line {line}, column {k}: got {got}, wants {wants}")
        before.add(name)
    if len(names) < 2:
        got = f"one column, {names[0]!r:.60}"
        raise ValueError(f"{path}, line {line}: got {got}, wants features and a class, by commas")
    return names


def _number(path: Path, line: int, name: str, cell: str) -> float:
    try:
        value = math.nan if "_" in cell else float(cell)  # 1_000 is a number to Python alone
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        got = f"{cell!r:.60}" if cell.strip() else "none"
        wants = "a finite number of float32"
        raise ValueError(f"{path}, line {line}, column {name!r:.60}: got {got}, wants {wants}")
    return value


def _in_order(classes: set[str]) -> list[str]:
    names = sorted(classes)
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else ", ".join(names[:20]) + ", …"
