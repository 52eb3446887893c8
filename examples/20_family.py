"""Lesson 20: one function, five norms. They differ in which entries share statistics.

Let x be a block of N samples, C channels and S = H·W places. Each norm of the family computes

    y = γ (x − μ) / √(σ² + ε) + β

where an entry x[n, c, s] shares its μ and σ² with others. With which? In that the members differ,
and `norm.axes.FAMILY` lists them (Wu & He 2018, Figure 2, draws the first four):

    batch norm       along N and S       a μ and a σ² for each channel
    layer norm       along C and S       for each sample
    instance norm    along S             for each channel of each sample
    group norm       along K and S       for each group of channels of each sample
    RMS norm         along C and S       as layer norm, but μ = 0, σ² the mean of x², and no β

In group norm the C channels are seen as G groups of K. Layer and RMS norm do not tell channels from
places: for them a sample is a list of F = C·S features. Only batch norm goes along N: to the others
a sample is a sample, in whatever company (lesson 19).

γ and β are numbers for each channel, or, in layer and RMS norm, for each feature. Apart from them
(γ = 1, β = 0) the members meet:

    group norm with G = 1   is layer norm         all channels in one group
    group norm with G = C   is instance norm      each channel a group of its own
    batch norm with N = 1   is instance norm      no other sample to share with
    RMS norm of x − μ       is layer norm of x    what has mean 0 need not be centred

`composed.normalize` and `fused.normalize` are told the axes, and know no member by name. The block
in three dimensions is viz/gallery/family_light.svg, drawn from the same table.

Source: EE-559 6.4 (Fleuret, 2020); Wu & He 2018; Zhang & Sennrich 2019 for RMS norm.
Run: python examples/20_family.py
"""

import contextlib
import math
import string

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn.norm import composed, fused
from tinygrad_bn.norm.axes import FAMILY, arrange

N, C, S = 4, 6, 5
GROUPS = 2


def arrangement(name, block, groups=GROUPS):
    """As what shape a member sees a block; the axes along which it shares; the shape of γ and β."""
    features = 2 if "F" in FAMILY[name].layout else None  # F is the last two axes, C and S
    return arrange(FAMILY[name], block, features, groups)


def normalize(norm, name, x, gamma=None, beta=None, groups=GROUPS):
    """(y, σ²) of a block, σ² repeated for each entry. `norm` is the module composed or fused."""
    shape, axes, _ = arrangement(name, x.shape, groups)
    options = {"axes": axes, "eps": 1e-5, "centred": FAMILY[name].centred}
    y, _, var = norm.normalize(x.reshape(shape), gamma, beta, **options)
    return y.reshape(x.shape), tg.broadcast_to(var, shape=shape).reshape(x.shape)


def picture(var):
    """A line of letters for each sample, one for each channel: the same letter, the same σ²."""
    letters = dict(zip(dict.fromkeys(var.ravel().tolist()), string.ascii_letters))
    return [" ".join(letters[value] for value in channels) for channels in var[:, :, 0].tolist()]


def fused_against_composed(name, x, random):
    """The relative differences of y and σ², and of their gradients of order 1 to 4."""
    affine = arrangement(name, x.shape).affine
    gamma, beta = random.normal(1.0, 0.3, affine), random.normal(size=affine)
    values = (x, gamma, beta) if FAMILY[name].centred else (x, gamma)
    with contextlib.redirect_stdout(None):  # `compare` prints all that it finds
        result = tg.check.compare(
            lambda *inputs: normalize(composed, name, *inputs),
            lambda *inputs: normalize(fused, name, *inputs),
            *(tg.tensor(v, requires_grad=True) for v in values),
            order=4,
        )
    return result.differences


def main():
    random = np.random.default_rng(20)
    x = random.normal(3.0, 2.0, (N, C, S))
    found = {}

    # Which entries share is not drawn from the table here, but seen from the σ² that came out.
    var = {name: normalize(composed, name, x)[1] for name in FAMILY}
    print(f"{'':9}" + "".join(f"{name:15}" for name in FAMILY))
    for n, lines in enumerate(zip(*map(picture, var.values()))):
        print(f"sample {n} " + (" " * 4).join(lines))
    print(f"A column of letters is a channel; behind each letter lie its {S} places, which share.")
    print("The block in three dimensions: viz/gallery/family_light.svg")
    for name, member in FAMILY.items():
        numbers = math.prod(arrangement(name, x.shape).affine)
        found[f"{name}, values of σ²"] = len(np.unique(var[name]))
        found[f"{name}, numbers learned"] = numbers * (2 if member.centred else 1)
    along_s = [np.count_nonzero(v != v[:, :, :1]) for v in var.values()]
    found["entries that do not share with the other places of their channel"] = sum(along_s)

    # Where members meet. One side is composed and the other fused, so that the two numbers come by
    # different ways.
    def y(norm, name, x, groups=GROUPS):
        return normalize(norm, name, x, groups=groups)[0]

    one, centred = x[:1], x - x.mean(axis=(1, 2), keepdims=True)
    layer, instance = y(fused, "layer_norm", x), y(fused, "instance_norm", x)
    for name, a, b in (
        ("group norm with G = 1 and layer norm", y(composed, "group_norm", x, 1), layer),
        ("group norm with G = C and instance norm", y(composed, "group_norm", x, C), instance),
        ("batch norm with N = 1 and instance norm", y(composed, "batch_norm", one), instance[:1]),
        ("RMS norm of x − μ and layer norm of x", y(composed, "rms_norm", centred), layer),
        ("RMS norm of x and layer norm of x", y(composed, "rms_norm", x), layer),
    ):
        found[f"{name}, largest difference"] = float(np.max(np.abs(a - b)))

    print("\nfused and composed     value" + "".join(f"   order {k}" for k in range(1, 5)))
    for name in FAMILY:
        value, *orders = fused_against_composed(name, x, random)
        print(f"{name:19}{value:9.0e}" + "".join(f"{d:10.0e}" for d in orders))
        found[f"{name}, fused and composed, orders 1 and 2"] = max(orders[:2])
        found[f"{name}, fused and composed, orders 3 and 4"] = max(orders[2:])

    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
