# %% [markdown]
# # Lesson 5: the gradient at x, simplified
#
# Lesson 3 ended with three terms for ∂ℓ/∂xᵢ, through x̂ᵢ, σ² and μ. The lecture leaves it to the
# board to make one of them. Write gᵢ = ∂ℓ/∂yᵢ, dᵢ = xᵢ − μ and r = 1/√(σ² + ε), so that x̂ᵢ = r dᵢ,
# and let mean(…) be over the batch. Here every line of the derivation is followed by the same line
# on 256 random samples, so that none has to be believed.
#
# Source: COMPSCI 682 session on batch norm (Su, 2019), last slide of the backward pass.
# Run: `python examples/05_simplified_gradient.py`

# %%
import lesson
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn.norm import composed, fused

random = np.random.default_rng(5)
m, gamma, eps = 256, 1.5, 1e-5
x = random.normal(3.0, 2.0, m)
g = x + random.normal(size=m)  # a gradient with a part along (1, …, 1) and one along x̂
mu, var = x.mean(), x.var()

# %% [markdown]
# ## As lesson 3 has it

# %%
dxhat = g * gamma
dvar = np.sum(dxhat * (x - mu) * (-1 / 2) * (var + eps) ** (-3 / 2))
dmu = dvar * np.sum(-2 * (x - mu)) / m + np.sum(dxhat * -1 / np.sqrt(var + eps))
dx = dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) / m + dmu / m

# %% [markdown]
# ## Step 1: the gradient at σ²
#
# γ gᵢ stands for ∂ℓ/∂x̂ᵢ from here on. Of the three factors r, one makes x̂ᵢ of dᵢ, and two are
# left over. The sum is m times a mean:
#
#     ∂ℓ/∂σ² = Σ γ gᵢ dᵢ · (−1/2) r³ = −(1/2) γ r² Σ gᵢ x̂ᵢ = −(m/2) γ r² mean(g x̂)


# %%
def relative_difference(a, b):
    """max |a − b| / max |a|"""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


d, r = x - mu, 1 / np.sqrt(var + eps)
xhat = r * d
simple_dvar = -(m / 2) * gamma * r**2 * np.mean(g * xhat)
steps = {"1, ∂ℓ/∂σ²": relative_difference(dvar, simple_dvar)}

# %% [markdown]
# ## Step 2: the gradient at μ
#
# Its term through σ² holds Σ dᵢ, the sum of all deviations from the mean. It is 0 (lesson 4), and
# what is left is
#
#     ∂ℓ/∂μ = −Σ γ gᵢ r = −m γ r mean(g)

# %%
simple_dmu = -m * gamma * r * np.mean(g)
steps["2, ∂ℓ/∂μ"] = relative_difference(dmu, simple_dmu)

# %% [markdown]
# ## Step 3: both into the three terms
#
# The m cancels, and so does the 2:
#
#     ∂ℓ/∂xᵢ = γ gᵢ · r   +   ∂ℓ/∂σ² · 2 dᵢ/m         +   ∂ℓ/∂μ · 1/m
#            = γ r gᵢ     −   γ r² dᵢ mean(g x̂)       −   γ r mean(g)

# %%
three_terms = gamma * r * g - gamma * r**2 * d * np.mean(g * xhat) - gamma * r * np.mean(g)
steps["3, three terms"] = relative_difference(dx, three_terms)

# %% [markdown]
# ## Step 4: one term
#
# One more r dᵢ = x̂ᵢ, and γ r stands before everything:
#
#     ∂ℓ/∂xᵢ = γ r (gᵢ − mean(g) − x̂ᵢ mean(g x̂))
#
# The two means are ∂ℓ/∂β and ∂ℓ/∂γ divided by m, which have to be computed anyway.

# %%
one_term = gamma * r * (g - np.mean(g) - xhat * np.mean(g * xhat))
algebra = relative_difference(dx, one_term)
for step, difference in {**steps, "4, one term": algebra}.items():
    print(f"step {step:18} relative difference {difference:.1e}")

# %% [markdown]
# ## What the formula says
#
# g loses its part along (1, …, 1) and its part along x̂: all of it, if ε = 0, since the mean of x̂²
# is then 1. These are the two directions in which moving x does nothing: normalization undoes a
# shift and a change of scale. So no gradient may point there. With ε, the share ε/(σ² + ε) of the
# second part stays.


# %%
def part(v, along):
    """The share of v's length that points along a direction."""
    return float(v @ along / np.linalg.norm(v) / np.linalg.norm(along))


without_eps = (g - g.mean() - d / np.sqrt(var) * np.mean(g * d) / np.sqrt(var)) / np.sqrt(var)
along_ones, along_xhat = part(without_eps, np.ones(m)), part(without_eps, d)
print(f"of g, {part(g, np.ones(m)):.2f} points along (1, …, 1) and {part(g, d):.2f} along x̂")
print(f"of ∂ℓ/∂x at ε = 0, {along_ones:.0e} and {along_xhat:.0e}")

# %% [markdown]
# ## Two implementations
#
# `norm.fused` is batch norm as one op with this gradient; `F.batch_norm` and the layers use it.
# `norm.composed` is the same function of primitive ops, where the engine takes the long way. The
# picture has one beside the other, on the worked example of lesson 2. The formulas in the yellow
# box were not written for the picture, they are read off the op's gradient rule. (There μ and σ²
# are called μ_B and σ²_B, as in the paper: those of the batch B.)

# %%
column = np.array([[0.5, 1.0], [3.5, -2.0], [4.5, 0.5], [7.5, 1.5]])
with tg.tracing():
    example = tg.named("x", tg.tensor(column[:, :1], requires_grad=True))
    scale = tg.named("γ", tg.tensor(np.array([2.0]), requires_grad=True))
    shift = tg.named("β", tg.tensor(np.array([1.0]), requires_grad=True))
    y = F.batch_norm(example, None, None, scale, shift, training=True, eps=0.0)
    loss = tg.named("ℓ", (y * tg.named("w", tg.tensor(column[:, 1:]))).sum())
lesson.save(tg.draw(loss, "fused", theme="light"), "05_simplified_gradient")

# %% [markdown]
# `check.compare` holds one against the other on 1024 samples of 32 features: the values; the
# gradients of order 1 to 4, for the formula is itself written with ops, and so it can be
# differentiated again; what was recorded; what is held until the backward pass; and the time. Each
# returns (y, μ, σ²), and the gradients start from all three: fused is right for these too, though
# step 4 speaks of y alone.

# %%
samples, features = 1024, 32
x = tg.tensor(random.normal(3.0, 2.0, (samples, features)), requires_grad=True)
gamma = tg.tensor(random.normal(1.0, 0.2, features), requires_grad=True)
beta = tg.tensor(random.normal(0.0, 1.0, features), requires_grad=True)
result = tg.check.compare(
    lambda x, gamma, beta: composed.normalize(x, gamma, beta, axes=(0,), eps=eps),
    lambda x, gamma, beta: fused.normalize(x, gamma, beta, axes=(0,), eps=eps),
    *(x, gamma, beta),
    order=4,
)

# %% [markdown]
# Held is what the backward pass needs beyond x, γ and β: composed keeps arrays of the size of x,
# fused only μ and σ².
#
# ## What was found

# %%
found = {
    "difference, the lecture's three terms and the simplified one": algebra,
    **{f"difference after step {step}": difference for step, difference in steps.items()},
    "part of ∂ℓ/∂x along (1, …, 1), ε = 0": along_ones,
    "part of ∂ℓ/∂x along x̂, ε = 0": along_xhat,
    **{f"difference, order {k}": d for k, d in enumerate(result.differences) if k > 0},
    "ops recorded, composed": result.ops[0],
    "ops recorded, fused": result.ops[1],
    "bytes held, composed": result.held[0],
    "bytes held, fused": result.held[1],
    "bytes of x": x.data.nbytes,
    "time of composed / time of fused": result.ratio,
}
lesson.close(found)
