# %% [markdown]
# # Lesson 13: sigmoids saturate, and batch norm keeps them in range
#
# The sigmoid σ(z) = 1 / (1 + exp(−z)) has the slope
#
#     σ′(z) = σ(z) (1 − σ(z))             1/4 at z = 0, 0.018 at z = ±4, 0.0025 at z = ±6
#
# and the gradient is multiplied by it at every layer. If the parameters of the layers below move z
# away from 0, it stays there: where the slope is next to nothing, so is the gradient that could
# bring it back. With batch norm
#
#     z = γ x̂ + β             mean β and standard deviation γ over the batch
#
# whatever the layers below do; and γ and β are two parameters, learned directly.
#
# The paper shows that first of all (its Figure 1): three hidden layers of 100 sigmoids, batches of
# 60, small random Gaussian initial weights, on MNIST. Here it is the same on the 1,797 digits of
# scikit-learn, a fifth of them held out; the standard deviation of the weights is 0.1, and the
# learning rate is 2, which suits the network without batch norm (at 8 it learns nothing).
#
# Source: Ioffe & Szegedy 2015, section 4.1; COMPSCI 682 session on batch norm (Su, 2019).
# Run: `python examples/13_sigmoids.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

from tinygrad_bn.experiments import sigmoids
from tinygrad_bn.train.summary import spread

# %% [markdown]
# ## Watching
#
# Before the first step, and then every so many, all training images go through the network. Of
# what comes to the sigmoids of the last hidden layer we keep the 15th, 50th and 85th percentile
# over the images, and the share beyond ±4. And the held-out images are classified.

# %%
seen = sigmoids.run(
    networks=lesson.pace(1, 3, 10),
    count=lesson.pace(200, 1500, 6000),
    every=lesson.pace(50, 50, 100),
    seed=0,
)
steps = np.array(seen["steps"])
without, with_bn = (
    {what: np.array(values) for what, values in seen[side].items()} for side in ("without", "with")
)

# %%
print(f"{'':>5}{'accuracy':^18}{'15th to 85th':^18}{'beyond ±4':^18}")
print(f"{'step':>5}" + f"{'without':>9}{'with':>9}" * 3)
for k in range(0, len(steps), 2):
    cells = [
        side[what][:, k].mean()
        for what in ("accuracy", "width", "saturated")
        for side in (without, with_bn)
    ]
    print(f"{steps[k]:>5}" + "".join(f"{cell:>9.3f}" for cell in cells))

# %% [markdown]
# ## The paper's Figure 1
#
# On the left the accuracy, a line a network. Then what comes to one sigmoid, the first of the last
# hidden layer of the first network: half of the images lie above the middle line, and 70 % between
# the outer two.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 3.6), width_ratios=[1.2, 1, 1])
for side, colour, name, place in (
    (without, lesson.RED, "without BN", (0.95, 0.45)),
    (with_bn, lesson.BLUE, "with BN", (0.95, 0.76)),
):
    left.plot(steps, 100 * side["accuracy"].T, color=colour, linewidth=1)
    left.text(*place, name, color=colour, ha="right", transform=left.transAxes)
left.set(xlabel="steps", ylim=(0, 102))
left.set_title("Test accuracy, %")

middle.sharey(right)
for axes, side, colour, name in (
    (middle, without, lesson.RED, "without BN"),
    (right, with_bn, lesson.BLUE, "with BN"),
):
    low, median, high = side["unit"][0].T
    axes.axhspan(-4, 4, color=lesson.MUTED, alpha=0.12, linewidth=0)
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    for percentile, line in zip(sigmoids.PERCENTILES, (low, median, high)):
        axes.plot(steps, line, color=colour, linewidth=2 if percentile == 50 else 1)
        axes.text(1.02 * steps[-1], line[-1], f"{percentile} %", color=colour, va="center")
    axes.set_xlabel("steps")
    axes.set_title(f"Inputs of a sigmoid, {name}")
right.text(
    0.97, 0.92, "slope above 0.018", color=lesson.MUTED, ha="right", transform=right.transAxes
)
beyond = 100 * without["saturated"][:, 1].mean()
apart, apart_with_bn = (side["width"][:, 1].mean() for side in (without, with_bn))
figure.suptitle(
    f"After {steps[1]} steps without batch norm {beyond:.0f} % of the inputs lie beyond ±4,\n"
    f"and those of 70 % of the images within {apart:.2f} of each other; with it within "
    f"{apart_with_bn:.1f}",
    x=0.02,
    ha="left",
)
figure.tight_layout()
lesson.save(figure, "13_sigmoids")

# %% [markdown]
# Without batch norm the first steps carry the inputs of the last sigmoids to the edge: after 50
# steps nine of ten lie beyond ±4 in the three networks of the usual pace (in the ten of `--full`,
# version 0.1.0, between a third and nearly all). It takes hundreds of steps until the inputs are
# spread, and only then does it learn. Later, too, a quarter of the inputs stay beyond ±4.
#
# With batch norm the inputs are spread from the start. They do move: over the 1,500 steps the
# medians come 1.1 away from where they began (without batch norm 4.5), and the 15th and 85th
# percentile go from 2.1 to 4.0 apart. But they stay where there is a slope: never are more than 3 %
# of the inputs beyond ±4. The accuracy is above 90 % within 50 to 100 steps.
#
# So the claim is borne out here: the sigmoids saturate, and with batch norm they do not. But that
# is only half of what happens. The other half is in the title, too: without batch norm all images
# give a sigmoid of the last layer nearly the same input, from the first step on. (In the table, the
# 15th and 85th percentile are 0.03 apart at the start, and 0.06 after 100 steps; with batch norm 2
# and 3.) A network that sees no difference has none to learn from, saturated or not.
#
# ## What was found

# %%
ENOUGH = 0.9
found = {"networks each": seen["networks"], "steps": int(steps[-1])}
for name, side in (("without BN", without), ("with BN", with_bn)):
    last = side["accuracy"][:, -3:].mean(axis=1)
    reached = [steps[curve >= ENOUGH][0] for curve in side["accuracy"] if max(curve) >= ENOUGH]
    measured = {
        "accuracy in the end": last,
        "accuracy after 100 steps": side["accuracy"][:, list(steps).index(100)],
        "steps to 90 %": reached,
        "largest share beyond ±4": side["saturated"].max(axis=1),
        "share beyond ±4 in the end": side["saturated"][:, -1],
        "15th to 85th percentile after 100 steps": side["width"][:, list(steps).index(100)],
        "farthest that medians moved": side["moved"].max(axis=1),
    }
    found[f"{name}: networks that come to 90 %"] = len(reached)
    for what, values in measured.items():
        if len(values):
            found |= {f"{name}: {what}, {end}": v for end, v in spread(values).items()}
lesson.close(found)
