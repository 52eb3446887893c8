# %% [markdown]
# # Lesson 21: batch norm couples the samples of a batch
#
# Nearly every layer treats a batch one sample at a time: output n is made of input n. Batch norm
# does not. Every x of a feature moves μ and σ², and these move every output of that feature. With
# r = 1/√(σ² + ε), differentiating x̂ᵢ = (xᵢ − μ) r by xⱼ gives three terms, the first where i = j
# only:
#
#     ∂x̂ᵢ/∂xⱼ = r ( [i = j]  −  1/m  −  x̂ᵢ x̂ⱼ/m )
#
# The second goes through μ, and the third through σ². Layer norm is the same formula over the
# features of one sample. So its Jacobian has a block for each sample and is zero between samples;
# that of batch norm is zero between features. This is why the gradient at a sample's input, in
# lesson 3, is made of the gradients at the outputs of all samples.
#
# Source: EE-559 6.4 (Fleuret, 2020); Ba, Kiros & Hinton 2016.
# Run: `python examples/21_coupled_samples.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

import tinygrad_bn as tg
from tinygrad_bn import functional as F

# %% [markdown]
# ## The whole Jacobian
#
# `tg.jacobian` makes one backward pass for each output. For a batch of m samples with C features it
# has the shape (m, C, m, C): how output feature k of sample n moves with input feature l of sample
# p.

# %%
m, C = 6, 4
x = tg.tensor(np.random.default_rng(21).normal(3.0, 2.0, (m, C)))


def batch_norm(x):
    return F.batch_norm(x, None, None, training=True, eps=0.0)


def layer_norm(x):
    return F.layer_norm(x, x.shape[1:], eps=0.0)


def batch_norm_in_evaluation(x):
    mu, var = tg.tensor(np.full(C, 3.0)), tg.tensor(np.full(C, 4.0))
    return F.batch_norm(x, mu, var, training=False, eps=0.0)


norms = {
    "batch norm": batch_norm,
    "layer norm": layer_norm,
    "batch norm in evaluation": batch_norm_in_evaluation,
}
jacobians = {name: tg.jacobian(norm, x).numpy() for name, norm in norms.items()}

# %% [markdown]
# Flattened, with the features of the first sample first, each Jacobian is a square matrix in which
# the effect of one sample on another is a block of C × C. Blue is positive and red negative; the
# shade goes by the square root of the size, so that small entries can be seen.

# %%
red_to_blue = LinearSegmentedColormap.from_list("red to blue", [lesson.RED, "white", lesson.BLUE])
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.7), layout="constrained")
for panel, (name, J) in zip(panels, jacobians.items()):
    shade = np.sign(J) * np.sqrt(np.abs(J) / np.abs(J).max())
    panel.imshow(shade.reshape(m * C, m * C), cmap=red_to_blue, vmin=-1, vmax=1)
    edges = np.arange(m + 1) * C - 0.5
    panel.vlines(edges, edges[0], edges[-1], color=lesson.MUTED, linewidth=0.5)
    panel.hlines(edges, edges[0], edges[-1], color=lesson.MUTED, linewidth=0.5)
    panel.set_xticks(edges[:-1] + C / 2, range(1, m + 1))
    panel.set_yticks(edges[:-1] + C / 2, range(1, m + 1))
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_xlabel("input of sample")
    panel.set_title(name)
panels[0].set_ylabel("output of sample")
figure.suptitle(
    "∂output/∂input: only batch norm in training couples samples", x=0.01, y=1.06, ha="left"
)
lesson.save(figure, "21_coupled_samples")

# %% [markdown]
# The share of the entries between two different samples, and between two different features, that
# are not zero; and the formula against the Jacobian.


# %%
def share_that_is_not_zero(J, between):
    """Of the entries J[n, k, p, l] with n ≠ p (between "samples") or k ≠ l ("features")."""
    n, k, p, l = np.indices(J.shape)  # noqa: E741
    return np.mean(J[n != p if between == "samples" else k != l] != 0)


def by_formula(x):
    """(m, C, m, C), from x of (m, C): a matrix (m, m) for each feature."""
    J = np.zeros((m, C, m, C))
    for k in range(C):
        r = 1 / x[:, k].std()
        x_hat = (x[:, k] - x[:, k].mean()) * r
        J[:, k, :, k] = r * (np.eye(m) - 1 / m - np.outer(x_hat, x_hat) / m)
    return J


shares = {
    f"{name}, share not zero between {between}": share_that_is_not_zero(J, between)
    for name, J in jacobians.items()
    for between in ("samples", "features")
}
off_the_formula = np.abs(by_formula(x.numpy()) - jacobians["batch norm"]).max()

# %% [markdown]
# ## What the coupling takes away
#
# For a feature the matrix is r times a projection: it maps to zero the two directions that the norm
# undoes, the shift (1, …, 1) and the stretch x̂, and leaves all others alone. So of the m directions
# in which the values of a feature can move, m − 2 are seen by whatever comes after. For m = 2 none
# is: the outputs are −1 and 1 whatever the inputs are, and no gradient passes.


# %%
def rank_of_a_feature(m):
    x = tg.tensor(np.random.default_rng(m).normal(size=(m, 1)))
    J = tg.jacobian(batch_norm, x).numpy().reshape(m, m)
    return int(np.linalg.matrix_rank(J, tol=1e-9 / x.numpy().std()))


ranks = {size: rank_of_a_feature(size) for size in (2, 3, 4, 8, 16)}
print("samples m:         ", *(f"{size:4}" for size in ranks))
print("rank of a feature: ", *(f"{rank:4}" for rank in ranks.values()))

# %% [markdown]
# ## How strong it is
#
# One companion moves a sample's output by about 1/m of what the sample itself does, but there are
# m − 1 of them. Let all inputs move at random. The output i then moves with a variance in
# proportion to Σⱼ Jᵢⱼ², and of this the companions' part, all j but i, is
#
#     (1 + x̂ᵢ²)/m     on average over the samples, as the mean of x̂² is 1: 2/m
#
# for Jᵢᵢ/r = 1 − (1 + x̂ᵢ²)/m and, J/r being a projection, Σⱼ Jᵢⱼ²/r² is the same number. A large
# batch is coupled weakly, but it is.


# %%
def part_of_the_companions(m):
    x = tg.tensor(np.random.default_rng(m).normal(size=(m, 1)))
    J = tg.jacobian(batch_norm, x).numpy().reshape(m, m)
    return np.mean(1 - np.diag(J) ** 2 / (J**2).sum(axis=1))


parts = {size: part_of_the_companions(size) for size in (4, 16, 64)}
for size, part in parts.items():
    print(f"batch of {size:2}: {part:6.2%} of the movement comes from companions")

# %% [markdown]
# ## What was found

# %%
found = {
    **shares,
    "batch norm, largest difference from the formula": off_the_formula,
    **{f"rank of a feature, {size} samples": rank for size, rank in ranks.items()},
    **{f"m times the part of the companions, m = {size}": size * p for size, p in parts.items()},
}
lesson.close(found)
