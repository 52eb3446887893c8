"""A run does what it was told: each setting of its Config reaches what it is about."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from helpers import host
from small_runs import small

from tinygrad_bn import nn, optim
from tinygrad_bn.train import run
from tinygrad_bn.train.datasets import Dataset
from tinygrad_bn.train.models import MODELS, Residual
from tinygrad_bn.train.progress import TrainingProgress

DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(1, 100, (140, 2, 8, 8)).astype(np.uint8)
LABELS = np.arange(140) % 3
IMAGES = Dataset(PIXELS[:100], LABELS[:100], PIXELS[100:] + 100, LABELS[100:], ("a", "b", "c"))
NORMS = {"batch": nn.BatchNorm2d, "layer": nn.LayerNorm, "group": nn.GroupNorm}
NORMS |= {"instance": nn.InstanceNorm2d, "rms": nn.RMSNorm}
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes the run of some settings, on `IMAGES`; a step is an epoch unless they say otherwise."""
    monkeypatch.setattr(run, "load", lambda *_: IMAGES)
    return lambda **settings: run.Run(small(**{"batch_size": 1000} | settings), tmp_path)


def epoch(this):
    """Train for an epoch; its record."""
    this.train_epoch(TrainingProgress("run", 1, len(this.pipeline.x), 0), lambda: False)
    return this.close_epoch()


def of_kind(this, *kinds):
    return [module for module in this.model.modules() if isinstance(module, kinds)]


# --- The optimizer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("sgd", optim.SGD, {"lr": 0.03, "momentum": 0.7, "weight_decay": 0.02}),
        ("sgd", optim.SGD, {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}),
        ("adam", optim.Adam, {"lr": 0.03, "weight_decay": 0.02}),
        ("adam", optim.Adam, {"lr": 0.5, "weight_decay": 0.0}),
        ("adamw", optim.AdamW, {"lr": 0.03, "weight_decay": 0.02}),
        ("adamw", optim.AdamW, {"lr": 0.5, "weight_decay": 0.0}),
    ],
)
def test_the_optimizer_is_the_one_that_was_asked_for(made, name, kind, options):
    this = made(optimizer=name, **options)
    (group,) = this.optimizer.param_groups
    assert type(this.optimizer) is kind
    assert {key: group[key] for key in options} == options
    assert [*map(id, group["params"])] == [*map(id, this.model.parameters())]


STEP = {
    1: [1],
    2: [1, 0.1],
    3: [1, 1, 0.1],
    4: [1, 1, 0.1, 0.01],
    10: [1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01],
}
COSINE = {
    1: [1],
    2: [1, 1 / 2],
    3: [1, 3 / 4, 1 / 4],
    4: [1, (2 + 2**0.5) / 4, 1 / 2, (2 - 2**0.5) / 4],
}


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        *(("step", factors) for factors in STEP.values()),
        *(("cosine", factors) for factors in COSINE.values()),
        ("constant", [1] * 4),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} epochs",
)
def test_each_epoch_has_the_learning_rate_of_the_schedule(made, schedule, factors):
    this = made(schedule=schedule, epochs=len(factors), lr=0.25)
    trained_with, recorded = [], []
    for _ in factors:
        trained_with.append(this.optimizer.param_groups[0]["lr"])
        recorded.append(epoch(this)["lr"])
    assert trained_with == recorded == pytest.approx([0.25 * f for f in factors], rel=1e-12)


# --- The model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_is_the_one_that_was_asked_for(made, model, activation):
    found = {
        type(m) for m in of_kind(made(model=model, activation=activation), *ACTIVATIONS.values())
    }
    assert found == {ACTIVATIONS[activation]}


@pytest.mark.parametrize("impl", ["fused", "composed"])
@pytest.mark.parametrize("norm", [*NORMS, "none"])
def test_the_norms_are_those_that_were_asked_for(made, norm, impl):
    found = of_kind(made(model="convnet", depth=3, norm=norm, impl=impl), *NORMS.values())
    assert [type(m) for m in found] == [NORMS[norm]] * 3 if norm != "none" else found == []
    assert {m.impl for m in found} <= {impl}


@pytest.mark.parametrize(
    ("model", "sizes", "outputs"),
    [
        ("mlp", {"width": 8, "depth": 2}, [8, 8, 3]),
        ("mlp", {"width": 5, "depth": 4}, [5, 5, 5, 5, 3]),
        ("mlp", {"width": None, "depth": None}, [64, 64, 64, 3]),
        ("convnet", {"width": 4, "depth": 2}, [4, 8, 3]),
        ("convnet", {"width": None, "depth": None}, [16, 32, 64, 3]),
    ],
)
def test_the_layers_are_as_wide_and_as_many_as_was_asked_for(made, model, sizes, outputs):
    layers = of_kind(made(model=model, **sizes), nn.Linear, nn.Conv2d)
    assert [layer.weight.shape[0] for layer in layers] == outputs


@pytest.mark.parametrize(("width", "depth"), [(4, 2), (6, 1), (None, None)])
def test_a_resnet_has_three_stages_of_depth_blocks(made, width, depth):
    blocks = of_kind(made(model="resnet", width=width, depth=depth), Residual)
    channels = [block.first[0].weight.shape[0] for block in blocks]
    assert channels == [k * (width or 16) for k in (1, 2, 4) for _ in range(depth or 1)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.75])
def test_dropout_is_as_likely_as_was_asked_for(made, model, dropout):
    found = of_kind(made(model=model, dropout=dropout), nn.Dropout)
    assert [m.p for m in found] == ([dropout] if dropout else [])


# --- The data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "classes"), [(None, ("0", "1", "2")), ("parity", ("0", "1"))])
def test_the_data_are_those_that_were_asked_for(tmp_path, target, classes):
    rows = [f"{k % 2},{k},{k % 3}" for k in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["parity,number,rest", *rows]))
    path = str(tmp_path / "table.csv")
    assert run.Run(small(data="csv", path=path, target=target), tmp_path).data.classes == classes


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (0.1, 10), (0.35, 35)])
def test_standardization_is_that_of_the_rows_that_are_trained_on(made, share, held):
    """Not of those that are held out, nor of the test data; all are standardized by it."""
    this = made(validation=share)
    x = this.pipeline.x.astype(np.float64)
    assert len(x) == 100 - held
    mean, std = x.mean((0, 2, 3))[:, None, None], x.std((0, 2, 3))[:, None, None]
    np.testing.assert_allclose(this.pipeline.standardize.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(this.pipeline.standardize.std, std, rtol=1e-12)
    np.testing.assert_allclose(this.test[0], (IMAGES.test_x - mean) / std, rtol=1e-5, atol=1e-5)
    assert (this.validation is None) == (held == 0)
    if held:
        restored = np.rint(this.validation[0] * std + mean).astype(np.uint8)
        all_rows = {image.tobytes() for image in (*this.pipeline.x, *restored)}
        assert all_rows == {image.tobytes() for image in IMAGES.x}


def versions(shift, flip):
    """The bytes of each image that augmentation may make of one of `IMAGES`."""
    found = set()
    around = np.pad(IMAGES.x, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    for i, j in itertools.product(range(2 * shift + 1), repeat=2):
        moved = around[..., i : i + 8, j : j + 8]
        found |= {image.tobytes() for image in (*moved, *(moved[..., ::-1] if flip else ()))}
    return found


@pytest.mark.parametrize(("shift", "flip"), [(0, False), (1, False), (0, True), (2, True)])
def test_images_are_shifted_and_flipped_as_was_asked_for(made, shift, flip):
    pipeline = made(model="convnet", shift=shift, flip=flip).pipeline
    pixels = dataclasses.replace(pipeline, standardize=lambda x: x)
    seen = {image.tobytes() for n in (1, 2) for x, _ in pixels.epoch(n) for image in x}
    assert seen <= versions(shift, flip)
    if shift:
        assert not seen <= versions(shift - 1, flip)
    if flip:
        assert not seen <= versions(shift, False)


@pytest.mark.parametrize("augmentation", [{"shift": 2}, {"flip": True}])
def test_augmentation_differs_from_batch_to_batch_epoch_to_epoch_and_seed_to_seed(
    made, augmentation
):
    """Of one image a hundred times, so that the order plays no part."""
    one = {"x": np.repeat(IMAGES.x[:1], 100, axis=0), "y": np.zeros(100, np.int64)}
    found = []
    for seed, n in ((0, 1), (0, 2), (1, 1)):
        pipeline = made(model="convnet", batch_size=25, seed=seed, **augmentation).pipeline
        alike = dataclasses.replace(pipeline, **one, standardize=lambda x: x)
        batches = [x.tobytes() for x, _ in alike.epoch(n)]
        assert batches == [x.tobytes() for x, _ in alike.epoch(n)]
        found += batches
    assert len(set(found)) == len(found) == 3 * 4


def test_the_seed_decides_the_weights_the_order_and_what_is_held_out(made):
    runs = [made(seed=seed) for seed in (1, 1, 2)]
    for found in (
        [host(next(iter(this.model.parameters()))).tobytes() for this in runs],
        [np.sort(this.pipeline.x, axis=0).tobytes() for this in runs],
        [this.pipeline.seed for this in runs],
    ):
        assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(("size", "steps"), [(1, 90), (40, 3), (45, 2), (90, 1)])
def test_an_epoch_has_as_many_batches_as_the_batch_size_says(made, size, steps):
    this = made(batch_size=size, norm="none")
    assert (this.pipeline.steps, len(list(this.pipeline.epoch(1)))) == (steps, steps)


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_as_many_batches_are_made_ahead_as_was_asked_for(made, monkeypatch, ahead):
    asked, prefetched = [], run.prefetched
    monkeypatch.setattr(
        run, "prefetched", lambda batches, n: asked.append(n) or prefetched(batches, n)
    )
    epoch(made(prefetch=ahead))
    assert asked == [ahead]


# --- Over the epochs ------------------------------------------------------------------------------


def with_validation_losses(monkeypatch, *losses):
    """Let a run find these, epoch by epoch, and the last from then on."""
    found = itertools.chain(losses, itertools.repeat(losses[-1]))
    monkeypatch.setattr(run, "evaluate", lambda *_: (next(found), 0.5))


@pytest.mark.parametrize(("keep", "kept"), [(1, [2, 6]), (2, [2, 5, 6]), (9, [1, 2, 3, 4, 5, 6])])
def test_the_last_checkpoints_are_kept_and_the_best(made, monkeypatch, keep, kept):
    with_validation_losses(monkeypatch, 0.5, 0.1, 0.3)
    this = made(keep=keep, epochs=6)
    while this.complete is None:
        epoch(this)
        this.save()
    assert [int(path.name[-8:]) for path in sorted(this.checkpoints.iterdir())] == kept


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([0.5, 0.1, 0.3], 2),
        ([0.5, 0.1], 2),  # one that is only as low is no better
        ([0.3, 0.5, 0.2, 0.4], 3),
    ],
)
@pytest.mark.parametrize("patience", [0, 2, 3])
def test_a_run_waits_for_a_lower_loss_as_long_as_its_patience(
    made, monkeypatch, losses, best, patience
):
    with_validation_losses(monkeypatch, *losses)
    this = made(patience=patience, epochs=8)
    while this.complete is None:
        epoch(this)
    assert this.state.best["epoch"] == best
    ends = (best + patience, "stopped early") if patience else (8, "finished")
    assert (this.state.epoch, this.complete) == ends


def test_samples_per_second_are_those_of_the_training_alone(made, monkeypatch):
    """The seconds of an epoch are those of its steps: not of validation, nor of other epochs."""
    monkeypatch.setattr(run, "evaluate", lambda *_: time.sleep(0.05) or (0.5, 0.5))
    this = made(epochs=3)
    this.optimizer.step = lambda: time.sleep(0.02)
    began = time.perf_counter()
    records = [epoch(this) for _ in range(3)]
    whole = time.perf_counter() - began
    for record in records:
        assert record["seconds"] >= 0.02
        assert record["samples_per_second"] * record["seconds"] == pytest.approx(90, rel=1e-12)
    assert sum(record["seconds"] for record in records) <= whole - 3 * 0.05
