"""Losses."""

import numpy as np
from recorder import FUNCTIONAL, draw, random_stream, record


def make():
    make_classes()
    make_pairs()


def make_classes():
    def one(
        layout, kind, reduction="mean", weight=False, smoothing=None, suffix="", nll=False, **more
    ):
        """`kind` is "indices", "ignored" (every third), "all-ignored" or "probabilities"."""
        words = [layout, kind, *["weight"] * weight, *["smoothing"] * bool(smoothing), reduction]
        word = "nll_loss" if nll else "cross_entropy"
        name = f"{word}/" + "-".join(words) + suffix
        shape = {"NC": (5, 4), "C": (4,), "NCd": (3, 4, 2), "NCdd": (2, 3, 2, 2)}[layout]
        class_axis = min(1, len(shape) - 1)
        classes, places = shape[class_axis], np.delete(shape, class_axis)
        random = random_stream(name + "/target")
        if kind == "probabilities":  # multiples of 1/64 whose sum is 1
            target = random.multinomial(64, [1 / classes] * classes, tuple(places)) / 64
            target = np.moveaxis(target, -1, class_axis)
        else:
            target = np.array(random.integers(0, classes, places))
            spacing = {"indices": target.size + 1, "ignored": 3, "all-ignored": 1}[kind]
            target.reshape(-1)[spacing - 1 :: spacing] = more.get("ignore_index", -100)
        constants = {"target": target}
        if weight:
            constants["weight"] = abs(draw(random, classes, more.get("dtype", "float64"))) + 0.25
        kwargs = {"reduction": reduction} | more
        if not nll:
            kwargs["label_smoothing"] = smoothing or 0.0
        record(name, FUNCTIONAL + word, {"input": shape}, constants, **kwargs)

    for kind in ("indices", "probabilities"):
        for options in ((), (True,), (False, 0.1), (True, 0.1)):
            one("NC", kind, "mean", *options)
        for options in (("sum",), ("sum", True, 0.1), ("none",), ("none", True, 0.1)):
            one("NC", kind, *options)
        for layout in ("C", "NCd", "NCdd"):
            one(layout, kind, "none")
            one(layout, kind, "mean", True, 0.1)
    for options in (("mean",), ("none",), ("sum",), ("mean", True, 0.1), ("none", True, 0.1)):
        one("NC", "ignored", *options)
        one("NC", "all-ignored", *options)
    one("NCdd", "ignored", "mean", True, 0.1, suffix="-index1", ignore_index=1)
    one("NC", "indices", "mean", True, 0.1, suffix="-float32", dtype="float32")
    for layout in ("C", "NC", "NCdd"):
        one(layout, "indices", nll=True)
    for reduction in ("mean", "sum", "none"):
        one("NC", "ignored", reduction, True, nll=True)


def make_pairs():
    pair = {"input": (4, 3), "target": (4, 3)}
    for reduction in ("mean", "sum", "none"):
        for word in ("mse_loss", "l1_loss", "smooth_l1_loss"):
            record(f"{word}/{reduction}", FUNCTIONAL + word, pair, reduction=reduction)
    for beta in (0.0, 0.25, 3.0):
        record(f"smooth_l1_loss/beta-{beta}", FUNCTIONAL + "smooth_l1_loss", pair, beta=beta)
    ties = {"input": [0.0, 1.0, -1.0, 0.5, 2.0], "target": [0.0, 0.0, 0.0, 0.0, 2.0]}
    record("smooth_l1_loss/ties", FUNCTIONAL + "smooth_l1_loss", ties, reduction="none")
    record("l1_loss/ties", FUNCTIONAL + "l1_loss", ties, reduction="none")

    entropy, random = FUNCTIONAL + "binary_cross_entropy_with_logits", random_stream("bce")
    shares = random.integers(0, 65, (4, 3)) / 64
    weight, pos_weight = abs(draw(random, (4, 1))) + 0.25, abs(draw(random, 3)) + 0.25
    options = {"": {}, "-weight": {"weight": weight}, "-pos_weight": {"pos_weight": pos_weight}}
    options["-both"] = options["-weight"] | options["-pos_weight"]
    for word, weights in options.items():
        for reduction in ("mean", "sum", "none"):
            name, target = f"bce/{reduction}{word}", {"target": shares}
            record(name, entropy, {"input": (4, 3)}, target | weights, reduction=reduction)
    both = {"input": draw(random, (4, 3)), "target": shares}
    record("bce/to-target", entropy, both, options["-both"])
    extreme = np.array([0.0, 800.0, -800.0, 30.0, -30.0])
    record("bce/extreme", entropy, {"input": extreme}, {"target": [1.0, 1, 0, 0, 1]})

    divergence, random = FUNCTIONAL + "kl_div", random_stream("kl_div")
    shares = random.multinomial(64, [0.3, 0.5, 0.2], 4) / 64
    shares[1] = [0.0, 0.25, 0.75]
    for reduction in ("mean", "sum", "none", "batchmean"):
        name = f"kl_div/{reduction}"
        record(name, divergence, {"input": (4, 3)}, {"target": shares}, reduction=reduction)
        logs = {"input": (4, 3), "target": (4, 3)}
        record(f"{name}-log", divergence, logs, reduction=reduction, log_target=True)
    both = {"input": (4, 3), "target": np.maximum(shares, 1 / 64)}
    record("kl_div/to-target", divergence, both, reduction="none")
