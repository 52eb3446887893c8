# %% [markdown]
# # Lesson 10: how large may the initial weights be?
#
# A deep network multiplies. Let the weights of a linear layer with n inputs start with mean 0 and
# standard deviation s. If the inputs are outputs of ReLUs, of which about half are 0, then a layer
# scales what passes through it, forward and backward, by about
#
#     s √(n/2)
#
# With n = 32 that is 1 for s = 0.25. For s = 0.1 it is 0.4, and after 17 layers 2·10⁻⁷ is left; for
# s = 1 it is 4, and 17 layers make that 10¹⁰. Batch norm divides by the standard deviation, so that
# the scale of a layer is gone before the next one sees it:
#
#     BN(x · sW) = BN(x · W)              but for ε
#
# The experiment is that of the lecture: which points of a square lie in a disc of half its area?
# 17 hidden layers of 32 ReLUs, plain gradient descent, learning rate 0.1, batches of 100; for many
# s. The lecture draws *every* parameter with standard deviation s,
#
#     for p in model.parameters(): p.normal_(0, std)
#
# and so γ and β, too, which are meant to start as 1 and 0. Both are tried here.
#
# Source: EE-559 6.4 (Fleuret, 2020).
# Run: `python examples/10_initial_scale.py`

# %%
import itertools

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.experiments import disc

NAMES = {"without": "without BN", "with": "BN, γ = 1, β = 0", "overwritten": "BN, γ, β overwritten"}
COLOURS = {"without": lesson.RED, "with": lesson.BLUE, "overwritten": lesson.INK}

# %% [markdown]
# ## The gradient by layer, before the first step
#
# The root of the mean square of ∂ℓ/∂W for each linear layer of a new network.


# %%
def gradient_sizes(start, std):
    tg.manual_seed(0)
    model = disc.network(start, std)
    (x, y), _ = disc.points(seed=0)
    loss = F.cross_entropy(model(tg.tensor(x)), y)
    weights = [module.weight for module in model if isinstance(module, nn.Linear)]
    return [float(np.sqrt((g.data.astype(float) ** 2).mean())) for g in tg.grad(loss, weights)]


SCALES = (0.1, 1.0)
sizes = {(start, s): gradient_sizes(start, s) for start in disc.STARTS for s in SCALES}
print(f"{'gradient of layer':32}{'1':>9}{'9':>9}{'17':>9}")
for (start, s), of_layer in sizes.items():
    print(f"{NAMES[start]:22} s = {s:<5g}" + "".join(f"{of_layer[k]:9.1g}" for k in (0, 8, 16)))

# %% [markdown]
# Without batch norm and with s = 0.1, what comes back to the first layers is a millionth of what
# the last ones get; with s = 1 all gradients are too large by many powers of ten, and a step of 0.1
# times that ends the training. With batch norm s hardly matters, but not all is even: the gradient
# grows towards the first layers (Yang et al. 2019, "A mean field theory of batch normalization",
# derive that for wide networks). It is one reason why very deep networks have shortcuts as well.
#
# ## Trained
#
# Several networks for each s, from different initial weights. The test error of one that diverged
# (its loss became infinite or NaN) is no number: it is not half, as for one that guesses.

# %%
stds = lesson.pace(
    (0.01, 0.2, 1.0),
    (0.001, 0.01, 0.1, 0.2, 0.3, 1.0, 10.0),
    (0.001, 0.003, 0.01, 0.03, 0.1, 0.15, 0.2, 0.25, 0.3, 1.0, 3.0, 10.0),
)
networks = lesson.pace(1, 2, 5)
epochs = lesson.pace(30, 30, 100)
trained = disc.train(stds, networks=networks, epochs=epochs, seed=0)
errors = disc.errors(trained, seed=0)

# %%
print(f"{'s':>6}" + "".join(f"{name:>24}" for name in NAMES.values()))
for settings in zip(*errors.values()):
    cells = ["diverged" if s["mean"] is None else f"{100 * s['mean']:.1f} %" for s in settings]
    print(f"{settings[0]['std']:>6g}" + "".join(f"{cell:>24}" for cell in cells))

# %% [markdown]
# Without batch norm only a narrow range around 0.2 trains, and slowly: below nothing arrives, above
# it all blows up. With batch norm, γ = 1 and β = 0, every s does, over four powers of ten. With γ
# and β overwritten as in the lecture's loop, the smallest are lost, and the reason is ε. The ReLU
# of a Gaussian with standard deviation γ has the variance (1/2 − 1/(2π)) γ² = 0.34 γ²; of 32 such
# inputs, weighted with standard deviation s, the next batch norm finds the variance
#
#     32 s² · 0.34 γ²  =  11 s²        for γ = 1
#                      ≈  11 s⁴        for γ of size s
#
# and divides by the root of that plus ε = 10⁻⁵. The first is below ε for s < 0.001, the second
# already for s < 0.03.
#
# Where the scale is right, batch norm is not needed, it is only faster. After the 30 epochs of the
# usual pace the map for 0.2 below is not yet a disc. Trained for longer (version 0.1.0 with
# `--full`: five networks, 100 epochs) the networks without it come to 4 % for 0.2 and 0.25, as
# those with it do; 0.15 and 0.3 fail as before.
#
# Below the curves is what the networks say, for each s: a point of the square is dark where they
# say "inside", and × is a network that diverged.


# %%
def decision_map(model):
    """What the network says on a grid over the square: (60, 60), 1 inside; None if it diverged."""
    edge = np.linspace(-np.sqrt(3), np.sqrt(3), 60, dtype=np.float32)
    grid = np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2)
    with tg.no_grad(), np.errstate(all="ignore"):
        outputs = model.eval()(tg.tensor(grid)).numpy()
    return outputs.argmax(1).reshape(60, 60) if np.isfinite(outputs).all() else None


figure = plt.figure(figsize=(9.5, 7.2))
upper, lower = figure.add_gridspec(2, 1, height_ratios=[1.5, 1], hspace=0.32)
left, right = (figure.add_subplot(cell) for cell in upper.subgridspec(1, 2, wspace=0.5))

for start, settings in errors.items():
    there = [setting for setting in settings if setting["mean"] is not None]
    scales = [setting["std"] for setting in there]
    mean, low, high = (
        [100 * setting[what] for setting in there] for what in ("mean", "lowest", "highest")
    )
    dashed = "--" if start == "overwritten" else "-"
    left.plot(scales, mean, "o" + dashed, color=COLOURS[start], markersize=4)
    left.fill_between(scales, low, high, color=COLOURS[start], alpha=0.15, linewidth=0)
    gone = [setting["std"] for setting in settings if setting["diverged"]]
    left.plot(gone, [58] * len(gone), "x", color=COLOURS[start], markersize=7)
left.set(xscale="log", ylim=(0, 62), xlabel="standard deviation s of the initial weights")
left.set_title("Test error in %; × diverged")
for start, x, y in (("without", 0.67, 0.85), ("overwritten", 0.6, 0.33), ("with", 0.02, 0.2)):
    label = NAMES[start].replace("BN, γ = 1", "BN,\nγ = 1")
    left.text(x, y, label, color=COLOURS[start], transform=left.transAxes)

labels = {
    ("without", 0.1): ("s = 0.1, without", "top"),
    ("without", 1.0): ("s = 1, without", "center"),
    ("with", 0.1): ("BN, both s", "bottom"),
    ("with", 1.0): ("", "center"),
}
for (start, s), (label, side) in labels.items():
    right.semilogy(range(1, 19), sizes[start, s], color=COLOURS[start])
    right.text(18.4, sizes[start, s][-1], label, color=COLOURS[start], va=side)
right.set(xlabel="linear layer", xticks=[1, 6, 12, 18])
right.set_title("Gradient of the weights at the start")

# "learns": the mean of the test errors is below 25 %, half of what guessing gives
learn = {start: sum(s["learns"] for s in settings) for start, settings in errors.items()}
low, high = (100 * ends(s["mean"] for s in errors["with"]) for ends in (min, max))
best = 100 * min(s["mean"] for s in errors["without"] if s["mean"] is not None)
figure.suptitle(
    f"Test error after {epochs} epochs: with batch norm {low:.0f} to {high:.0f} % from all "
    f"{len(stds)} initial scales, without it {best:.0f} % from the best",
    x=0.04,
    y=0.95,
    ha="left",
)
cells = lower.subgridspec(len(NAMES), len(stds), wspace=0.08, hspace=0.08)
for (row, start), (column, s) in itertools.product(enumerate(NAMES), enumerate(stds)):
    axes = figure.add_subplot(cells[row, column])
    said = decision_map(trained[start][s][0])
    if said is None:
        axes.plot(0.5, 0.5, "x", color=COLOURS[start], markersize=9)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    else:
        axes.imshow(said, cmap="Blues", vmin=0, vmax=1.3)
    axes.set(xticks=[], yticks=[], box_aspect=1)
    axes.spines[:].set(visible=True, color="#D0D7DE")
    if column == 0:
        axes.set_ylabel(NAMES[start].replace(", γ", "\nγ"), rotation=0, ha="right", va="center")
    if row == len(NAMES) - 1:
        axes.set_xlabel(f"{s:g}")
lesson.save(figure, "10_initial_scale")

# %% [markdown]
# ## What was found

# %%
all_with = [error for setting in errors["with"] for error in setting["errors"]]
(without,) = [setting for setting in errors["without"] if setting["std"] == 0.2]
found = {
    "values of s": len(stds),
    "networks for each": networks,
    **{f"values of s that learn, {NAMES[start]}": learn[start] for start in errors},
    "diverged, without BN": sum(setting["diverged"] for setting in errors["without"]),
    "diverged, with BN": sum(
        setting["diverged"] for start in ("with", "overwritten") for setting in errors[start]
    ),
    "error without BN at s = 0.2, mean": without["mean"],
    "error with BN over all s, mean": float(np.mean(all_with)),
    "error with BN over all s, lowest": min(all_with),
    "error with BN over all s, highest": max(all_with),
    **{
        f"gradient of the first hidden layer over that of the last, {NAMES[start]}, s = {s:g}": (
            sizes[start, s][0] / sizes[start, s][16]
        )
        for start, s in sizes
    },
}
lesson.close(found)
