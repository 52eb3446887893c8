# %% [markdown]
# # Lesson 3: the backward pass of batch norm, one formula of the lecture at a time
#
# Given is how the loss changes with each output, gᵢ = ∂ℓ/∂yᵢ. Wanted is how it changes with γ, β
# and every xᵢ. The forward pass of lesson 2 is walked from its end, and each symbol gets its
# gradient from the symbols that were computed from it, because through them alone it acts on the
# loss:
#
#     ∂ℓ/∂γ   = Σ gᵢ x̂ᵢ                                    γ multiplies every x̂ᵢ
#     ∂ℓ/∂β   = Σ gᵢ                                       β is added to every yᵢ
#     ∂ℓ/∂x̂ᵢ  = gᵢ γ
#     ∂ℓ/∂σ²  = Σ ∂ℓ/∂x̂ᵢ · (xᵢ − μ) · (−1/2)(σ² + ε)^(−3/2)
#     ∂ℓ/∂μ   = ∂ℓ/∂σ² · (1/m) Σ −2(xᵢ − μ)                 by way of σ²
#               + Σ ∂ℓ/∂x̂ᵢ · (−1)/√(σ² + ε)                 by way of every x̂ᵢ
#     ∂ℓ/∂xᵢ  = ∂ℓ/∂x̂ᵢ · 1/√(σ² + ε)                        by way of its own x̂ᵢ
#               + ∂ℓ/∂σ² · 2(xᵢ − μ)/m                      by way of σ²
#               + ∂ℓ/∂μ · 1/m                               by way of μ
#
# ∂ℓ/∂xᵢ cannot come first: it needs the three gradients above it. (That is lesson 1 again.)
#
# Source: COMPSCI 682 session on batch norm (Su, 2019); Ioffe & Szegedy 2015, section 3.
# Run: `python examples/03_backward_step_by_step.py`

# %%
import lesson
import numpy as np

import tinygrad_bn as tg

SYMBOLS = ("γ", "β", "x̂", "σ²", "μ", "x")

# %% [markdown]
# ## By the formulas
#
# NumPy, and the order in which each can be computed.


# %%
def by_formulas(x, gamma, eps, g):
    m = len(x)
    mu = np.sum(x) / m
    var = np.sum((x - mu) ** 2) / m
    xhat = (x - mu) / np.sqrt(var + eps)

    dgamma = np.sum(g * xhat)
    dbeta = np.sum(g)
    dxhat = g * gamma
    dvar = np.sum(dxhat * (x - mu) * (-1 / 2) * (var + eps) ** (-3 / 2))
    dmu = dvar * np.sum(-2 * (x - mu)) / m + np.sum(dxhat * -1 / np.sqrt(var + eps))
    dx = dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) / m + dmu / m
    return dict(zip(SYMBOLS, (dgamma, dbeta, dxhat, dvar, dmu, dx)))


# %% [markdown]
# ## By the engine
#
# The engine knows none of these formulas. It has a rule for each primitive op, and `tg.grad` can be
# asked for the gradient at any Tensor, also one in the middle of the computation, such as σ².
# ℓ = Σ gᵢ yᵢ is the simplest loss with ∂ℓ/∂yᵢ = gᵢ. Any other would serve as well.


# %%
def recorded(x, gamma, beta, eps, g):
    """The loss, and the Tensors to which SYMBOLS refer."""
    x, gamma, beta = (tg.tensor(v, dtype=np.float64, requires_grad=True) for v in (x, gamma, beta))
    x, gamma, beta = tg.named("x", x), tg.named("γ", gamma), tg.named("β", beta)
    mu = tg.named("μ", x.mean())
    d = x - mu
    var = tg.named("σ²", (d * d).mean())
    xhat = tg.named("x̂", d / (var + eps).sqrt())
    y = tg.named("y", gamma * xhat + beta)
    loss = tg.named("ℓ", (y * tg.named("g", tg.tensor(g))).sum())
    return loss, [gamma, beta, xhat, var, mu, x]


def by_engine(*example):
    loss, places = recorded(*example)
    return {symbol: t.numpy() for symbol, t in zip(SYMBOLS, tg.grad(loss, places))}


# %% [markdown]
# ## One beside the other
#
# The worked example of lesson 2, where w takes the place of g.


# %%
def relative_difference(a, b):
    """max |a − b| / max |a|"""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))


x, gamma, beta, eps = np.array([0.5, 3.5, 4.5, 7.5]), 2.0, 1.0, 0.0
g = np.array([1.0, -2.0, 0.5, 1.5])
formulas, engine = by_formulas(x, gamma, eps, g), by_engine(x, gamma, beta, eps, g)
differences = {s: relative_difference(formulas[s], engine[s]) for s in SYMBOLS}

print(f"{'':8}{'by the formula':34}{'by the engine':34}difference")
for symbol in SYMBOLS:
    columns = [np.array2string(v[symbol], precision=4) for v in (formulas, engine)]
    print(f"∂ℓ/∂{symbol:4}{columns[0]:34}{columns[1]:34}{differences[symbol]:.1e}")

# %% [markdown]
# Every gradient of this library is computed by ops, so the way back can be recorded like the way
# forward. That is the picture: on the left what was computed, downwards; on the right its
# gradients, upwards, with the formulas that the engine's rules come to; dotted, what the way back
# reads of the way forward. μ acts by way of d = x − μ alone, on σ² and x̂ at once: so the engine
# adds up ∂ℓ/∂d first, and its two ways into μ are one arrow. Lesson 4 takes them apart.

# %%
with tg.tracing():  # values and names are kept for the picture
    loss, _ = recorded(x, gamma, beta, eps, g)
lesson.save(tg.draw(loss, "butterfly", theme="light"), "03_backward_step_by_step")

# %% [markdown]
# Four numbers that come out even prove little, and ε = 0 leaves the formulas' ε untested. So once
# more, with 256 random samples.

# %%
random = np.random.default_rng(3)
x_random, g_random = random.normal(3.0, 2.0, 256), random.normal(size=256)
formulas_random = by_formulas(x_random, 1.5, 0.1, g_random)
engine_random = by_engine(x_random, 1.5, -0.5, 0.1, g_random)
differences_random = [relative_difference(formulas_random[s], engine_random[s]) for s in SYMBOLS]

# %% [markdown]
# ## What was found

# %%
found = {
    **{f"∂ℓ/∂{s}": float(engine[s]) for s in ("γ", "β", "σ²", "μ")},
    **{f"∂ℓ/∂x̂{i}": float(v) for i, v in enumerate(engine["x̂"], start=1)},
    **{f"∂ℓ/∂x{i}": float(v) for i, v in enumerate(engine["x"], start=1)},
    "largest difference, worked example": max(differences.values()),
    "largest difference, 256 random samples": max(differences_random),
}
lesson.close(found)
