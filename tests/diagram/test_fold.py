"""Batch norm folded into the layer before it: the same outputs, the original untouched."""

import numpy as np
import pytest
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn

PAIRS = {
    "linear": (lambda: nn.Linear(6, 4), nn.BatchNorm1d, (8, 6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), nn.BatchNorm1d, (8, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3, padding=1), nn.BatchNorm1d, (8, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(6, 4, 3, stride=2), nn.BatchNorm2d, (8, 6, 7, 7)),
    "conv2d in groups": (lambda: nn.Conv2d(6, 4, 3, groups=2), nn.BatchNorm2d, (8, 6, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(6, 4, 2, bias=False), nn.BatchNorm3d, (8, 6, 3, 4, 5)),
}


def experienced(norm):
    """A batch norm with running statistics, γ and β as after training."""
    random = np.random.default_rng(0)
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.dtype.kind == "f":
            low = 0.5 if "var" in name else -2
            values = random.uniform(low, 2, tensor.shape).astype(np.float32)
            tensor.data = tg.tensor(values).data
    return norm.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_folded_layer_gives_the_outputs_of_layer_and_norm(pair, affine):
    make, kind, shape = PAIRS[pair]
    tg.manual_seed(0)
    layer, norm, x = make(), experienced(kind(4, affine=affine)), tg.randn(*shape)
    before = {k: host(v) for m in (layer, norm) for k, v in m.state_dict().items()}
    folded = nn.fold(layer, norm)
    wanted = host(norm(layer(x)))
    assert type(folded) is type(layer)
    assert np.abs(host(folded(x)) - wanted).max() <= 1e-6 * max(1, np.abs(wanted).max())
    after = {k: host(v) for m in (layer, norm) for k, v in m.state_dict().items()}
    assert all((before[k] == after[k]).all() for k in before)


def convnet():
    tg.manual_seed(0)
    return nn.Sequential(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "norm": experienced(nn.BatchNorm2d(4)),
            "relu": nn.ReLU(),
            "block": nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), experienced(nn.BatchNorm2d(4))),
            "after": experienced(nn.BatchNorm2d(4)),  # follows no layer it could be folded into
            "flat": nn.Flatten(),
            "head": nn.Linear(16, 5),
            "last": experienced(nn.BatchNorm1d(5)),
        }
    )


def test_a_whole_sequential_is_folded_and_the_original_untouched():
    model, x = convnet().eval(), tg.randn(6, 3, 6, 6)
    before = {k: host(v) for k, v in model.state_dict().items()}
    folded = nn.fold_sequential(model)
    assert [name for name, _ in folded.named_modules() if name] == [
        *("conv", "relu", "block", "block.0", "after", "flat", "head"),
    ]
    wanted = host(model(x))
    assert np.abs(host(folded(x)) - wanted).max() <= 1e-6 * np.abs(wanted).max()
    assert all((before[k] == host(v)).all() for k, v in model.state_dict().items())
    assert not folded.training
    assert len(model) == 8


def test_a_folded_model_owns_its_memory():
    model = convnet().eval()
    folded = nn.fold_sequential(model)
    for parameter in folded.parameters():
        parameter.data[...] = 0
    assert all(host(p).any() for p in model.parameters())


@pytest.mark.parametrize(
    ("layer", "norm", "message"),
    [
        (lambda: nn.Linear(3, 4), lambda: nn.BatchNorm1d(4), "norm: got one that normalizes by"),
        (
            lambda: nn.Linear(3, 4),
            lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(),
            "norm: got one that normalizes by",
        ),
        (
            lambda: nn.Linear(3, 4),
            lambda: nn.BatchNorm1d(5).eval(),
            "norm: got 5 channels, wants 4",
        ),
        (lambda: nn.Linear(3, 4), lambda: nn.BatchNorm2d(4).eval(), "got Linear and BatchNorm2d"),
        (lambda: nn.ReLU(), lambda: nn.BatchNorm1d(4).eval(), "got ReLU and BatchNorm1d"),
        (lambda: nn.Linear(3, 4), lambda: nn.LayerNorm(4).eval(), "got Linear and LayerNorm"),
    ],
)
def test_what_cannot_be_folded_is_refused(layer, norm, message):
    with pytest.raises(ValueError, match=message):
        nn.fold(layer(), norm())


def test_hooks_and_subclasses_stay_what_they_are():
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    def hooked(norm):
        norm.register_forward_hook(lambda module, args, output: output * 10.0)
        return norm

    tg.manual_seed(0)
    model = nn.Sequential(
        Residual(nn.Linear(4, 4), experienced(nn.BatchNorm1d(4))),
        nn.Linear(4, 4),
        hooked(experienced(nn.BatchNorm1d(4))),
        nn.Linear(4, 4),
        experienced(nn.BatchNorm1d(4)),
    ).eval()
    x, folded = tg.randn(8, 4), nn.fold_sequential(model)
    assert len(folded) == 4
    np.testing.assert_allclose(host(folded(x)), host(model(x)), rtol=0, atol=1e-4)
    with pytest.raises(TypeError, match="model: got Residual, wants a Sequential"):
        nn.fold_sequential(model[0])
    with pytest.raises(ValueError, match="got one with hooks"):
        nn.fold(model[1], model[2])


def test_a_frozen_layer_stays_frozen():
    layer = nn.Linear(3, 4).requires_grad_(False)
    folded = nn.fold(layer, nn.BatchNorm1d(4).eval())
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_model_in_training_is_refused_and_one_without_statistics_keeps_its_norm():
    with pytest.raises(ValueError, match="evaluation mode"):
        nn.fold_sequential(convnet().train())
    with pytest.raises(TypeError, match="model: got Linear, wants a Sequential"):
        nn.fold_sequential(nn.Linear(2, 2))
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval()
    assert len(nn.fold_sequential(model)) == 2
