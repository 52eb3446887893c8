"""Layers of the norm family: bad arguments, and what PyTorch does that surprises. (Their numbers
are held against PyTorch's in test_golden_norms.)"""

import numpy as np
import pytest
from helpers import assert_values, host

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.norm.axes import FAMILY, arrange


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GroupNorm(3, 4), "num_groups: got 3, wants a divisor of num_channels, 4"),
        (lambda: nn.GroupNorm(0, 4), "num_groups: got 0"),
        (lambda: nn.GroupNorm(2, 4.0), "num_channels: got 4.0"),
        (lambda: nn.LayerNorm(()), "normalized_shape: got no axes"),
        (lambda: nn.LayerNorm((2, -1)), "normalized_shape: got -1"),
        (lambda: nn.LayerNorm(2.5), "normalized_shape: got 2.5"),
        (lambda: nn.LayerNorm(2, eps=-1), "eps: got -1"),
        (lambda: nn.RMSNorm(2, impl="fast"), "impl: got 'fast'"),
        (lambda: nn.InstanceNorm1d(-1), "num_features: got -1"),
        (lambda: nn.InstanceNorm1d(2, momentum=2), "momentum: got 2"),
        (lambda: nn.BatchNorm1d(2, eps=None), "eps: got None"),
        (lambda: nn.LayerNorm(2, dtype=np.float16), "dtype: got float16, wants float32"),
        (lambda: nn.InstanceNorm2d(3)(tg.ones(2, 3)), "input: got shape"),
        (lambda: nn.InstanceNorm2d(3, affine=True)(tg.ones(2, 4, 2, 2)), "input: got 4 channels"),
        (lambda: nn.LayerNorm(3)(tg.ones(2, 4)), r"normalized_shape: got \[3\]"),
        (lambda: nn.GroupNorm(2, 4)(tg.ones(2, 6, 3)), r"weight: got float32\[4\]"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_channel_count_that_nothing_uses_is_warned_of():
    with pytest.warns(UserWarning, match="got 4 channels, wants num_features, 3"):
        nn.InstanceNorm2d(3)(tg.ones(2, 4, 2, 2))


def test_instance_norm_counts_no_batches_as_in_pytorch():
    layer = nn.InstanceNorm1d(2, track_running_stats=True)
    layer(tg.tensor([[[0.0, 2.0], [4.0, 4.0]]]))
    assert_values(layer.num_batches_tracked, 0)
    assert_values(layer.running_mean, np.float32(0.1), np.float32(0.4))


def test_a_step_moves_the_statistics_that_evaluation_uses_and_evaluation_moves_none():
    layer = nn.InstanceNorm1d(2, affine=True, track_running_stats=True)
    x = tg.tensor(np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32) + 3)
    first = host(layer.eval()(x))
    assert_values(layer.running_mean, 0, 0)
    layer.train()(x)
    moved = host(layer.running_mean).copy()
    assert (moved > 0.2).all()
    assert np.abs(host(layer.eval()(x)) - first).min() > 0.1
    assert (host(layer.running_mean) == moved).all()


@pytest.mark.parametrize("name", FAMILY)
def test_every_entry_of_a_block_belongs_to_one_group_of_shared_statistics(name):
    features = 3 if "F" in FAMILY[name].layout else None
    shape, axes, affine = arrange(FAMILY[name], (2, 6, 4, 3), features, groups=3)
    assert np.prod(shape) == 2 * 6 * 4 * 3
    counts = {
        "batch_norm": (6, 6),
        "instance_norm": (12, 6),
        "group_norm": (6, 6),
        "layer_norm": (2, 72),
        "rms_norm": (2, 72),
    }
    statistics = np.prod([n for i, n in enumerate(shape) if i not in axes])
    assert (statistics, np.prod(affine)) == counts[name]
