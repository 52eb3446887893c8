# %% [markdown]
# # Lesson 20: one function, five norms; they differ in which entries share statistics
#
# Let x be a block of N samples, C channels and S = H·W places. Each norm of the family computes
#
#     y = γ (x − μ) / √(σ² + ε) + β
#
# where an entry x[n, c, s] shares its μ and σ² with others. With which? In that the members differ
# (Wu & He 2018, Figure 2, draws the first four):
#
#     batch norm       along N and S       a μ and a σ² for each channel
#     layer norm       along C and S       for each sample
#     instance norm    along S             for each channel of each sample
#     group norm       along K and S       for each group of channels of each sample
#     RMS norm         along C and S       as layer norm, but μ = 0, σ² the mean of x², and no β
#
# In group norm the C channels are seen as G groups of K. Layer and RMS norm do not tell channels
# from places: for them a sample is a list of F = C·S features. Only batch norm goes along N: to the
# others a sample is a sample, in whatever company (lesson 19).
#
# Source: EE-559 6.4 (Fleuret, 2020); Wu & He 2018; Zhang & Sennrich 2019 for RMS norm.
# Run: `python examples/20_family.py`

# %%
import contextlib
import math
import string

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.norm import composed, fused
from tinygrad_bn.norm.axes import FAMILY, arrange

N, C, S = 4, 6, 5
GROUPS = 2

# %% [markdown]
# ## A table, and one function
#
# `norm.axes.FAMILY` is the table above, and `arrange` finds its axes in a block. `normalize` of
# `composed` and `fused` is told the axes, and knows no member by name.

# %%
for name, member in FAMILY.items():
    print(f"{name:14} {member}")


def arrangement(name, block, groups=GROUPS):
    """As what shape a member sees a block; the axes along which it shares; the shape of γ and β."""
    features = 2 if "F" in FAMILY[name].layout else None  # F is the last two axes, C and S
    return arrange(FAMILY[name], block, features, groups)


def normalize(norm, name, x, gamma=None, beta=None, groups=GROUPS):
    """(y, σ²) of a block, σ² repeated for each entry. `norm` is the module composed or fused."""
    shape, axes, _ = arrangement(name, x.shape, groups)
    options = {"axes": axes, "eps": 1e-5, "centred": FAMILY[name].centred}
    y, _, var = norm.normalize(x.reshape(shape), gamma, beta, **options)
    return y.reshape(x.shape), tg.broadcast_to(var, shape=shape).reshape(x.shape)


# %% [markdown]
# ## Who shares with whom
#
# Not drawn from the table, but seen from the σ² that came out: the same letter, the same σ². (The
# eight colours come again.) Each square is a channel of a sample; behind it lie its 5 places, which
# share in every member. The block in three dimensions, drawn from the table, is
# viz/gallery/family_light.svg.


# %%
def groups(var):
    """(N, C): the number of the group of each channel of each sample, as they come."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(var.ravel().tolist()))}
    return np.vectorize(numbers.get)(var[:, :, 0])


random = np.random.default_rng(20)
x = random.normal(3.0, 2.0, (N, C, S))
var = {name: normalize(composed, name, x)[1] for name in FAMILY}
learned = {
    name: math.prod(arrangement(name, x.shape).affine) * (2 if member.centred else 1)
    for name, member in FAMILY.items()
}
figure, panels = plt.subplots(1, len(FAMILY), figsize=(9.5, 2.4), sharey=True)
for panel, (name, values) in zip(panels, var.items()):
    group = groups(values)
    panel.pcolormesh(group % 8, cmap="Pastel1", vmin=0, vmax=8, edgecolor="white", linewidth=2)
    for (n, c), number in np.ndenumerate(group):
        panel.text(c + 0.5, n + 0.5, string.ascii_lowercase[number], ha="center", va="center")
    panel.set_title(name.replace("_", " ").replace("rms", "RMS"), loc="center", fontsize=10)
    panel.set_xlabel(f"channels\n\n{group.max() + 1} values of σ²\n{learned[name]} numbers learned")
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks(np.arange(N) + 0.5, [f"sample {n}" for n in range(N)])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
panels[0].invert_yaxis()
figure.suptitle("Five norms of one block: the same letter, the same σ²", x=0.07, y=0.9, ha="left")
lesson.save(figure, "20_family")

# %% [markdown]
# ## Where the members meet
#
# Apart from γ and β, which are numbers for each channel, or, in layer and RMS norm, for each
# feature, the members meet (γ = 1, β = 0):
#
#     group norm with G = 1   is layer norm         all channels in one group
#     group norm with G = C   is instance norm      each channel a group of its own
#     batch norm with N = 1   is instance norm      no other sample to share with
#     RMS norm of x − μ       is layer norm of x    what has mean 0 need not be centred
#
# One side is composed and the other fused, so that the two numbers come by different ways. The
# last line is there to show that without centring they do not meet.


# %%
def y(norm, name, x, groups=GROUPS):
    return normalize(norm, name, x, groups=groups)[0]


one, centred = x[:1], x - x.mean(axis=(1, 2), keepdims=True)
layer, instance = y(fused, "layer_norm", x), y(fused, "instance_norm", x)
pairs = {
    "group norm with G = 1 and layer norm": (y(composed, "group_norm", x, 1), layer),
    "group norm with G = C and instance norm": (y(composed, "group_norm", x, C), instance),
    "batch norm with N = 1 and instance norm": (y(composed, "batch_norm", one), instance[:1]),
    "RMS norm of x − μ and layer norm of x": (y(composed, "rms_norm", centred), layer),
    "RMS norm of x and layer norm of x": (y(composed, "rms_norm", x), layer),
}
meeting = {name: float(np.max(np.abs(a - b))) for name, (a, b) in pairs.items()}
for name, difference in meeting.items():
    print(f"{name}: largest difference {difference:.1g}")

# %% [markdown]
# ## One gradient for all
#
# The gradient of the fused op (lesson 5) has means in it, and knows no member by name either: they
# go along the axes. It is held against the one of primitive ops, for y and σ² and at every input,
# and against its gradient, up to order 4.


# %%
def fused_against_composed(name):
    """The relative differences of y and σ², and of their gradients of order 1 to 4."""
    affine = arrangement(name, x.shape).affine
    gamma, beta = random.normal(1.0, 0.3, affine), random.normal(size=affine)
    values = (x, gamma, beta) if FAMILY[name].centred else (x, gamma)
    with contextlib.redirect_stdout(None):  # `compare` prints all that it finds
        result = tg.check.compare(
            lambda *inputs: normalize(composed, name, *inputs),
            lambda *inputs: normalize(fused, name, *inputs),
            *(tg.tensor(v, requires_grad=True) for v in values),
            order=4,
        )
    return result.differences


differences = {name: fused_against_composed(name) for name in FAMILY}
print("fused and composed     value" + "".join(f"   order {k}" for k in range(1, 5)))
for name, (value, *orders) in differences.items():
    print(f"{name:19}{value:9.0e}" + "".join(f"{d:10.0e}" for d in orders))

# %% [markdown]
# ## What was found

# %%
along_s = [np.count_nonzero(values != values[:, :, :1]) for values in var.values()]
found = {}
for name, values in var.items():
    found[f"{name}, values of σ²"] = len(np.unique(values))
    found[f"{name}, numbers learned"] = learned[name]
found["entries that do not share with the other places of their channel"] = sum(along_s)
found |= {f"{name}, largest difference": value for name, value in meeting.items()}
for name, (_, *orders) in differences.items():
    found[f"{name}, fused and composed, orders 1 and 2"] = max(orders[:2])
    found[f"{name}, fused and composed, orders 3 and 4"] = max(orders[2:])
lesson.close(found)
