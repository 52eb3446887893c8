# %% [markdown]
# # Lesson 17: batch norm does not see the scale of the weights
#
# If the weights W of a layer become a times as large, a > 0, then so do its outputs Wu, their μ and
# their σ, and a cancels in the normalization:
#
#     BN(aWu) = BN(Wu)
#     ∂BN(aWu)/∂u = ∂BN(Wu)/∂u
#     ∂BN(aWu)/∂(aW) = (1/a) ∂BN(Wu)/∂W
#
# The second says that the scale of a layer does not matter to the gradients that go through it. The
# third says that larger weights get smaller gradients, and so, the paper says, batch norm
# stabilizes the growth of the weights. (No bias: batch norm takes it away, lesson 15.)
#
# Source: Ioffe & Szegedy 2015, section 3.3, and reading notes on it.
# Run: `python examples/17_scale_invariance.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn
from tinygrad_bn.train import digits

# %% [markdown]
# ## The three equations
#
# With whole Jacobians, for 6 samples of 4 inputs and a layer of 3 units, and for an a from a
# thousandth to a thousand. By a power of two no digit is lost: there they hold to the last bit.

# %%
random = np.random.default_rng(17)
W, u = tg.tensor(random.normal(size=(3, 4))), tg.tensor(random.normal(size=(6, 4)))
scales = [1e-3, 0.1, 2**-3, 3.0, 2**5, 1e3]


def normalized(W, u, eps=0.0):
    return F.batch_norm(F.linear(u, W), None, None, training=True, eps=eps)


def output_and_jacobians(a, eps=0.0):
    """BN(aWu), its Jacobian by aW, and that by u."""
    by_W, by_u = tg.jacobian(lambda W, u: normalized(W, u, eps), (a * W, u))
    return [t.numpy() for t in (normalized(a * W, u, eps), by_W, by_u)]


def relative_difference(x, y):
    return float(np.abs(x - y).max() / np.abs(y).max())


y, by_W, by_u = output_and_jacobians(1.0)
names = ("output", "Jacobian by u", "a times the Jacobian by aW")
differences = {}
print(f"relative difference from a = 1:  {names[0]:12}{names[1]:18}{names[2]}")
for a in scales:
    y_a, by_W_a, by_u_a = output_and_jacobians(a)
    differences[a] = [
        relative_difference(y_a, y),
        relative_difference(by_u_a, by_u),
        relative_difference(a * by_W_a, by_W),
    ]
    print("{:31g}  {:<12.1e}{:<18.1e}{:.1e}".format(a, *differences[a]))

# %% [markdown]
# ## ε sets an end to it
#
# ε = 10⁻⁵ does not scale with W. Where the variance a²σ² comes near to it, the outputs shrink and
# the equations no longer hold.

# %%
many = np.geomspace(1e-5, 1e3, 41)
sizes = {
    eps: np.array([[np.linalg.norm(J) for J in output_and_jacobians(a, eps)] for a in many])
    for eps in (0.0, 1e-5)
}
sizes = {eps: s / [np.linalg.norm(t) for t in (y, by_W, by_u)] for eps, s in sizes.items()}
slope = np.polyfit(np.log(many), np.log(sizes[0.0][:, 1]), 1)[0]

# %% [markdown]
# ## Weights that only grow
#
# Differentiate BN(aWu) by a, at a = 1: it is 0. So no gradient has a part along the weights of
# its unit, ⟨w, ∂ℓ/∂w⟩ = 0, and a step of gradient descent stands at a right angle to them. By
# Pythagoras
#
#     |w − η ∂ℓ/∂w|² = |w|² + η² |∂ℓ/∂w|²
#
# so that weights before batch norm get longer with every step, whatever the loss is (by plain
# gradient descent: weight decay and momentum are another matter). The gradient falls as 1/|w|, so
# short weights grow fast, and long ones hardly at all. Here is a layer of 50 units on the digits,
# started at three scales.

# %%
(images, labels), _ = digits(seed=0)
images = images.astype(np.float64)
seeds, steps, lr = range(lesson.pace(2, 5, 20)), lesson.pace(60, 400, 2000), 0.2


def train(scale, seed):
    """The length of the weights before each step, and the loss of the last quarter. Of all steps
    and units, the largest: cosine of w and ∂ℓ/∂w; relative error of Pythagoras."""
    tg.manual_seed(seed)
    random = np.random.default_rng(seed)
    layer = nn.Linear(64, 50, bias=False, dtype=np.float64)
    last = nn.Linear(50, 10, dtype=np.float64)
    layer.weight.data = scale * layer.weight.data
    optimizer = tg.optim.SGD([layer.weight, *last.parameters()], lr=lr)
    lengths, losses, cosine, off = [], [], 0.0, 0.0
    for _ in range(steps):
        rows = random.integers(0, len(images), 64)
        hidden = F.relu(normalized(layer.weight, tg.tensor(images[rows])))
        loss = F.cross_entropy(last(hidden), tg.tensor(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        w, g = layer.weight.data.copy(), layer.weight.grad.data
        optimizer.step()
        squares = [(v * v).sum(axis=1) for v in (w, g, layer.weight.data)]
        lengths.append(np.sqrt(squares[0].sum()))
        losses.append(loss.item())
        cosine = max(cosine, np.abs((w * g).sum(axis=1) / np.sqrt(squares[0] * squares[1])).max())
        by_pythagoras = squares[0] + lr**2 * squares[1]
        off = max(off, np.abs(squares[2] / by_pythagoras - 1).max())
    return np.array(lengths), np.mean(losses[-steps // 4 :]), cosine, off


runs = {scale: [train(scale, seed) for seed in seeds] for scale in (0.1, 1.0, 10.0)}
trained = {}
print(f"{len(seeds)} seeds   weights longer by a factor of   loss of the last quarter, mean ± std")
for scale, results in runs.items():
    lengths, losses = np.array([r[0] for r in results]), np.array([r[1] for r in results])
    growth = lengths[:, -1] / lengths[:, 0]
    print(f"× {scale:<10g}{growth.min():8.5f} to {growth.max():.5f}", end="")
    print(f"{losses.mean():24.3f} ± {losses.std():.3f}")
    trained |= {
        f"started × {scale:g}: smallest growth in a step": float(np.diff(lengths).min()),
        f"started × {scale:g}: growth, smallest factor": float(growth.min()),
        f"started × {scale:g}: growth, largest factor": float(growth.max()),
        f"started × {scale:g}: loss of the last quarter, mean over seeds": float(losses.mean()),
        f"started × {scale:g}: loss of the last quarter, std": float(losses.std()),
    }

# %% [markdown]
# The claim holds: the shortest weights grow most, and most of that in one step; the longest stay as
# they are. But it has another side. Only the direction of the weights counts, and a step of η turns
# weights of length |w| by an angle in proportion to η/|w|². So long weights learn slowly: a start
# that is too large acts as a learning rate that is too small.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for eps, style in ((0.0, "-"), (1e-5, "--")):
    left.loglog(many, sizes[eps][:, 1], style, color=lesson.RED)
    left.loglog(many, sizes[eps][:, 2], style, color=lesson.BLUE)
left.text(0.3, 10, "∂y/∂(aW), as 1/a", color=lesson.RED)
left.text(2, 1.8, "∂y/∂u, the same", color=lesson.BLUE)
left.text(1e-5, 20, "dashed: ε = 10⁻⁵", color=lesson.MUTED)
left.set_title("Sizes of the Jacobians, against those for a = 1")
left.set_xticks([1e-4, 1e-2, 1, 1e2])
left.minorticks_off()
left.set_xlabel("a")
for scale, results in runs.items():
    for lengths, *_ in results:
        right.semilogy(lengths, color=lesson.BLUE, linewidth=0.8)
    height = lengths[-1] * (0.7 if scale == 0.1 else 1.15)
    right.text(steps, height, f"started × {scale:g}", color=lesson.BLUE, ha="right")
right.set_title("Length of the weights: the short grow, the long stay")
right.set_ylim(0.2, 100)
right.set_xlabel("step")
lesson.save(figure, "17_scale_invariance")

# %% [markdown]
# ## What was found

# %%
found = {
    **{
        f"{name}, a = {a:g}: relative difference": difference
        for a in scales
        for name, difference in zip(names, differences[a])
    },
    "size of the Jacobian by aW against a, log-log slope": float(slope),
    "ε = 1e-5, a = 1e-5: size of the output, relative": float(sizes[1e-5][0, 0]),
    "largest cosine between weights and gradient": float(
        max(r[2] for rs in runs.values() for r in rs)
    ),
    "largest relative error of Pythagoras": float(max(r[3] for rs in runs.values() for r in rs)),
    **trained,
}
lesson.close(found)
