"""Batches: in an order of the seed and the epoch alone, augmented, standardized, made ahead."""

import threading

import numpy as np
import pytest

from tinygrad_bn.train.pipeline import Pipeline, Standardization, mirrored, prefetched, shifted

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


def test_a_shifted_image_is_a_window_of_the_image_among_zeros():
    most, seen = 2, set()
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (most, most), (most, most)))
    for seed in range(8):
        for image, around in zip(shifted(IMAGES, most, np.random.default_rng(seed)), padded):
            windows = {(i, j): around[:, i : i + 4, j : j + 5] for i in range(5) for j in range(5)}
            (place,) = [at for at, window in windows.items() if np.array_equal(window, image)]
            seen.add(place)
    assert seen == {(i, j) for i in range(5) for j in range(5)}


def test_about_half_of_the_images_are_mirrored():
    got = mirrored(np.repeat(IMAGES[:1], 400, axis=0), np.random.default_rng(0))
    as_it_was, turned = (
        np.array([np.array_equal(image, other) for image in got])
        for other in (IMAGES[0], IMAGES[0, ..., ::-1])
    )
    assert (as_it_was | turned).all()
    assert 150 < turned.sum() < 250


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
