# %% [markdown]
# # Lesson 4: the term that vanishes, from μ through σ²
#
# μ acts on the loss in two ways: it is subtracted in every x̂ᵢ, and it stands inside σ². So the
# lecture's formula for its gradient has two terms (lesson 3):
#
#     ∂ℓ/∂μ = ∂ℓ/∂σ² · ∂σ²/∂μ  +  Σ ∂ℓ/∂x̂ᵢ · (−1)/√(σ² + ε)
#
# The first of them is zero, whatever the loss is and whatever the samples are:
#
#     ∂σ²/∂μ = (1/m) Σ −2(xᵢ − μ)
#            = −2 ((1/m) Σ xᵢ − (1/m) m μ)
#            = −2 (μ − μ) = 0
#
# Another way to see it: the mean square distance from a point c is
#
#     (1/m) Σ (xᵢ − c)² = σ² + (c − μ)²
#
# a parabola in c, and μ is where it is lowest. There its slope is zero. So to first order it does
# not matter where exactly the variance is centred; of all points, the mean is the one that can be
# moved for free.
#
# Source: Notes on batch normalization, in Vietnamese (2021); COMPSCI 682 session on batch norm (Su,
# 2019).
# Run: `python examples/04_term_that_vanishes.py`

# %%
import math
import random
from fractions import Fraction

import lesson
import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import diagram

# %% [markdown]
# ## In exact arithmetic
#
# The worked example of lesson 2 at a fifth of its size: x = (0.1, 0.7, 0.9, 1.5) with γ = 2 and
# ε = 0. Its standard deviation is 1/2, a fraction, so that Python's fractions carry the whole way
# back without rounding.


# %%
def exact_paths(x, gamma, g):
    """What σ² and x̂ add to ∂ℓ/∂μ, for fractions whose σ is a fraction."""
    m = len(x)
    mu = sum(x) / m
    var = sum((xi - mu) ** 2 for xi in x) / m
    sigma = Fraction(math.isqrt(var.numerator), math.isqrt(var.denominator))
    assert sigma**2 == var
    dxhat = [gamma * gi for gi in g]
    dvar = sum(di * (xi - mu) for di, xi in zip(dxhat, x)) * Fraction(-1, 2) / sigma**3
    via_var = dvar * sum(-2 * (xi - mu) for xi in x) / m
    via_xhat = sum(-di / sigma for di in dxhat)
    return {"σ²": via_var, "x̂": via_xhat}


x, g = [0.1, 0.7, 0.9, 1.5], [1.0, -2.0, 0.5, 1.5]
exact = exact_paths([Fraction(str(xi)) for xi in x], Fraction(2), [Fraction(gi) for gi in g])
print(f"exactly: {exact['σ²']} via σ², {exact['x̂']} via x̂")

# %% [markdown]
# One example is no proof, but the proof is above. Here are a thousand more: batches of 2 to 50
# random fractions.

# %%
chance = random.Random(4)


def random_fractions():
    count = chance.randint(2, 50)
    return [Fraction(chance.randint(-999, 999), chance.randint(1, 999)) for _ in range(count)]


def slope_of_variance(x):
    """∂σ²/∂μ"""
    mu = sum(x) / len(x)
    return sum(-2 * (xi - mu) for xi in x) / len(x)


not_zero = sum(slope_of_variance(random_fractions()) != 0 for _ in range(1000))
print(f"batches of fractions with ∂σ²/∂μ ≠ 0: {not_zero} of 1000")

# %% [markdown]
# ## In floating point
#
# `diagram.paths` follows the engine's gradient from each named symbol back to one that it was
# computed from, and tells what each adds. In binary 0.1, 0.7 and 0.9 are rounded, and so is μ: what
# is left is not 0, but as small as rounding.


# %%
def record(x, g, eps=0.0, centre=lambda mu: mu):
    """x, μ, σ² and the loss Σ gᵢ yᵢ of batch norm; `centre(μ)` is subtracted inside σ²."""
    x = tg.named("x", tg.tensor(np.array(x), requires_grad=True))
    mu = tg.named("μ", x.mean())
    distance = x - centre(mu)
    var = tg.named("σ²", (distance * distance).mean())
    xhat = tg.named("x̂", (x - mu) / (var + eps).sqrt())
    y = tg.named("y", 2.0 * xhat + 1.0)
    loss = tg.named("ℓ", (y * tg.named("g", tg.tensor(np.array(g)))).sum())
    return x, mu, var, loss


with tg.tracing():  # which keeps the names
    _, mu, _, loss = record(x, g)
rounded = diagram.paths(loss, to=mu)
print(f"in float64: {rounded['σ²']:.2g} via σ², {rounded['x̂']:.17g} via x̂")

# %% [markdown]
# The picture of these symbols has the local derivatives on its arrows, and in each box what every
# path adds. The dashed arrow is the one that brings nothing.

# %%
lesson.save(tg.draw(loss, "symbols", theme="light"), "04_term_that_vanishes")

# %% [markdown]
# ## How small is as small as rounding?
#
# The terms −2(xᵢ − μ) are not small, they cancel. So measure what is left as a share of what there
# would be if they did not:
#
#     |path via σ²| / (|∂ℓ/∂σ²| · (1/m) Σ 2|xᵢ − μ|)
#
# in batches of 64 samples with standard deviation 1. μ is rounded by up to 1.1e-16 |μ|, and every
# deviation inherits that. So the share should stay where it is until the mean is as large as the
# standard deviation, and then grow with it.


# %%
def share_left(mean, seed):
    numbers = np.random.default_rng(seed)
    x, g = numbers.normal(mean, 1.0, 64), numbers.normal(size=64)
    with tg.tracing():
        _, mu, var, loss = record(x, g, eps=1e-5)
    left = diagram.paths(loss, to=mu)["σ²"]
    (dvar,) = tg.grad(loss, var)
    return abs(left) / (abs(dvar.item()) * np.mean(2 * np.abs(x - x.mean())))


batches = lesson.pace(40, 200, 1000)
largest = {}
print("mean/std   median share   largest share")
for mean in (0.0, 1.0, 1e2, 1e4):
    shares = [share_left(mean, seed) for seed in range(batches)]
    largest[mean] = max(shares)
    print(f"{mean:<11g}{np.median(shares):<15.1e}{largest[mean]:.1e}")

# %% [markdown]
# Data of mean 0, and of a mean as large as the standard deviation, leave at most 5e-16. At a mean
# of ten thousand standard deviations 1e-12 is usual. In float32, which has nine digits less, that
# is no longer negligible; so `norm.fused` subtracts the mean of the deviations once more.
#
# ## May the path be left out?
#
# Take μ inside σ² for a constant, by `detach()`: the path is cut. The gradient at x stays what it
# was. But zero here is a value at a point, and the slope of a parabola at its lowest point changes
# as soon as one moves: ∂²σ²/∂μ² = 2. With ∂μ/∂xᵢ = 1/m, every second derivative ∂²ℓ/∂xᵢ∂xⱼ should
# come out wrong, and all by the same:
#
#     ∂ℓ/∂σ² · 2 · (1/m)(1/m)   =  −4.8 · 2/16  =  −0.6


# %%
def first_and_second(centre):
    """∂ℓ/∂x, and ∂²ℓ/∂x₁∂x, the first row of the Hessian"""
    x_leaf, _, _, loss = record(x, g, centre=centre)
    (first,) = tg.grad(loss, x_leaf, create_graph=True)
    (second,) = tg.grad(first[0], x_leaf)
    return first.detach().numpy(), second.numpy()


whole = first_and_second(centre=lambda mu: mu)
cut = first_and_second(centre=tg.Tensor.detach)
for name, a, b in zip(("∂ℓ/∂x", "∂²ℓ/∂x₁∂x"), whole, cut):
    print(f"{name:10} whole {a.round(3)}   cut {b.round(3)}")
first_apart, second_apart = (b - a for a, b in zip(whole, cut))

# %% [markdown]
# So it is. The term may be dropped from a formula that is evaluated, and not from a program that is
# differentiated again.
#
# ## What was found

# %%
found = {
    "path via σ² into μ, exactly": float(exact["σ²"]),
    "path via x̂ into μ, exactly": float(exact["x̂"]),
    "batches of fractions with ∂σ²/∂μ ≠ 0, of 1000": not_zero,
    "path via σ² into μ, float64": float(rounded["σ²"]),
    "path via x̂ into μ, float64": float(rounded["x̂"]),
    **{f"largest share left at mean/std {mean:g}": share for mean, share in largest.items()},
    "largest difference in ∂ℓ/∂x if the path is cut": float(np.max(np.abs(first_apart))),
    "smallest difference in ∂²ℓ/∂x₁∂x if the path is cut": float(np.min(second_apart)),
    "largest difference in ∂²ℓ/∂x₁∂x if the path is cut": float(np.max(second_apart)),
}
lesson.close(found)
