# %% [markdown]
# # Lesson 6: four steps to design a layer
#
# The lecture ends with a recipe for new layers:
#
#     1. brainstorm an operation that might be useful
#     2. design its forward pass
#     3. derive its backward pass               no longer necessary with most libraries
#     4. optimize the computation of it         worth it only after first good results
#
# Here is a layer made by it: batch norm that does not square. It is little used, and not new: for
# p = 1 it was proposed by Wu et al. 2018 ("L1-norm batch normalization") and by Hoffer et al. 2018
# ("Norm matters").
#
# Source: COMPSCI 682 session on batch norm (Su, 2019), last slide.
# Run: `python examples/06_design_a_layer.py`

# %%
import lesson
import matplotlib.pyplot as plt
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, train

EPS = 1e-5
P = (1, 2, 4)

# %% [markdown]
# ## Step 1: an idea
#
# Batch norm measures how wide a feature is by squares: σ² = mean of dᵢ², with dᵢ = xᵢ − μ. Squares
# use up the range of floating point twice as fast. Float16 ends at 65504, and 256² is more than
# that; at its other end 0.0002² is less than its smallest number. What if the width were the mean
# of |dᵢ|? There is nothing to overflow, and no root to take.
#
# ## Step 2: the forward pass
#
# Both are members of one family, with a number p ≥ 1:
#
#     μ  = (1/m) Σ xᵢ
#     σ  = ((1/m) Σ |xᵢ − μ|ᵖ + ε)^(1/p)      p = 2 is batch norm, p = 1 the idea
#     x̂ᵢ = (xᵢ − μ) / σ
#     yᵢ = γ x̂ᵢ + β
#
# An op called on arrays computes, called on Tensors it also records. So these lines serve both.


# %%
def statistics(x, p, eps):
    """μ and σ over the samples (the first axis), which stays with length 1."""
    mu = tg.named("μ", tg.mean(x, axis=0, keepdims=True))
    width = tg.mean(tg.abs(x - mu) ** p, axis=0, keepdims=True)
    return mu, tg.named("σ", (width + eps) ** (1 / p))


def composed(x, gamma, beta, *, p, eps):
    mu, sigma = statistics(x, p, eps)
    return gamma * ((x - mu) / sigma) + beta


# %% [markdown]
# Where p = 2 this must be the batch norm of the library.

# %%
random = np.random.default_rng(6)
batch, gamma, beta = random.normal(3.0, 2.0, (64, 5)), random.normal(size=5), random.normal(size=5)
ours = composed(batch, gamma, beta, p=2, eps=EPS)
theirs = F.batch_norm(batch, None, None, gamma, beta, training=True, eps=EPS)
from_batch_norm = float(np.max(np.abs(ours - theirs)))
print(f"p = 2 and batch norm: largest difference {from_batch_norm:.1e}")

# %% [markdown]
# ## Step 3: the derivative
#
# There is nothing to do. Every op above has its own rule, and the chain rule does the rest.
# `tg.explain` writes out what the engine derives; on the worked example of lesson 2, whose mean
# absolute deviation is 2:

# %%
with tg.tracing():
    x = tg.named("x", tg.tensor(np.array([0.5, 3.5, 4.5, 7.5]), requires_grad=True))
    y = tg.named("y", composed(x, 2.0, 1.0, p=1, eps=0.0))
    loss = tg.named("ℓ", (y * tg.named("w", tg.tensor(np.array([1.0, -2.0, 0.5, 1.5])))).sum())
print(tg.explain(loss))

# %% [markdown]
# `gradcheck` moves every input a little and looks what the outputs do; `gradgradcheck` does that to
# the gradients. They return True, or they raise.


# %%
def checked(norm):
    """Whether the first and second derivatives of a norm stand up to finite differences."""
    arguments = [
        tg.tensor(v, requires_grad=True)
        for v in (random.normal(size=(6, 2)), random.normal(size=2), random.normal(size=2))
    ]
    of_p = [lambda x, gamma, beta, p=p: norm(x, gamma, beta, p=p, eps=EPS) for p in P]
    return all(
        tg.check.gradcheck(f, arguments) and tg.check.gradgradcheck(f, arguments) for f in of_p
    )


composed_is_right = checked(composed)

# %% [markdown]
# ## First results: the range
#
# Samples of all sizes in float16, normalized in float16 and, for comparison, in float64: for which
# standard deviations is x̂ within 1 %?


# %%
def error_in_float16(p, scale):
    x = (scale * random.normal(size=(256, 1))).astype(np.float16)
    xhat, exact = (composed(v, 1.0, 0.0, p=p, eps=0.0) for v in (x, x.astype(np.float64)))
    return np.max(np.abs(xhat - exact)) / np.max(np.abs(exact))


def range_in_float16(p):
    """The standard deviations at which it fails first, from 1 downwards and upwards."""
    scales = 10 ** np.arange(-8.0, 5.0, lesson.pace(0.1, 0.05, 0.01))
    with np.errstate(all="ignore"):  # σ may be 0 or infinite: that is what is looked for
        fails = np.array([not error_in_float16(p, scale) <= 0.01 for scale in scales])  # NaN fails
    return scales[fails & (scales < 1)].max(), scales[fails & (scales > 1)].min()


ranges = {p: range_in_float16(p) for p in P}
for p, (low, high) in ranges.items():
    print(f"p = {p}: from {low:.1g} to {high:.1g}, {np.log10(high / low):.1f} powers of ten")

# %% [markdown]
# The library does not rely on that: like PyTorch, it computes the statistics of float16 in float32.
#
# ## First results: does it train?
#
# A layer is a Module with γ and β, and running statistics for evaluation. It stands twice in a
# small network that learns the handwritten digits for five epochs.


# %%
class LpNorm(nn.Module):
    def __init__(self, features, p):
        super().__init__()
        self.p = p
        self.weight = nn.Parameter(tg.ones(features))
        self.bias = nn.Parameter(tg.zeros(features))
        self.register_buffer("mu", tg.zeros(1, features))
        self.register_buffer("sigma", tg.ones(1, features))

    def forward(self, x):
        mu, sigma = self.mu, self.sigma
        if self.training:
            mu, sigma = statistics(x, self.p, EPS)
            self.mu = 0.9 * self.mu + 0.1 * mu.detach()
            self.sigma = 0.9 * self.sigma + 0.1 * sigma.detach()
        return self.weight * ((x - mu) / sigma) + self.bias


def error_on_digits(norms, seed):
    """The share of test images that are named wrongly, in %; `norms` makes a layer's norm."""
    tg.manual_seed(seed)
    hidden = [[nn.Linear(64, 64), *norms(64), nn.ReLU()] for _ in range(2)]
    net = nn.Sequential(*hidden[0], *hidden[1], nn.Linear(64, 10))
    (images, labels), held_out = train.digits(seed)
    train.fit(net, images, labels, epochs=5, batch_size=64, lr=0.1, momentum=0.9, seed=seed)
    return 100 * train.error_rate(net, *held_out)


seeds = range(lesson.pace(3, 10, 40))
candidates = {"no norm": lambda features: []}
candidates |= {f"p = {p}": lambda features, p=p: [LpNorm(features, p)] for p in P}
errors = {n: [error_on_digits(norms, seed) for seed in seeds] for n, norms in candidates.items()}
for name, values in errors.items():
    print(f"{name}: {np.mean(values):.1f} % ± {np.std(values):.1f}")
gap = np.subtract(errors["p = 1"], errors["p = 2"])
print(f"p = 1 minus p = 2, seed by seed: {gap.mean():.1f} ± {gap.std():.1f} points")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3), layout="constrained")
for row, ends in enumerate(ranges.values()):
    left.plot(ends, [row, row], color=lesson.BLUE, linewidth=7)
left.set_xscale("log")
left.set_xlabel("standard deviation of x")
left.set_title("What float16 normalizes within 1 %")
for row, values in enumerate(errors.values()):
    jitter = row + np.linspace(-0.15, 0.15, len(values))
    right.plot(values, jitter, "o", color=lesson.BLUE, markersize=4, alpha=0.5)
    right.plot(np.mean(values), row, "|", color=lesson.RED, markersize=22, markeredgewidth=2)
right.set_xlim(left=0)
right.set_xlabel("error on the digits in %: seeds, and their mean")
right.set_title("Any p trains better than no norm")
for axes, names in ((left, list(errors)[1:]), (right, errors)):
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
lesson.save(figure, "06_design_a_layer")

# %% [markdown]
# p = 1 works over ten powers of ten, p = 2 over five and p = 4 over two and a half: p-th powers
# leave a p-th part of them. And all three train about as well as each other: the difference between
# p = 1 and p = 2, which is batch norm, varies more from seed to seed than it is large (which does
# not say that it is none), while the network without norm has more than twice the error. That is
# good enough to go on.
#
# ## Step 4: optimize
#
# What was recorded is eleven ops, and three arrays of the size of x are kept for the way back. One
# op will do, whose gradient is derived on paper after all. As in lesson 5, with
#
#     sᵢ = sign(x̂ᵢ) |x̂ᵢ|ᵖ⁻¹
#
# the derivative of σᵖ = mean(|d|ᵖ) + ε is p σᵖ⁻¹ ∂σ/∂dᵢ = (p/m) |dᵢ|ᵖ⁻¹ sign(dᵢ), so that
#
#     ∂σ/∂dᵢ = sᵢ/m        ∂σ/∂μ = −mean(s)        ∂σ/∂xᵢ = (sᵢ − mean(s))/m
#
# and the three ways into xᵢ come together as
#
#     ∂ℓ/∂xᵢ = γ/σ · (gᵢ − mean(g) − (sᵢ − mean(s)) mean(g x̂))
#
# For p = 2, sᵢ is x̂ᵢ and its mean is 0: lesson 5. For other p the term through σ into μ, which
# vanished in lesson 4, is there: where three samples of four lie below the mean, p = 1 has mean(s)
# = −1/2. The mean is the point from which the squares are least, not the absolute values.
#
# The op takes the composed formula for its forward pass: on arrays it records nothing. Its rule
# computes the statistics once more. So nothing has to be kept but x and γ, and since the rule is
# made of ops, and takes nothing for a constant, it can be differentiated as often as one likes.


# %%
def lp_norm_grads(g, _y, x, gamma, _beta, *, needs, p, eps):
    """∂ℓ/∂x, ∂ℓ/∂γ, ∂ℓ/∂β; the engine sums each over the axes along which it was broadcast."""

    def mean(values):
        return tg.mean(values, axis=0, keepdims=True)

    mu, sigma = statistics(x, p, eps)
    xhat = (x - mu) / sigma
    s = tg.sign(xhat) * tg.abs(xhat) ** (p - 1)
    dxhat = gamma * g
    dx = (dxhat - mean(dxhat) - (s - mean(s)) * mean(dxhat * xhat)) / sigma
    return dx, g * xhat, g


@tg.op("Lp norm", joint=lp_norm_grads)
def lp_norm(xp, x, gamma, beta, *, p, eps):
    return composed(x, gamma, beta, p=p, eps=eps)


op_is_right = checked(lp_norm)

# %% [markdown]
# And against the composed one, to order 4, on 1024 samples of 32 features.

# %%
arguments = [
    tg.tensor(v, requires_grad=True)
    for v in (random.normal(3.0, 2.0, (1024, 32)), random.normal(size=32), random.normal(size=32))
]
results = {}
for p in P:
    print(f"p = {p}")
    results[p] = tg.check.compare(
        lambda *arguments, p=p: composed(*arguments, p=p, eps=EPS),
        lambda *arguments, p=p: lp_norm(*arguments, p=p, eps=EPS),
        *arguments,
        order=4,
    )

# %% [markdown]
# What was optimized is memory: beyond its arguments the op keeps nothing. Not time: NumPy computes
# the statistics twice, and s besides. For p = 1 and 2 the op takes about as long as the composed
# one; for p = 4 that depends on how fast NumPy raises to the third power, and it has been seen to
# take 2.3 times as long. The next step would be a compiled kernel: that is how `norm.fused` is the
# faster one in lesson 5.
#
# ## What was found

# %%
found = {
    "largest difference from batch norm at p = 2": from_batch_norm,
    "composed passes gradcheck and gradgradcheck": int(composed_is_right),
    "the op passes gradcheck and gradgradcheck": int(op_is_right),
    **{f"float16 fails below a std of, p = {p}": float(ranges[p][0]) for p in P},
    **{f"float16 fails above a std of, p = {p}": float(ranges[p][1]) for p in P},
    **{f"error on digits in %, {n}, mean over seeds": float(np.mean(v)) for n, v in errors.items()},
    **{f"error on digits in %, {n}, std over seeds": float(np.std(v)) for n, v in errors.items()},
    "error of p = 1 − error of p = 2, mean over seeds": float(gap.mean()),
    "error of p = 1 − error of p = 2, std over seeds": float(gap.std()),
    **{
        f"largest difference of op and composed, order {k}": max(
            result.differences[k] for result in results.values()
        )
        for k in range(5)
    },
    "ops recorded, composed": results[1].ops[0],
    "ops recorded, the op": results[1].ops[1],
    "bytes of x": arguments[0].data.nbytes,
    "bytes held, composed": results[1].held[0],
    "bytes held, the op": results[1].held[1],
    **{f"time of composed / time of the op, p = {p}": results[p].ratio for p in P},
}
lesson.close(found)
