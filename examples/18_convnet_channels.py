"""Lesson 18: in a convnet batch norm normalizes each channel, with one γ and one β for each.

A convolution computes one feature, a channel, at every place of every sample, and always by the
same weights. So all values of a channel are values of one feature, and batch norm takes them
together:

    μ_c  = the mean of x[n, c, h, w] over n, h and w: of m = N·H·W values, not of N
    σ²_c = the mean of (x[n, c, h, w] − μ_c)² over the same
    y[n, c, h, w] = γ_c (x[n, c, h, w] − μ_c) / √(σ²_c + ε) + β_c

No formula asks where a value stands. Three things follow, and are measured here.

1. Make a row of each place of each sample, so that (N, C, H, W) becomes a matrix (N·H·W, C). Batch
   norm of its columns, as in lesson 2, is the same map. `BatchNorm1d`, `2d` and `3d` are one thing.

2. Shift each image by an amount of its own, and the outputs shift likewise, as a convolution's do.
   With a μ and a σ² for each place (C·H·W features, of N values each) they would not.

3. In inference μ and σ² are constants: y_c = s_c (x_c − μ_c) + β_c with s_c = γ_c / √(σ²_c + ε). If
   x_c = W_c ∗ u + b_c came out of a convolution, then y_c comes out of another, with the weights
   s_c W_c and the bias s_c (b_c − μ_c) + β_c. The norm can go: `nn.fold`, `nn.fold_sequential`.

Source: EE-559 6.4 (Fleuret, 2020); Ioffe & Szegedy 2015, section 3.2.
Run: python examples/18_convnet_channels.py
"""

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.train import error_rate, fit


def as_matrix(x):
    """(N, C, …) as (N·…, C): a row for each place of each sample."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def relative_difference(a, b):
    """max |a − b| / max |a|"""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


def forward_and_backward(norm, x, g):
    """y; the gradients at x, γ and β, when g is the one at y; the running statistics."""
    x = tg.tensor(x, requires_grad=True)
    y = norm(x)
    gradients = tg.grad(y, [x, norm.weight, norm.bias], tg.tensor(g))
    return [t.detach().numpy() for t in (y, *gradients, norm.running_mean, norm.running_var)]


def block_and_matrix(kind, places, random):
    """1. A layer on a block of 6 samples and 4 channels, against `BatchNorm1d` on its matrix, made
    of primitive ops: otherwise one computation would be held against itself."""
    x, g = random.normal(3.0, 2.0, (6, 4, *places)), random.normal(size=(6, 4, *places))
    block, matrix = kind(4, dtype=x.dtype), nn.BatchNorm1d(4, dtype=x.dtype, impl="composed")
    y, dx, *rest = forward_and_backward(block, x, g)
    rows = forward_and_backward(matrix, as_matrix(x), as_matrix(g))
    return max(map(relative_difference, rows, [as_matrix(y), as_matrix(dx), *rest]))


def shift_before_and_after(norm, random):
    """2. The outputs, shifted, against the outputs of shifted images. Each has its own amount; what
    leaves an image on one side comes in on the other."""
    x, amounts = random.normal(3.0, 2.0, (8, 3, 6, 6)), random.integers(0, 6, 8)

    def shift(images):
        return np.stack([np.roll(image, by, axis=-1) for image, by in zip(images, amounts)])

    return relative_difference(shift(norm(x)), norm(shift(x)))


def by_channel(x):
    return F.batch_norm(x, None, None, training=True)


def by_place(x):
    return by_channel(x.reshape(len(x), -1)).reshape(x.shape)


def waves(n, random):
    """Images (n, 1, 12, 12), labels (n,): waves that run down (0) or across (1), in much noise."""
    labels = random.integers(0, 2, n)
    place = np.mgrid[:12, :12][labels]  # the number of the row, or that of the column
    start = random.uniform(0, 2 * np.pi, (n, 1, 1))
    x = 1 + np.sin(place + start) + random.normal(size=place.shape)
    return x[:, None].astype(np.float32), labels


def convnet():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 2)),
    )


def mean_and_std(t):
    """Those of each channel of (N, C, H, W)."""
    return [f.detach().numpy() for f in (t.mean(axis=(0, 2, 3)), t.var(axis=(0, 2, 3)).sqrt())]


def main():
    random = np.random.default_rng(18)
    found = {}
    blocks = {nn.BatchNorm1d: (60,), nn.BatchNorm2d: (6, 10), nn.BatchNorm3d: (3, 4, 5)}
    for kind, places in blocks.items():
        name = f"{kind.__name__} and the matrix: relative difference"
        found[name] = block_and_matrix(kind, places, random)
    for norm in (by_channel, by_place):
        name = f"shift before and after, {norm.__name__.replace('_', ' ')}: relative difference"
        found[name] = shift_before_and_after(norm, random)

    # In a convnet that has learned something: γ, β and the running statistics have moved.
    tg.manual_seed(18)
    model, train, new = convnet(), waves(512, random), waves(512, random)
    fit(model, *train, epochs=10, batch_size=64, lr=0.1)
    found["share of new images that the convnet gets wrong"] = error_rate(model, *new)

    rows, x = [], tg.tensor(train[0])
    for layer in model:
        before, x = x, layer(x)
        if isinstance(layer, nn.BatchNorm2d):  # each channel is a row
            after = (*mean_and_std(x), layer.bias.data, layer.weight.data)
            rows += zip(*mean_and_std(before), *after)
    print("before: mean      std    after: mean      std         β       γ")
    for row in rows:
        print("{:12.4f}{:9.4f}{:15.4f}{:9.4f}{:10.4f}{:8.4f}".format(*row))
    _, _, mean, std, beta, gamma = np.transpose(rows)  # std is γ but for ε (lesson 7)
    found["mean after norm and β: relative difference"] = relative_difference(beta, mean)
    found["std after norm and γ: relative difference"] = relative_difference(gamma, std)

    # 3. Evaluation mode: the norms go by their running statistics, and these can be folded.
    model.eval()
    conv, norm, x = model[0], model[1], tg.tensor(new[0])
    folded = nn.fold_sequential(model)
    found["numbers learned by the norm of 4 channels"] = sum(p.size for p in norm.parameters())
    found["layers"], found["layers, folded"] = len(model), len(folded)
    for name, before, after in (
        ("one convolution", norm(conv(x)), nn.fold(conv, norm)(x)),
        ("the convnet", model(x), folded(x)),
    ):
        difference = relative_difference(before.detach().numpy(), after.detach().numpy())
        found[f"outputs of {name}, folded: relative difference"] = difference

    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
