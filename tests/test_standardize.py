"""Fits to standardised features: what scaled copies of them give, with X as it is."""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext.arguments import as_matrix
from softmax_ext.solvers import minimize
from softmax_ext.solvers.arrays import ArrayObjective
from softmax_ext.solvers.standardised import Standardised

N, D, C = 300, 6, 3


class Csr:
    """A CSR matrix, without SciPy."""

    def __init__(self, X):
        present = X != 0
        self.shape = X.shape
        self.indptr = np.append(0, np.cumsum(present.sum(axis=1)))
        self.indices = np.nonzero(present)[1]
        self.data = X[present]


def make_data(dtype, seed=3):
    """Features of several sizes, one that never changes, and one that is mostly 0."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, C, N)
    X = rng.normal(size=(N, D)) + 2 * (y[:, None] == np.arange(D) % C)
    X = X * [1, 5, 20, 1, 1, 3] + [0, 4, 100, 0, 9, -3]
    X[:, 3] = 7
    X[rng.random(N) < 0.8, 4] = 0
    return (np.clip(X, 0, 255) if dtype == "uint8" else X).astype(dtype), y


def standardised(X, weight, *, centred):
    """What is fitted to otherwise, in float64."""
    X = X.astype(np.float64)
    mean = np.average(X, axis=0, weights=weight)
    scale = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    scale[X.min(axis=0) == X.max(axis=0)] = 1
    mean = mean if centred else np.zeros(D)
    return (X - mean) / scale, mean, scale


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_is_the_fit_to_standardised_features(dtype, sparse, intercept, weighted):
    X, y = make_data(dtype)
    weight = np.random.default_rng(0).exponential(size=N) if weighted else None
    if weighted:
        weight[:100] = 0
    Z, mean, scale = standardised(X, weight, centred=intercept)
    options = {"l2": 3.0, "tol": 1e-8, "max_iter": 2000, "sample_weight": weight}
    b = np.zeros(C) if intercept else None
    right = minimize(Z, y, np.zeros((D, C)), b, **options)
    W = np.zeros((D, C), "float64" if dtype == "uint8" else dtype)
    b = np.zeros(C, W.dtype) if intercept else None
    found = minimize(Csr(X) if sparse else X, y, W, b, standardize=True, **options)
    assert right.success
    assert found.W.dtype == W.dtype
    # Of float32, the nearest numbers are as near as they are.
    rtol = 1e-5 if dtype == "float32" else 1e-7
    assert found.fun == pytest.approx(right.fun, rel=1e-7 if dtype == "float32" else 1e-12)
    expected = right.W / scale[:, None]
    np.testing.assert_allclose(found.W, expected, rtol=rtol, atol=rtol * np.abs(right.W).max())
    if intercept:
        assert found.W[3].any() == 0
        expected = right.b - mean @ (right.W / scale[:, None])
        np.testing.assert_allclose(found.b, expected, atol=rtol * 100)
    else:
        assert found.W[3].any()  # divided by 1: it is the intercept


def test_l1_penalises_the_weights_of_standardised_features():
    X, y = make_data("float64")
    Z, _, scale = standardised(X, None, centred=True)
    options = {"l1": 10.0, "tol": 1e-7, "max_iter": 5000}
    right = minimize(Z, y, np.zeros((D, C)), np.zeros(C), **options)
    found = minimize(X, y, np.zeros((D, C)), np.zeros(C), standardize=True, **options)
    assert 0 < (right.W == 0).sum() < right.W.size
    np.testing.assert_array_equal(found.W == 0, right.W == 0)
    np.testing.assert_allclose(found.W, right.W / scale[:, None], atol=1e-4)
    assert found.penalty == pytest.approx(10 * np.abs(right.W).sum(), rel=1e-4)


def test_x_scale_and_ignored_rows():
    """The deviations are those of the rows that count, whatever the factor of X."""
    X, y = make_data("uint8")
    other = np.vstack([X, np.full((50, D), 255, np.uint8)])
    labels = np.append(y, np.full(50, -100))
    options = {"standardize": True, "l2": 1.0, "tol": 1e-10}
    W, b = np.zeros((D, C)), np.zeros(C)
    plain = minimize(X, y, W, b, **options)
    scaled = minimize(other, labels, W, b, x_scale=-1 / 255, **options)
    np.testing.assert_allclose(scaled.W / -255, plain.W, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled.b, plain.b, rtol=1e-6, atol=1e-8)


def test_a_fit_goes_on_from_the_weights_that_it_is_given():
    X, y = make_data("float64")
    options = {"standardize": True, "l2": 1.0, "tol": 1e-6}
    first = minimize(X, y, np.zeros((D, C)), np.zeros(C), **options)
    again = minimize(X, y, first.W, first.b, **options)
    assert again.nfev <= 2
    np.testing.assert_allclose(again.W, first.W, rtol=1e-9)


def test_the_model_and_its_callback_take_raw_features():
    X, y = make_data("float32")
    model = sx.SoftmaxModel.zeros(D, C)
    seen = []

    def callback(state):
        loss = sx.linear_cross_entropy(X, state.W, state.b, y, reduction="sum")
        seen.append((loss, state.fun - state.penalty))

    result = sx.fit_lbfgs(model, X, y, C=0.1, standardize=True, callback=callback)
    assert result.success
    np.testing.assert_array_equal(model.W, result.W)
    losses, told = np.array(seen).T
    np.testing.assert_allclose(losses, told, rtol=1e-4)
    assert model.loss(X, y) * N == pytest.approx(result.fun - result.penalty, rel=1e-4)


def test_hundreds_of_thousands_of_sparse_features_stay_sparse():
    """Centred, they would be 1.6 GB."""
    rng = np.random.default_rng(0)
    n, d, of_row = 1000, 200_000, 20
    X = Csr(np.zeros((0, 0)))
    X.shape, X.indptr = (n, d), np.arange(0, n * of_row + 1, of_row)
    X.indices, X.data = rng.integers(0, d, n * of_row), rng.random(n * of_row)
    y = rng.integers(0, 2, n)
    tracemalloc.start()
    minimize(X, y, np.zeros((d, 2)), np.zeros(2), standardize=True, l2=1.0, max_iter=3)
    assert tracemalloc.get_traced_memory()[1] < 60 * d * 2 * 8
    tracemalloc.stop()


def losses(X, y, has_intercept=True):
    return ArrayObjective(
        as_matrix(X), y, sample_weight=None, n_classes=C, has_intercept=has_intercept,
        dtype=np.dtype(np.float64), x_scale=1.0, label_smoothing=0.0, kernels=sx.kernels,
    )  # fmt: skip


def test_moments_keep_their_digits_and_need_little_memory():
    rng = np.random.default_rng(0)
    X = 1e8 + rng.normal(size=(20_000, 50)) * [1, *[10.0**k for k in range(-3, 46)]]
    tracemalloc.start()
    mean, deviation = losses(X, np.zeros(len(X), int)).moments()
    assert tracemalloc.get_traced_memory()[1] < X.nbytes / 2
    tracemalloc.stop()
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation, np.std(X, axis=0), rtol=1e-6)


def test_gradient_is_that_of_the_value():
    X, y = make_data("float64")
    objective = Standardised(losses(X, y))
    rng = np.random.default_rng(1)
    theta, step = rng.normal(size=(2, D + 1, C))
    value, gradient, _ = objective.value_and_gradient(theta)
    above, below = (objective.value_and_gradient(theta + s * step).value for s in (1e-5, -1e-5))
    assert np.vdot(gradient, step) == pytest.approx((above - below) / 2e-5, rel=1e-6)
    gradients = [objective.value_and_gradient(theta + s * step).gradient for s in (1e-5, -1e-5)]
    product = objective.hessian_product(theta, step)
    np.testing.assert_allclose(product, (gradients[0] - gradients[1]) / 2e-5, atol=1e-4)
    np.testing.assert_allclose(objective.from_raw(objective.to_raw(theta)), theta, atol=1e-12)
    assert objective.moments()[0] == pytest.approx(0, abs=1e-12)
    wide = copy.copy(objective).in_float64()
    assert wide.value_and_gradient(theta).value == pytest.approx(value)


def test_estimators_and_their_scaler():
    pytest.importorskip("sklearn")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from softmax_ext.sklearn import LogisticRegression, SoftmaxRegression

    X, y = make_data("float64")
    weight = np.random.default_rng(1).exponential(size=N)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8))
    names = ("standardscaler__sample_weight", "logisticregression__sample_weight")
    pipeline.fit(X, y, **dict.fromkeys(names, weight))
    for cls in (LogisticRegression, SoftmaxRegression):
        model = cls(C=0.1, tol=1e-8, standardize=True).fit(X, y, weight)
        np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), atol=1e-5)
    for model in (LogisticRegression(solver="liblinear"), SoftmaxRegression(solver="sgd")):
        with pytest.raises(ValueError, match="standardize: True came with the solver"):
            model.set_params(standardize=True).fit(X, y % 2)
    with pytest.raises(ValueError, match="partial_fit does not support standardize"):
        SoftmaxRegression(standardize=True).partial_fit(X, y, [0, 1, 2])


def test_command_line(tmp_path, monkeypatch, capsys):
    from softmax_ext.cli import main

    monkeypatch.chdir(tmp_path)
    X, y = make_data("float32")
    np.savez("data.npz", x_train=X[:250], y_train=y[:250], x_test=X[250:], y_test=y[250:])
    words = ["train", "--data", "data.npz", "--solver", "lbfgs", "--C", "0.1", "--quiet"]
    assert main([*words, "--standardize", "--report", "report"]) == 0
    capsys.readouterr()
    model = sx.SoftmaxModel.zeros(D, C)
    sx.fit_lbfgs(model, X[:250], y[:250], C=0.1, standardize=True)
    np.testing.assert_array_equal(sx.SoftmaxModel.load("model.npz").W, model.W)
    assert "| standardize | True |" in (tmp_path / "report" / "report.md").read_text()
