"""Lesson 5: the gradient at x, simplified.

Lesson 3 ended with three terms for ∂ℓ/∂xᵢ, through x̂ᵢ, σ² and μ. The lecture leaves it to the board
to make one of them. Write gᵢ = ∂ℓ/∂yᵢ, dᵢ = xᵢ − μ and r = 1/√(σ² + ε), so that x̂ᵢ = r dᵢ, and let
mean(…) be over the batch.

Step 1. ∂ℓ/∂x̂ᵢ = γ gᵢ, so in all that follows γ gᵢ stands in its place.

Step 2. In ∂ℓ/∂σ² one of the three factors r makes x̂ of d, and two are left over:

    ∂ℓ/∂σ² = Σ γ gᵢ dᵢ · (−1/2) r³ = −(1/2) γ r² Σ gᵢ x̂ᵢ = −(m/2) γ r² mean(g x̂)

Step 3. In ∂ℓ/∂μ the term through σ² holds Σ dᵢ, the sum of all deviations from the mean: it is 0.

    ∂ℓ/∂μ = −γ r Σ gᵢ = −m γ r mean(g)

Step 4. Put both into the three terms. The m cancels, and so does the 2:

    ∂ℓ/∂xᵢ = γ gᵢ · r   +   ∂ℓ/∂σ² · 2 dᵢ/m         +   ∂ℓ/∂μ · 1/m
           = γ r gᵢ     −   γ r² dᵢ mean(g x̂)       −   γ r mean(g)

Step 5. One more r dᵢ = x̂ᵢ, and γ r stands before everything:

    ∂ℓ/∂xᵢ = γ r (gᵢ − mean(g) − x̂ᵢ mean(g x̂))

The two means are ∂ℓ/∂β and ∂ℓ/∂γ divided by m, which have to be computed anyway. And the formula
can be read: g loses its part along (1, …, 1) and its part along x̂ (all of it, if ε = 0). These are
the directions in which moving x does nothing: normalization undoes a shift and a change of scale.

`norm.fused` is batch norm as one op with this gradient. `norm.composed` is the same function of
primitive ops, where the engine takes the long way. `check.compare` holds one against the other:
the values; the gradients of order 1 to 4, for the formula is itself written with ops, and so it can
be differentiated again; what was recorded; what is held until the backward pass; and the time.

Source: COMPSCI 682 session on batch norm (Su, 2019), last slide of the backward pass.
Run: python examples/05_simplified_gradient.py
"""

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.norm import composed, fused


def dx_of_the_lecture(x, gamma, eps, g):
    """The three terms, through x̂, σ² and μ, as lesson 3 has them."""
    m = len(x)
    mu, var = x.mean(), x.var()
    dxhat = g * gamma
    dvar = np.sum(dxhat * (x - mu) * (-1 / 2) * (var + eps) ** (-3 / 2))
    dmu = dvar * np.sum(-2 * (x - mu)) / m + np.sum(dxhat * -1 / np.sqrt(var + eps))
    return dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) / m + dmu / m


def dx_simplified(x, gamma, eps, g):
    """The one term of step 5."""
    r = 1 / np.sqrt(x.var() + eps)
    xhat = (x - x.mean()) * r
    return gamma * r * (g - g.mean() - xhat * (g * xhat).mean())


def main():
    random = np.random.default_rng(5)
    eps = 1e-5

    # The algebra, on 256 random numbers.
    x, g = random.normal(3.0, 2.0, 256), random.normal(size=256)
    long, short = dx_of_the_lecture(x, 1.5, eps, g), dx_simplified(x, 1.5, eps, g)
    algebra = np.max(np.abs(long - short)) / np.max(np.abs(long))

    # The two implementations, on 1024 samples of 32 features. Each returns (y, μ, σ²), and the
    # gradients start from all three: fused is right for these too, though step 5 speaks of y alone.
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

    # What is held beyond x, γ and β: composed keeps arrays of the size of x, fused only μ and σ².
    found = {
        "difference, the lecture's three terms and the simplified one": float(algebra),
        **{f"difference, order {k}": d for k, d in enumerate(result.differences) if k > 0},
        "ops recorded, composed": result.ops[0],
        "ops recorded, fused": result.ops[1],
        "bytes held, composed": result.held[0],
        "bytes held, fused": result.held[1],
        "bytes of x": x.data.nbytes,
        "time of composed / time of fused": result.ratio,
    }
    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
