# %% [markdown]
# # Lesson 7: whatever comes in, what goes out has mean β and standard deviation γ
#
# This is the interactive session of the EE-559 lecture, in this library. Three features of quite
# different scale (standard deviations 2, 5, 10) and place (means −10, 25, 3) go through BatchNorm1d
# with β = (2, 4, 8) and γ = (1, 2, 3). The statistics of the input are only near those numbers, as
# for any thousand random samples. The output's mean is β to rounding: no randomness is left in it.
#
# Source: EE-559 6.4 (Fleuret, 2020).
# Run: `python examples/07_output_statistics.py`

# %%
import math

import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

N = 1000

# %% [markdown]
# ## The session
#
# The lecture copies β and γ into the layer's parameters; here `load_state_dict` does, and
# `strict=False` says that the running statistics are not given, and stay as they are. A new module
# is in training mode: it uses the statistics of the batch.

# %%
tg.manual_seed(7)
bn = nn.BatchNorm1d(3)
beta, gamma = tg.tensor([2.0, 4.0, 8.0]), tg.tensor([1.0, 2.0, 3.0])
bn.load_state_dict({"bias": beta, "weight": gamma}, strict=False)

x = tg.randn(N, 3)
x = x * tg.tensor([2.0, 5.0, 10.0]) + tg.tensor([-10.0, 25.0, 3.0])
y = bn(x).detach()


def std(t, correction):
    """The standard deviation of each column, its sum of squares divided by N − correction."""
    return t.var(axis=0, correction=correction).sqrt()


print("x mean        ", x.mean(axis=0))
print("x std, by N−1 ", std(x, correction=1))
print("y mean        ", y.mean(axis=0))
print("y std, by N−1 ", std(y, correction=1))
print("y std, by N   ", std(y, correction=0))

# %% [markdown]
# The same as a picture: the three features as they come in, and as they go out.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.4), layout="constrained")
for axes, values, symbol in zip(panels, (x.numpy(), y.numpy()), "xy"):
    edges = np.linspace(values.min(), values.max(), 80)
    for k, column in enumerate(values.T):
        heights, _ = np.histogram(column, edges)
        axes.stairs(
            0.6 * heights / heights.max() - k, edges, baseline=-k, fill=True, color=lesson.BLUE
        )
        text = f"mean {column.mean():.2f}, std {column.std():.2f}".replace("-", "−")
        axes.text(column.mean(), 0.65 - k, text, ha="center")
    axes.set_yticks([0, -1, -2], [f"{symbol}₁", f"{symbol}₂", f"{symbol}₃"])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-2, 1)
    axes.spines["left"].set_visible(False)
panels[0].set_title("In: any mean, any std")
panels[1].set_title("Out: mean β = 2, 4, 8, std γ = 1, 2, 3")
lesson.save(figure, "07_output_statistics")

# %% [markdown]
# ## Why does it print 1.0005?
#
# The lecture's session prints standard deviations of 1.0005, 2.0010 and 3.0015, and so does this
# one. Why not 1, 2 and 3? There are two: batch norm divides the sum of squared deviations by N, and
# PyTorch's `std` divides it by N − 1. What has standard deviation γ by the first has γ √(N/(N−1))
# by the second, and √(1000/999) = 1.0005.

# %%
mean_error = float(np.max(np.abs(y.mean(axis=0).numpy() - beta.numpy())))
correction = math.sqrt(N / (N - 1))
ratio = np.divide(std(y, correction=1).tolist(), gamma.tolist())
apart_float32 = float(np.max(np.abs(ratio - correction)))

# %% [markdown]
# A second reason is hundreds of times smaller: ε, added to the variance under the root. In full,
#
#     std of y (by N − 1)  =  γ · √(N / (N − 1)) · √(σ² / (σ² + ε)),    σ² the variance of x (by N)
#
# With ε = 1e-5 and σ² ≈ 4 the last factor is about 1 − ε/(2σ²) = 1 − 1.25e-6. In float32 that is
# ten units in the last place, hard to tell from rounding; so the formula is checked in float64 as
# well. The function `F.batch_norm` takes the parameters as arguments.

# %%
x64, gamma64, beta64 = (t.astype(np.float64) for t in (x, gamma, beta))
y64 = F.batch_norm(x64, None, None, gamma64, beta64, training=True, eps=bn.eps)
ratio64 = std(y64, correction=1).numpy() / gamma64.numpy()
var64 = x64.var(axis=0).numpy()
whole_formula = correction * np.sqrt(var64 / (var64 + bn.eps))

# %% [markdown]
# ## What was found

# %%
found = {
    "√(1000/999) − 1": correction - 1,
    **{f"std of y{k} / γ{k} − 1, float32": float(v) - 1 for k, v in enumerate(ratio, start=1)},
    "largest difference, mean of y and β, float32": mean_error,
    "largest difference, std of y / γ and √(1000/999), float32": apart_float32,
    "largest difference, std of y / γ and √(1000/999), float64": float(
        np.max(np.abs(ratio64 - correction))
    ),
    "largest difference, std of y / γ and the formula with ε, float64": float(
        np.max(np.abs(ratio64 - whole_formula))
    ),
}
lesson.close(found)
