"""Fits of data that fits go wrong on: right, or said not to be (see awkward.py for the kinds).

Judged by the objective: beside scikit-learn's at its own settings, and beside the true optimum.
"""

from __future__ import annotations

import functools
import warnings

import awkward
import numpy as np
import pytest

from softmax_ext import SoftmaxModel, fit_lbfgs
from softmax_ext.solvers import minimize

sparse = pytest.importorskip("scipy.sparse")
theirs = pytest.importorskip("sklearn.linear_model").LogisticRegression

from sklearn.exceptions import ConvergenceWarning  # noqa: E402

from softmax_ext.sklearn import LogisticRegression  # noqa: E402

STORAGE = {
    "float64": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "csr": lambda X: sparse.csr_array(X),
}
KINDS = {**awkward.kinds(), **{n: lambda p=p: p for n, p in awkward.scikit_learns_sets()}}
# In float32 such features have no digits left, and neither has an intercept that undoes their mean.
HOPELESS = {("mean 1e8", "float32"), ("column of 1e160", "float32")}


def _cases():
    for name, make in KINDS.items():
        dtype = make().X.dtype
        for storage in STORAGE if dtype == np.float64 else (str(dtype),):
            if (name, storage) not in HOPELESS:
                yield pytest.param(name, storage, id=f"{name}-{storage}")


CASES = list(_cases())


@functools.cache
def problem(name, storage):
    found = KINDS[name]()
    if found.X.dtype == np.float64:
        found = found._replace(X=STORAGE[storage](found.X))
    return found


@functools.cache
def least(name, storage):
    """The true optimum."""
    p = problem(name, storage)
    return awkward.optimum(p.X, p.y, p.C, p.weight)


@functools.cache
def scikit_learns(name, storage):
    p = problem(name, storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return objective(p, *_form(theirs(C=p.C).fit(p.X, p.y, p.weight)))


def _form(estimator):
    return estimator.coef_.T.astype(np.float64), estimator.intercept_.astype(np.float64)


def objective(p, W, b):
    return awkward.objective(p.X, p.y, p.weight, p.C, W, b)


def check(name, storage, value):
    assert value <= scikit_learns(name, storage) * (1 + 1e-6)
    best = least(name, storage)
    # Nobody takes a mean loss of 1e-9 for far from one of 0.
    assert value - best <= 1e-3 * abs(best) + 1e-9 * len(problem(name, storage).y)


@pytest.mark.parametrize(("name", "storage"), CASES)
def test_estimator(name, storage):
    p = problem(name, storage)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "Setting penalty=None")  # scikit-learn 1.8, of C = inf
        estimator = LogisticRegression(C=p.C).fit(p.X, p.y, p.weight)
    assert {w.category for w in caught} <= {ConvergenceWarning}
    check(name, storage, objective(p, *_form(estimator)))
    if len(estimator.intercept_) > 1:
        largest = max(np.abs(estimator.coef_).max(), np.abs(estimator.intercept_).max())
        eps = np.finfo(estimator.coef_.dtype).eps
        assert np.abs(estimator.coef_.sum(axis=0)).max() <= 20 * eps * largest
        assert abs(estimator.intercept_.sum()) <= 20 * eps * largest


@pytest.mark.parametrize(("name", "storage"), CASES)
def test_fit_lbfgs(name, storage):
    p = problem(name, storage)
    classes = int(p.y.max()) + 1
    dtype = np.float32 if p.X.dtype == np.float32 else np.float64
    model = SoftmaxModel.zeros(p.X.shape[1], classes, dtype=dtype)
    # Two columns of w/2 have half the penalty of one of w.
    C = p.C / 2 if classes == 2 else p.C
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit_lbfgs(model, p.X, p.y, C=C, sample_weight=p.weight)
    W, b = result.W.astype(np.float64), result.b.astype(np.float64)
    if classes == 2:
        W, b = W[:, 1:] - W[:, :1], b[1:] - b[:1]
    value = objective(p, W, b)
    check(name, storage, value)
    if result.success:
        assert result.grad_norm <= 1e-4
    np.testing.assert_allclose(result.fun, value, rtol=1e-5, atol=1e-9 * len(p.y))


@pytest.mark.parametrize("name", KINDS)
def test_no_more_passes_than_plain_steps(name):
    """Where a preconditioner does not help, it does not hinder either."""
    p = KINDS[name]()
    classes = int(p.y.max()) + 1

    def passes(until, **options):
        def callback(state):
            if state.fun <= until:
                raise StopIteration

        W, b = np.zeros((p.X.shape[1], classes)), np.zeros(classes)
        return minimize(
            p.X, p.y, W, b, l2=(2 if classes == 2 else 1) / p.C, sample_weight=p.weight,
            callback=callback, **options,
        )  # fmt: skip

    plain = passes(-np.inf, precondition=False)
    ours = passes(plain.fun * (1 + 1e-6))
    assert ours.fun <= plain.fun * (1 + 1e-6)
    assert ours.nfev <= plain.nfev + 20


def test_hopeless_fits_say_so():
    for name, storage in HOPELESS - {("column of 1e160", "float32")}:
        p = problem(name, storage)
        with pytest.warns(ConvergenceWarning, match="rounding"):
            LogisticRegression(C=p.C).fit(p.X, p.y)


def test_intercept_beside_a_tiny_feature():
    p = problem("one tiny ridge", "float64")
    estimator = LogisticRegression().fit(p.X, p.y)
    np.testing.assert_allclose(estimator.intercept_, np.log(3), rtol=1e-3)


def test_a_huge_float32_column_is_learnt():
    p = problem("one huge float32 column", "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = LogisticRegression().fit(p.X, p.y)
    assert estimator.score(p.X, p.y) == 1


@pytest.mark.parametrize("C", [1e-100, 1e-300])
def test_intercepts_are_fitted_under_any_penalty(C):
    p = problem("C = 1e-100", "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = LogisticRegression(C=C).fit(p.X, p.y)
    shares = np.bincount(p.y) / len(p.y)
    np.testing.assert_allclose(estimator.predict_proba(p.X[:1])[0], shares, rtol=1e-5)


@pytest.mark.parametrize("storage", STORAGE)
def test_few_labelled_rows_among_many(storage):
    rng = np.random.default_rng(0)
    X, y = awkward.noisy(rng, 20000, 30, 12)
    y[rng.choice(len(y), len(y) - 300, replace=False)] = -100
    X[y < 0] *= 10 ** rng.uniform(-2, 2, 30)  # which is nobody's business
    X = STORAGE[storage](X)
    labelled = np.flatnonzero(y >= 0)

    def fit(X, y):
        dtype = X.dtype
        return minimize(X, y, np.zeros((30, 12), dtype), np.zeros(12, dtype), l2=1.0, tol=1e-5)

    all_rows, alone = fit(X, y), fit(X[labelled], y[labelled])
    assert all_rows.success
    assert all_rows.nfev <= alone.nfev + 3
    np.testing.assert_allclose(all_rows.fun, alone.fun, rtol=1e-5)


@pytest.mark.parametrize("storage", STORAGE)
def test_weight_on_few_rows(storage):
    """One class of 25 rows, as heavy as the other's 25000: each of them is in the sample."""
    rng = np.random.default_rng(0)
    X, y = awkward.noisy(rng, 25000, 40, 2)
    y[:] = 0
    y[rng.choice(len(y), 25, replace=False)] = 1
    X[y == 1] += 0.5
    estimator = LogisticRegression(class_weight="balanced").fit(STORAGE[storage](X), y)
    plain = theirs(class_weight="balanced").fit(X, y)
    assert estimator.n_iter_[0] < plain.n_iter_[0]
    p = awkward.Problem(X, y, 1.0, len(y) / (2 * np.bincount(y)[y]))
    assert objective(p, *_form(estimator)) <= objective(p, *_form(plain)) * (1 + 1e-6)


def test_features_far_from_0_do_not_take_all_iterations():
    p = problem("mean 1e8", "float64")
    result = minimize(
        p.X, p.y, np.zeros((5, 3)), np.zeros(3), l2=1.0, max_iter=1000
    )  # fmt: skip
    assert result.nit < 100
    assert result.success or "rounding" in result.message


@pytest.mark.parametrize("max_iter", [1, 2, 3, 4, 6, 10, 20])
def test_success_is_none_where_iterations_end_far_above_the_optimum(max_iter):
    """Also where the gradient is within tol already: of some heavy rows the others hold little."""
    p = KINDS["few heavy rows"]()
    W, b = np.zeros((p.X.shape[1], 3)), np.zeros(3)
    result = minimize(
        p.X, p.y, W, b, l2=1 / p.C, sample_weight=p.weight, max_iter=max_iter, tol=1e-2
    )
    best = least("few heavy rows", "float64")
    assert not result.success or result.fun <= best * (1 + 1e-2)


def test_a_preconditioner_that_stalls_is_dropped():
    """As where its first step is far too long in values that only few rows have."""
    rng = np.random.default_rng(0)
    X = (rng.uniform(size=(30000, 100)) < np.logspace(-4, -0.5, 100)).astype(float)
    score = X @ rng.normal(size=(100, 5)) * 2
    y = np.argmax(score + rng.gumbel(size=score.shape), axis=1)
    W, b = np.zeros((100, 5)), np.zeros(5)
    plain = minimize(X, y, W, b, precondition=False, max_iter=100)
    assert minimize(X, y, W, b, max_iter=120).fun <= plain.fun * (1 + 1e-2)


@pytest.mark.parametrize("name", awkward.kinds())
def test_absolute_values(name):
    """With an L1 penalty a fit is as near as it says, and so is its bound, or it says so."""
    p = KINDS[name]()
    c, dtype = int(p.y.max()) + 1, np.float64 if p.X.dtype == np.float64 else np.float32
    l1 = 1 / min(p.C, 1e6)
    W, b = np.zeros((p.X.shape[1], c), dtype), np.zeros(c, dtype)
    options = {"l1": l1, "sample_weight": p.weight, "max_iter": 60}
    result = minimize(p.X, p.y, W, b, **options)
    closer = minimize(p.X, p.y, result.W, result.b, tol=1e-9, **options)
    values = [
        awkward.objective(p.X, p.y, p.weight, np.inf, r.W, r.b)
        + l1 * np.abs(r.W).sum(dtype=np.float64)
        for r in (result, closer)
    ]
    # Logits of large numbers are rounded, here as there.
    rounding = 1e-8 * abs(values[0]) + 1e-12
    assert abs(result.fun - values[0]) <= rounding
    assert result.fun - result.gap <= min(values) + rounding
    assert result.success == (result.gap <= 1e-4 * result.fun)
    if result.success:
        assert values[0] <= min(values) * (1 + 1e-4) + rounding
