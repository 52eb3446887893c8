"""What the tests of the double's streams begin with."""

import numpy as np
import pytest


@pytest.fixture
def stream(cupy):
    return cupy.cuda.Stream(non_blocking=True)


@pytest.fixture
def x(cupy):
    x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    cupy.cuda.Device().synchronize()  # for which a non_blocking stream does not wait
    return x
