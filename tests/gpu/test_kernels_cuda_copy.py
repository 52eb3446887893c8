"""Many copies in few launches."""

import double
import numpy as np
import pytest

from tinygrad_bn.kernels.cuda_copy import copy_all

SHAPES = [(3,), (2, 5), (), (70, 1000), (1,), (0, 4), (7,), (31,), (8, 8), (5, 1), (300,)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_arrays_arrive_eight_in_a_launch(dtype, cupy):
    values = [
        np.random.default_rng(k).standard_normal(s).astype(dtype) for k, s in enumerate(SHAPES)
    ]
    pairs = [(cupy.empty(v.shape, dtype), cupy.asarray(v)) for v in values]
    before = double.stats["kernel"]
    with double.forbid("h2d", "d2h", "sync"):
        copy_all(pairs)
    assert double.stats["kernel"] - before == 3  # ten arrays; and the one without values
    for (to, _), value in zip(pairs, values):
        np.testing.assert_array_equal(to.get(), value)


def test_what_lies_otherwise_is_copied_one_by_one(cupy):
    x = cupy.asarray(np.arange(12.0).reshape(3, 4))
    transposed, single = cupy.empty((4, 3)), cupy.empty((3, 4), np.float32)
    host = np.zeros(2)
    copy_all([(transposed, x.T), (single, x), (host, np.ones(2))])
    assert (transposed.get() == x.get().T).all()
    assert (single.get() == x.get()).all()
    assert host.tolist() == [1, 1]


def test_each_device_copies_its_own(cupy):
    pairs = []
    for device in (0, 1):
        with cupy.cuda.Device(device):
            pairs.append((cupy.zeros(3), cupy.ones(3)))
    copy_all(pairs)
    assert [to.get().tolist() for to, _ in pairs] == [[1, 1, 1]] * 2
