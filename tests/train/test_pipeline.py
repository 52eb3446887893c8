"""Batches: in an order of the seed and the epoch alone, augmented, standardized, made ahead."""

import threading

import numpy as np
import pytest

from tinygrad_bn.distributed import simulate
from tinygrad_bn.train.pipeline import Pipeline, Standardization, prefetched

IMAGES = np.arange(23 * 2 * 4 * 5, dtype=np.uint8).reshape(23, 2, 4, 5)
CLASSES = np.arange(23)


def pipeline(**options):
    options = {"batch_size": 5, "seed": 3} | options
    return Pipeline(IMAGES, CLASSES, Standardization.of(IMAGES), **options)


def assert_same(got, wanted):
    got, wanted = list(got), list(wanted)
    assert len(got) == len(wanted)
    for pair, other in zip(got, wanted):
        for array, wanted_array in zip(pair, other):
            np.testing.assert_array_equal(array, wanted_array)


# --- Order ----------------------------------------------------------------------------------------


def test_an_epoch_has_each_sample_once_in_an_order_of_its_own():
    orders = [
        np.concatenate([y for _, y in pipeline(seed=seed).epoch(n)]).tolist()
        for seed, n in ((3, 1), (3, 2), (4, 1))
    ]
    assert [sorted(order) for order in orders] == [CLASSES.tolist()] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert pipeline().steps == len(list(pipeline().epoch(1))) == 5


@pytest.mark.parametrize("augmentation", [{}, {"shift": 2}, {"flip": True}])
def test_an_epoch_can_be_entered_at_any_batch(augmentation):
    batches = pipeline(**augmentation)
    for first in range(6):
        assert_same(batches.epoch(2, first), list(batches.epoch(2))[first:])


# --- Standardization and augmentation -------------------------------------------------------------


@pytest.mark.parametrize("shape", [(500, 3), (50, 3, 6, 7)])
def test_each_channel_gets_mean_0_and_variance_1(shape):
    x = np.random.default_rng(0).normal(1e3, 7.0, shape).astype(np.float32)
    x[:, 1] = 5  # does not vary: it is only centred
    standardize = Standardization.of(x)
    y = standardize(x)
    axes = (0, *range(2, len(shape)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(axes), [1, 0, 1], atol=1e-4)


def test_pixels_are_standardized_as_the_numbers_that_they_are():
    wanted = (IMAGES - IMAGES.mean((0, 2, 3), keepdims=True)) / IMAGES.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(Standardization.of(IMAGES)(IMAGES), wanted, rtol=1e-5, atol=1e-6)


AS_THEY_ARE = Standardization(np.zeros((2, 1, 1)), np.ones((2, 1, 1)))


def epochs(count, **options):
    """The images of some epochs, with their numbers, as the pipeline makes them."""
    made = Pipeline(IMAGES, CLASSES, AS_THEY_ARE, 5, 0, **options)
    for number in range(1, count + 1):
        for images, classes in made.epoch(number):
            yield from zip(images, classes)


def test_a_shifted_image_is_a_window_of_the_image_among_zeros():
    most, seen = 2, set()
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (most, most), (most, most)))
    for image, number in epochs(8, shift=most):
        around = padded[number]
        windows = {(i, j): around[:, i : i + 4, j : j + 5] for i in range(5) for j in range(5)}
        (place,) = [at for at, window in windows.items() if np.array_equal(window, image)]
        seen.add(place)
    assert seen == {(i, j) for i in range(5) for j in range(5)}


def test_about_half_of_the_images_are_mirrored():
    turned = []
    for image, number in epochs(17, flip=True):
        turned.append(np.array_equal(image, IMAGES[number, ..., ::-1]))
        assert turned[-1] != np.array_equal(image, IMAGES[number])
    assert 150 < sum(turned) < 241  # of 391


@pytest.mark.parametrize("ranks", [2, 7])
@pytest.mark.parametrize("parts", [1, 3])
def test_ranks_and_parts_share_the_batches_that_one_process_makes(ranks, parts):
    """Seven ranks have no more than one row each of five, some none."""
    augmentation = {"shift": 1, "flip": True}
    batches = list(pipeline(**augmentation).epoch(2))

    def mine(comm):
        return list(pipeline(**augmentation, parts=parts, comm=comm).epoch(2, 1))

    shares = simulate(ranks, mine)
    for k, (images, classes) in enumerate(batches[1:]):
        pieces = [share[parts * k + part] for part in range(parts) for share in shares]
        for n, whole in ((0, images), (1, classes)):
            np.testing.assert_array_equal(np.concatenate([piece[n] for piece in pieces]), whole)
        assert pipeline().rows(k + 1) == len(classes)


# --- Ahead of time --------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_what_is_made_ahead_is_the_same(ahead):
    assert_same(prefetched(pipeline().epoch(1), ahead), pipeline().epoch(1))
    assert list(prefetched([], ahead)) == []


def test_what_is_made_ahead_waits_to_be_asked_for():
    made = []
    ahead = prefetched((made.append(k) or k for k in range(100)), 3)
    assert next(ahead) == 0
    assert len(made) <= 1 + 3 + 1  # given, ready, and in the hand of the thread
    ahead.close()


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        raise OSError("the disk is gone")

    ahead = prefetched(items(), 4)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


@pytest.mark.parametrize("items", [0, 1, 50])
def test_no_thread_outlives_its_batches(items):
    ahead = prefetched(iter(range(items)), 2)
    next(ahead, None)
    ahead.close()
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}
