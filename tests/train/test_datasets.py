"""Data sets by name: those made from a seed, and what `load` refuses."""

import sys

import numpy as np
import pytest

from tinygrad_bn import nn, random_numbers, train
from tinygrad_bn.train.datasets import DATASETS, load


@pytest.mark.parametrize(
    ("name", "shape", "test_shape", "classes"),
    [
        ("disc", (1000, 2), (1000, 2), 2),
        ("moons", (1000, 2), (1000, 2), 2),
        ("digits", (1437, 1, 8, 8), (360, 1, 8, 8), 10),
    ],
)
def test_what_is_made_is_its_seed(name, shape, test_shape, classes):
    first, again, other = (load(name, None, seed, None) for seed in (3, 3, 4))
    assert (first.x.shape, first.test_x.shape) == (shape, test_shape)
    assert (first.labels.shape, first.test_labels.shape) == (shape[:1], test_shape[:1])
    assert first.x.dtype == first.test_x.dtype == np.float32
    assert first.labels.dtype == first.test_labels.dtype == np.int64
    assert set(first.labels) == set(first.test_labels) == set(range(classes))
    assert len(first.classes) == classes
    for field in ("x", "labels", "test_x", "test_labels"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert not np.array_equal(first.x, other.x)


@pytest.mark.parametrize("name", ["disc", "moons", "digits"])
def test_any_whole_seed_will_do(name):
    small, large, larger = (load(name, None, seed, None).x for seed in (0, 2**40, 2**200))
    assert not np.array_equal(small, large)
    assert not np.array_equal(large, larger)


def test_no_point_is_an_initial_weight():
    points = load("disc", None, 0, None).x.ravel()
    random_numbers.manual_seed(0)
    weights = nn.Linear(2, 1000).weight.detach().numpy().ravel()
    assert abs(np.corrcoef(points, weights)[0, 1]) < 0.2  # 1 if one stream drew both


def test_the_disc_is_inside():
    disc = load("disc", None, 0, None)
    inside = disc.x[disc.labels == disc.classes.index("inside")]
    assert abs(inside).max() < 1.5 < abs(disc.x).max()
    assert 0.45 < disc.labels.mean() < 0.55  # half of the area


def test_the_upper_moon_is_above():
    moons = load("moons", None, 0, None)
    upper = moons.x[moons.labels == moons.classes.index("upper")]
    assert upper[:, 1].mean() > moons.x[:, 1].mean() + 0.2


def test_digits_are_those_of_the_lessons_as_images_in_another_order():
    digits = load("digits", None, 5, None)
    wanted = sorted((*image, label) for x, y in train.digits(5) for image, label in zip(x, y))
    parts = (digits.x, digits.labels), (digits.test_x, digits.test_labels)
    found = sorted((*image.ravel(), label) for x, y in parts for image, label in zip(x, y))
    assert found == wanted
    assert digits.classes[3] == "3"


@pytest.mark.parametrize("name", ["moons", "digits"])
def test_without_scikit_learn_it_says_how_to_get_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    message = rf'^the {name} need scikit-learn, .* pip install "tinygrad_bn\[train\]"$'
    with pytest.raises(RuntimeError, match=message):
        load(name, None, 0, None)


def test_an_unknown_name_lists_the_others():
    with pytest.raises(ValueError, match=r"^data: got 'imagenet', wants one of disc, moons, .*csv"):
        load("imagenet", None, 0, None)


@pytest.mark.parametrize("name", DATASETS)
def test_a_path_is_given_for_what_is_read_and_for_nothing_else(name, tmp_path):
    if name in ("disc", "moons", "digits"):
        with pytest.raises(ValueError, match=f"^path: got {tmp_path}, wants none: {name} is made"):
            load(name, tmp_path, 0, None)
    else:
        with pytest.raises(
            ValueError, match=f"^path: got none, wants the (file|folder) of the {name} data"
        ):
            load(name, None, 0, None)


@pytest.mark.parametrize("name", sorted({*DATASETS} - {"csv"}))
def test_a_target_is_for_csv_only(name):
    with pytest.raises(ValueError, match=r"^target: got 'y', wants none: only csv has columns"):
        load(name, None, 0, "y")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", "train-images-idx3-ubyte or train-images-idx3-ubyte.gz, from the MNIST page"),
        ("fashion-mnist", "train-images-idx3-ubyte.*, from the Fashion-MNIST page"),
        ("cifar10", r"data_batch_1.bin \(binary\) or data_batch_1 \(for Python\), from the CIFAR"),
    ],
)
def test_a_missing_file_is_named_with_where_it_can_be_had(name, wanted, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"{tmp_path}: got a folder without it, .*{wanted}"
    ):
        load(name, tmp_path, 0, None)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=f"{nowhere}: got no folder, wants {wanted}"):
        load(name, nowhere, 0, None)
