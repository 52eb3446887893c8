"""Lesson 19: layer norm is the same at training and at test time, one sample at a time.

Batch norm takes a feature's mean and variance over the m samples of the batch. Layer norm (Ba,
Kiros & Hinton 2016) takes them over the D features of one sample:

    batch norm   x̂[n, f] = (x[n, f] − μ_f) / √(σ²_f + ε)     μ_f the mean over n of x[n, f]
    layer norm   x̂[n, f] = (x[n, f] − μ_n) / √(σ²_n + ε)     μ_n the mean over f of x[n, f]

One index, but it decides what a sample's output depends on. In layer norm: on the sample. There is
nothing to remember for later, and a batch of one will do. In batch norm: on the companions, too.
They are drawn at random, and so the same sample comes out differently from step to step. At test
time a sample may come alone; then batch norm goes by running statistics, and is another map.

How different? Let a feature be normal with mean μ and variance σ², and let z = (x − μ)/σ be what
all data would give for this sample. Over m values the mean errs by σ/√m, the standard deviation by
σ/√(2m), each independently of the other: so for large m, ε aside,

    variance of x̂ over random companions  ≈  1/m + z²/(2m)

which says 1.5/m where z² = 1. That is noise of 8 % of the standard deviation at m = 256, and of
31 % at m = 16. At the other end, m = 2, the mean is halfway between two values, both are one
standard deviation from it, and x̂ = ±1: all that is left of x is whether its companion is less.

Layer norm has its price. Batch norm at test time is an affine map, which can be folded into the
layer before (lesson 18); layer norm has to find its statistics for every sample, then as before.

Source: EE-559 6.4 (Fleuret, 2020); Ba, Kiros & Hinton 2016.
Run: python examples/19_layer_norm.py
"""

import numpy as np

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn

FEATURES, DRAWS = 64, 200
SIZES = (256, 64, 16, 8, 4, 2)


def rms(values):
    return float(np.sqrt(np.mean(values * values)))


def spread_and_distance(norm, sample, batches):
    """The outputs for `sample`, in training, with companions from `batches`: how far they spread,
    and how far they are from the output at test time, when the sample comes alone."""
    for batch in batches:
        norm(tg.tensor(batch))  # batch norm learns its running statistics
    norm.eval()
    at_test = norm(tg.tensor(sample[None])).detach().numpy()
    norm.train()
    outputs = []
    for batch in batches:
        company = np.concatenate([sample[None], batch[1:]])
        outputs.append(norm(tg.tensor(company)).detach().numpy()[0])
    outputs = np.array(outputs)
    # Taken from the first output, equal outputs have a spread of exactly 0. That of a feature is a
    # standard deviation; here stands its root mean square over the features.
    return rms((outputs - outputs[0]).std(axis=0)), rms(outputs - at_test)


def main():
    random = np.random.default_rng(19)
    centre, scale = random.normal(0.0, 3.0, FEATURES), random.uniform(0.5, 4.0, FEATURES)
    z = random.normal(size=FEATURES)
    sample = centre + scale * z

    found, errors, layer_norm = {}, [], []
    print("         batch norm                                   layer norm")
    print("batch    spread   by the formula   training − test    spread   training − test")
    for m in SIZES:
        batches = centre + scale * random.normal(size=(DRAWS, m, FEATURES))
        # momentum=None: the running statistics are the even average over all batches.
        bn = nn.BatchNorm1d(FEATURES, momentum=None, dtype=np.float64)
        spread, distance = spread_and_distance(bn, sample, batches)
        layer_norm += spread_and_distance(nn.LayerNorm(FEATURES, dtype=np.float64), sample, batches)
        formula = np.sqrt(np.mean(1 / m + z * z / (2 * m)))
        numbers = (spread, formula, distance, *layer_norm[-2:])
        print("{:5}{:10.3f}{:17.3f}{:18.3f}{:10.3g}{:18.3g}".format(m, *numbers))
        found[f"batch norm, batch of {m}: spread"] = spread
        errors.append(abs(spread / formula - 1))
        found[f"batch norm, batch of {m}: training − test"] = distance
    found["batch norm, every batch: largest | spread / formula − 1 |"] = max(errors)
    found["layer norm, every batch: largest of spread and training − test"] = max(layer_norm)

    # Two samples, whatever they are, come out as ±1. Without ε, exactly.
    pair = random.normal(size=(2, 1000)) * 10.0 ** random.integers(-6, 7, 1000)
    x_hat = F.batch_norm(pair, None, None, training=True, eps=0.0)
    found["batch norm, batch of 2: largest | |x̂| − 1 |"] = float(np.max(np.abs(np.abs(x_hat) - 1)))
    try:
        F.batch_norm(pair[:1], None, None, training=True)
    except ValueError as error:
        print(f"\nbatch norm of a batch of 1: ValueError: {error}")

    print()
    for name, value in found.items():
        print(f"{name}: {value:.7g}")
    return found


if __name__ == "__main__":
    main()
