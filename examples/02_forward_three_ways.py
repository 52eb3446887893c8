# %% [markdown]
# # Lesson 2: the forward pass of batch norm, computed three ways
#
# Batch norm takes the m values x₁ … x_m of one feature over a mini-batch and does four things:
#
#     μ   = (1/m) Σ xᵢ               the mean of the batch
#     σ²  = (1/m) Σ (xᵢ − μ)²        its variance; divided by m, not by m − 1
#     x̂ᵢ  = (xᵢ − μ) / √(σ² + ε)     normalized: mean 0, variance 1 (up to ε)
#     yᵢ  = γ x̂ᵢ + β                 scaled and shifted by two numbers that are learned
#
# The worked example, which later lessons differentiate, is x = (0.5, 3.5, 4.5, 7.5) with γ = 2,
# β = 1 and ε = 0. It is chosen to come out even: μ = 4, σ² = 6.25, √σ² = 2.5. A loss is put on
# top, ℓ = Σ wᵢ yᵢ with w = (1, −2, 0.5, 1.5), so that there is one number to differentiate.
#
# Source: COMPSCI 682 session on batch norm (Su, 2019); Ioffe & Szegedy 2015, Algorithm 1.
# Run: `python examples/02_forward_three_ways.py`

# %%
import math

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.norm import composed, fused

# %% [markdown]
# ## By hand
#
# Floats and Σ over i, with nothing recorded.


# %%
def by_hand(x, gamma, beta, eps, w):
    m = len(x)
    mu = sum(x) / m
    var = sum((xi - mu) ** 2 for xi in x) / m
    xhat = [(xi - mu) / math.sqrt(var + eps) for xi in x]
    y = [gamma * xi + beta for xi in xhat]
    return {"μ": mu, "σ²": var, "y": y, "ℓ": sum(wi * yi for wi, yi in zip(w, y))}


# %% [markdown]
# ## By Scalars
#
# The same lines, but every operation on every sample makes a node of a graph. Up to y, the samples
# meet in two sums only: for μ and for σ².


# %%
def by_scalars(x, gamma, beta, eps, w):
    m = len(x)
    x = [tg.Scalar(xi) for xi in x]
    gamma, beta = tg.Scalar(gamma), tg.Scalar(beta)
    mu = tg.Scalar.sum(x) / m
    var = tg.Scalar.sum((xi - mu) ** 2 for xi in x) / m
    xhat = [(xi - mu) / (var + eps).sqrt() for xi in x]
    y = [gamma * xi + beta for xi in xhat]
    loss = tg.Scalar.sum(wi * yi for wi, yi in zip(w, y))
    return {"μ": mu.data, "σ²": var.data, "y": [yi.data for yi in y], "ℓ": loss.data}


# %% [markdown]
# ## By Tensors
#
# A node is an operation on the whole batch: nine of them in `composed`, or a single one in `fused`.
# Both have the same functions, and both return the statistics beside y. The statistics keep the
# reduced axis, with length 1; so they have one element.


# %%
def by_tensors(norm, x, gamma, beta, eps, w):
    x, gamma, beta = (tg.tensor(v, dtype=np.float64, requires_grad=True) for v in (x, gamma, beta))
    y, mu, var = norm.normalize(x, gamma, beta, axes=(0,), eps=eps)
    loss = (y * np.array(w)).sum()
    return {"μ": mu.item(), "σ²": var.item(), "y": y.tolist(), "ℓ": loss.item()}


# %% [markdown]
# ## The same numbers


# %%
def all_ways(*example):
    return {
        "by hand": by_hand(*example),
        "Scalars": by_scalars(*example),
        "Tensors, composed": by_tensors(composed, *example),
        "Tensors, fused": by_tensors(fused, *example),
    }


x = [0.5, 3.5, 4.5, 7.5]
ways = all_ways(x, 2.0, 1.0, 0.0, [1.0, -2.0, 0.5, 1.5])
print(f"{'':18}{'μ':>4}{'σ²':>7}{'ℓ':>7}   y")
for way, r in ways.items():
    y = "  ".join(f"{v:.4g}" for v in r["y"])
    print(f"{way:18}{r['μ']:>4.4g}{r['σ²']:>7.4g}{r['ℓ']:>7.4g}   {y}")

# %% [markdown]
# What the four steps do to the samples: centred on μ, brought to a spread of one, and then to
# wherever γ and β want them.

# %%
exact = ways["by hand"]
mu, sigma = exact["μ"], math.sqrt(exact["σ²"])
rows = {
    "y = γ x̂ + β": exact["y"],
    "x̂ = (x − μ) / σ": [(xi - mu) / sigma for xi in x],
    "x − μ": [xi - mu for xi in x],
    "x": x,
}
figure, axes = plt.subplots(figsize=(6.5, 2.8))
for place, values in enumerate(rows.values()):
    mean, std = np.mean(values), np.std(values)
    axes.barh(place, 2 * std, 0.35, left=mean - std, color=lesson.BLUE, alpha=0.2)
    axes.plot(mean, place, "|", color=lesson.BLUE, markersize=14)
    axes.plot(values, [place] * len(values), "o", color=lesson.INK, markersize=5)
    axes.text(8.2, place, f"mean {mean:.3g}, std {std:.3g}", va="center", color=lesson.MUTED)
axes.set_yticks(range(len(rows)), list(rows))
axes.set_ylim(-0.5, 3.5)
axes.set_title("Four samples through batch norm; the bars are mean ± std")
lesson.save(figure, "02_forward_three_ways")

# %% [markdown]
# Numbers that come out even could hide a mistake, and ε = 0 does hide where ε belongs. So: a
# hundred random samples, and an ε that is not small beside their variance of about 4. How far the
# ways may differ is a matter of rounding only.


# %%
def largest_difference(results):
    """How far any way is from the first, over all of μ, σ², y and ℓ."""
    first, *others = ([*r["y"], r["μ"], r["σ²"], r["ℓ"]] for r in results)
    return max(float(np.max(np.abs(np.subtract(first, other)))) for other in others)


random = np.random.default_rng(2)
samples, weights = random.normal(3.0, 2.0, 100).tolist(), random.normal(size=100).tolist()
random_ways = all_ways(samples, 1.5, -0.5, 0.1, weights)

# %% [markdown]
# ## What was found

# %%
found = {
    "μ": exact["μ"],
    "σ²": exact["σ²"],
    **{f"y{i}": yi for i, yi in enumerate(exact["y"], start=1)},
    "ℓ": exact["ℓ"],
    "largest difference, worked example": largest_difference(ways.values()),
    "largest difference, 100 random samples": largest_difference(random_ways.values()),
}
lesson.close(found)
