"""A step on a GPU copies nothing from or to the host and waits for nothing: counted on the double.

Each claim is one warm-up and then two steps in which copies and synchronizations are forbidden.
"""

import inspect
import math

import double
import numpy as np
import op_case
import pytest
from helpers import grid, leaf, listed
from test_ops import DIFFERENTIABLE, every_case

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim


@pytest.fixture(autouse=True)
def on_the_double(cupy):
    """Tensors are made on the double, in a run on the CPU too."""
    with tg.device("cuda"):
        yield


def stays_on_the_device(step):
    step()
    with double.forbid("h2d", "d2h", "sync"):
        step()
        return step()


def on(shape, seed=0):
    return tg.tensor(grid(shape, seed=seed).astype(np.float32))


def counted(*shape, below):
    """Integers from 0 on, as labels."""
    return tg.tensor(np.arange(math.prod(shape)).reshape(shape) % below)


# --- Layers ---------------------------------------------------------------------------------------

VECTORS, ROWS, IMAGES, VOLUMES = (4, 6), (3, 4, 5), (2, 4, 6, 6), (2, 4, 4, 4, 4)
NORMS = [
    *((nn.BatchNorm1d, VECTORS, {"num_features": 6, **o}) for o in ({}, {"momentum": None})),
    (nn.BatchNorm1d, ROWS, {"num_features": 4, "track_running_stats": False}),
    (nn.BatchNorm2d, IMAGES, {"num_features": 4}),
    (nn.BatchNorm3d, VOLUMES, {"num_features": 4, "affine": False}),
    (nn.InstanceNorm1d, ROWS, {"num_features": 4, "affine": True}),
    (nn.InstanceNorm2d, IMAGES, {"num_features": 4, "track_running_stats": True}),
    (nn.InstanceNorm3d, VOLUMES, {"num_features": 4}),
    (nn.LayerNorm, ROWS, {"normalized_shape": (4, 5)}),
    (nn.RMSNorm, ROWS, {"normalized_shape": 5}),
    (nn.GroupNorm, IMAGES, {"num_groups": 2, "num_channels": 4}),
]
LAYERS = [
    *(
        (nn.Linear, shape, {"in_features": shape[-1], "out_features": 3})
        for shape in (VECTORS, ROWS)
    ),
    *((kind, VECTORS, {}) for kind in (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Identity)),
    *((kind, VECTORS, {"dim": -1}) for kind in (nn.Softmax, nn.LogSoftmax)),
    *((nn.GELU, VECTORS, {"approximate": how}) for how in ("none", "tanh")),
    (nn.Softplus, VECTORS, {"beta": 2.0}),
    (nn.Flatten, IMAGES, {}),
    (nn.Conv1d, ROWS, {"in_channels": 4, "out_channels": 2, "kernel_size": 3}),
    *(
        (nn.Conv2d, IMAGES, {"in_channels": 4, "out_channels": 2, "kernel_size": 3, **options})
        for options in (
            {"stride": 2, "padding": 1},
            {"groups": 2, "dilation": 2, "bias": False},
            {"padding": "same"},
            {"padding": 1, "padding_mode": "reflect"},
            {"padding": 1, "padding_mode": "circular"},
        )
    ),
    (nn.Conv3d, VOLUMES, {"in_channels": 4, "out_channels": 4, "kernel_size": 2, "groups": 4}),
    *((kind, ROWS, {"kernel_size": 2, "padding": 1}) for kind in (nn.MaxPool1d, nn.AvgPool1d)),
    (nn.MaxPool2d, IMAGES, {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    (nn.AvgPool2d, IMAGES, {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    *((kind, VOLUMES, {"kernel_size": 2}) for kind in (nn.MaxPool3d, nn.AvgPool3d)),
    (nn.AdaptiveAvgPool1d, ROWS, {"output_size": 2}),
    (nn.AdaptiveAvgPool2d, IMAGES, {"output_size": (4, 1)}),
    (nn.AdaptiveAvgPool3d, VOLUMES, {"output_size": 3}),
    (nn.Dropout, VECTORS, {"p": 0.4}),
    *NORMS,
    *((kind, shape, {**how, "impl": "composed"}) for kind, shape, how in NORMS),
]


def named(case):
    kind, shape, options = case
    return f"{kind.__name__}{shape} {options}"


def test_the_list_has_every_layer():
    listed = {kind for kind, _, _ in LAYERS} | {nn.Embedding, nn.ModuleList, nn.Sequential}
    kinds = {getattr(nn, name) for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    losses = {kind for kind in kinds if kind.__name__.endswith("Loss")}
    elsewhere = {nn.SyncBatchNorm}  # test_device_ranks.py
    assert kinds - losses - elsewhere - {nn.Module, nn.Parameter} == listed


@pytest.mark.parametrize("case", LAYERS, ids=named)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_layer(case, training):
    kind, shape, options = case
    layer, x = kind(**options).train(training), leaf(on(shape).data)

    def step():
        layer.zero_grad()
        x.grad = None
        (layer(x) * 0.5).sum().backward()
        assert x.grad.device == "cuda:0"
        with tg.no_grad():
            return layer(x)

    assert stays_on_the_device(step).device == "cuda:0"


def test_an_embedding():
    layer, index = nn.Embedding(5, 3, padding_idx=1), counted(2, 4, below=5)

    def step():
        layer.zero_grad()
        layer(index).sum().backward()

    stays_on_the_device(step)


# --- Losses ---------------------------------------------------------------------------------------

PAIRS = [
    *((F.mse_loss, {"reduction": how}) for how in ("mean", "sum", "none")),
    *((F.l1_loss, {"reduction": how}) for how in ("mean", "sum")),
    *((F.smooth_l1_loss, {"beta": beta}) for beta in (0.0, 0.5)),
    *((F.kl_div, {"reduction": "batchmean", "log_target": log}) for log in (True, False)),
    (F.binary_cross_entropy_with_logits, {}),
    (F.binary_cross_entropy_with_logits, {"weight": (6,), "pos_weight": (4, 1)}),
]
CLASSES = [
    {},
    *({"reduction": how} for how in ("sum", "none")),
    {"weight": (6,)},
    {"ignore_index": 2},
    {"label_smoothing": 0.1},
    {"weight": (6,), "ignore_index": 2, "label_smoothing": 0.1, "reduction": "none"},
]


def with_arrays(options):
    """Shapes among the options as arrays of positive numbers."""
    made = {k: tg.tensor(abs(grid(v, 0.5))) for k, v in options.items() if isinstance(v, tuple)}
    return {**options, **{k: v.astype(np.float32) for k, v in made.items()}}


def backward_of(loss, x, *given, **options):
    def step():
        x.grad = None
        loss(x, *given, **options).sum().backward()
        assert x.grad is not None

    return step


@pytest.mark.parametrize(("loss", "options"), PAIRS)
def test_a_loss_of_two_arrays(loss, options):
    x, target = leaf(on(VECTORS).data), tg.tensor(abs(grid(VECTORS, 0.1, 0.9))).astype(np.float32)
    stays_on_the_device(backward_of(loss, x, target, **with_arrays(options)))


@pytest.mark.parametrize("options", CLASSES)
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 6, 3)])
def test_a_loss_of_classes(loss, shape, options):
    if loss is F.nll_loss and "label_smoothing" in options:
        options = {k: v for k, v in options.items() if k != "label_smoothing"}
    target = counted(*shape[:1] * (len(shape) > 1), *shape[2:], below=6)
    stays_on_the_device(backward_of(loss, leaf(on(shape).data), target, **with_arrays(options)))


def test_cross_entropy_of_class_probabilities():
    target = F.softmax(on((4, 6), seed=1), 1)
    stays_on_the_device(backward_of(F.cross_entropy, leaf(on((4, 6)).data), target))


# --- Optimizers -----------------------------------------------------------------------------------

OPTIMIZERS = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    *((kind, {"weight_decay": 0.1}) for kind in (optim.Adam, optim.AdamW)),
    *((kind, {"amsgrad": True}) for kind in (optim.Adam, optim.AdamW)),
]
SCHEDULES = [
    lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 3),
    lambda optimizer: optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
]
CLIPS = [
    lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1),
    lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1, np.inf),
    lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.1, 3.0),
    lambda parameters: nn.utils.clip_grad_value_(parameters, 0.1),
]


def network():
    tg.manual_seed(0)
    return nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)),
        *(nn.ReLU(), nn.Dropout(0.2), nn.LayerNorm(8), nn.Linear(8, 3)),
    )


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_a_training_step(kind, options):
    trained(kind, options, clip=lambda parameters: None)


@pytest.mark.parametrize("clip", CLIPS, ids=["norm", "maximum norm", "norm 3", "value"])
def test_a_training_step_with_clipped_gradients(clip):
    trained(optim.AdamW, {}, clip)


def trained(kind, options, clip):
    net, x, target = network(), on((12, 6)), counted(12, below=3)
    body, head = list(net.parameters())[:-2], list(net.parameters())[-2:]
    optimizer = kind([{"params": body}, {"params": head, "lr": 0.01}], lr=0.1, **options)
    schedules = [make(optimizer) for make in SCHEDULES]

    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), target, label_smoothing=0.1)
        loss.backward()
        clip(net.parameters())
        optimizer.step()
        for schedule in schedules:
            schedule.step()
        return loss

    first = step()
    assert np.isfinite((stays_on_the_device(step) - first).item())


def test_gradients_that_accumulate_and_parameters_that_freeze():
    net, x, target = network(), on((12, 6)), counted(12, below=3)
    optimizer = optim.Adam(net.parameters())

    def step():
        net.zero_grad()
        for _ in range(2):
            F.cross_entropy(net(x), target).backward()
        net[0].requires_grad_(False)
        optimizer.step()
        net[0].requires_grad_(True)
        F.cross_entropy(net(x), target).backward()
        optimizer.step()

    stays_on_the_device(step)


# --- What else a step may do ----------------------------------------------------------------------


def test_a_checkpoint():
    net, x, target = network(), on((12, 6)), counted(12, below=3)

    def step():
        net.zero_grad()
        F.cross_entropy(tg.checkpoint(net, x), target).backward()

    stays_on_the_device(step)


def test_a_gradient_of_a_gradient_of_a_gradient():
    net, x = network(), leaf(on((12, 6)).data)

    def step():
        y = net(x).sum()
        for _ in range(3):
            (g,) = tg.grad(y, x, create_graph=True)
            y = (g * g).sum()
        y.backward()

    stays_on_the_device(step)


def test_transforms():
    x, v = on((5,)), on((5,), seed=1)

    def step():
        for transform in (tg.vjp, tg.jvp):
            transform(lambda x: tg.tanh(x) * 2.0, x, v)

    stays_on_the_device(step)


def test_new_tensors():
    x = on((5,))

    def step():
        return (
            tg.zeros(2, 3) + tg.ones(3) + tg.full((3,), 2.5) + tg.zeros_like(x)[:3] + tg.arange(3)
        )

    stays_on_the_device(step)


def test_a_hook_a_detached_value_and_a_loss_that_is_added_up():
    net, x, target = network(), on((12, 6)), counted(12, below=3)
    total = tg.zeros(())
    net[0].weight.register_hook(lambda g: g * 0.5)
    net.register_full_backward_hook(lambda module, grad_input, grad_output: None)

    def step():
        nonlocal total
        loss = F.cross_entropy(net(x), target)
        loss.backward()
        total = total + loss.detach()

    stays_on_the_device(step)


# --- Every op -------------------------------------------------------------------------------------

WAITS = {  # ops that wait by their nature
    "rows": "the number of true elements of a mask is the length of the result",
    "mask": "the number of true elements of a mask is the length of the result",
    "[[0, 0, 1]]": "a list of indices comes from the host",
    "[[]]": "a list of indices comes from the host",
}


@every_case
def test_an_op_and_its_gradients(case):
    for name, why in WAITS.items():
        if name in case.expression:
            pytest.skip(why)
    inputs = [leaf(x) for x in case.inputs(np.float32)]
    indices = {name: tg.tensor(index).data for name, index in op_case.INDICES.items()}
    names = {**vars(tg), **indices, **dict(zip("xyz", inputs))}
    ones = {y.shape: tg.ones(y.shape) for y in case.ours(*inputs)}

    def step():
        outputs = listed(eval(case.expression, names))
        if case in DIFFERENTIABLE:
            given = [ones[y.shape] for y in outputs]
            how = {"create_graph": True, "allow_unused": True}
            first = [g for g in tg.grad(outputs, inputs, given, **how) if g is not None]
            total = sum(tg.sum(g * g) for g in first)
            if total.requires_grad:
                tg.grad(total, inputs, allow_unused=True)

    stays_on_the_device(step)
