"""Convolutions, pooling and their layers: PyTorch's values and gradients of two orders."""

import numpy as np
import pytest
from golden_cases import answer, check_function, close, names
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

# PyTorch's, where the number of zeros is odd: that it may need a copy.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


@pytest.mark.parametrize("name", names("conv", "max_pool", "avg_pool", "adaptive_avg_pool"))
def test_functions_to_second_order(name, source):
    case, data = answer(name, source)
    function = getattr(F, name.split("/")[0])
    check_function(lambda **variables: function(**variables, **case["kwargs"]), case, data)


@pytest.mark.parametrize("name", names("indices/"))
def test_where_the_maxima_are_among_ties_nan_and_infinities(name, source):
    case, data = answer(name, source)
    pool = getattr(F, case["function"].split(".")[-1])
    output, indices = pool(tg.tensor(data["input"]), **case["kwargs"])
    np.testing.assert_array_equal(host(output), data["output"])
    np.testing.assert_array_equal(host(indices), data["indices"])
    assert indices.dtype == np.int64
    assert not indices.requires_grad


@pytest.mark.parametrize("name", names("padding_mode/"))
def test_padding_modes_of_a_layer(name, source):
    case, data = answer(name, source)
    layer = nn.Conv2d(**case["kwargs"], dtype=np.float64)
    layer.load_state_dict({key: data[key] for key in layer.state_dict()})
    close(layer(tg.tensor(data["input"])), data["output"], np.float64)


def test_repr_and_state_dict_keys_of_the_layers(source):
    case, _ = answer("layers/all", source)
    model = nn.Sequential(*[eval(f"nn.{line}") for line in case["kwargs"]["layers"]])
    assert repr(model) == case["repr"]
    assert list(model.state_dict()) == case["state_dict_keys"]
