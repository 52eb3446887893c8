"""Lesson 7: whatever comes in, what goes out has mean β and standard deviation γ.

This is the interactive session of the EE-559 lecture, in this library. Three features of quite
different scale (standard deviations 2, 5, 10) and place (means −10, 25, 3) go through BatchNorm1d
with β = (2, 4, 8) and γ = (1, 2, 3). The statistics of the input are only near those numbers, as
for any thousand random samples. The output's mean is β to rounding: no randomness is left in it.

The lecture prints standard deviations of 1.0005, 2.0010 and 3.0015. Why not 1, 2 and 3? There are
two: batch norm divides the sum of squared deviations by N, and PyTorch's `std` divides it by N − 1.
What has standard deviation γ by the first has γ √(N/(N−1)) by the second, and √(1000/999) = 1.0005.
A second reason is hundreds of times smaller: ε, added to the variance under the root. In full,

    std of y (by N − 1)  =  γ · √(N / (N − 1)) · √(σ² / (σ² + ε)),    σ² the variance of x (by N)

With ε = 1e-5 and σ² ≈ 4 the last factor is about 1 − ε/(2σ²) = 1 − 1.25e-6. In float32 that is ten
units in the last place, hard to tell from rounding; so the formula is checked in float64 as well.

Source: EE-559 6.4 (Fleuret, 2020).
Run: python examples/07_output_statistics.py
"""

import math

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

N = 1000


def std(t, correction):
    """The standard deviation of each column, its sum of squares divided by N − correction."""
    return t.var(axis=0, correction=correction).sqrt()


def largest_difference(a, b):
    return float(np.max(np.abs(np.subtract(a, b))))


def main():
    tg.manual_seed(7)
    bn = nn.BatchNorm1d(3)
    beta, gamma = tg.tensor([2.0, 4.0, 8.0]), tg.tensor([1.0, 2.0, 3.0])
    # strict=False: the layer's running statistics are not given, and stay as they are.
    bn.load_state_dict({"bias": beta, "weight": gamma}, strict=False)

    x = tg.randn(N, 3)
    x = x * tg.tensor([2.0, 5.0, 10.0]) + tg.tensor([-10.0, 25.0, 3.0])
    y = bn(x)  # a new module is in training mode: it uses the statistics of this batch

    print("x mean        ", x.mean(axis=0))
    print("x std, by N−1 ", std(x, correction=1))
    print("y mean        ", y.mean(axis=0).detach())
    print("y std, by N−1 ", std(y, correction=1).detach())
    print("y std, by N   ", std(y, correction=0).detach())

    # The claim, in the layer's own float32, where the next number after 8 is 9.5e-7 away.
    mean_error = largest_difference(y.mean(axis=0).tolist(), beta.tolist())
    ratio = np.divide(std(y, correction=1).tolist(), gamma.tolist())
    correction = math.sqrt(N / (N - 1))
    assert mean_error <= 2e-6, mean_error
    assert largest_difference(ratio, correction) <= 1e-5, ratio

    # The whole formula, in float64. The function takes its parameters as arguments.
    x64, gamma64, beta64 = (t.astype(np.float64) for t in (x, gamma, beta))
    y64 = F.batch_norm(x64, None, None, gamma64, beta64, training=True, eps=bn.eps)
    var64 = np.array(x64.var(axis=0).tolist())
    ratio64 = np.divide(std(y64, correction=1).tolist(), gamma64.tolist())
    effect_of_eps = np.sqrt(var64 / (var64 + bn.eps))
    whole_formula = largest_difference(ratio64, correction * effect_of_eps)
    assert whole_formula <= 1e-14, whole_formula

    found = {
        "√(1000/999) − 1": correction - 1,
        **{f"std of y{k} / γ{k} − 1, float32": float(v) - 1 for k, v in enumerate(ratio, start=1)},
        "largest difference, mean of y and β, float32": mean_error,
        "largest difference, std of y / γ and √(1000/999), float32": largest_difference(
            ratio, correction
        ),
        "largest difference, std of y / γ and √(1000/999), float64": largest_difference(
            ratio64, correction
        ),
        "largest difference, std of y / γ and the formula with ε, float64": whole_formula,
    }
    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
