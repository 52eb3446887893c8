"""The models whose files go between PyTorch and tinygrad_bn: one text builds them in either.

`library` is the module torch or tinygrad_bn. Between them the models have every layer with
parameters or buffers. MODELS has, by name, the function that builds one, and the shape of its
inputs; to `tokens` they are integers below 11, to the others numbers, of the model's dtype.
"""

from collections import OrderedDict
from functools import partial


def mlp(library, dtype="float32"):
    nn, kind = library.nn, {"dtype": getattr(library, dtype)}
    return nn.Sequential(
        nn.Linear(4, 8, **kind),
        nn.BatchNorm1d(8, **kind),
        nn.ReLU(),
        nn.Linear(8, 8, bias=False, **kind),
        nn.BatchNorm1d(8, affine=False, **kind),
        nn.Tanh(),
        nn.Linear(8, 6, **kind),
        nn.BatchNorm1d(6, bias=False, momentum=None, **kind),
        nn.ReLU(),
        nn.Linear(6, 3, **kind),
    )


def convnet(library):
    nn = library.nn
    features = OrderedDict(
        conv1=nn.Conv2d(2, 4, 3, padding=1, bias=False),
        norm1=nn.BatchNorm2d(4),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 6, (1, 2), groups=2),
        norm2=nn.InstanceNorm2d(6, affine=True, track_running_stats=True, bias=False),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(6, 6, 1),
        norm3=nn.GroupNorm(3, 6),
        tanh3=nn.Tanh(),
        norm4=nn.GroupNorm(2, 6, affine=False),
        pool4=nn.AdaptiveAvgPool2d(2),
    )
    layers = OrderedDict(features=nn.Sequential(features), flatten=nn.Flatten())
    return nn.Sequential(OrderedDict(**layers, classifier=nn.Linear(24, 3)))


def sequence(library):
    nn = library.nn
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, stride=2),
        nn.BatchNorm1d(4),
        nn.LeakyReLU(),
        nn.Conv1d(4, 6, 2, dilation=2, bias=False),
        nn.InstanceNorm1d(6, track_running_stats=True),
        nn.AvgPool1d(2),
        nn.BatchNorm1d(6, track_running_stats=False),
    )


def volume(library):
    nn = library.nn
    return nn.Sequential(
        nn.Conv3d(2, 4, 2),
        nn.BatchNorm3d(4, momentum=0.3),
        nn.Softplus(),
        nn.InstanceNorm3d(4),
        nn.Conv3d(4, 4, 1, padding=(0, 0, 1), padding_mode="replicate"),
        nn.InstanceNorm3d(4, affine=True),
        nn.MaxPool3d(2),
    )


def tokens(library):
    """A network of one's own: submodules in a list, and in a loop; the head's weight is tied."""
    nn = library.nn

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm = nn.LayerNorm(width, bias=False)
            self.layers = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
            self.scale = nn.Parameter(library.ones(width))

        def forward(self, x):
            return x + self.scale * self.layers(self.norm(x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(11, 6, padding_idx=0)
            self.blocks = nn.ModuleList([Block(6) for _ in range(2)])
            self.norms = nn.Sequential(nn.LayerNorm((5, 6), elementwise_affine=False))
            self.norms.append(nn.LayerNorm(6)).append(nn.RMSNorm(6))
            self.norms.append(nn.RMSNorm((6,), elementwise_affine=False))
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embedding.weight
            self.register_buffer("temperature", library.tensor(2.0))
            self.register_buffer("scratch", library.ones(3), persistent=False)
            self.losses = nn.ModuleList(
                [
                    nn.CrossEntropyLoss(weight=library.ones(11)),
                    nn.NLLLoss(weight=library.ones(11)),
                    nn.BCEWithLogitsLoss(pos_weight=library.ones(11)),
                ]
            )

        def forward(self, indices):
            x = self.embedding(indices)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norms(x)) / self.temperature

    return Network()


MODELS = {
    "mlp": (mlp, (8, 4)),
    "mlp-float64": (partial(mlp, dtype="float64"), (8, 4)),
    "convnet": (convnet, (4, 2, 6, 7)),
    "sequence": (sequence, (4, 3, 14)),
    "volume": (volume, (3, 2, 4, 5, 4)),
    "tokens": (tokens, (4, 5)),
}


def train(library, model, batches):
    """A step of training on each batch: the outputs shall become 1/2."""
    optimizer = library.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for batch in batches:
        loss = ((model(batch) - 0.5) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
