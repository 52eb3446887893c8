"""A graph as lines of Python: running them computes the same loss."""

import numpy as np
import pytest
from helpers import grid, host, leaf

import tinygrad_bn as tg
from tinygrad_bn import Scalar, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.pages.code import python_code, python_names
from tinygrad_bn.diagram.reading import Reading
from tinygrad_bn.diagram.recorded.record import record
from tinygrad_bn.norm.fused import normalize


@tg.op("x³", lambda g, _out, x, scale=1.0: g * (3 * scale) * x * x)
def cube(xp, x, *, scale=1.0):
    return scale * x * x * x


def lines(loss, notation="ioffe"):
    return python_code(Reading(record(loss), notation))


def computed(loss):
    """What the lines compute from what is given: the leaves, and the constants with a name."""
    reading = Reading(record(loss), "ioffe")
    scope = {"tg": tg, "Scalar": Scalar, "normalize": normalize, "cube": cube}
    for place, name in python_names(reading).items():
        node, output = reading.graph.nodes[place[0]], reading.output(place)
        if isinstance(node.origin, Scalar):
            scope |= {name: node.origin} if node.kind == "leaf" else {}
        elif node.kind == "leaf":
            scope[name] = leaf(output.value)
        elif node.kind == "constant":
            scope[name] = output.value if np.ndim(output.value) == 0 else tg.tensor(output.value)
    code = python_code(reading)
    exec("\n".join(code), scope)
    return scope[code[-1].split(" = ")[0]]


# --- As a lecturer would write it -----------------------------------------------------------------


def test_batch_norm_composed():
    assert lines(worked_example("composed")) == [
        "mu = tg.mean(x, axis=0, keepdims=True)",
        "d = x - mu",
        "q = d * d",
        "var = tg.mean(q, axis=0, keepdims=True)",
        "v = var + eps",
        "s = tg.sqrt(v)",
        "xhat = d / s",
        "u = gamma * xhat",
        "y = u + beta",
        "p = w * y",
        "loss = tg.sum(p)",
    ]


def test_batch_norm_fused_has_one_line_with_three_results():
    assert lines(worked_example("fused"))[0] == (
        "y, mu, var = normalize(x, gamma, beta, axes=(0,), eps=0.0)"
    )


def test_scalars():
    a, b = tg.named("a", Scalar(2.0)), tg.named("b", Scalar(-3.0))
    c = tg.named("c", (a * b + b).tanh() * 0.1)
    loss = c - Scalar.dot([a, b], [0.5, a])
    assert lines(loss) == [
        "u = a * b",
        "v = u + b",
        "z = v.tanh()",
        "c = z * 0.1",
        "z_2 = Scalar.dot([a, b], [0.5, a])",
        "loss = c - z_2",
    ]


@pytest.mark.parametrize(
    ("notation", "first"),
    [
        ("fleuret", "mhat = tg.mean(x, axis=0, keepdims=True)"),
        ("hat", "muhat = tg.mean(x, axis=0, keepdims=True)"),
    ],
)
def test_names_follow_the_notation(notation, first):
    assert lines(worked_example("composed"), notation)[0] == first


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        *[
            ("γ", "gamma"),
            ("x̂", "xhat"),
            ("σ²_B", "var"),
            ("ℓ", "loss"),
            ("λ", "lam"),
            ("Ω", "Omega"),
        ],
        *[
            ("my weight", "my_weight"),
            ("2nd", "_2nd"),
            ("for", "for_2"),
            ("tg", "tg_2"),
            ("重", "__2"),
        ],
        *[("cube", "cube_2"), ("__import__('os')", "_import_os_"), ("x\ny", "xy")],
    ],
)
def test_any_name_is_one_of_python(symbol, name):
    with tg.tracing():
        x = tg.named(symbol, leaf(np.float32(2)))
        loss = cube(x)
    assert lines(loss) == [f"loss_2 = cube({name})" if name == "loss" else f"loss = cube({name})"]


def test_names_are_told_apart():
    with tg.tracing():
        x, y, z = (tg.named(name, leaf(np.float32(2))) for name in ("γ", "gamma", "γ"))
        assert lines(x * y * z) == ["u = gamma * gamma_2", "loss = u * gamma_3"]


# --- It really computes it ------------------------------------------------------------------------


def batch_norm(implementation):
    return lambda: worked_example(implementation)


def network():
    tg.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 4))
    target = tg.tensor(np.array([0, 3, 1, 1, 2]))
    return F.cross_entropy(net(tg.randn(5, 2)), target, label_smoothing=0.1)


def reductions():
    x = leaf(grid((3, 4)))
    parts = [x.sum(axis=1), x.var(axis=0, correction=1), x.max(axis=(0,)), tg.logsumexp(x, axis=1)]
    return tg.concatenate([*parts, -x.mean(axis=-1) / 3, tg.softmax(x, axis=0)[1]]).sum()


def indexing():
    x = leaf(grid((4, 3)))
    rows = x[[0, 2, 2]] * x[[True, False, True, True]]
    places = [
        x[1:, ::-2],
        x[..., None, 1],
        x[-1],
        x[[0, 3], [1, 1]],
        x[tg.tensor([2, 0])],
    ]
    return rows.sum() + sum(part.sum() for part in places) + x[2, 1]


def numbers():
    x = leaf(grid((4,)).astype(np.float32))
    powers = (-2.0 - x) ** 2.0 + 0.1 * (x * x) ** -1.5 + x * np.float32(0.1) + tg.tensor(3.0)
    return tg.where(x > 0.0, powers, float("inf") * 0 + x * 0.0).astype("float64").sum()


def shapes():
    x = leaf(grid((2, 6)))
    y = x.reshape(3, 4).T @ x.reshape((3, -1)) + tg.broadcast_to(x[0, :4], shape=(4, 4))
    return tg.linear(y, leaf(grid((2, 4), seed=1))).squeeze().sum() + tg.stack([x, x], axis=1).sum()


def own_op():
    return cube(cube(leaf(grid((3,))), scale=0.5)).sum()


def scalars():
    x = [Scalar(value) for value in (0.5, -3.5, 4.5, 7.5)]
    mu = Scalar.sum([*x, 1.3]) / 5
    d = [one - mu for one in x]
    s = (Scalar.dot(d, d) * (1 / 3) + 1e-5).sqrt()
    mixed = Scalar.dot([d[0], 2.0, 3.0], [d[1], x[1], 4.0]) + Scalar.dot(d, [0.1, 0.2, -0.3, 1])
    return (x[0].relu() - -x[3]).log() * mixed**2 / s + 2.0**s - x[2].exp().sigmoid()


@pytest.mark.parametrize(
    "graph",
    [
        *[batch_norm("composed"), batch_norm("fused"), network, reductions, indexing, numbers],
        *[shapes, own_op, scalars],
    ],
)
def test_the_lines_compute_the_loss(graph):
    with tg.tracing():
        loss = graph()
    got, wanted = host(computed(loss).data), host(loss.data)
    np.testing.assert_allclose(got, wanted, rtol=4 * np.finfo(wanted.dtype).eps)
