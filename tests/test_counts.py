"""What speed and memory rest on, counted: nodes, objects, bytes. Nothing is timed."""

import gc
import tracemalloc

import numpy as np
import pytest

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.check import graph_nodes, held_bytes

CHANNELS = 64


def objects_an_op(op, x, length=1000):
    """How many objects an op of a chain leaves for the garbage collector to look at."""

    def chain(y, length):
        for _ in range(length):
            y = op(y)
        return y

    chain(x, 10)  # caches are filled
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        y = chain(x, length)
        return round((len(gc.get_objects()) - before) / length, 1), y.data
    finally:
        gc.enable()


X, ONE = Scalar(1.0), Scalar(1.0)
SCALAR_OPS = {
    "x + y": lambda x: x + ONE,
    "x * y": lambda x: x * ONE,
    "x * 1.0": lambda x: x * 1.0,
    "relu": Scalar.relu,
}


@pytest.mark.parametrize("name", SCALAR_OPS)
def test_an_op_of_one_or_two_scalars_is_one_object(name):
    assert objects_an_op(SCALAR_OPS[name], X)[0] == 1.0


def test_a_sum_or_dot_of_many_scalars_is_a_node_and_its_tuples():
    assert objects_an_op(lambda x: Scalar.sum([x] * 100), Scalar(0.0))[0] <= 4.0
    assert objects_an_op(lambda x: Scalar.dot([x] * 100, [ONE] * 100), Scalar(0.0))[0] <= 4.0


@pytest.mark.parametrize(
    ("op", "most"), [(lambda x: x + 1.0, 2.0), (lambda x: x * 1.0, 3.0), (tg.relu, 3.0)]
)
def test_an_op_of_tensors_is_a_node_and_at_most_two_lists(op, most, cpu_only):
    assert objects_an_op(op, tg.tensor([1.0, 2.0], requires_grad=True))[0] <= most


def network(layers):
    parts = []
    for _ in range(layers):
        parts += [nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()]
    return nn.Sequential(*parts)


def test_a_linear_layer_with_batch_norm_and_relu_is_at_most_two_nodes():
    x = tg.randn(6, 4)
    counts = [len(graph_nodes([network(layers)(x).sum()])) for layers in (1, 2, 3)]
    assert counts[0] <= 3  # the sum is one
    assert max(np.diff(counts)) <= 2


def batch_norm(x, gamma, beta):
    return F.batch_norm(x, None, None, gamma, beta, training=True)


def leaves(shape):
    arrays = np.random.default_rng(0).standard_normal(shape), np.ones(CHANNELS), np.zeros(CHANNELS)
    return [tg.tensor(a.astype(np.float32), requires_grad=True) for a in arrays]


@pytest.mark.parametrize("shape", [(16, CHANNELS, 8, 8), (1000, CHANNELS)])
def test_batch_norm_holds_its_input_and_at_most_four_numbers_a_channel(shape):
    inputs = leaves(shape)
    assert held_bytes([batch_norm(*inputs)], inputs) <= 4 * 4 * CHANNELS


@pytest.mark.parametrize("shape", [(16, CHANNELS, 32, 32), (16_384, CHANNELS)])
def test_the_peak_of_batch_norm_is_its_output_and_the_gradient(shape, cpu_only):
    inputs = leaves(shape)
    arriving = tg.ones(shape)

    def step():
        y = batch_norm(*inputs)
        return y, tg.grad(y, inputs, arriving)

    step()  # caches are filled, kernels compiled
    tracemalloc.start()
    try:
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / inputs[0].data.nbytes <= 2.1
