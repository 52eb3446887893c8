"""Losses."""

import numpy as np
from recorder import FUNCTIONAL, draw, random_stream, record


def make():
    def one(layout, kind, reduction="mean", weight=False, smoothing=0.0, suffix="", **more):
        """`kind` is "indices", "ignored" (every third), "all-ignored" or "probabilities"."""
        words = [layout, kind, *["weight"] * weight, *["smoothing"] * (smoothing > 0), reduction]
        name = "cross_entropy/" + "-".join(words) + suffix
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
        kwargs = {"reduction": reduction, "label_smoothing": smoothing} | more
        record(name, FUNCTIONAL + "cross_entropy", {"input": shape}, constants, **kwargs)

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
    for reduction in ("mean", "sum", "none"):
        pair = {"input": (4, 3), "target": (4, 3)}
        record(f"mse_loss/{reduction}", FUNCTIONAL + "mse_loss", pair, reduction=reduction)
