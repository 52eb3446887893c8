"""Linear algebra and einsum beyond the table of ops: definitions, four orders, limits, errors."""

import numpy as np
import pytest
from helpers import assert_close, assert_values, grid, host, leaf, on_device
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_bn as tg
from tinygrad_bn.check import compare, held_bytes


def square(x):
    """x xᵀ: positive definite, if x has more columns than rows."""
    return x @ tg.swapaxes(x, -1, -2)


def wide(*shape, seed=0):
    """A matrix whose square is far from singular, with eigenvalues far from each other."""
    return leaf(grid(shape, -0.7, 0.7, seed))


# --- What the functions are, by others ------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 9), (2, 2, 6)])
def test_each_function_solves_its_equation(shape):
    a, b = square(wide(*shape)), wide(*shape[:-1], shape[-2], seed=1)
    lower, s, y = tg.cholesky(a), tg.sqrtm(a), tg.lyapunov(a, b)
    w, v = tg.eigh(a)
    for got, wanted in (
        *[(a @ tg.solve(a, b), b), (tg.inv(a) @ b, tg.solve(a, b))],
        *[(square(lower), a), (s @ s, a), (a @ y + y @ a, b), (v * w[..., None, :], a @ v)],
    ):
        assert_close(got, host(wanted), ulps=16, scale=1.0)
    assert_close(lower, np.tril(host(lower)), ulps=0)
    assert_close(s, host(s).mT, ulps=2)


def of_eigenvalues(function, a):
    """A function of a symmetric matrix with different eigenvalues: V f(w) Vᵀ."""
    w, v = tg.eigh(a)
    return (v * function(w)) @ v.T


def lyapunov_by_eigenvalues(a, b):
    w, v = tg.eigh(a)
    return v @ ((v.T @ b @ v) / (w[:, None] + w)) @ v.T


def cholesky_of_two_by_two(a):
    first = tg.sqrt(a[0, 0])
    below = a[1, 0] / first
    return tg.stack([first, below, tg.sqrt(a[1, 1] - below * below)])


def eigh_of_two_by_two(a):
    half, middle = (a[0, 0] - a[1, 1]) / 2, (a[0, 0] + a[1, 1]) / 2
    radius = tg.sqrt(half * half + a[1, 0] * a[1, 0])
    return tg.stack([middle - radius, middle + radius, 0.5 - half / radius / 2])


def shares(a):
    """The eigenvalues, and the square of an element of the first eigenvector."""
    w, v = tg.eigh(a)
    return tg.concatenate([w, v[:1, 0] ** 2])


@pytest.mark.parametrize(
    ("formula", "function", "n"),
    [
        (lambda a, b: of_eigenvalues(lambda w: 1 / w, a), lambda a, b: tg.inv(a), 3),
        (lambda a, b: of_eigenvalues(tg.sqrt, a), lambda a, b: tg.sqrtm(a), 3),
        (lambda a, b: tg.inv(a) @ b, tg.solve, 3),
        (lyapunov_by_eigenvalues, tg.lyapunov, 3),
        (
            lambda a, b: cholesky_of_two_by_two(a),
            lambda a, b: tg.cholesky(a)[[0, 1, 1], [0, 0, 1]],
            2,
        ),
        (lambda a, b: eigh_of_two_by_two(a), lambda a, b: shares(a), 2),
        (lambda a, b: a @ b @ a, lambda a, b: tg.einsum("ij,jk,kl", a, b, a), 3),
        (lambda a, b: tg.sum(a * b, 0), lambda a, b: tg.einsum("ij,ij->j", a, b), 3),
    ],
    ids=["inv", "sqrtm", "solve", "lyapunov", "cholesky", "eigh", "einsum-3", "einsum-2"],
)
def test_right_at_orders_0_to_4(formula, function, n, capsys):
    found = compare(
        lambda x, b: formula(square(x), b),
        lambda x, b: function(square(x), b),
        *[wide(n, 3 * n), wide(n, n, seed=1)],
        repeat=1,
    )
    assert max(found.differences) < 1e-12


# --- Symmetric matrices, and equal eigenvalues ----------------------------------------------------

READERS = {  # functions of a symmetric matrix that read its lower triangle
    "cholesky": tg.cholesky,
    "eigenvalues": lambda a: tg.eigh(a)[0],
    "eigenvectors": lambda a: tg.eigh(a)[1] ** 2,
    "sqrtm": tg.sqrtm,
    "lyapunov": lambda s: tg.lyapunov(s, on_device(grid((3, 3), seed=1))),
}
each_reader = pytest.mark.parametrize("function", READERS.values(), ids=READERS)


@each_reader
def test_the_upper_triangle_is_not_read_and_the_gradient_is_symmetric(function):
    whole = host(square(wide(3, 9)))
    a, lower = leaf(whole), leaf(np.tril(whole) + np.triu(grid((3, 3)), 1))
    np.testing.assert_array_equal(host(function(a)), host(function(lower)))
    y = function(a)
    (g,) = tg.grad(y, a, on_device(grid(y.shape)))
    assert_close(g, host(g).mT, ulps=8)
    assert np.abs(host(g)).max() > 0.1


def test_eigenvalues_alone_have_a_finite_gradient_where_they_are_equal():
    a = leaf(np.stack([2 * np.eye(3), np.zeros((3, 3))]))
    w, v = tg.eigh(a)
    (g,) = tg.grad(tg.sum(w * on_device(np.array([1.0, 2.0, 4.0]))), a, retain_graph=True)
    assert_close(g, host((v * on_device(np.array([1.0, 2.0, 4.0]))) @ tg.swapaxes(v, -1, -2)))
    (g,) = tg.grad(tg.sum(w), a)  # the trace
    np.testing.assert_array_equal(host(g), np.stack([np.eye(3)] * 2))


def test_eigenvectors_have_no_finite_gradient_where_eigenvalues_are_equal():
    a = leaf(2 * np.eye(3))
    with np.errstate(all="ignore"):
        (g,) = tg.grad(tg.eigh(a)[1], a, on_device(grid((3, 3))))
    assert not np.isfinite(host(g)).all()


@pytest.mark.parametrize("function", [tg.sqrtm, lambda a: tg.lyapunov(a, a[::-1])])
def test_the_square_root_is_right_where_eigenvalues_are_equal(function):
    rows = leaf(np.concatenate([np.eye(3), 2 * np.eye(3)], axis=1))  # its square is 5 I
    assert tg.check.gradcheck(lambda x: function(square(x)), rows, atol=1e-8, rtol=1e-7)
    assert tg.check.gradgradcheck(lambda x: function(square(x)), rows, atol=1e-8, rtol=1e-7)


def test_integers_are_computed_in_float64_as_by_numpy():
    a = tg.tensor(np.array([[2, 1], [1, 3]]))
    for function in (tg.inv, tg.cholesky, tg.sqrtm, lambda a: tg.solve(a, a)):
        assert function(a).dtype == np.float64


# --- Einsum ---------------------------------------------------------------------------------------

LENGTHS = {"a": 2, "b": 3, "c": 1, "d": 0}


@st.composite
def products(draw):
    """Subscripts that NumPy takes, and the shapes of the operands."""
    terms = draw(st.lists(st.text("abc", max_size=3), min_size=1, max_size=4))
    terms = draw(st.sampled_from([terms, [*terms, "d"]]))
    shapes = []
    for term in terms:
        broadcast = draw(st.sets(st.sampled_from("ab")))  # but a diagonal is not
        short = {c for c in broadcast if term.count(c) == 1}
        shapes.append(tuple([1 if c in short else LENGTHS[c] for c in term]))
    letters = sorted(set("".join(terms)))
    output = draw(st.permutations(letters).map("".join))[: draw(st.integers(0, len(letters)))]
    ellipsis = draw(st.sampled_from([("", ()), ("...", (2,)), ("...", (1, 3))]))
    k = draw(st.integers(0, len(terms) - 1))
    terms[k], shapes[k] = ellipsis[0] + terms[k], ellipsis[1] + shapes[k]
    arrow = draw(st.sampled_from(["", f"->{output}{ellipsis[0]}"]))
    return ",".join(terms) + arrow, shapes


@given(products())
def test_einsum_is_numpys_and_linear_in_each_operand(product):
    subscripts, shapes = product
    inputs = [leaf(grid(shape, seed=k)) for k, shape in enumerate(shapes)]
    out = tg.einsum(subscripts, *inputs)
    assert_close(out, np.asarray(np.einsum(subscripts, *map(host, inputs))), ulps=16, scale=1.0)
    # So the gradient of an operand, times the operand, is the output, times the gradient there.
    seed = on_device(grid(out.shape, seed=9))
    for x, g in zip(inputs, tg.grad(out, inputs, seed), strict=True):
        assert_close(tg.sum(g * x), host(tg.sum(out * seed)), ulps=64, scale=100.0)


def test_einsum_takes_numbers_lists_and_integers():
    x = leaf(np.array([1.0, 2.0]))
    assert_values(tg.einsum("i,->i", x, 3), 3.0, 6.0)
    assert_values(tg.einsum("i,i", x, [3, 4]), 11.0)
    counts = tg.tensor(np.ones((2, 3), np.int64))
    assert_close(tg.einsum("ij,ij->i", counts, counts), np.array([3, 3]))
    assert tg.grad(tg.einsum("i,i,i", x, x, x), x)[0].tolist() == [3.0, 12.0]


def test_float16_is_multiplied_and_summed_in_float32():
    ones = leaf(np.ones(5000, np.float16))
    for subscripts, operands in (("i->", [ones]), ("i,i", [ones] * 2), ("i,i,i", [ones] * 3)):
        out = tg.einsum(subscripts, *operands)
        assert (out.dtype, out.item()) == (np.float16, 5000.0)
    large, small = leaf(np.array([300.0], np.float16)), leaf(np.array([2**-9], np.float16))
    assert tg.einsum("i,i,i", large, large, small).item() == np.float16(300 * 300 / 2**9)


def test_einsum_of_one_operand_keeps_no_array():
    x = leaf(grid((3, 3, 4)))
    assert held_bytes([tg.einsum("iij->j", x)], [x]) <= 2 * 3 * 8  # the places of the diagonal


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x: tg.inv(x), ValueError, r"inv\(float64\[2, 3\].*square"),
        (lambda x: tg.eigh(x[0]), ValueError, r"eigh\(float64\[3\].*two-dimensional"),
        (lambda x: tg.solve(x, x), ValueError, r"solve\(float64\[2, 3\].*wants a \(…, n, n\)"),
        (
            lambda x: tg.solve(square(x), x[0]),
            ValueError,
            r"solve\(.*, float64\[3\].*b \(…, n, k\)",
        ),
        (lambda x: tg.solve(x[0], x[0]), ValueError, r"solve\(float64\[3\].*wants a \(…, n, n\)"),
        (lambda x: tg.lyapunov(square(x), x), ValueError, r"lyapunov\(.*wants s and q"),
        (lambda x: tg.einsum("ij,jk", x, x), ValueError, r"einsum\(.*'j' for operand 1"),
        (
            lambda x: tg.einsum("ii", x),
            ValueError,
            r"einsum\(float64\[2, 3\].*'i' for operand 0",
        ),
        (lambda x: tg.einsum("ii", x[:1]), ValueError, r"index 'i' don't match \(1 != 3\)"),
        (lambda x: tg.einsum("ijk", x), ValueError, "correct number of indices for operand 0"),
        (lambda x: tg.einsum(",...ijk", 2, x), ValueError, "Ellipses lengths do not match"),
        (lambda x: tg.einsum("i", x), ValueError, "correct number of indices for operand 0"),
        (
            lambda x: tg.einsum("ij,jk", x),
            ValueError,
            "subscripts must be equal to the number of op",
        ),
        (lambda x: tg.einsum("ij"), ValueError, r"einsum\(\): at least one array"),
        (lambda x: tg.einsum("ij->ik", x), ValueError, "character k did not appear in the input"),
        (lambda x: tg.einsum("ij->ii", x), ValueError, "character i appeared more than once"),
        (lambda x: tg.einsum("ij->j->i", x), ValueError, "can only contain one '->'"),
        (lambda x: tg.einsum("i1", x), ValueError, "1 is not a valid symbol"),
        (lambda x: tg.einsum(x, [0, 1]), TypeError, r"einsum\(int64\[2\].*Tensor"),
        (lambda x: tg.einsum("ij,", x, None), TypeError, r"einsum\(float64\[2, 3\].*, None\)"),
    ],
)
def test_errors_name_the_op_and_what_does_not_fit(call, kind, text):
    x = leaf(np.ones((2, 3)))
    if x.device != "cpu":
        text = text.replace(r"\]", r"\].*")  # where " on cuda:0" stands
    with pytest.raises(kind, match=text):
        call(x)


@pytest.mark.parametrize("function", [tg.inv, lambda a: tg.solve(a, a), tg.cholesky])
def test_a_matrix_without_an_answer_is_an_error_on_the_cpu(function, cpu_only):
    with pytest.raises(ValueError, match=r"\(float64\[2, 2\].*(Singular|not positive definite)"):
        function(tg.tensor(np.array([[1.0, 1.0], [1.0, 1.0]]) * -1))
