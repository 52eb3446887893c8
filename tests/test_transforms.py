"""vjp, jvp, jacobian, hessian: values, structures, nesting, and what is recorded."""

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, vector
from hypothesis import given
from libraries import LIBRARIES
from test_engine_memory import cyclic_garbage
from test_engine_orders import SMOOTH, programs, run

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.check import graph_nodes
from tinygrad_bn.graph import Leaf, parents


def constant(*values):
    """A float64 constant with these elements."""
    return tg.tensor(np.array(values))


def leaves_of(output):
    """The ids of the leaves that a Tensor depends on."""
    order = tg.toposort([output.node], parents)
    return {id(node) for node in order if isinstance(node, Leaf)}


def nested(values, answer):
    """The values of an answer of one Tensor, or of tuples of them."""
    if isinstance(answer, tuple):
        return tuple(nested(values, part) for part in answer)
    return values(answer)


# --- Values and structures ------------------------------------------------------------------------

x12, y35 = [1.0, 2.0], [3.0, 5.0]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("transform", "function", "arguments", "wanted"),
    [
        ("vjp", lambda x: x * x, (x12, y35), ([1, 4], [6, 20])),
        ("vjp", lambda x: (x * x).sum(), (x12,), (5, [2, 4])),
        ("vjp", lambda x: (x.sum(),), (x12,), ((3,), [1, 1])),
        ("vjp", lambda x: x * x, ((x12,), y35), ([1, 4], ([6, 20],))),
        ("vjp", lambda x, y: x * y, ((x12, y35), y35), ([3, 10], ([9, 25], [3, 10]))),
        (
            "vjp",
            lambda x, y: (x * y, x.sum()),
            ((x12, y35), (x12, 10.0)),
            (([3, 10], 3), ([13, 20], [1, 4])),
        ),
        ("jvp", lambda x: x * x, (x12, y35), ([1, 4], [6, 20])),
        ("jvp", lambda x: (x * x,), ((x12,), (y35,)), (([1, 4],), ([6, 20],))),
        ("jvp", lambda x, y: x * y, ((x12, y35), (y35, x12)), ([3, 10], [10, 29])),
        (
            "jvp",
            lambda x, y: (x * y, y.sum()),
            ((x12, y35), (x12, y35)),
            (([3, 10], 8), ([6, 20], 8)),
        ),
        ("jacobian", lambda x: x * x, (x12,), [[2, 0], [0, 4]]),
        ("jacobian", lambda x: (x * x).sum(), (x12,), [2, 4]),
        ("jacobian", lambda x: (x * x,), (x12,), ([[2, 0], [0, 4]],)),
        ("jacobian", lambda x: x * x, ((x12,),), ([[2, 0], [0, 4]],)),
        (
            "jacobian",
            lambda x, y: (x.sum() * y, x[0]),
            ((x12, y35),),
            (([[3, 3], [5, 5]], [[3, 0], [0, 3]]), ([1, 0], [0, 0])),
        ),
        ("hessian", lambda x: (x * x * x).sum(), (x12,), [[6, 0], [0, 12]]),
        ("hessian", lambda x: (x * x * x).sum()[None], (x12,), [[6, 0], [0, 12]]),
        (
            "hessian",
            lambda x, y: (x * x * y).sum(),
            ((x12, y35),),
            (([[6, 0], [0, 10]], [[2, 0], [0, 4]]), ([[2, 0], [0, 4]], [[0, 0], [0, 0]])),
        ),
        ("hessian", lambda x: x.sum(), (x12,), [[0, 0], [0, 0]]),
    ],
)
def test_answers_have_the_values_and_the_structure_of_pytorchs(
    library, transform, function, arguments, wanted
):
    library = library()

    def made(value):
        if isinstance(value, tuple):
            return tuple(map(made, value))
        return library.tensor(value)

    answer = getattr(library, transform)(function, *map(made, arguments))
    assert nested(library.values, answer) == wanted


def test_the_shape_of_a_jacobian_is_that_of_the_output_and_that_of_the_input():
    x = tg.tensor(grid((2, 3)))
    assert tg.jacobian(lambda x: tg.stack([x, x, x, x]), x).shape == (4, 2, 3, 2, 3)
    assert tg.jacobian(lambda x: x[:0], x).shape == (0, 3, 2, 3)
    assert tg.hessian(lambda x: (x * x).sum(), x).shape == (2, 3, 2, 3)


def test_a_hessian_is_symmetric_and_that_of_logsumexp_is_the_covariance_of_its_softmax():
    x = tg.tensor(grid((4,)))
    p = host(tg.softmax(x))
    hessian = tg.hessian(lambda x: tg.logsumexp(x), x)
    assert_close(hessian, np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(host(hessian), host(hessian).T, rtol=0, atol=1e-16)


@given(programs(SMOOTH))
def test_of_any_program_jvp_is_the_difference_quotient_and_vjp_its_transpose(program):
    x, y = tg.tensor(grid((2, 3), -1, 1)), tg.tensor(grid((3,), -1, 1, seed=1))
    directions = (tg.tensor(grid((2, 3), -1, 1, seed=2)), tg.tensor(grid((3,), -1, 1, seed=3)))
    weights = tg.tensor(grid((2, 3), -1, 1, seed=4))

    def function(x, y):
        return run(program, x, y)

    value, tangent = tg.jvp(function, (x, y), directions)
    np.testing.assert_array_equal(host(value), host(function(x, y)))
    ends = [
        host(function(*(t + step * d for t, d in zip((x, y), directions))))
        for step in (1e-5, -1e-5)
    ]
    np.testing.assert_allclose(host(tangent), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-7)
    _, gradients = tg.vjp(function, (x, y), weights)
    along = sum(np.sum(host(g) * host(d)) for g, d in zip(gradients, directions))
    np.testing.assert_allclose(along, np.sum(host(weights) * host(tangent)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_direction_of_another_dtype_is_cast_and_answers_have_the_dtype_of_what_they_belong_to(
    dtype,
):
    x = tg.tensor(np.array([1.0, 2.0], dtype))
    value, tangent = tg.jvp(lambda x: tg.astype(x * x, dtype=np.float64), x, constant(1.0, 10.0))
    assert value.dtype == tangent.dtype == np.float64
    assert_values(tangent, 2.0, 40.0)
    _, gradient = tg.vjp(lambda x: x * x, x, constant(1.0, 10.0))
    assert gradient.dtype == dtype
    assert_values(gradient, 2.0, 40.0)


def test_where_nothing_depends_there_are_zeros():
    x, y, p = constant(1.0, 2.0), constant(3.0), vector(5.0)
    value, gradients = tg.vjp(lambda x, y: p * 2.0, (x, y), constant(1.0))
    assert_values(value, 10.0)
    assert [host(g).tolist() for g in gradients] == [[0.0, 0.0], [0.0]]
    _, tangents = tg.jvp(lambda x, y: (p, x.detach() * x, tg.argmax(x)), (x, y), (x, y))
    assert [host(t).tolist() for t in tangents] == [[0.0], [1.0, 4.0], 0]
    assert_values(tg.jacobian(lambda x: tg.ones(3), x), *np.zeros(6))
    assert_values(tg.hessian(lambda x: tg.tensor(1.0), x), *np.zeros(4))


def test_the_identity_and_a_repeated_output():
    x, v = constant(1.0, 2.0), constant(3.0, 5.0)
    assert_values(tg.jvp(lambda x: x, x, v)[1], 3.0, 5.0)
    _, tangents = tg.jvp(lambda x: (x, x), x, v)
    assert [host(t).tolist() for t in tangents] == [[3.0, 5.0]] * 2
    assert_values(tg.vjp(lambda x: (x, x), x, (v, v))[1], 6.0, 10.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: tg.vjp(tg.exp, np.ones(2), x), TypeError, "inputs: got ndarray, wants a Tensor"),
        (lambda x: tg.vjp(tg.exp, (x, 1.0), x), TypeError, "inputs: got float"),
        (lambda x: tg.vjp(lambda x: 1.0, x), TypeError, "answer: got float, wants a Tensor"),
        (lambda x: tg.vjp(tg.exp, x), ValueError, r"answer: got float64\[2\].*, wants one element"),
        (lambda x: tg.vjp(lambda x: (x[0], x[1]), x), ValueError, "wants one element"),
        (lambda x: tg.vjp(tg.exp, x, x[0]), ValueError, r"v: got float64\[\].*, wants float64\[2"),
        (lambda x: tg.vjp(tg.exp, x, (x, x)), ValueError, "v: got float64.*, float64.*, wants"),
        (lambda x: tg.vjp(tg.exp, x, [1.0, 2.0]), TypeError, "v: got float"),
        (lambda x: tg.jvp(tg.add, (x, x), x), ValueError, r"v: got float64\[2\].*, wants f.*, f"),
        (lambda x: tg.jvp(tg.exp, x, None), TypeError, "v: got NoneType"),
        (lambda x: tg.hessian(tg.exp, x), ValueError, r"answer: got float64\[2\].*, wants one"),
        (lambda x: tg.hessian(lambda x: (x[0], x[0]), x), ValueError, "wants one element"),
        (lambda x: tg.jacobian(tg.exp, tg.argmax(x)), TypeError, "requires_grad: got .* int64"),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(constant(1.0, 2.0))
    assert tg.exp(vector(1.0)).requires_grad  # no switch was left behind


# --- What is recorded -----------------------------------------------------------------------------

TRANSFORMS = {
    "vjp": lambda function, x, v: tg.vjp(function, x, v)[1],
    "jvp": lambda function, x, v: tg.jvp(function, x, v)[1],
    "value": lambda function, x, v: tg.vjp(function, x, v)[0],
    "value of jvp": lambda function, x, v: tg.jvp(function, x, v)[0],
    "jacobian": lambda function, x, v: tg.jacobian(function, x),
    "hessian": lambda function, x, v: tg.hessian(lambda x: tg.sum(function(x) * x), x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("live", ["", "x", "v", "p", "xvp"])
def test_an_answer_is_recorded_if_what_it_depends_on_requires_a_gradient(name, live):
    x, v, p = (
        tg.tensor(np.array(values), requires_grad=word in live)
        for word, values in zip("xvp", ([0.5, 2.0], [3.0, 5.0], [0.25, 1.5]))
    )
    depends = "xvp" if name in ("vjp", "jvp") else "xp"

    def function(x):
        return tg.exp(x * p)

    answer = TRANSFORMS[name](function, x, v)
    assert answer.requires_grad == any(word in depends for word in live)
    wanted = [t for word, t in zip("xvp", (x, v, p)) if word in live and word in depends]
    if wanted:
        assert leaves_of(answer) == {id(t.node) for t in wanted}  # nothing of the transform's own
        assert all(g is not None for g in tg.grad(tg.sum(answer), wanted, allow_unused=True))
    with tg.no_grad():
        still = TRANSFORMS[name](function, x, v)
    assert not still.requires_grad
    np.testing.assert_array_equal(host(still), host(answer))


def test_of_several_answers_only_those_are_recorded_that_depend_on_something_live():
    x, y, v = vector(1.0), constant(2.0), constant(1.0)
    values, gradients = tg.vjp(lambda x, y: (x * x, y * y), (x, y), (v, v))
    assert [t.requires_grad for t in (*values, *gradients)] == [True, False, True, False]
    values, tangents = tg.jvp(lambda x, y: (x * x, y * y), (x, y), (v, v))
    assert [t.requires_grad for t in (*values, *tangents)] == [True, False, True, False]
    blocks = tg.jacobian(lambda x, y: (x * x, y * y), (x, y))
    assert [t.requires_grad for row in blocks for t in row] == [True, False, False, False]


def test_a_later_pass_does_no_work_for_an_input_that_is_a_constant():
    def fail(g, _out, _x, _y):
        if isinstance(g, tg.Tensor):  # in the transform itself
            return g
        raise AssertionError("nobody wants this gradient")

    @tg.op("plus", lambda g, _out, _x, _y: g, fail)
    def plus(xp, x, y):
        return x + y

    x = vector(1.0)
    value, _ = tg.vjp(plus, (x, constant(2.0)))
    value.backward()
    assert_values(x.grad, 1.0)


def test_outputs_keep_the_history_of_inputs_and_closures():
    x, p = vector(1.0, 2.0), vector(3.0, 5.0)
    y = x * x
    for value in (
        tg.vjp(lambda y: y * p, y, constant(1.0, 1.0))[0],
        tg.jvp(lambda y: y * p, y, constant(1.0, 1.0))[0],
    ):
        dx, dp = tg.grad(tg.sum(value), [x, p], retain_graph=True)
        assert_values(dx, 6.0, 20.0)
        assert_values(dp, 1.0, 4.0)


def test_an_input_may_be_any_output_of_an_op():
    x = leaf(grid((4, 2)))
    y, mu, var = tg.norm.fused.normalize(x, None, None, axes=(0,), eps=0.1)
    for place in (var, mu, y):
        value, gradient = tg.vjp(lambda t: tg.sum(t * t * t), place)
        for got, wanted in ((value, tg.sum(place**3)), (tg.sum(gradient), tg.sum(3 * place**2))):
            ours, theirs = (tg.grad(t, x, retain_graph=True)[0] for t in (got, wanted))
            assert_close(ours, host(theirs), ulps=8, scale=1.0)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_frees_no_graph_and_sets_no_grad_of_the_caller(name):
    x = vector(1.0, 2.0)
    y = tg.exp(x)
    with tg.no_grad():
        TRANSFORMS[name](lambda t: t * y, y, constant(1.0, 1.0))
    TRANSFORMS[name](lambda t: t * y, y, constant(1.0, 1.0))
    assert x.grad is None
    assert len(graph_nodes([y])) == 1
    assert_close(tg.grad(tg.sum(y), x)[0], np.exp([1.0, 2.0]))


def test_only_the_argument_is_the_variable():
    x = vector(3.0)
    y = x * 1.0
    assert_values(tg.vjp(lambda t: t * y, y)[1], 3.0)
    assert_values(tg.jvp(lambda t: t * y, y, constant(1.0))[1], 3.0)
    assert_values(tg.jacobian(lambda t: t * y * y, y), 9.0)
    assert_values(tg.hessian(lambda t: t * t * y, y), 6.0)
    assert_values(tg.jacobian(lambda s, t: s * s * t, (y, y))[0], 18.0)
    # … but what is recorded is a function of x in both places
    assert_values(tg.grad(tg.vjp(lambda t: t * t * y, y)[1], x)[0], 12.0)  # d(2 x²)


def test_a_function_is_called_once_and_running_statistics_move_as_in_any_step():
    tg.manual_seed(0)
    x = tg.randn(6, 2)
    once = nn.BatchNorm1d(2)
    once(x)
    for transform in (
        lambda f: tg.vjp(f, x, x),
        lambda f: tg.jvp(f, x, x),
        lambda f: tg.jacobian(f, x),
        lambda f: tg.hessian(lambda x: tg.sum(f(x) * x), x),
    ):
        layer = nn.BatchNorm1d(2)
        transform(layer)
        assert layer.num_batches_tracked.item() == 1
        np.testing.assert_array_equal(host(layer.running_var), host(once.running_var))


def test_a_traced_transform_shows_the_names_of_its_inputs():
    x = tg.named("x", vector(1.0))
    with tg.tracing():
        value, _ = tg.vjp(tg.exp, x)
    assert [node.trace.input_names for node in graph_nodes([value])][-1] == ("x",)


def test_nothing_is_left_behind():
    x, p = vector(1.0, 2.0), vector(3.0, 5.0)

    def all_of_them():
        for transform in TRANSFORMS.values():
            transform(lambda t: tg.exp(t * p), x, p)
            with tg.no_grad():
                transform(lambda t: tg.exp(t * p), x, p)

    assert cyclic_garbage(all_of_them) == []
