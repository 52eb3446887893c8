# %% [markdown]
# # Lesson 19: layer norm is the same at training and at test time, one sample at a time
#
# Batch norm takes a feature's mean and variance over the m samples of the batch. Layer norm (Ba,
# Kiros & Hinton 2016) takes them over the D features of one sample:
#
#     batch norm   x̂[n, f] = (x[n, f] − μ_f) / √(σ²_f + ε)     μ_f the mean over n of x[n, f]
#     layer norm   x̂[n, f] = (x[n, f] − μ_n) / √(σ²_n + ε)     μ_n the mean over f of x[n, f]
#
# One index, but it decides what a sample's output depends on. In layer norm: on the sample. There
# is nothing to remember for later, and a batch of one will do. In batch norm: on the companions,
# too. They are drawn at random, and so the same sample comes out differently from step to step. At
# test time a sample may come alone; then batch norm goes by running statistics, and is another map.
#
# Source: EE-559 6.4 (Fleuret, 2020); Ba, Kiros & Hinton 2016.
# Run: `python examples/19_layer_norm.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

FEATURES, DRAWS = 64, lesson.pace(200, 400, 2000)
SIZES = (256, 64, 16, 8, 4, 2)

# %% [markdown]
# ## How much of a sample's output is chance?
#
# Let a feature be normal with mean μ and variance σ², and let z = (x − μ)/σ be what all data would
# give for this sample. Over m values the mean errs by σ/√m, the standard deviation by σ/√(2m), each
# independently of the other: so for large m, ε aside,
#
#     variance of x̂ over random companions  ≈  1/m + z²/(2m)
#
# which says 1.5/m where z² = 1. That is noise of 8 % of the standard deviation at m = 256, and of
# 31 % at m = 16.
#
# It is measured on one sample of 64 features, which is put into many random batches. `spread` is
# how far its outputs scatter in training, `distance` how far they are from the output at test time,
# when it comes alone. Both are root mean squares over the features.


# %%
def rms(values):
    return float(np.sqrt(np.mean(values * values)))


def spread_and_distance(norm, sample, batches):
    norm.train()
    for batch in batches:
        norm(tg.tensor(batch))  # batch norm learns its running statistics
    at_test = norm.eval()(tg.tensor(sample[None])).detach().numpy()
    norm.train()
    outputs = []
    for batch in batches:
        company = np.concatenate([sample[None], batch[1:]])
        outputs.append(norm(tg.tensor(company)).detach().numpy()[0])
    outputs = np.array(outputs)
    # Taken from the first output, equal outputs have a spread of exactly 0.
    return rms((outputs - outputs[0]).std(axis=0)), rms(outputs - at_test)


# %% [markdown]
# Each feature has a mean and a scale of its own; `momentum=None` makes the running statistics the
# even average over all batches.

# %%
random = np.random.default_rng(19)
centre, scale = random.normal(0.0, 3.0, FEATURES), random.uniform(0.5, 4.0, FEATURES)
z = random.normal(size=FEATURES)
sample = centre + scale * z

spreads, distances, layer_norm = [], [], []
formula = [np.sqrt(np.mean(1 / m + z * z / (2 * m))) for m in SIZES]
print("         batch norm                                   layer norm")
print("batch    spread   by the formula   training − test    spread   training − test")
for m, expected in zip(SIZES, formula):
    batches = centre + scale * random.normal(size=(DRAWS, m, FEATURES))
    bn = nn.BatchNorm1d(FEATURES, momentum=None, dtype=np.float64)
    spread, distance = spread_and_distance(bn, sample, batches)
    of_layer_norm = spread_and_distance(nn.LayerNorm(FEATURES, dtype=np.float64), sample, batches)
    numbers = (spread, expected, distance, *of_layer_norm)
    print("{:5}{:10.3f}{:17.3f}{:18.3f}{:10.3g}{:18.3g}".format(m, *numbers))
    spreads.append(spread)
    distances.append(distance)
    layer_norm += of_layer_norm
errors = np.abs(np.divide(spreads, formula) - 1)

# %% [markdown]
# Layer norm has zeros everywhere, to the last bit. Batch norm follows the formula, and so 1/√m: a
# quarter of the samples, twice the noise. In small batches the output at test time is also another
# one than the mean over all companions: there a sample is a good part of its own μ and σ², and so
# draws x̂ towards 0. (It cannot be beyond ±√(m − 1), however far off the sample is.)

# %%
figure, axes = plt.subplots(figsize=(6.5, 3.6))
axes.loglog(SIZES, formula, color=lesson.MUTED, linewidth=1)
axes.loglog(SIZES, distances, "x", color=lesson.RED)
axes.loglog(SIZES, spreads, "o", color=lesson.BLUE, markersize=5)
axes.text(60, 0.13, "the formula", color=lesson.MUTED, ha="right", va="top")
axes.text(2.4, distances[-1], "training − test", color=lesson.RED, va="center")
axes.text(18, spreads[2], "spread over companions", color=lesson.BLUE, va="bottom")
axes.text(256, 0.53, "layer norm: 0 for every m", color=lesson.INK, ha="right")
axes.set_xticks(SIZES, [str(m) for m in SIZES])
axes.set_yticks([0.1, 0.2, 0.5, 1.0], ["10 %", "20 %", "50 %", "100 %"])
axes.minorticks_off()
axes.set_xlabel("samples in the batch, m")
axes.set_ylabel("share of the std")
axes.set_title("With batch norm a sample's output is in part chance: like 1/√m")
lesson.save(figure, "19_layer_norm")

# %% [markdown]
# ## A batch of two, and of one
#
# For m = 2 the mean is halfway between two values, both are one standard deviation from it, and
# x̂ = ±1: all that is left of x is whether its companion is less. Without ε that is exact, whatever
# the values are. One value per channel has no variance, and batch norm refuses it.

# %%
pairs = random.normal(size=(2, 1000)) * 10.0 ** random.integers(-6, 7, 1000)
x_hat = F.batch_norm(pairs, None, None, training=True, eps=0.0)
print("batch norm of two samples:", *x_hat[:, :3].round(6).tolist())
try:
    F.batch_norm(pairs[:1], None, None, training=True)
except ValueError as error:
    print(f"batch norm of one sample: ValueError: {error}")

# %% [markdown]
# Layer norm has its price. Batch norm at test time is an affine map, which can be folded into the
# layer before (lesson 18); layer norm has to find its statistics for every sample, then as before.
#
# ## What was found

# %%
found = {}
for m, spread, distance in zip(SIZES, spreads, distances):
    found[f"batch norm, batch of {m}: spread"] = spread
    found[f"batch norm, batch of {m}: training − test"] = distance
found |= {
    "batch norm, every batch: largest | spread / formula − 1 |": float(errors.max()),
    "layer norm, every batch: largest of spread and training − test": max(layer_norm),
    "batch norm, batch of 2: largest | |x̂| − 1 |": float(np.max(np.abs(np.abs(x_hat) - 1))),
}
lesson.close(found)
