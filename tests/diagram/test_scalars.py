"""The view `scalars`: every number a box, and a lane a sample."""

import importlib.util
import itertools

import numpy as np
import pytest
from helpers import host, leaf, on_device, vector
from hypothesis import given
from hypothesis import strategies as st
from pictures import boxes, wires

import tinygrad_bn as tg
from tinygrad_bn import Scalar, named, nn
from tinygrad_bn import functional as F
from tinygrad_bn.diagram import draw
from tinygrad_bn.diagram.batch_norm import worked_example
from tinygrad_bn.diagram.drawing.sketch import characters
from tinygrad_bn.norm import IMPLEMENTATIONS

needs_graphviz = pytest.mark.skipif(
    importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed"
)

X, W = (0.5, 3.5, 4.5, 7.5), (1.0, -2.0, 0.5, 1.5)


def batch_norm_of_scalars(xs=X, ws=W):
    """The lecture's lines over a list of Scalars, each with its name."""
    x = [named(f"x_{i}", Scalar(value)) for i, value in enumerate(xs, 1)]
    gamma, beta = named("γ", Scalar(2.0)), named("β", Scalar(1.0))
    mu = named("μ_B", Scalar.sum(x) / len(x))
    d = [named(f"d_{i}", xi - mu) for i, xi in enumerate(x, 1)]
    var = named("σ²_B", Scalar.sum(di**2 for di in d) / len(d))
    s = named("s", (var + 0.0).sqrt())
    xhat = [named(f"x̂_{i}", di / s) for i, di in enumerate(d, 1)]
    y = [named(f"y_{i}", gamma * xi + beta) for i, xi in enumerate(xhat, 1)]
    return named("ℓ", Scalar.sum(wi * yi for wi, yi in zip(ws, y)))


def traced(function, *arguments):
    with tg.tracing():
        return function(*arguments)


def titles(sketch):
    return {box.id: characters(box.symbol) for box in sketch.boxes}


def lanes(sketch):
    """The symbols in each lane, by its title; and under None those in no lane."""
    names = titles(sketch)
    found = {
        characters(frame.title): [names.pop(b) for b in frame.boxes] for frame in sketch.frames
    }
    return found | {None: list(names.values())}


def drawn_wires(sketch):
    """The role of every wire by the symbols at its ends."""
    names = titles(sketch)
    return {(names[wire.start], names[wire.end]): wire.role for wire in sketch.wires}


# --- The worked example ---------------------------------------------------------------------------

NUMBERS = {
    "γ": ("2", "1.2"),
    "β": ("1", "1"),
    "μB": ("4", "−0.8"),
    "σ²B": ("6.25", "−0.192"),
    "s": ("2.5", "−0.96"),
    "ℓ": ("3.4", "1"),
}
COLUMNS = {
    "x": (("0.5", "3.5", "4.5", "7.5"), ("0.936", "−1.752", "0.152", "0.664")),
    "d": (("−3.5", "−0.5", "0.5", "3.5"), ("1.136", "−1.552", "0.352", "0.864")),
    "x̂": (("−1.4", "−0.2", "0.2", "1.4"), ("2", "−4", "1", "3")),
    "y": (("−1.8", "0.6", "1.4", "3.8"), ("1", "−2", "0.5", "1.5")),
}
NUMBERS |= {
    f"{name}{i + 1}": (values[i], gradients[i])
    for name, (values, gradients) in COLUMNS.items()
    for i in range(4)
}


@needs_graphviz
def test_every_element_of_the_worked_example_stands_in_the_saved_picture(tmp_path):
    diagram = draw(worked_example("composed"), "scalars")
    found = boxes(diagram.save(tmp_path / "bn.svg"))
    for heading, (value, gradient) in NUMBERS.items():
        assert found[heading] == ["▸", value, "◂", gradient]
    assert [found[f"w{i}"] for i in (1, 2, 3, 4)] == [["▸", w] for w in ("1", "−2", "0.5", "1.5")]
    assert "x2 → d2" in {title.replace("_", "") for title in wires(diagram.svg())}


@needs_graphviz
def test_batch_norm_over_scalars_has_the_same_numbers():
    diagram = draw(batch_norm_of_scalars(), "scalars")
    said = diagram.svg()
    shown = {characters(box.symbol).replace("_", ""): box for box in diagram.sketch.boxes}
    for heading, (value, gradient) in NUMBERS.items():
        rows = shown[heading].columns[0].rows
        assert [row.role for row in rows] == ["forward", "backward"]
        np.testing.assert_allclose(
            [float(row.values[0]) for row in rows],
            [float(text.replace("−", "-")) for text in (value, gradient)],
            rtol=0,
            atol=1e-12,
        )
        assert f">{value}<" in said
        assert f">{gradient}<" in said


@pytest.mark.parametrize("recorded", [batch_norm_of_scalars, lambda: worked_example("composed")])
def test_a_lane_holds_a_sample_from_its_input_to_its_output(recorded):
    found = lanes(draw(recorded(), "scalars").sketch)
    assert list(found) == ["i = 1", "i = 2", "i = 3", "i = 4", None]
    for i in (1, 2, 3, 4):
        assert {f"x_{i}", f"d_{i}", f"x̂_{i}", f"y_{i}"} <= set(found[f"i = {i}"])
    assert {"γ", "β", "μ_B", "σ²_B", "ℓ"} <= set(found[None])


@pytest.mark.parametrize("recorded", [batch_norm_of_scalars, lambda: worked_example("composed")])
def test_the_samples_meet_in_the_two_statistics_and_the_loss_only(recorded):
    sketch = draw(recorded(), "scalars").sketch
    assert sketch.across
    lane = {box: frame.title for frame in sketch.frames for box in frame.boxes}
    assert not [
        w for w in sketch.wires if len({lane.get(b) for b in (w.start, w.end)} - {None}) > 1
    ]
    meeting = {w.end for w in sketch.wires if w.start in lane and w.end not in lane}
    incoming = [[w.start for w in sketch.wires if w.end == box] for box in meeting]
    assert [len(starts) for starts in incoming] == [4, 4, 4]


def test_the_fused_op_computes_every_output_from_every_input():
    found = drawn_wires(draw(worked_example("fused"), "scalars").sketch)
    samples = [f"x_{i}" for i in (1, 2, 3, 4)]
    outputs = [*(f"y_{i}" for i in (1, 2, 3, 4)), "μ_B", "σ²_B"]
    assert {pair for pair in found if pair[0] in samples} == set(
        itertools.product(samples, outputs)
    )
    assert {pair for pair in found if pair[0] == "γ"} == {("γ", y) for y in outputs[:4]}


def test_a_definition_stands_in_the_tooltip():
    tooltips = {
        characters(b.symbol): b.tooltip
        for b in draw(batch_norm_of_scalars(), "scalars").sketch.boxes
    }
    assert tooltips["d_3"] == "d_3 = x_3 − μ_B, −"
    assert tooltips["x_3"] == "x_3, leaf"


# --- Wires ----------------------------------------------------------------------------------------

MATRIX = np.array([[1.0, 0.0, -2.0], [0.0, 3.0, 0.0]])
OPS = {
    "×": lambda x: x * on_device(MATRIX.T),
    "@": lambda x: x @ on_device(MATRIX),
    "mean": lambda x: x.mean(axis=0),
    "Σ": lambda x: x.sum(axis=1),
    "cumsum": lambda x: tg.cumsum(x, axis=1),
    "max": lambda x: x.max(axis=1),
    "reshape": lambda x: x.reshape(2, 3),
    "transpose": lambda x: x.T,
    "relu": F.relu,
    "[ ]": lambda x: x[[2, 0, 2]],
    "concat": lambda x: tg.concatenate([x, x], axis=1),
    "normalize": lambda x: IMPLEMENTATIONS["fused"].normalize(x, None, None, axes=(0,), eps=0.1)[0],
}


@pytest.mark.parametrize("op", OPS)
def test_blue_wires_are_where_the_derivative_is_not_0(op):
    x = np.random.default_rng(0).standard_normal((3, 2))
    diagram = draw(traced(OPS[op], leaf(x)), "scalars")
    (end,) = diagram.graph.drawn
    (start,) = [node.id for node in diagram.graph.nodes if node.kind == "leaf"]
    jacobian = host(tg.jacobian(OPS[op], tg.tensor(x))).reshape(-1, x.size)
    wanted = {
        (f"n{start}_0_{j}", f"n{end[0]}_{end[1]}_{i}") for i, j in np.argwhere(jacobian).tolist()
    }
    forward = {(w.start, w.end) for w in diagram.sketch.wires if w.role == "forward"}
    assert {pair for pair in forward if pair[0].startswith(f"n{start}_")} == wanted


@pytest.mark.parametrize("implementation", ["Scalars", "Tensors"])
def test_a_wire_along_which_the_derivative_happens_to_be_0_is_dashed(implementation):
    """x_2 is the mean of its batch, so its deviation is 0, and with it the derivative of d_2²."""
    xs = (1.0, 2.0, 3.0)
    if implementation == "Scalars":
        sketch = draw(batch_norm_of_scalars(xs, xs), "scalars").sketch
        squares = {f"d_{i}": "( )^2" for i in (1, 2, 3)}
    else:
        y = traced(lambda x: named("q", named("d", x - x.mean()) ** 2).sum(), vector(*xs))
        sketch = draw(y, "scalars").sketch
        squares = {f"d_{i}": f"q_{i}" for i in (1, 2, 3)}
    roles = drawn_wires(sketch)
    assert [roles[pair] for pair in squares.items()] == ["forward", "zero", "forward"]


def test_several_uses_of_a_number_are_one_wire_with_the_sum_of_their_derivatives():
    x = named("x", Scalar(3.0))
    assert drawn_wires(draw(named("a", x * x), "scalars").sketch) == {("x", "a"): "forward"}
    assert drawn_wires(draw(named("b", x - x), "scalars").sketch) == {("x", "b"): "zero"}


def test_values_that_are_not_finite_change_no_wire():
    def recorded(*values):
        norm = IMPLEMENTATIONS["composed"].normalize
        return traced(lambda x: norm(x, None, None, axes=(0,), eps=0.1)[0].sum(), vector(*values))

    finite = draw(recorded(1.0, 2.0, 4.0), "scalars").sketch.wires
    assert draw(recorded(np.nan, np.inf, 1e308), "scalars").sketch.wires == finite


def test_constants_are_boxes_where_a_derivative_can_be_taken():
    def loss(x, w, target):
        return F.cross_entropy(named("h", x * named("w", w) + 2.0), target)

    arguments = vector(1.0, 2.0).reshape(1, 2), tg.tensor(np.ones((1, 2))), tg.tensor(np.array([1]))
    sketch = draw(traced(loss, *arguments), "scalars").sketch
    constants = [titles(sketch)[box.id] for box in sketch.boxes if box.kind == "constant"]
    assert constants == ["w_1", "w_2"]


def test_an_op_of_the_users_own_draws_and_a_constant_without_a_rule_is_no_box():
    @tg.op("scaled", lambda g, _out, _x, factor: g * factor, None)
    def scaled(xp, x, factor):
        return x * factor

    y = traced(lambda x: named("y", scaled(x, on_device(np.array([2.0, 0.0])))), vector(1.0, 2.0))
    sketch = draw(y, "scalars").sketch
    assert drawn_wires(sketch) == {("x_1", "y_1"): "forward", ("x_2", "y_2"): "zero"}
    assert len(sketch.boxes) == 4


# --- Lanes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lane"),
    [
        *[("x_1", "i = 1"), ("x̂_{12}", "i = 12"), ("w_3_4", "i = 4"), ("my_name_0", "i = 0")],
        *[("x", None), ("x1", None), ("x_i", None), ("x_{1,2}", None), ("x_1y", None), ("_", None)],
        *[("x_" + "9" * 5000, None), ("x_٣", None), ("x_²", None)],
    ],
)
def test_the_number_that_ends_a_name_tells_the_lane(name, lane):
    sketch = draw(
        named("ℓ", named(name, Scalar(2.0)) * 3.0 + named("z_7", Scalar(1.0))), "scalars"
    ).sketch
    found = {characters(frame.title): frame.boxes for frame in sketch.frames}
    assert ("n0_0_0" in found[lane]) if lane else all("n0_0_0" not in b for b in found.values())


@given(st.lists(st.sampled_from(["x_1", "x_2", "x_{3}", "c"]), min_size=1, max_size=6))
def test_what_has_no_number_belongs_to_the_only_lane_that_it_is_computed_from(names):
    total = Scalar.sum([named(name, Scalar(1.0)) for name in names])
    found = lanes(draw(total, "scalars").sketch)
    of = {name.strip("x_{}") for name in names} - {"c"}
    home = next((title for title, symbols in found.items() if "ℓ" in symbols), None)
    assert home == (f"i = {of.pop()}" if len(of) == 1 else None)


@pytest.mark.parametrize("implementation", ["composed", "fused"])
def test_weights_and_the_statistics_of_features_are_in_no_lane(implementation):
    """Also if there are as many samples as features, and of these as many as outputs."""
    tg.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, impl=implementation), nn.ReLU())
    loss = traced(lambda: net(named("x", tg.randn(2, 2))).sum())
    found = lanes(draw(loss, "scalars").sketch)
    parameters = {"weight_{1,1}", "weight_{2,2}", "bias_1", "γ_2", "β_1", "μ_{B,1}", "σ²_{B,2}"}
    assert parameters <= set(found[None])
    for i in (1, 2):
        assert {f"x_{{{i},1}}", f"x_{{{i},2}}", f"y_{{{i},1}}"} <= set(found[f"i = {i}"])
        assert not {name for name in found[f"i = {i}"] if name.startswith(("weight", "bias", "μ"))}


@pytest.mark.parametrize(
    ("compute", "shape", "weight", "lane"),
    [
        (lambda x, w: x @ w, (3,), "w_2", None),
        (lambda x, w: x @ w, (3, 3), "w_{2,1}", None),
        (lambda x, w: x[:, 0] * w, (3,), "w_2", "i = 2"),  # one for each sample
    ],
)
def test_weights_that_samples_share_are_in_no_lane_even_if_they_are_as_many(
    compute, shape, weight, lane
):
    x, w = leaf(np.arange(9.0).reshape(3, 3)), leaf(np.ones(shape))
    found = lanes(
        draw(traced(lambda: compute(named("x", x), named("w", w)).sum()), "scalars").sketch
    )
    assert weight in found[lane]
    assert {"x_{2,1}", "x_{2,2}", "x_{2,3}"} <= set(found["i = 2"])


def test_scalars_that_several_samples_share_are_in_no_lane_whatever_their_names():
    x = [named(f"x_{i}", Scalar(value)) for i, value in enumerate(X, 1)]
    w = [named(f"w_{k}", Scalar(value)) for k, value in enumerate(W[:2], 1)]
    y = [named(f"y_{i}", w[0] * xi + w[1] * xi**2) for i, xi in enumerate(x, 1)]
    found = lanes(draw(named("ℓ", Scalar.sum(y)), "scalars").sketch)
    assert found[None] == ["w_1", "w_2", "ℓ"]
    assert {"x_4", "y_4", "×"} <= set(found["i = 4"])


def test_scalars_without_a_name_are_called_by_what_they_are():
    sketch = draw(named("y", Scalar(3.0) * Scalar(2.0) + 1.0), "scalars").sketch
    assert [*titles(sketch).values()] == ["leaf", "leaf", "×", "y"]


def test_without_samples_there_are_no_lanes():
    x = named("x", Scalar(2.0))
    for y in (x * x + 1.0, traced(lambda t: t * t.exp(), leaf(np.float64(2)))):
        sketch = draw(y, "scalars").sketch
        assert sketch.frames == ()
        assert sketch.across


# --- Bad input ------------------------------------------------------------------------------------


def chain(length):
    x = Scalar(1.0)
    for _ in range(length):
        x = x * 1.5
    return x


@pytest.mark.parametrize(
    ("recorded", "count"),
    [
        (lambda: chain(200), "201"),
        (lambda: chain(9999), "10,000"),
        (lambda: traced(lambda x: x.sum(), leaf(np.ones((500, 1000)))), "500,001"),
    ],
)
def test_more_than_200_numbers_are_refused_with_what_to_do(recorded, count):
    with pytest.raises(ValueError, match=rf"got a graph of {count} numbers, wants up to 200: take"):
        draw(recorded(), "scalars")
    assert len(draw(chain(199), "scalars").sketch.boxes) == 200


def test_empty_tensors_and_several_outputs_draw():
    empty = traced(lambda x: (x * 2.0).sum(), leaf(np.zeros((0, 3))))
    assert list(titles(draw(empty, "scalars").sketch).values()) == ["ℓ"]
    x = vector(1.0, 2.0)
    several = traced(
        lambda: [named("a", x * 2.0), named("c", tg.tensor([5.0])), named("b", x.exp())]
    )
    assert {"a_1", "a_2", "b_1", "b_2", "c"} <= set(
        titles(draw(several, "scalars").sketch).values()
    )


@needs_graphviz
@pytest.mark.parametrize(
    "name", ["", " ", "</g>&", "^", "_1", "a" * 10_000, "\u202ex_1", "x\x00_2"]
)
def test_any_name_draws(name):
    x = named(name, vector(1.0, 2.0))
    assert draw(traced(lambda: (x * x).sum()), "scalars").svg().count('class="box leaf"') == 2
    assert draw(named(name, Scalar(1.0)) * 2.0, "scalars").svg().count('class="box leaf"') == 1


@needs_graphviz
def test_the_same_program_gives_the_same_picture():
    for recorded in (batch_norm_of_scalars, lambda: worked_example("fused")):
        assert draw(recorded(), "scalars").svg() == draw(recorded(), "scalars").svg()
