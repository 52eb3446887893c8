"""Three small networks that name classes: a perceptron, a convnet, a residual network.

Each takes the shape of one input, how many classes there are, how wide and deep it is, and the norm
that follows each of its layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .. import nn
from ..functional.arguments import choice, number, whole

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
NORMS = ("batch", "layer", "group", "instance", "rms", "none")
_GROUPS = 8  # of group norm, or fewer, where they do not divide the channels


@dataclass(frozen=True)
class Between:
    """What stands between two layers: a norm, by its name and implementation, an activation."""

    norm: str = "batch"
    impl: str = "fused"
    activation: str = "relu"

    def __post_init__(self) -> None:
        choice("norm", self.norm, *NORMS)
        choice("activation", self.activation, *ACTIVATIONS)

    @property
    def bias(self) -> bool:
        """Whether the layer before needs a bias: a β does the same, and RMS norm has none."""
        return self.norm in ("none", "rms")

    def norms(self, channels: int, *places: int) -> list[nn.Module]:
        """The norm of (n, channels, *places) in a list, which is empty for "none"."""
        if self.norm == "instance" and not places:
            raise ValueError("norm: got instance, which wants images: here a channel has one value")
        batch, instance = (
            (nn.BatchNorm2d, nn.InstanceNorm2d) if places else (nn.BatchNorm1d, nn.InstanceNorm1d)
        )
        makers = {
            "batch": lambda: batch(channels, impl=self.impl),
            "layer": lambda: nn.LayerNorm((channels, *places), impl=self.impl),
            "group": lambda: nn.GroupNorm(math.gcd(_GROUPS, channels), channels, impl=self.impl),
            "instance": lambda: instance(channels, affine=True, impl=self.impl),
            "rms": lambda: nn.RMSNorm((channels, *places), impl=self.impl),
        }
        return [] if self.norm == "none" else [makers[self.norm]()]

    def modules(self, channels: int, *places: int) -> list[nn.Module]:
        """The norm and the activation after a layer with outputs (n, channels, *places)."""
        return [*self.norms(channels, *places), ACTIVATIONS[self.activation]()]


def mlp(
    shape: tuple[int, ...],
    classes: int,
    between: Between,
    width: int = 64,
    depth: int = 3,
    dropout: float = 0.0,
) -> nn.Sequential:
    """`depth` hidden layers of `width` units; images are flattened.

    >>> mlp((2,), 2, Between("layer"), width=8, depth=1)
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=2, out_features=8, bias=False)
      (2): LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)
      (3): ReLU()
      (4): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    modules, features = [nn.Flatten()], math.prod(shape)
    for _ in range(whole("depth", depth, 0)):
        modules += [nn.Linear(features, width, bias=between.bias), *between.modules(width)]
        features = width
    return nn.Sequential(*modules, *_head(features, classes, dropout))


def convnet(
    shape: tuple[int, ...],
    classes: int,
    between: Between,
    width: int = 16,
    depth: int = 3,
    dropout: float = 0.0,
) -> nn.Sequential:
    """`depth` convolutions 3 × 3 of images (C, H, W), the first with `width` channels and each next
    with twice as many; between them the image is halved, as long as 4 × 4 are left."""
    channels, *places = _image("convnet", shape)
    modules = []
    for stage in range(whole("depth", depth, 1)):
        outputs = width * 2**stage
        modules += [nn.Conv2d(channels, outputs, 3, padding=1, bias=between.bias)]
        modules += between.modules(outputs, *places)
        if stage < depth - 1 and min(places) >= 8:
            modules.append(nn.MaxPool2d(2))
            places = [n // 2 for n in places]
        channels = outputs
    head = _head(channels * math.prod(places), classes, dropout)
    return nn.Sequential(*modules, nn.Flatten(), *head)


class Residual(nn.Module):
    """activation(norm(conv(activation(norm(conv(x))))) + shortcut(x)) (He et al. 2015, Figure 2).

    Where the block halves the image (stride 2) and has more channels, the shortcut is a
    convolution 1 × 1 with a norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, between: Between, places) -> None:
        super().__init__()

        def conv(channels, size, stride):
            padding = size // 2
            return nn.Conv2d(
                channels, outputs, size, stride=stride, padding=padding, bias=between.bias
            )

        self.first = nn.Sequential(conv(inputs, 3, stride), *between.modules(outputs, *places))
        self.second = nn.Sequential(conv(outputs, 3, 1), *between.norms(outputs, *places))
        changes = stride > 1 or inputs != outputs
        layers = [conv(inputs, 1, stride), *between.norms(outputs, *places)] if changes else []
        self.shortcut = nn.Sequential(*layers)
        self.activation = ACTIVATIONS[between.activation]()

    def forward(self, x):
        return self.activation(self.second(self.first(x)) + self.shortcut(x))


def resnet(
    shape: tuple[int, ...],
    classes: int,
    between: Between,
    width: int = 16,
    depth: int = 1,
    dropout: float = 0.0,
) -> nn.Sequential:
    """The residual network for small images of He et al. 2015 (section 4.2): a convolution, three
    stages of `depth` blocks with `width`, 2 · `width` and 4 · `width` channels, the second and the
    third at half the image's size, the mean of each channel, a linear layer: 6 · `depth` + 2 layers
    with weights on the way."""
    channels, *places = _image("resnet", shape)
    modules = [nn.Conv2d(channels, width, 3, padding=1, bias=between.bias)]
    modules += between.modules(width, *places)
    channels = width
    for stage in range(3):
        for block in range(whole("depth", depth, 1)):
            stride = 2 if stage and not block else 1
            places = [-(-n // stride) for n in places]
            outputs = width * 2**stage
            modules.append(Residual(channels, outputs, stride, between, places))
            channels = outputs
    head = _head(channels, classes, dropout)
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def _image(model: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise ValueError(f"model: got {model}, which wants images, but an input has shape {shape}")
    return shape


def _head(features: int, classes: int, dropout: float) -> list[nn.Module]:
    dropped = [nn.Dropout(dropout)] if number("dropout", dropout, 0, 1) else []
    return [*dropped, nn.Linear(features, classes)]


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "convnet": convnet, "resnet": resnet}
