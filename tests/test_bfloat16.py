"""bfloat16 (of ml_dtypes) beside the dtypes that NumPy has: on every device."""

import copy
import subprocess
import sys

import numpy as np
import op_table
import op_table_conv
import op_table_linalg
import pytest
from helpers import host, leaf, on_device

import tinygrad_bn as tg
from tinygrad_bn import functional as F
from tinygrad_bn import nn, optim

ml_dtypes = pytest.importorskip("ml_dtypes")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CASES = [*op_table.table(), *op_table_conv.table(), *op_table_linalg.table()]
SINGLE = ("solve", "inv", "cholesky", "eigh", "sqrtm", "lyapunov")  # which give float32


def rounded(shape, seed=0, scale=1.0):
    """Normal float32 numbers that bfloat16 has."""
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return values.astype(BFLOAT16).astype(np.float32)


def narrow(array):
    return leaf(array.astype(BFLOAT16))


def assert_rounded(got, wanted, roundings=1):
    """A bfloat16 that is the float32 `wanted`, but for so many roundings of the largest value."""
    got, wanted = host(got), host(wanted)
    assert (got.dtype, got.shape) == (BFLOAT16, wanted.shape)
    if wanted.size:
        unit = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0) * 2.0**-8
        np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=0, atol=roundings * unit)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_and_its_gradients(case):
    """The value is that of float32, rounded, and every gradient has its input's dtype."""
    wide = [x.astype(BFLOAT16).astype(np.float32) for x in case.inputs()]
    inputs = [narrow(x) for x in wide]
    outputs = case.ours(*inputs)
    for got, wanted in zip(outputs, case.ours(*map(tg.tensor, wide)), strict=True):
        if wanted.dtype != np.float32 or case.expression.startswith(SINGLE):
            assert got.dtype == wanted.dtype
        else:
            assert_rounded(got, wanted, roundings=2)
    outputs = [y for y in outputs if y.requires_grad]
    if not outputs:
        return
    ones = [tg.ones(y.shape, dtype=y.dtype) for y in outputs]
    found = tg.grad(outputs, inputs, ones, create_graph=True, allow_unused=True)
    assert {g.dtype for g in found if g is not None} <= {BFLOAT16}
    again = [tg.sum(g * g) for g in found if g is not None and g.requires_grad]
    for g in tg.grad(again, inputs, allow_unused=True) if again else ():
        assert g is None or g.dtype == BFLOAT16


@pytest.mark.parametrize(
    "make",
    [
        lambda: tg.tensor([1.5, -2.0], dtype=BFLOAT16),
        lambda: tg.tensor(np.array([1.5, -2.0], BFLOAT16)),
        lambda: tg.tensor([1.5, -2.0]).astype("bfloat16"),
        lambda: tg.full((2,), 1.5, dtype=BFLOAT16) * tg.tensor([1, -4 / 3], dtype=BFLOAT16),
        lambda: tg.Tensor(on_device(np.array([1.5, -2.0], BFLOAT16))),
    ],
)
def test_it_is_made_printed_and_read(make):
    x = make()
    assert (x.dtype, x.tolist(), x[1].item()) == (BFLOAT16, [1.5, -2.0], -2.0)
    assert repr(x).startswith("tensor([ 1.5, -2. ], dtype=bfloat16")
    assert (x.astype(np.float32).dtype, x.astype(np.int64).tolist()) == (np.float32, [1, -2])
    assert copy.deepcopy(x.requires_grad_()).dtype == BFLOAT16
    assert {t.dtype for t in (tg.zeros_like(x), tg.ones_like(x))} == {BFLOAT16}
    assert {make(2, dtype=BFLOAT16).dtype for make in (tg.rand, tg.randn)} == {BFLOAT16}


FRESH = """
import sys
import numpy as np
import tinygrad_bn as tg
from tinygrad_bn import nn
if {missing}:
    sys.modules["ml_dtypes"] = None
assert {missing} or "ml_dtypes" not in sys.modules
print({made})
"""


def in_a_fresh_process(made, missing=False):
    """What is printed, and the last line of an error, where nothing has imported ml_dtypes."""
    run = [sys.executable, "-c", FRESH.format(made=made, missing=missing)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    return done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    "made",
    [
        "tg.tensor([1.0], dtype='bfloat16').dtype",
        "tg.ones(2, dtype='bfloat16').dtype",
        "tg.ones(2).astype(tg.bfloat16).dtype",
        "nn.Linear(2, 2, dtype='bfloat16').weight.dtype",
    ],
)
def test_its_name_is_known_when_it_is_needed(made, cpu_only):
    assert in_a_fresh_process(made) == ("bfloat16", "")
    out, error = in_a_fresh_process(made, missing=True)
    wants = "bfloat16 needs ml_dtypes, which is missing: pip install ml_dtypes"
    assert (out, error) == ("", f"RuntimeError: {wants}")


def test_an_array_of_it_that_savez_saved_says_what_it_is(tmp_path):
    layer = nn.Linear(2, 3, dtype=tg.bfloat16)
    saved = {key: host(value) for key, value in layer.state_dict().items()}
    np.savez(tmp_path / "saved.npz", **saved)
    loaded = dict(np.load(tmp_path / "saved.npz"))
    wants = r"not numbers in bias: got \|V2\[3\], wants bfloat16\[3\].*np.savez.*\.view\("
    with pytest.raises(RuntimeError, match=wants):
        layer.load_state_dict(loaded)
    layer.load_state_dict({key: value.view(tg.bfloat16) for key, value in loaded.items()})
    assert all((host(v) == saved[k]).all() for k, v in layer.state_dict().items())


def test_a_number_of_pythons_widens_it_no_more_than_float32():
    x = narrow(rounded((2, 3)))
    for y in (x * 2.5, 2.5 - x, x / 3.0, x**2.0, tg.where(x > 0.0, x, 0.0), tg.clip(x, -1.0, 1.0)):
        assert y.dtype == BFLOAT16
    assert (x * tg.ones(3)).dtype == np.float32
    assert (x * np.float32(2)).dtype == np.float32
    assert (x + tg.ones(3, dtype=np.float16)).dtype == np.float32  # neither has all of the other


def test_no_other_dtype_of_ml_dtypes_counts_as_floating_point():
    for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        with pytest.raises(TypeError, match=r"data: got .*, wants real numbers"):
            tg.tensor(np.zeros(2, dtype))


def test_sums_are_made_in_float32():
    ones = leaf(np.ones(3000, BFLOAT16))
    total = tg.sum(ones)
    assert total.item() == ml_dtypes.bfloat16(3000)
    assert tg.mean(ones * 3.0).item() == 3
    assert tg.matmul(ones, ones).item() == ml_dtypes.bfloat16(3000)
    weight = narrow(np.zeros((1, 1), np.float32))
    many = tg.tensor(np.zeros(3000, np.int64))
    (g,) = tg.grad(tg.sum(F.embedding(many, weight)), weight)
    assert host(g).item() == ml_dtypes.bfloat16(3000)


NORMS = {
    "batch": lambda x, w, b, **how: F.batch_norm(x, None, None, w, b, training=True, **how),
    "instance": lambda x, w, b, **how: F.instance_norm(x, None, None, w, b, **how),
    "layer": lambda x, w, b, **how: F.layer_norm(x, 6, w, b, **how),
    "rms": lambda x, w, b, **how: F.rms_norm(x, 6, w, **how),
    "group": lambda x, w, b, **how: F.group_norm(x, 2, w, b, **how),
}


@pytest.mark.parametrize("impl", ["fused", "composed"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_keeps_its_vectors_in_float32(norm, impl):
    x = rounded((5, 6) if norm == "layer" else (5, 6, 6), scale=3.0) + 1.0
    x = x.astype(BFLOAT16).astype(np.float32)
    vectors = [rounded(6, seed=k) for k in (1, 2)]
    seed, results = rounded(x.shape, seed=3), []
    for dtype in (BFLOAT16, np.float32):
        inputs = [leaf(x.astype(dtype)), *map(leaf, vectors)]
        y = NORMS[norm](*inputs, impl=impl)
        y.backward(tg.tensor(seed.astype(dtype)))
        results.append((y, inputs[0].grad, *(v.grad for v in inputs[1:] if v.grad is not None)))
    (y, dx, *others), (wanted, wanted_dx, *wanted_others) = results
    assert_rounded(y, wanted)
    assert_rounded(dx, wanted_dx)
    for got, exact in zip(others, wanted_others, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(host(got), host(exact), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"weight: got bfloat16\[6\].*, wants float32\[6\]"):
        NORMS[norm](tg.tensor(x.astype(BFLOAT16)), narrow(vectors[0]), None)


def test_running_statistics_are_float32_and_evaluation_uses_them():
    norm, wide = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    x = rounded((6, 4), scale=2.0)
    norm(narrow(x)), wide(leaf(x))
    np.testing.assert_allclose(host(norm.running_var), host(wide.running_var), rtol=1e-6)
    assert norm.running_mean.dtype == np.float32
    assert_rounded(norm.eval()(narrow(x)), wide.eval()(leaf(x)))
    with pytest.raises(ValueError, match="wants float32: leave dtype out, parameters in float32"):
        nn.BatchNorm1d(4, dtype=BFLOAT16)


LOSSES = [
    *(lambda x, t, f=f: f(x, t) for f in (F.mse_loss, F.l1_loss, F.smooth_l1_loss)),
    lambda x, t: F.binary_cross_entropy_with_logits(x, F.sigmoid(t)),
    lambda x, t: F.kl_div(F.log_softmax(x, 1), F.softmax(t, 1), "batchmean"),
    lambda x, t: F.cross_entropy(x, tg.argmax(t, axis=1), label_smoothing=0.1),
    lambda x, t: F.cross_entropy(x, F.softmax(t, 1)),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss(loss):
    x, target, results = rounded((4, 6)), rounded((4, 6), seed=1), []
    for dtype in (BFLOAT16, np.float32):
        given = leaf(x.astype(dtype))
        value = loss(given, tg.tensor(target.astype(dtype)))
        value.backward()
        results += [value, given.grad]
    assert_rounded(results[0], results[2], roundings=4)
    assert_rounded(results[1], results[3], roundings=8)


LAYERS = [
    (nn.Linear, (3, 4), {"in_features": 4, "out_features": 2}),
    (nn.Conv2d, (2, 4, 5, 5), {"in_channels": 4, "out_channels": 2, "kernel_size": 3}),
    (nn.Conv2d, (2, 4, 5, 5), {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4}),
    (nn.Embedding, None, {"num_embeddings": 5, "embedding_dim": 3}),
]


@pytest.mark.parametrize(("kind", "shape", "options"), LAYERS)
def test_a_layer_with_weights(kind, shape, options):
    layer, wide = kind(**options, dtype=BFLOAT16), kind(**options)
    wide.load_state_dict(layer.state_dict())
    x = None if shape is None else rounded(shape)
    index = tg.tensor(np.array([[1, 0, 4]]))
    got, wanted = (index, index) if x is None else (narrow(x), leaf(x))
    y, exact = layer(got), wide(wanted)
    assert_rounded(y, exact, roundings=2)
    tg.sum(y).backward(), tg.sum(exact).backward()
    for p, q in zip(layer.parameters(), wide.parameters(), strict=True):
        assert_rounded(p.grad, q.grad, roundings=2)


@pytest.mark.parametrize("kind", ["MaxPool2d", "AvgPool2d"])
def test_a_pool(kind):
    layer, x = getattr(nn, kind)(2, stride=1, padding=1), rounded((2, 3, 4, 4))
    given = narrow(x)
    y = layer(given)
    assert_rounded(y, layer(leaf(x)))
    tg.sum(y).backward()
    assert given.grad.dtype == BFLOAT16


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW])
def test_parameters_are_stepped_in_float32_and_rounded(kind):
    tg.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(3, 8, dtype=BFLOAT16), nn.BatchNorm1d(8), nn.ReLU()),
        *(nn.Dropout(0.1), nn.Linear(8, 2, dtype=BFLOAT16)),
    )
    optimizer, losses = kind(net.parameters(), lr=0.05), []
    x, target = tg.tensor(rounded((32, 3)).astype(BFLOAT16)), tg.tensor(np.arange(32) % 2)
    for _ in range(40):
        optimizer.zero_grad()
        for half in (slice(0, 16), slice(16, 32)):  # which accumulate
            loss = F.cross_entropy(net(x[half]), target[half])
            loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {p.dtype for p in net.parameters()} == {BFLOAT16, np.dtype(np.float32)}
    for state in optimizer.state_dict()["state"].values():
        assert {v.dtype for v in state.values() if hasattr(v, "dtype")} == {np.dtype(np.float32)}


def test_pictures_and_checks_take_it():
    x = narrow(rounded((2, 3)))
    with tg.tracing():
        y = tg.sum(F.layer_norm(x, 3) * x)
    assert "normalize" in str(tg.explain(y))
    with tg.detect_anomaly():
        tg.sum(tg.exp(x)).backward()
    tg.checkpoint(lambda x: tg.sum(tg.exp(x) * x), x).backward()
    assert x.grad.dtype == BFLOAT16
