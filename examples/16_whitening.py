# %% [markdown]
# # Lesson 16: whitening, which batch norm simplifies
#
# A network learns faster from inputs that are white: mean 0, variance 1, and no correlation between
# features. So the paper starts from whitening the inputs of every layer. With the mean μ and the
# covariance Σ of the samples,
#
#     x̂ = S⁻¹ (x − μ)        S S = Σ        (S symmetric: Σ^½)
#
# It depends on the sample x and on the set X of all samples, from which μ and S come: it is
# Norm(x, X), and there are two Jacobians to go back through, ∂Norm/∂x and ∂Norm/∂X. Leaving out the
# second is what lesson 15 warns of. As all this is costly, the paper simplifies twice: each feature
# by itself, which leaves of Σ its diagonal; and X is the mini-batch. That is batch norm.
#
# Source: Ioffe & Szegedy 2015, sections 2 and 3, and reading notes on it; COMPSCI 682 session on
# batch norm (Su, 2019).
# Run: `python examples/16_whitening.py`

# %%
import time

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.norm import composed, whiten

# %% [markdown]
# ## Of three things, batch norm does two

# %%
random = np.random.default_rng(16)
m, C = 200, 4
mix = np.eye(C) + random.normal(size=(C, C))
X = tg.tensor(random.normal(size=(m, C)) @ mix + 3.0)
normalized = F.batch_norm(X, None, None, training=True, eps=0.0)
whitened = whiten.zca(X, eps=0.0)


def covariance(t):
    return np.cov(t.numpy().T, bias=True)


for name, t in (("input", X), ("batch norm", normalized), ("whitened", whitened)):
    print(f"{name}: mean, covariance")
    for mean, row in zip(t.numpy().mean(axis=0), covariance(t)):
        print(f"    {mean:6.2f} ", *(f"{v:7.2f}" for v in row))
off_white = float(np.abs(covariance(whitened) - np.eye(C)).max())
off_variance = float(np.abs(np.diag(covariance(normalized)) - 1).max())
correlation = float(np.abs(covariance(normalized) - np.eye(C)).max())

# %% [markdown]
# ## Two Jacobians
#
# Norm(x, X) as a function of two arguments, one sample (C,) and the set (m, C), so that `jacobian`
# tells the two apart. In `whiten.zca(X)` sample i is both: x is the row i of X. So its row of
# outputs has the sum of the two as its derivative.


# %%
def norm(x, X):
    mu = X.mean(axis=0)
    d = X - mu
    S = tg.sqrtm(d.T @ d / X.shape[0])
    return tg.solve(S, x - mu)


twelve, i = X[:12], 0
by_x, by_X = (J.numpy() for J in tg.jacobian(norm, (twelve[i], twelve)))  # (C, C) and (C, m, C)
together = by_X.copy()
together[:, i] += by_x
whole = tg.jacobian(lambda X: whiten.zca(X, eps=0.0)[i], twelve).numpy()
off_whole = float(np.abs(together - whole).max())
size_by_x, size_by_X, size = (float(np.linalg.norm(J)) for J in (by_x, by_X, whole))
print(f"sizes: ∂Norm/∂x {size_by_x:.3f}, ∂Norm/∂X {size_by_X:.3f}, their sum {size:.3f}")

# %% [markdown]
# Neither is small beside the other, and both are full: every input of every sample moves every
# feature of x̂. Those of batch norm are zero between features, and so have C times fewer entries.

# %%
by_X_of_batch_norm = tg.jacobian(lambda X: F.batch_norm(X, None, None, training=True)[i], twelve)
entries = {
    "whitening": int(np.count_nonzero(whole)),
    "batch norm": int(np.count_nonzero(by_X_of_batch_norm.numpy())),
}
print("derivative of one x̂ by all inputs, entries that are not zero:", entries)

# %% [markdown]
# ## Few samples
#
# From a mini-batch a covariance may not even be had: that of m samples has rank m − 1 at most, and
# with no more samples than features there are directions without variance, by which S⁻¹ divides.
# An ε > 0 has to stand in for what is not known. A variance for each feature asks for two samples.

# %%
eight = tg.tensor(random.normal(size=(8, 10)))
rank = np.linalg.matrix_rank(covariance(eight))
print(f"8 samples of 10 features: Σ is 10 × 10, and its rank is {rank}")
variances = F.batch_norm(eight, None, None, training=True, eps=0.0).numpy().var(axis=0)

# %% [markdown]
# ## The cost
#
# Forward, and by multiplications: batch norm squares each deviation and scales it, 2mC in all.
# Whitening takes mC² for Σ, mC² to apply S⁻¹, and some C³ more for S itself. That is more than C
# times as many, and so the factor grows with the width. In time it should grow less, since products
# of matrices run near the peak of a processor and sums at the speed of memory. Measured forward and
# backward, both made of primitive ops; the ratio is the median of pairs, one run after the other.


# %%
def one_pass(function, x, g):
    start = time.perf_counter()
    tg.grad(function(x), x, g)
    return time.perf_counter() - start


def batch_norm(x):
    return composed.normalize(x, None, None, axes=(0,), eps=1e-5)[0]


def whitening(x):
    return whiten.zca(x, eps=1e-5)


widths = lesson.pace((8, 128), (8, 16, 32, 64, 128, 256, 512), (8, 32, 128, 512, 1024))
samples, pairs = lesson.pace(256, 1024, 4096), lesson.pace(9, 15, 9)
ratios = {}
print("width   batch norm    whitening   ratio of times   of multiplications, more than")
for width in widths:
    x, g = (random.normal(size=(samples, width)).astype(np.float32) for _ in range(2))
    x, g = tg.tensor(x, requires_grad=True), tg.tensor(g)
    seconds = [(one_pass(batch_norm, x, g), one_pass(whitening, x, g)) for _ in range(pairs)]
    ratios[width] = float(np.median([white / normal for normal, white in seconds]))
    normal, white = 1e3 * np.median(seconds, axis=0)
    print(f"{width:5}{normal:10.2f} ms{white:10.2f} ms{ratios[width]:17.1f}{width:31}")

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
a, b = 1, 3  # the features that are correlated most
for panel, t, colour in zip(panels, (normalized, whitened), (lesson.BLUE, lesson.RED)):
    panel.plot(t.numpy()[:, a], t.numpy()[:, b], ".", color=colour, markersize=3)
    panel.set_aspect("equal")
    panel.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6))
    panel.set(xlabel=f"feature {a + 1}", ylabel=f"feature {b + 1}")
panels[0].set_title(f"Batch norm: correlation {correlation:.2f}")
panels[1].set_title("Whitened: none")
panels[2].loglog(ratios.keys(), ratios.values(), "o-", color=lesson.RED)
panels[2].set_xticks(widths, widths)
panels[2].set_yticks([1, 2, 5, 10, 20, 50], [1, 2, 5, 10, 20, 50])
panels[2].set_ylim(bottom=1)
panels[2].minorticks_off()
panels[2].set_title("Time of whitening / batch norm")
panels[2].set_xlabel("width: features")
lesson.save(figure, "16_whitening")

# %% [markdown]
# ## What was found

# %%
found = {
    "whitened: largest difference of the covariance from 1": off_white,
    "batch norm: largest difference of a variance from 1": off_variance,
    "batch norm: largest correlation that stays": correlation,
    "∂Norm/∂x + ∂Norm/∂X: largest difference from the whole derivative": off_whole,
    "size of ∂Norm/∂x": size_by_x,
    "size of ∂Norm/∂X": size_by_X,
    "entries that are not zero, whitening": entries["whitening"],
    "entries that are not zero, batch norm": entries["batch norm"],
    "8 samples of 10 features: rank of Σ": int(rank),
    "8 samples of 10 features: batch norm, smallest variance": float(variances.min()),
    **{f"width {width}: time of whitening / batch norm": r for width, r in ratios.items()},
}
lesson.close(found)
