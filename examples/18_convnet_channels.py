# %% [markdown]
# # Lesson 18: in a convnet batch norm normalizes each channel
#
# A convolution computes one feature, a channel, at every place of every sample, and always by the
# same weights. So all values of a channel are values of one feature, and batch norm takes them
# together, with one γ and one β for each channel:
#
#     μ_c  = the mean of x[n, c, h, w] over n, h and w: of m = N·H·W values, not of N
#     σ²_c = the mean of (x[n, c, h, w] − μ_c)² over the same
#     y[n, c, h, w] = γ_c (x[n, c, h, w] − μ_c) / √(σ²_c + ε) + β_c
#
# No formula asks where a value stands. Three things follow, and are measured here: a block is a
# matrix, the outputs move with the image, and in inference the norm disappears in the convolution.
#
# Source: EE-559 6.4 (Fleuret, 2020); Ioffe & Szegedy 2015, section 3.2.
# Run: `python examples/18_convnet_channels.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.train import error_rate, fit

random = np.random.default_rng(18)


def relative_difference(a, b):
    """max |a − b| / max |a|"""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


# %% [markdown]
# ## A block is a matrix
#
# Make a row of each place of each sample, and (N, C, H, W) becomes a matrix (N·H·W, C). Batch norm
# of its columns, as in lesson 2, is the same map. Signals (N, C, L) and volumes (N, C, D, H, W)
# become a matrix likewise: `BatchNorm1d`, `2d` and `3d` are one thing.


# %%
def as_matrix(x):
    """(N, C, …) as (N·…, C): a row for each place of each sample."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def forward_and_backward(norm, x, g):
    """y; the gradients at x, γ and β, when g is the one at y; the running statistics."""
    x = tg.tensor(x, requires_grad=True)
    y = norm(x)
    gradients = tg.grad(y, [x, norm.weight, norm.bias], tg.tensor(g))
    return [t.detach().numpy() for t in (y, *gradients, norm.running_mean, norm.running_var)]


# %% [markdown]
# A block of 6 samples and 4 channels, and its matrix. The layer of the matrix is made of primitive
# ops: otherwise one computation would be held against itself.

# %%
blocks = {nn.BatchNorm1d: (60,), nn.BatchNorm2d: (6, 10), nn.BatchNorm3d: (3, 4, 5)}
block_and_matrix = {}
for kind, places in blocks.items():
    x, g = random.normal(3.0, 2.0, (6, 4, *places)), random.normal(size=(6, 4, *places))
    of_block, of_matrix = kind(4, dtype=x.dtype), nn.BatchNorm1d(4, dtype=x.dtype, impl="composed")
    y, dx, *rest = forward_and_backward(of_block, x, g)
    rows = forward_and_backward(of_matrix, as_matrix(x), as_matrix(g))
    differences = map(relative_difference, rows, [as_matrix(y), as_matrix(dx), *rest])
    block_and_matrix[kind.__name__] = max(differences)
numbers_learned = sum(p.size for p in of_block.parameters())
print("relative difference, over values, gradients and running statistics:")
for name, difference in block_and_matrix.items():
    print(f"    {name} and the matrix: {difference:.1g}")

# %% [markdown]
# ## The outputs move with the image
#
# Shift each image by an amount of its own, and the outputs of a convolution shift likewise. Those
# of batch norm, too. With a μ and a σ² for each place (C·H·W features of N values each, as after a
# linear layer) they would not, for a place would be compared with itself in other images.


# %%
def by_channel(x):
    return F.batch_norm(x, None, None, training=True)


def by_place(x):
    return by_channel(x.reshape(len(x), -1)).reshape(x.shape)


def shift(images):
    """What leaves an image on one side comes in on the other."""
    return np.stack([np.roll(image, by, axis=-1) for image, by in zip(images, amounts)])


images, amounts = random.normal(3.0, 2.0, (8, 3, 6, 6)), random.integers(0, 6, 8)
before_and_after = {
    name: relative_difference(shift(norm(images)), norm(shift(images)))
    for name, norm in {"by channel": by_channel, "by place": by_place}.items()
}
print("the images shifted, against the outputs shifted: relative difference")
for name, difference in before_and_after.items():
    print(f"    statistics {name}: {difference:.1g}")

# %% [markdown]
# ## In a convnet that has learned something
#
# Images of waves that run down (class 0) or across (class 1), in as much noise. Two convolutions,
# each with batch norm behind it. After training γ, β and the running statistics have moved.


# %%
def waves(n):
    """Images (n, 1, 12, 12) and labels (n,)."""
    labels = random.integers(0, 2, n)
    place = np.mgrid[:12, :12][labels]  # the number of the row, or that of the column
    start = random.uniform(0, 2 * np.pi, (n, 1, 1))
    x = 1 + np.sin(place + start) + random.normal(size=place.shape)
    return x[:, None].astype(np.float32), labels


tg.manual_seed(18)
model = nn.Sequential(
    *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
    *(nn.Flatten(), nn.Linear(8, 2)),
)
train, new = waves(512), waves(512)
fit(model, *train, epochs=lesson.pace(10, 10, 50), batch_size=64, lr=0.1)
wrong = error_rate(model, *new)
print(f"of new images the convnet gets {100 * wrong:.1f} % wrong")

# %% [markdown]
# What goes into the norms and what comes out of them, with all 512 images as one batch. As in
# lesson 7, whatever the mean and the standard deviation of a channel were, afterwards they are β
# and γ.


# %%
def mean_and_std(t):
    """Those of each channel of (N, C, H, W)."""
    return [f.detach().numpy() for f in (t.mean(axis=(0, 2, 3)), t.var(axis=(0, 2, 3)).sqrt())]


channels, maps = [], []
x = tg.tensor(train[0])
for layer in model.train():
    before, x = x, layer(x)
    if isinstance(layer, nn.BatchNorm2d):
        learned = (layer.bias.data, layer.weight.data)
        channels += zip(*mean_and_std(before), *mean_and_std(x), *learned)
        maps.append((before.detach().numpy(), x.detach().numpy()))
print("before: mean      std    after: mean      std         β       γ")
for channel in channels:
    print("{:12.4f}{:9.4f}{:15.4f}{:9.4f}{:10.4f}{:8.4f}".format(*channel))
_, _, mean, std, beta, gamma = np.transpose(channels)  # std is γ but for ε

# %% [markdown]
# The four channels of the first norm: above, what each makes of one image; below, all its values,
# at every place of every image. They are one heap, and it is moved and stretched as one.

# %%
convolved, normalized = maps[0]
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), height_ratios=(1, 1.2), sharey="row")
extremes = {"vmin": convolved[0].min(), "vmax": convolved[0].max()}
for c, (above, below) in enumerate(axes.T):
    above.imshow(convolved[0, c], cmap="gray", **extremes)
    above.set_title(f"channel {c}", loc="center", fontsize=10)
    heaps = {  # name: values, their mean and std, colour, how high the text stands
        "before": (convolved, channels[c][0:2], lesson.MUTED, 0.89),
        "after": (normalized, channels[c][2:4], lesson.BLUE, 0.76),
    }
    for name, (values, (m, s), colour, height) in heaps.items():
        share, edges = np.histogram(values[:, c], 80, range=(-5, 6), density=True)
        below.stairs(share, edges, color=colour)
        below.text(0.5, height, f"{name} {m:.2f} ± {s:.2f}", color=colour, ha="center")
    below.set_xlabel(f"β = {channels[c][4]:.2f}, γ = {channels[c][5]:.2f}")
for panel in axes.flat:
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
for above in axes[0]:
    above.set_xticks([])
    above.spines["bottom"].set_visible(False)
axes[1, 0].set_ylim(0, 1)
axes[0, 0].set_ylabel("one image")
axes[1, 0].set_ylabel("all values")
figure.suptitle("Batch norm moves and stretches each channel as one", x=0.11, ha="left")
lesson.save(figure, "18_convnet_channels")

# %% [markdown]
# ## In inference the norm disappears in the convolution
#
# Then μ and σ² are constants, the running statistics, and the norm is y_c = s_c (x_c − μ_c) + β_c
# with s_c = γ_c / √(σ²_c + ε). If x_c = W_c ∗ u + b_c came out of a convolution, then
#
#     y_c = s_c (W_c ∗ u + b_c − μ_c) + β_c = (s_c W_c) ∗ u + s_c (b_c − μ_c) + β_c
#
# comes out of another: with the weights s_c W_c and the bias s_c (b_c − μ_c) + β_c. `nn.fold` makes
# it of the two layers, `nn.fold_sequential` for the whole net. (Lesson 8 folds linear layers, too.)

# %%
conv, norm, u = model.eval()[0], model[1], tg.tensor(new[0])
folded = nn.fold_sequential(model)
outputs = {
    "one convolution": (norm(conv(u)), nn.fold(conv, norm)(u)),
    "the convnet": (model(u), folded(u)),
}
folding = {}
for name, (before, after) in outputs.items():
    folding[name] = relative_difference(before.detach().numpy(), after.detach().numpy())
    print(f"outputs of {name}, folded: relative difference {folding[name]:.1g}")
print(f"layers: {len(model)}, folded {len(folded)}")

# %% [markdown]
# ## What was found

# %%
found = {
    **{f"{k} and the matrix: relative difference": d for k, d in block_and_matrix.items()},
    **{f"shift before and after, {k}: relative difference": d for k, d in before_and_after.items()},
    "share of new images that the convnet gets wrong": wrong,
    "mean after norm and β: relative difference": relative_difference(beta, mean),
    "std after norm and γ: relative difference": relative_difference(gamma, std),
    "numbers learned by the norm of 4 channels": numbers_learned,
    "layers": len(model),
    "layers, folded": len(folded),
    **{f"outputs of {k}, folded: relative difference": d for k, d in folding.items()},
}
lesson.close(found)
