"""Tables in CSV files: which column is the class, what is held out, what errors point at."""

import re

import numpy as np
import pytest

from tinygrad_bn.train.datasets import load

ROWS = [f"{k},{k / 8},{'odd' if k % 2 else 'even'}" for k in range(20)]
TABLE = "\n".join(["a,b,kind", *ROWS]) + "\n"


def table(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder, content, target=None, seed=0):
    return load("csv", table(folder, content), seed, target)


def changed(line, text):
    """The table with another text in that line (the header is line 1)."""
    lines = TABLE.splitlines()
    return "\n".join([*lines[: line - 1], text, *lines[line:]])


def test_every_row_is_there_once_and_a_fifth_is_held_out(tmp_path):
    data = read(tmp_path, TABLE)
    assert (data.x.shape, data.test_x.shape) == ((16, 2), (4, 2))
    assert (data.x.dtype, data.labels.dtype) == (np.float32, np.int64)
    assert data.classes == ("even", "odd")
    rows = np.concatenate([data.x, data.test_x])
    order = np.argsort(rows[:, 0])
    np.testing.assert_array_equal(rows[order], [[k, k / 8] for k in range(20)])
    labels = np.concatenate([data.labels, data.test_labels])
    np.testing.assert_array_equal(labels[order], np.arange(20) % 2)


def test_what_is_held_out_is_the_seed(tmp_path):
    first, again, other = (read(tmp_path, TABLE, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test_x, again.test_x)
    assert not np.array_equal(first.test_x, other.test_x)


@pytest.mark.parametrize(
    ("answers", "classes"),
    [
        (["b", "a", "C"], ("C", "a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.5", "1e1", "2"], ("1.5", "2", "1e1")),
        (["1", "1.0"], ("1", "1.0")),
        (["10", "9", "x"], ("10", "9", "x")),
    ],
)
def test_classes_are_in_the_order_of_numbers_or_of_the_alphabet(answers, classes, tmp_path):
    lines = [f"{answer},{k}" for k in range(4) for answer in answers]
    data = read(tmp_path, "\n".join(["y,x", *lines]), "y")
    assert data.classes == classes
    labels = dict(zip(data.x[:, 0], data.labels))
    assert {classes[label] for label in labels.values()} <= set(answers)


@pytest.mark.parametrize(("rows", "classes"), [(10, 10), (110, 11), (10_000, 1000)])
def test_a_class_for_ten_rows_is_not_too_many(rows, classes, tmp_path):
    data = read(tmp_path, "\n".join(["x,y", *(f"{k},{k % classes}" for k in range(rows))]))
    assert len(data.classes) == classes


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n"),
        TABLE.replace(",", " , "),
        TABLE.replace("kind", '"kind"').replace("odd", '"odd"'),
        b"\xef\xbb\xbf" + TABLE.encode(),
    ],
    ids=["CRLF", "blank lines", "spaces", "quotes", "byte order mark"],
)
def test_other_ways_to_write_the_same_table(content, tmp_path):
    wanted, data = read(tmp_path, TABLE, "kind"), read(tmp_path, content, "kind")
    assert data.classes == wanted.classes
    np.testing.assert_array_equal(data.x, wanted.x)
    np.testing.assert_array_equal(data.labels, wanted.labels)


def test_a_class_may_hold_commas_and_letters_of_all_kinds(tmp_path):
    data = read(tmp_path, TABLE.replace("odd", '"ungerade, größer"'))
    assert data.classes == ("even", "ungerade, größer")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": got an empty file, wants a line with the names"),
        ("\n\n", ": got an empty file, wants a line with the names"),
        (changed(1, "a,a,kind"), ", line 1, column 2: got 'a' again, wants a name"),
        (changed(1, "a,,kind"), ", line 1, column 2: got none, wants a name"),
        ("a;b;kind\n1;2;x", ", line 1: got one column, 'a;b;kind', wants features and a class"),
        (changed(7, "x1,2,odd"), ", line 7, column 'a': got 'x1', wants a finite number"),
        (changed(7, "1,nan,odd"), ", line 7, column 'b': got 'nan', wants a finite number"),
        (changed(7, "1,-inf,odd"), ", line 7, column 'b': got '-inf', wants a finite number"),
        (changed(7, "1,1e39,odd"), ", line 7, column 'b': got '1e39', wants a finite number of fl"),
        (changed(7, "1_0,2,odd"), ", line 7, column 'a': got '1_0', wants a finite number"),
        (changed(7, "1, ,odd"), ", line 7, column 'b': got none, wants a finite number"),
        (changed(7, "1,2,"), ", line 7, column 'kind': got none, wants a class"),
        (changed(7, "1,2"), ", line 7: got 2 cells, wants 3"),
        (changed(7, "1,2,odd,"), ", line 7: got 4 cells, wants 3"),
        (changed(7, '1,2,"odd"x'), ", line 7: got .*, wants CSV"),
        (changed(21, '1,2,"odd'), ", line 21: got unexpected end of data, wants CSV"),
        (changed(7, f"1,2,{'x' * 200_000}"), ", line 7: got field larger than .*, wants CSV"),
        (changed(7, "1,2,o\0dd"), ", line 7: got a NUL byte, wants text"),
        (
            changed(7, "1,2,odd").encode() + b"\n1,2,\xff",
            ", line 22: got the byte 0xff, wants UTF-8",
        ),
        (b"\xef\xbb\xbf" + TABLE.encode() + b"1,2,\xfe", ", line 22: got the byte 0xfe, wants UTF"),
        (TABLE.encode("utf-16"), ", line 1: got the byte 0xff, wants UTF-8"),
        ("a,kind\n" + "1,x\n" * 9, ": got 9 rows of 1 classes in column 'kind', wants at least 5"),
        ("a,kind\n1,x\n2,y\n", ": got 2 rows of 2 classes in column 'kind', wants at least 5 rows"),
        (
            "a,price\n" + "".join(f"{k},{k / 7}\n" for k in range(600)),
            ": got 600 rows of 600 classes in column 'price', wants at most 60: classes, not a qua",
        ),
        (
            "a,kind\n" + "".join(f"{k},{k % 11}\n" for k in range(109)),
            ": got 109 rows of 11 classes in column 'kind', wants at most 10",
        ),
        (
            "a,year\n" + "".join(f"{k},{k % 1001}\n" for k in range(10_010)),
            ": got 10,010 rows of 1,001 classes in column 'year', wants at most 1,000",
        ),
        ("a,kind\n", ": got 0 rows of 0 classes in column 'kind', wants at least 5 rows"),
    ],
)
def test_an_error_points_at_its_place(content, message, tmp_path):
    path = re.escape(str(tmp_path / "table.csv"))
    with pytest.raises(ValueError, match=f"^{path}{message}"):
        read(tmp_path, content)


def test_an_unknown_target_lists_the_columns(tmp_path):
    with pytest.raises(ValueError, match=r"^target: got 'c', wants a column of .*csv: a, b, kind$"):
        read(tmp_path, TABLE, "c")
    wide = ",".join(f"x{k}" for k in range(1000))
    with pytest.raises(ValueError, match=r"wants a column of .*csv: x0, x1, .*, x19, …$"):
        read(tmp_path, wide, "c")


def test_a_file_that_is_missing_a_folder_or_too_large_is_named(tmp_path):
    for path, got in ((tmp_path / "none.csv", "no file"), (tmp_path, "no plain file")):
        with pytest.raises(FileNotFoundError, match=f"^{path}: got {got}, wants one$"):
            load("csv", path, 0, None)
    path = table(tmp_path, TABLE)
    with path.open("r+b") as file:
        file.truncate(2**31 + 1)  # a hole: it takes no room on the disk
    with pytest.raises(
        ValueError, match=f"^{path}: got 2,147,483,649 bytes, wants at most 2,147,4"
    ):
        load("csv", path, 0, None)
