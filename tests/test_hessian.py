"""Products with the Hessian: against the gradient's differences, the matrix itself, and the oracle.

X is dense, or sparse in CSR form, in every test of what is computed.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from problems import (
    FLOATS,
    LAYOUTS,
    Case,
    Problem,
    Unchanged,
    assert_same_bits,
    assert_within,
    cases,
    once,
    oracle,
)
from test_gradients import CASES
from tolerances import HessianTerms

INF, NAN = np.inf, np.nan


def as_csr(dense):
    """Every number of a dense X but its zeros, in compressed rows."""
    row, column = np.nonzero(dense)
    indptr = np.searchsorted(row, np.arange(len(dense) + 1))
    return SimpleNamespace(
        data=dense[row, column], indices=column, indptr=indptr, shape=dense.shape
    )


FORMS = {"dense": np.asarray, "sparse": as_csr}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def problem_of(case):
    """A problem, and arguments of its product with a direction."""
    p = Problem(replace(case, with_dX=False))
    rng = np.random.default_rng([case.seed, 3])
    p.direction = {"V": np.asarray(rng.normal(size=p.W.shape), case.dtype, order=case.w_order)}
    p.direction["V"] *= np.abs(p.W).mean() if p.W.size else 1
    if case.bias:
        p.direction["v"] = rng.normal(size=case.c).astype(case.dtype)
    p.product = p.loss | {"rows": p.rows} | p.direction
    return p


def explicit_hessian(p):
    """The matrix of W's and b's numbers, row by row of X: s K times z z'."""
    a = p.picked
    z = a["X"] * p.x_scale
    if p.case.bias:
        z = np.column_stack([z, np.ones(len(z))])
    logits = a["X"] @ p.W * p.x_scale + (p.b if p.case.bias else 0)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    smoothing, c = p.options.get("label_smoothing", 0), p.case.c
    row_weight = a.get("sample_weight", np.ones(len(z)))
    class_weight = p.options.get("weight", np.ones(c)).astype(float)
    d = z.shape[1]
    total, divisor = np.zeros((d * c, d * c)), 0.0
    for i, target in enumerate(a["target"]):
        if p.case.soft:
            share, counts = target.astype(float), row_weight[i]
        elif target == p.options.get("ignore_index", -100):
            continue
        else:
            share, counts = np.eye(c)[target], row_weight[i] * class_weight[target]
        divisor += counts
        s = row_weight[i] * class_weight @ ((1 - smoothing) * share + smoothing / c)
        K = np.diag(probabilities[i]) - np.outer(probabilities[i], probabilities[i])
        total += s * np.kron(np.outer(z[i], z[i]), K)
    return total / divisor if divisor and p.options["reduction"] == "mean" else total


@each_form
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_hessian(kernels, case, form):
    p = problem_of(case)
    if case.rows:
        p.rows = p.product["rows"] = np.array([4, 1, -1, 4, 0])
    result = kernels.linear_cross_entropy_hvp(**p.product | {"X": form(p.X)})
    theta = np.vstack([*p.direction.values()])
    expected = (explicit_hessian(p) @ theta.ravel()).reshape(theta.shape)
    got = result.dW if result.db is None else np.vstack([result.dW, result.db])
    np.testing.assert_allclose(got, expected, 1e-12, 1e-14)
    assert (result.db is None) == (p.b is None)


@pytest.mark.parametrize("case", CASES[:12], ids=str)
def test_it_is_the_change_of_the_gradient(kernels, case):
    """Central differences along the direction, of fourth order."""
    p, step = problem_of(case), 1e-3

    def gradient(k):
        moved = {"W": p.W + k * step * p.direction["V"]}
        if case.bias:
            moved["b"] = p.b + k * step * p.direction["v"]
        return kernels.linear_cross_entropy_with_grad(**p.gradient | moved)

    result = kernels.linear_cross_entropy_hvp(**p.product)
    at = {k: gradient(k) for k in (-2, -1, 1, 2)}
    for name in ("dW", "db") if case.bias else ("dW",):
        values = {k: getattr(g, name) for k, g in at.items()}
        change = (values[-2] - 8 * values[-1] + 8 * values[1] - values[2]) / (12 * step)
        np.testing.assert_allclose(getattr(result, name), change, 1e-7, 1e-10)


ALL = [
    *cases(21, 50, budget=1e7),
    Case(9, 700, 3100, "float32", "uint8", x_scale=1 / 255, rows=True),  # W in panels
    Case(130, 300, 3600, "float64", weight=True, ignore=0, w_order="F", sample_weight=True),
    Case(300, 40, 1000, "float32", smoothing=0.1, weight=True),
]


@once
def exact_product(case):
    p = problem_of(case)
    expected = oracle("linear_cross_entropy_hvp", _wide(p.product))
    return p, expected, HessianTerms(p, p.picked, **p.direction)


def _wide(product):
    return product | {k: a.astype(float) for k, a in product.items() if k in ("V", "v")}


@each_form
@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_shape_type_and_option(kernels, case, form):
    p, expected, bounds = exact_product(case)
    arrays = [a for a in p.product.values() if isinstance(a, np.ndarray)]
    with Unchanged(*arrays):
        result = kernels.linear_cross_entropy_hvp(**p.product | {"X": form(p.X)})
    assert (result.dW.dtype, result.dW.shape) == (case.dtype, (case.d, case.c))
    assert result.dW.flags[f"{case.w_order}_CONTIGUOUS"]
    assert_within(result.dW, expected.dW, bounds.dW)
    if case.bias:
        assert (result.db.dtype, result.db.shape) == (case.dtype, (case.c,))
        assert_within(result.db, expected.db, bounds.db)


@each_form
def test_a_row_that_is_nearly_sure_keeps_its_digits(kernels, form):
    """K is of the size of 1 - p there, far below the rounding errors of p u."""
    X, gap = np.eye(3, dtype=np.float32), 30.0
    W = np.zeros((3, 4), np.float32)
    W[:, 1] = gap
    V = np.array([[5, 3, 7, 2], [1e4, 1e4, 1e4 + 1, 1e4], [0, 1, 0, 0]], np.float32)
    got = kernels.linear_cross_entropy_hvp(form(X), W, None, [0, 1, 2], V, reduction="sum").dW
    p = np.exp(-gap)
    rest = V - V[:, 1:2]
    expected = p * rest
    expected[:, 1] = -p * rest.sum(axis=1)
    np.testing.assert_allclose(got, expected, 1e-5, 1e-20)


@each_form
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [10, 100])
def test_the_same_bits_on_any_number_of_threads(compiled, sx, form, dtype, c):
    p = problem_of(Case(5000, 33, c, dtype))
    given = p.product | {"X": form(p.X)}
    results = []
    for n in (1, 2, 3):
        with sx.num_threads(n):
            results.append(compiled.linear_cross_entropy_hvp(**given))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_bits_in_every_layout(compiled, name):
    p = problem_of(Case(70, 21, 5, "float32", sample_weight=True, weight=True))
    expected = compiled.linear_cross_entropy_hvp(**p.product)
    for arguments in (["X"], ["W"], ["V"], ["b", "v"], ["target", "sample_weight", "weight"]):
        moved = {k: LAYOUTS[name](np.asarray(p.product[k])) for k in arguments}
        assert_same_bits(compiled.linear_cross_entropy_hvp(**p.product | moved), expected)


@each_form
def test_parts_add_up(kernels, form):
    p = problem_of(Case(300, 20, 7, "float64", weight=True, smoothing=0.1, reduction="sum"))
    whole = kernels.linear_cross_entropy_hvp(**p.product | {"X": form(p.X)})
    parts = [
        kernels.linear_cross_entropy_hvp(**p.product | {"X": form(p.X), "rows": rows})
        for rows in np.array_split(np.arange(300), 3)
    ]
    for k in (0, 1):
        np.testing.assert_allclose(sum(part[k] for part in parts), whole[k], 1e-12, 1e-12)


@each_form
def test_rows_are_those_of_a_copy(kernels, form):
    p = problem_of(Case(90, 17, 6, "float32", sample_weight=True, ignore=2))
    rows = np.array([3, -1, 3, 40, 0])
    some = {"X": form(p.X[rows]), "target": p.target[rows]}
    some["sample_weight"] = p.options["sample_weight"][rows]
    expected = kernels.linear_cross_entropy_hvp(**p.product | some)
    got = kernels.linear_cross_entropy_hvp(**p.product | {"X": form(p.X), "rows": rows})
    np.testing.assert_allclose(got.dW, expected.dW, 1e-6, 1e-7)
    np.testing.assert_allclose(got.db, expected.db, 1e-6, 1e-7)


@each_form
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_out(kernels, form, layout):
    p = problem_of(Case(90, 17, 6, "float32"))
    given = p.product | {"X": form(p.X)}
    expected = kernels.linear_cross_entropy_hvp(**given)
    if layout == "strided":
        dW, db = np.full((34, 12), 7, np.float32)[::2, ::2], np.full(12, 7, np.float32)[::2]
    else:
        dW, db = np.full((17, 6), 7, np.float32, layout), np.full(6, 7, np.float32)
    result = kernels.linear_cross_entropy_hvp(**given, out=(dW, db))
    assert result.dW is dW
    assert result.db is db
    np.testing.assert_allclose(dW, expected.dW, 1e-6, 1e-7)
    np.testing.assert_allclose(db, expected.db, 1e-6, 1e-7)
    again = kernels.linear_cross_entropy_hvp(**given, out=result)
    assert again.dW is dW


def test_the_product_may_take_the_place_of_its_direction(compiled):
    p = problem_of(Case(90, 17, 6, "float32"))
    expected = compiled.linear_cross_entropy_hvp(**p.product)
    V, v = p.direction.values()
    compiled.linear_cross_entropy_hvp(**p.product, out=(V, v))
    assert_same_bits(V, expected.dW)
    assert_same_bits(v, expected.db)


@pytest.mark.parametrize("wide", ["X", "W", "b", "V", "v"])
def test_any_float64_makes_it_float64(kernels, wide):
    p = problem_of(Case(9, 5, 3, "float32"))
    result = kernels.linear_cross_entropy_hvp(**p.product | {wide: p.product[wide].astype(float)})
    assert result.dW.dtype == result.db.dtype == np.float64


def test_no_shift_of_the_bias_is_a_shift_of_nothing(kernels):
    p = problem_of(Case(9, 5, 3, "float64"))
    given = p.product | {"v": None}
    expected = kernels.linear_cross_entropy_hvp(**given | {"v": np.zeros(3)})
    assert_same_bits(kernels.linear_cross_entropy_hvp(**given), expected)
    assert expected.db is not None


# What is not finite -------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("bad", [NAN, INF])
def test_an_ignored_row_counts_nothing(kernels, form, bad):
    X = np.array([[1.0, 2], [bad, 1], [3, 1]])
    W, V = np.eye(2), np.array([[1.0, 2], [0, 3]])
    got = kernels.linear_cross_entropy_hvp(form(X), W, None, [0, -100, 1], V).dW
    expected = kernels.linear_cross_entropy_hvp(form(X[::2]), W, None, [0, 1], V).dW
    assert_same_bits(got, expected)


@each_form
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_row_that_is_not_finite_makes_its_features_nan(kernels, form, bad):
    X = np.array([[1.0, 0, 2], [0, bad, 0]])
    W = np.array([[1.0, 2], [3, 4], [5, 5]])
    got = kernels.linear_cross_entropy_hvp(form(X), W, np.zeros(2), [0, 1], np.ones((3, 2)))
    assert np.isnan(got.dW[1]).all()
    assert np.isnan(got.db).all()


@each_form
def test_a_class_that_cannot_be_has_no_part(kernels, form):
    X, b = np.eye(3), np.array([0.0, -INF, 1])
    W, V = np.diag([1.0, 2, 3]), np.arange(9.0).reshape(3, 3)
    got = kernels.linear_cross_entropy_hvp(form(X), W, b, [0, 2, 2], V, np.ones(3))
    kept = [0, 2]
    expected = kernels.linear_cross_entropy_hvp(
        form(X), W[:, kept], b[kept], [0, 1, 1], V[:, kept], np.ones(2)
    )
    np.testing.assert_allclose(got.dW[:, kept], expected.dW, 1e-12, 1e-15)
    np.testing.assert_allclose(got.db[kept], expected.db, 1e-12, 1e-15)
    assert not got.dW[:, 1].any()
    assert got.db[1] == 0


@each_form
def test_nothing_to_count(kernels, form):
    X, W = np.ones((2, 3)), np.ones((3, 4))
    for given in ({"target": [-100, -100]}, {"target": [1, 2], "rows": []}):
        got = kernels.linear_cross_entropy_hvp(form(X), W, np.ones(4), V=W, v=np.ones(4), **given)
        assert not got.dW.any()
        assert not got.db.any()
    no_rows = np.ones((0, 3))
    assert not kernels.linear_cross_entropy_hvp(form(no_rows), W, None, [], W).dW.any()
    no_features = kernels.linear_cross_entropy_hvp(
        form(np.ones((2, 0))), np.ones((0, 4)), np.zeros(4), [0, 1], np.ones((0, 4)), np.arange(4.0)
    )
    assert no_features.dW.shape == (0, 4)
    np.testing.assert_allclose(no_features.db, (np.arange(4) - 1.5) / 4)


# What is refused ----------------------------------------------------------------------------------

REFUSED = {
    "V-shape": ({"V": np.ones((3, 2))}, ValueError, r"V: shape \(3, 2\) came, that of W, \(3,"),
    "V-dtype": ({"V": np.ones((3, 4), complex)}, TypeError, "V: "),
    "v-shape": ({"v": np.ones(3)}, ValueError, r"v: shape \(3,\) came, that of b, \(4,\),"),
    "v-without-b": ({"b": None}, ValueError, "v: an array came"),
    "out-shape": ({"out": (np.ones((4, 3)), None)}, ValueError, "out"),
    "out-type": ({"out": np.ones((3, 4))}, TypeError, "out: ndarray came"),
    "label": ({"target": [0, 4]}, IndexError, "target: label 4 at row 1"),
    "rows": ({"rows": [2]}, IndexError, "rows: index 2"),
    "reduction": ({"reduction": "all"}, ValueError, "reduction: 'all' came"),
    "x-scale": ({"x_scale": INF}, ValueError, "x_scale"),
    "smoothing": ({"label_smoothing": 2}, ValueError, "label_smoothing"),
    "sample-weight": ({"sample_weight": [1]}, ValueError, "sample_weight: shape"),
    "no-classes": (
        {"W": np.ones((3, 0)), "V": np.ones((3, 0)), "b": None, "v": None}, ValueError, "W: shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(kernels, changed, error, match):
    given = {
        "X": np.ones((2, 3)), "W": np.ones((3, 4)), "b": np.ones(4), "target": [0, 1],
        "V": np.ones((3, 4)), "v": np.ones(4), "out": (np.full((3, 4), 7.0), np.full(4, 7.0)),
    }  # fmt: skip
    out = given["out"]
    with pytest.raises(error, match=match):
        kernels.linear_cross_entropy_hvp(**given | changed)
    assert all((a == 7).all() for a in out)


@pytest.mark.parametrize("indices", [[0, 3], [0, -1]])
@pytest.mark.parametrize("n", [1, 3000])
def test_a_sparse_x_that_leads_outside_is_refused(compiled, indices, n):
    X = SimpleNamespace(
        data=np.ones(n + 1), indices=np.array([0] * (n - 1) + indices),
        indptr=np.array([*range(n), n + 1]), shape=(n, 3),
    )  # fmt: skip
    dW = np.full((3, 4), 7.0)
    with pytest.raises(ValueError, match=f"X: column index {indices[1]} at row {n - 1}"):
        compiled.linear_cross_entropy_hvp(
            X, np.ones((3, 4)), None, [0] * n, np.ones((3, 4)), out=(dW, None)
        )
    assert (dW == 7).all()
