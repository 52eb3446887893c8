# %% [markdown]
# # Lesson 15: a step that ignores how the mean depends on the bias
#
# Batch norm passes gradients through μ and σ². Why not take them for constants, which would be
# simpler? The paper answers with an example. A layer adds a bias b to its input, and subtracts the
# mean of what comes out:
#
#     x = u + b        x̂ = x − E[x]
#
# b cancels: x̂ = u − E[u], whatever b is. So the loss does not depend on b, and ∂ℓ/∂b = 0. Now let
# a gradient step take E[x] for a constant. In its eyes x̂ moves as b does, ∂x̂/∂b = 1, and
#
#     "∂ℓ/∂b" = Σ ∂ℓ/∂x̂ᵢ        in place of        ∂ℓ/∂b = Σ ∂ℓ/∂x̂ᵢ (1 − 1) = 0
#
# That is how the paper comes to Δb ∝ −∂ℓ/∂x̂: it is the chain rule, with one of two paths left out.
# The step changes b, and with it the mean, by the same Δb, as it is one number for all samples. The
# two cancel, the output and the loss are what they were, and so the next step is the same again.
# There is no end to it.
#
# Source: Cross Validated, a question on the paper's example (2016); Ioffe & Szegedy 2015,
# section 2.
# Run: `python examples/15_ignoring_the_mean.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.train import digits

# %% [markdown]
# ## Two paths
#
# `detach()` hands a value on without its history: that is to ignore what it depends on. The loss
# holds x̂ against targets whose mean is 2, which x̂, of mean 0, cannot reach.

# %%
u, target = tg.tensor(np.array([0.5, 3.5, 4.5, 7.5])), tg.tensor(np.array([0.0, 1.0, 3.0, 4.0]))


def forward(b, ignoring):
    x = tg.named("x", u + b)
    mean = x.mean().detach() if ignoring else x.mean()
    x_hat = tg.named("x̂", x - tg.named("μ", mean))
    return x_hat, ((x_hat - target) ** 2).mean(), x


for ignoring in (False, True):
    with tg.tracing():
        _, loss, x = forward(tg.tensor(np.array(0.0), requires_grad=True), ignoring)
    print("μ detached:" if ignoring else "whole graph:", "∂ℓ/∂x in the paths")
    for name, part in tg.diagram.paths(loss, to=x).items():
        print(f"    via {name}: {part}")

# %% [markdown]
# On the whole graph the two paths into x add up to (−0.75, 0.25, −0.25, 0.75), and over the samples
# to 0, which is ∂ℓ/∂b. With the mean detached one path is gone, and the rest adds up to −4: in each
# step b grows by 4 times the learning rate.

# %%
steps, lr = 100, 0.1


def descend(ignoring):
    """b, the first output and the loss before each step, and the gradient that the step took."""
    b, seen = tg.tensor(np.array(0.0), requires_grad=True), []
    for _ in range(steps):
        x_hat, loss, _ = forward(b, ignoring)
        (gradient,) = tg.grad(loss, b)
        seen.append((b.item(), x_hat[0].item(), loss.item(), gradient.item()))
        b.data = b.data - lr * gradient.data
    return np.transpose(seen)


ignored, whole = descend(ignoring=True), descend(ignoring=False)
for name, (b, output, loss, gradient) in (("whole graph", whole), ("μ detached", ignored)):
    print(f"{name:12} b {b[0]:.2f} → {b[-1]:.2f}, gradient {gradient[-1]:.2f}, ", end="")
    print(f"output {output[0]:.2f} → {output[-1]:.2f}, loss {loss[0]:.4f} → {loss[-1]:.4f}")

# %% [markdown]
# ## In a network
#
# The example is one number. The paper reports that a model in fact blows up so, in particular if
# the normalization also scales. Here is a small one: the digits, two hidden layers of 50 sigmoids,
# each input of a sigmoid normalized, without γ and β as in the example. μ and σ² are detached, or
# they are not.


# %%
def normalize(x, ignoring):
    mu, var = x.mean(axis=0), x.var(axis=0)
    if ignoring:
        mu, var = mu.detach(), var.detach()
    return (x - mu) / tg.sqrt(var + 1e-5)


(images, labels), _ = digits(seed=0)


def train(ignoring, lr, steps, seed):
    """The loss of each step; the norm of all weights that a normalization follows, at the end."""
    tg.manual_seed(seed)
    random = np.random.default_rng(seed)
    first, second, last = layers = nn.Linear(64, 50), nn.Linear(50, 50), nn.Linear(50, 10)
    optimizer = tg.optim.SGD([p for layer in layers for p in layer.parameters()], lr=lr)
    losses = []
    for _ in range(steps):
        rows = random.integers(0, len(images), 64)
        hidden = F.sigmoid(normalize(first(tg.tensor(images[rows])), ignoring))
        hidden = F.sigmoid(normalize(second(hidden), ignoring))
        loss = F.cross_entropy(last(hidden), tg.tensor(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    weights = np.concatenate([layer.weight.data.ravel() for layer in (first, second)])
    return losses, np.linalg.norm(weights)


seeds, rates = range(lesson.pace(2, 5, 20)), (0.5, 2.0)
train_steps = lesson.pace(150, 500, 2000)
names = {False: "whole graph", True: "μ and σ² detached"}
print(f"mean ± std over {len(seeds)} seeds     loss of the last 50 steps   norm of the weights")
curves, in_network = {}, {}
for rate in rates:
    for ignoring, name in names.items():
        losses, norms = map(np.array, zip(*(train(ignoring, rate, train_steps, s) for s in seeds)))
        curves[rate, ignoring], ends = losses, losses[:, -50:].mean(axis=1)
        what = f"{name}, learning rate {rate}"
        print(f"{what:40}{ends.mean():9.3f} ± {ends.std():.3f}", end="")
        print(f"{norms.mean():15.1f} ± {norms.std():.1f}")
        in_network[f"{what}: loss at the end, lowest"] = ends.min()
        in_network[f"{what}: loss at the end, mean over seeds"] = ends.mean()
        in_network[f"{what}: loss at the end, highest"] = ends.max()
        in_network[f"{what}: norm of the weights, mean over seeds"] = norms.mean()

# %% [markdown]
# At either learning rate the weights, whose length does not matter to a normalized output, end
# several times as long as on the whole graph, and the loss ends higher. But at the lower one the
# network learns all the same. It takes the higher one for the model to blow up: there its loss ends
# above that of guessing, log 10 = 2.3, while the whole graph does better than at the lower.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
b, output, loss, _ = ignored
left.plot(b, color=lesson.RED)
left.text(59, b[60], "b, μ detached", color=lesson.RED, ha="right")
left.plot(loss, color=lesson.INK)
left.text(steps, loss[-1] + 0.8, "loss, either way", color=lesson.INK, ha="right")
left.plot(whole[0], color=lesson.BLUE)
left.text(steps, 0.8, "b, whole graph", color=lesson.BLUE, ha="right")
left.plot(output, color=lesson.MUTED)
left.text(steps, output[-1] + 0.8, "output x̂₁, either way", color=lesson.MUTED, ha="right")
left.set_title("The example: b grows, and nothing comes of it")
left.set_xlabel("step")
for ignoring, colour in ((False, lesson.BLUE), (True, lesson.RED)):
    means = curves[2.0, ignoring].reshape(len(seeds), -1, 10).mean(axis=2)
    right.plot(np.arange(5, train_steps, 10), means.T, color=colour, linewidth=0.8)
    above = 1.2 * means[:, -means.shape[1] // 4 :].max()
    right.text(train_steps, above, names[ignoring], color=colour, ha="right")
right.axhline(np.log(10), color=lesson.MUTED, linestyle=":")
right.text(train_steps, np.log(10) * 1.15, "guessing", color=lesson.MUTED, ha="right")
right.set_yscale("log")
right.set_ylim(top=20)
right.set_title("A network, learning rate 2: loss of every seed")
right.set_xlabel("step")
lesson.save(figure, "15_ignoring_the_mean")

# %% [markdown]
# Batch norm has a β for what b cannot do: it stands after the subtraction, so that nothing takes it
# away again. A bias before batch norm is of no use, and may be left out.
#
# ## What was found

# %%
found = {
    "μ detached: growth of b in each step": float(np.diff(ignored[0]).mean()),
    "μ detached: change of the output, largest": float(np.ptp(ignored[1])),
    "μ detached: change of the loss, largest": float(np.ptp(ignored[2])),
    "whole graph: gradient at b, largest": float(np.abs(whole[3]).max()),
    "whole graph: change of b": float(np.ptp(whole[0])),
    **{name: float(value) for name, value in in_network.items()},
}
lesson.close(found)
