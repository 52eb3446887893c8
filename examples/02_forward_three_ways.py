"""Lesson 2: the forward pass of batch norm, computed three ways.

Batch norm takes the m values x₁ … x_m of one feature over a mini-batch and does four things:

    μ   = (1/m) Σ xᵢ               the mean of the batch
    σ²  = (1/m) Σ (xᵢ − μ)²        its variance; divided by m, not by m − 1
    x̂ᵢ  = (xᵢ − μ) / √(σ² + ε)     normalized: mean 0, variance 1 (up to ε)
    yᵢ  = γ x̂ᵢ + β                 scaled and shifted by two numbers that are learned

The worked example, which later lessons differentiate, is x = (0.5, 3.5, 4.5, 7.5) with γ = 2,
β = 1 and ε = 0. It is chosen to come out even: μ = 4, σ² = 6.25, √σ² = 2.5. A loss is put on top,
ℓ = Σ wᵢ yᵢ with w = (1, −2, 0.5, 1.5), so that there is one number to differentiate.

The three ways are plain arithmetic, Scalars (a graph with a node for each operation on each
sample) and Tensors (a graph with a node for each operation on the whole batch, or one node for
all of it). They must agree; how far they may differ is a matter of rounding only.

Source: COMPSCI 682 session on batch norm (Su, 2019); Ioffe & Szegedy 2015, Algorithm 1.
Run: python examples/02_forward_three_ways.py
"""

import math

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.norm import composed, fused


def by_hand(x, gamma, beta, eps, w):
    """Floats and Σ over i, with nothing recorded."""
    m = len(x)
    mu = sum(x) / m
    var = sum((xi - mu) ** 2 for xi in x) / m
    xhat = [(xi - mu) / math.sqrt(var + eps) for xi in x]
    y = [gamma * xi + beta for xi in xhat]
    return {"μ": mu, "σ²": var, "y": y, "ℓ": sum(wi * yi for wi, yi in zip(w, y))}


def by_scalars(x, gamma, beta, eps, w):
    """The same lines on Scalars. Up to y, the samples meet in two sums only: for μ and for σ²."""
    m = len(x)
    x = [tg.Scalar(xi) for xi in x]
    gamma, beta = tg.Scalar(gamma), tg.Scalar(beta)
    mu = tg.Scalar.sum(x) / m
    var = tg.Scalar.sum((xi - mu) ** 2 for xi in x) / m
    xhat = [(xi - mu) / (var + eps).sqrt() for xi in x]
    y = [gamma * xi + beta for xi in xhat]
    loss = tg.Scalar.sum(wi * yi for wi, yi in zip(w, y))
    return {"μ": mu.data, "σ²": var.data, "y": [yi.data for yi in y], "ℓ": loss.data}


def by_tensors(norm, x, gamma, beta, eps, w):
    """`norm` is the module `composed` (nine primitive ops) or `fused` (one op). Both have the
    same functions, and both return the statistics beside y."""
    x, gamma, beta = (tg.tensor(v, dtype=np.float64, requires_grad=True) for v in (x, gamma, beta))
    y, mu, var = norm.normalize(x, gamma, beta, axes=(0,), eps=eps)
    loss = (y * np.array(w)).sum()
    # The statistics keep the reduced axis, with length 1; so they have one element.
    return {"μ": mu.item(), "σ²": var.item(), "y": y.tolist(), "ℓ": loss.item()}


def largest_difference(results):
    """How far any way is from the first, over all of μ, σ², y and ℓ."""
    first, *others = ([*r["y"], r["μ"], r["σ²"], r["ℓ"]] for r in results)
    return max(float(np.max(np.abs(np.subtract(first, other)))) for other in others)


def compute_all_ways(*example):
    return {
        "by hand": by_hand(*example),
        "Scalars": by_scalars(*example),
        "Tensors, composed": by_tensors(composed, *example),
        "Tensors, fused": by_tensors(fused, *example),
    }


def main():
    ways = compute_all_ways([0.5, 3.5, 4.5, 7.5], 2.0, 1.0, 0.0, [1.0, -2.0, 0.5, 1.5])
    print(f"{'':18}{'μ':>4}{'σ²':>7}{'ℓ':>7}   y")
    for way, r in ways.items():
        y = "  ".join(f"{v:.4g}" for v in r["y"])
        print(f"{way:18}{r['μ']:>4.4g}{r['σ²']:>7.4g}{r['ℓ']:>7.4g}   {y}")

    # Numbers that come out even could hide a mistake, and ε = 0 does hide where ε belongs. So:
    # a hundred random samples, and an ε that is not small beside their variance of about 4.
    random = np.random.default_rng(2)
    x, w = random.normal(3.0, 2.0, 100).tolist(), random.normal(size=100).tolist()
    random_ways = compute_all_ways(x, 1.5, -0.5, 0.1, w)

    exact = ways["by hand"]
    found = {
        "μ": exact["μ"],
        "σ²": exact["σ²"],
        **{f"y{i}": yi for i, yi in enumerate(exact["y"], start=1)},
        "ℓ": exact["ℓ"],
        "largest difference, worked example": largest_difference(ways.values()),
        "largest difference, 100 random samples": largest_difference(random_ways.values()),
    }
    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
