"""Solvers: the optimum they reach, what they refuse, and how they stop."""

from __future__ import annotations

import numpy as np
import pytest

from softmax_ext import SoftmaxModel, reference
from softmax_ext.solvers import minimize


def make_data(n=300, d=6, c=4, seed=5):
    """Blobs that a linear model can nearly tell apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    y[:c] = np.arange(c)
    centres = rng.normal(size=(c, d)) * 2
    return centres[y] + rng.normal(size=(n, d)), y


def solve(X, y, *, c=None, intercept=True, dtype=np.float64, **options):
    c = c or (y.shape[1] if y.ndim == 2 else int(y.max()) + 1)
    b = np.zeros(c, dtype) if intercept else None
    options = {"tol": 1e-9, "max_iter": 5000, **options}
    return minimize(X, y, np.zeros((X.shape[1], c), dtype), b, **options)


def gradient(X, y, result, *, l2=0.0, sample_weight=None):
    """Gradient of the smooth part at a result, by the reference in float64."""
    b = np.zeros(result.W.shape[1]) if result.b is None else result.b
    step = reference.linear_cross_entropy_with_grad(
        X.astype(np.float64), result.W.astype(np.float64), b.astype(np.float64), y,
        sample_weight=sample_weight, reduction="sum",
    )  # fmt: skip
    return step.dW + l2 * result.W, step.db


@pytest.mark.parametrize("intercept", [True, False])
def test_gradient_vanishes_at_the_optimum(intercept):
    X, y = make_data()
    result = solve(X, y, l2=1.0, intercept=intercept)
    assert result.success
    dW, db = gradient(X, y, result, l2=1.0)
    assert np.abs(dW).max() <= 1e-9 * len(y) * 1.01
    if intercept:
        assert np.abs(db).max() <= 1e-9 * len(y) * 1.01
    else:
        assert result.b is None


def test_l1_optimum_fulfils_its_conditions():
    X, y = make_data()
    result = solve(X, y, l1=5.0, l2=0.5, tol=1e-8)
    assert result.success
    dW, db = gradient(X, y, result, l2=0.5)
    zero = result.W == 0
    assert 0 < zero.sum() < zero.size
    assert np.abs(db).max() < 1e-5
    assert np.abs(dW[zero]).max() <= 5.0 + 1e-5
    np.testing.assert_allclose(dW[~zero], -5.0 * np.sign(result.W[~zero]), atol=1e-5)


def test_fit_lbfgs_changes_the_model(sx):
    X, y = make_data()
    names = np.array(["a", "b", "c", "d"])
    model = SoftmaxModel.zeros(6, 4, dtype=np.float64, classes=names)
    result = sx.fit_lbfgs(model, X, names[y], C=2.0, tol=1e-9)
    expected = solve(X, y, l2=0.5)
    np.testing.assert_allclose(model.W, expected.W, atol=1e-6)
    np.testing.assert_allclose(result.fun, expected.fun, rtol=1e-12)
    assert model.accuracy(X, names[y]) > 0.9
