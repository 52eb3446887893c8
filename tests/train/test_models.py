"""The networks of `tinygrad-bn train`: every norm after every layer, on points and on images."""

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.functional import cross_entropy
from tinygrad_bn.train.models import ACTIVATIONS, MODELS, NORMS, Between

LAYERS = {"batch": "BatchNorm", "layer": "LayerNorm", "group": "GroupNorm"}
LAYERS |= {"instance": "InstanceNorm", "rms": "RMSNorm"}
IMAGE = (3, 9, 8)
FITTING = [(m, norm) for m in MODELS for norm in NORMS if (m, norm) != ("mlp", "instance")]


def made(model, between, shape=IMAGE, **sizes):
    tg.manual_seed(0)
    return MODELS[model](shape, 5, between, width=4, **sizes)


@pytest.mark.parametrize(("model", "norm"), FITTING)
def test_every_layer_but_the_last_has_its_norm_and_a_gradient(model, norm):
    net = made(model, Between(norm))
    layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    norms = [m for m in net.modules() if type(m).__name__.startswith(LAYERS.get(norm, "no norm"))]
    assert len(norms) == (0 if norm == "none" else len(layers) - 1)
    assert [layer.bias is None for layer in layers] == [
        *[norm not in ("none", "rms")] * (len(layers) - 1),
        False,
    ]
    outputs = net(tg.randn(6, *IMAGE))
    assert outputs.shape == (6, 5)
    cross_entropy(outputs, tg.tensor([0, 1, 2, 3, 4, 0])).backward()
    assert [p.shape for p in net.parameters() if p.grad is None] == []


@pytest.mark.parametrize("model", MODELS)
def test_fused_and_composed_networks_are_the_same_function(model):
    x = tg.randn(6, *IMAGE)
    fused, composed = (made(model, Between("batch", impl))(x) for impl in ("fused", "composed"))
    np.testing.assert_allclose(host(fused), host(composed), atol=2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_is_the_one_that_was_asked_for(activation):
    net = made("mlp", Between(activation=activation), (2,), depth=2)
    found = [type(m) for m in net.modules() if isinstance(m, tuple(ACTIVATIONS.values()))]
    assert found == [ACTIVATIONS[activation]] * 2


def test_a_resnet_has_6_n_plus_2_layers_on_its_way():
    net = made("resnet", Between(), depth=2)
    on_the_way = [k for k in net.state_dict() if k.endswith("weight") and "shortcut" not in k]
    assert sum(net.state_dict()[k].ndim in (2, 4) for k in on_the_way) == 6 * 2 + 2


def test_a_small_image_is_not_halved_below_4():
    net = made("convnet", Between(), (1, 8, 8), depth=4)
    assert sum(isinstance(module, nn.MaxPool2d) for module in net) == 1
    assert net(tg.randn(2, 1, 8, 8)).shape == (2, 5)


def test_dropout_stands_before_the_last_layer():
    assert isinstance(made("mlp", Between(), dropout=0.5)[-2], nn.Dropout)
    assert not any(isinstance(m, nn.Dropout) for m in made("mlp", Between()))


@pytest.mark.parametrize(
    ("model", "shape", "options", "message"),
    [
        ("convnet", (2,), {}, r"model: got convnet, which wants images, .* shape \(2,\)"),
        ("resnet", (2,), {}, "model: got resnet, which wants images"),
        ("mlp", (2,), {"norm": "instance"}, "norm: got instance, which wants images"),
        ("mlp", (2,), {"norm": "batchnorm"}, "norm: got 'batchnorm', wants one of batch, layer"),
        ("mlp", (2,), {"activation": "gelu"}, "activation: got 'gelu', wants one of relu"),
        ("mlp", (2,), {"impl": "fast"}, "impl: got 'fast', wants one of"),
    ],
)
def test_what_fits_no_model_is_refused(model, shape, options, message):
    with pytest.raises(ValueError, match=message):
        made(model, Between(**options), shape)
