# %% [markdown]
# # Lesson 9: γ and β can take the normalization back
#
# Mean 0 and variance 1 for every feature: that takes something away. A sigmoid, for one, is nearly
# a straight line on [−1, 1]; if that is all that it is ever given, the layer has lost its bend. So
# after the normalization stand two numbers that are learned:
#
#     x̂ = (x − μ) / √(σ² + ε)         y = γ x̂ + β
#
# and with γ = √(σ² + ε), β = μ the output is the input again: y = x. Whatever the network could
# represent before, it still can. The paper writes γ = √σ², and in its algorithm an ε under the root
# of x̂. By that γ the input comes back but for a factor on its deviations,
#
#     y − μ = (x − μ) √(σ² / (σ² + ε))  ≈  (x − μ) (1 − ε/2σ²)
#
# which here, as σ² is about 4 and ε = 10⁻⁵, is a millionth less.
#
# Source: Ioffe & Szegedy 2015, section 3, and reading notes on it.
# Run: `python examples/09_gamma_beta_recover_the_input.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F

# %% [markdown]
# ## The identity, to rounding

# %%
eps = 1e-5
random = np.random.default_rng(9)
x = random.normal(3.0, 2.0, (256, 8))


def batch_norm(x, gamma, beta, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


def relative_difference(y, x):
    return float(np.max(np.abs(y - x)) / np.max(np.abs(x)))


mu, var = x.mean(axis=0), x.var(axis=0)
recovered = {}
for dtype in (np.float64, np.float32):
    data, gamma, beta = (a.astype(dtype) for a in (x, np.sqrt(var + eps), mu))
    difference = relative_difference(batch_norm(data, gamma, beta, eps), data)
    recovered[f"γ = √(σ² + ε), {dtype.__name__}: relative difference"] = difference

deviation = batch_norm(x, np.sqrt(var), mu, eps) - mu
shortfall = 1 - deviation / (x - mu)
off_by_formula = float(np.max(np.abs(shortfall / (eps / 2 / var) - 1)))
print(f"γ = √σ²: deviations fall short by {shortfall.min():.4g} to {shortfall.max():.4g} of 1;")
print(f"         ε/2σ² is between     {(eps / 2 / var).min():.4g} and {(eps / 2 / var).max():.4g}")

# %% [markdown]
# ## What it is for: the bend of the sigmoid
#
# How much of a sigmoid's output is more than a straight line of its input? The share of the
# variance that the best line leaves unexplained, for normal inputs: x̂ itself, and γ x̂ + β with
# what γ and β make possible.

# %%
x_hat = random.normal(size=100_000)


def bend(gamma, beta):
    """1 − R² of the best straight line for the sigmoid of γ x̂ + β."""
    return 1 - np.corrcoef(x_hat, tg.sigmoid(gamma * x_hat + beta))[0, 1] ** 2


bends = {(gamma, beta): bend(gamma, beta) for gamma, beta in ((1, 0), (3, 0), (10, 0), (3, 3))}
for (gamma, beta), share in bends.items():
    print(f"γ = {gamma:2}, β = {beta}: {share:6.2%} of the variance is not on a straight line")

# %% [markdown]
# ## Gradient descent finds them
#
# If the identity is what lowers the loss, γ and β go there. With the loss (1/m) Σ (yᵢ − xᵢ)² for
# each feature, ∂ℓ/∂β = 2 (β − μ), and ∂ℓ/∂γ is 2 (γ − √(σ² + ε)) but for a factor that ε takes away
# from 1. With steps of 1/4 each, the distance halves every time.

# %%
gamma, beta = (tg.tensor(start, requires_grad=True) for start in (np.ones(8), np.zeros(8)))
optimizer = tg.optim.SGD([gamma, beta], lr=0.25)
data, path = tg.tensor(x), []
for _ in range(61):
    path.append((gamma.data.copy(), beta.data.copy()))
    loss = ((batch_norm(data, gamma, beta, eps) - data) ** 2).mean(axis=0).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
learned = relative_difference(batch_norm(x, *path[-1], eps), x)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
line = np.linspace(-3, 3, 200)
for gamma_drawn, colour in ((1, lesson.INK), (3, lesson.BLUE), (10, lesson.RED)):
    left.plot(line, tg.sigmoid(gamma_drawn * line), color=colour)
left.text(0.75, 0.58, "γ = 1: nearly straight", color=lesson.INK)
left.text(1.1, 0.9, "γ = 3", color=lesson.BLUE)
left.text(0.0, 1.0, "γ = 10", color=lesson.RED, ha="right")
left.set_title("sigmoid(γ x̂): γ decides how much of the bend is used")
left.set_xlabel("x̂")
ends = np.array([x[:, 0].min(), x[:, 0].max()])
for step in (0, 1, 2, 3, 60):
    g, b = (p[0] for p in path[step])
    y = g * (ends - mu[0]) / np.sqrt(var[0] + eps) + b
    right.plot(ends, y, color=lesson.RED if step == 60 else lesson.BLUE)
    right.text(ends[1] + 0.15, y[1], f"step {step}", va="center")
right.set_title("Gradient descent takes γ x̂ + β to x")
right.set_xlabel("x")
right.set_ylabel("y = γ x̂ + β")
lesson.save(figure, "09_gamma_beta_recover_the_input")

# %% [markdown]
# ## In one batch, or in all of them
#
# The identity is that of the batch whose μ and σ² went into γ and β. But γ and β stay while batches
# come and go; let them be those of all data, here 2 and 3. The mean of a batch of m normal values
# errs by a variance of σ²/m and its standard deviation by one of σ²/2m, so y is off from x by about
# σ √(1.5/m) (the root of the mean square; lesson 19 looks at it more closely). In evaluation, by
# the statistics of all data, y is x again.

# %%
misses = {}
for m in (16, 64, 256):
    batches = random.normal(3.0, 2.0, (m, 4096))  # each column is a batch
    y = 2.0 * F.batch_norm(batches, None, None, training=True, eps=0.0) + 3.0
    misses[m] = float(np.sqrt(np.mean((y - batches) ** 2))) / 2.0
    print(f"batches of {m:3}: {misses[m]:.4f} σ off; √(1.5/m) is {(1.5 / m) ** 0.5:.4f}")

mean, std, x = np.array([3.0]), np.array([2.0]), random.normal(3.0, 2.0, (1000, 1))
y = F.batch_norm(x, mean, std**2, weight=std, bias=mean, training=False, eps=0.0)
in_evaluation = relative_difference(y, x)

# %% [markdown]
# ## What was found

# %%
found = {
    **recovered,
    "γ = √σ²: relative difference of the shortfall from ε/2σ²": off_by_formula,
    **{f"sigmoid, γ = {g}, β = {b}: not on a straight line": s for (g, b), s in bends.items()},
    "learned γ and β: relative difference": learned,
    **{f"other batches, √m times how far y is off, m = {m}": m**0.5 * d for m, d in misses.items()},
    "evaluation: relative difference": in_evaluation,
}
lesson.close(found)
