"""LogisticRegression beside scikit-learn's own: the same optimum, on many data sets.

The objective is computed here, in float64 by the definition, from the weights of both; ours may
not be higher than theirs by more than 1e-8 of it, with both solved to a tight tolerance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.8")

import scipy.special
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs
from sklearn.linear_model import LogisticRegression as ScikitLearns
from sklearn.preprocessing import StandardScaler

from softmax_ext.sklearn import LogisticRegression, SoftmaxRegression

# What counts is the objective, not whether either reached the tolerance within its iterations.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Problem(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    parameters: dict = {}  # noqa: RUF012
    weight: np.ndarray | None = None


def scaled(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def blobs(n_classes, n=200, d=4, std=1.0, **options):
    return make_blobs(n, d, centers=n_classes, cluster_std=std, random_state=0, **options)


def iris():
    return Problem(*scaled(load_iris))


def iris_as_measured():
    return Problem(*load_iris(return_X_y=True))


def wine():
    return Problem(*scaled(load_wine))


def breast_cancer():
    return Problem(*scaled(load_breast_cancer))


def digits():
    X, y = load_digits(return_X_y=True)
    return Problem(X / 16, y)


def digits_of_bytes():
    X, y = load_digits(return_X_y=True)
    return Problem(X[:500].astype(np.uint8), y[:500], {"C": 0.01})


def separable_two_classes():
    return Problem(*blobs(2, std=0.3))


def separable_five_classes():
    return Problem(*blobs(5, std=0.1), {"C": 100.0})


def overlapping():
    return Problem(*blobs(4, std=8.0))


def labels_of_noise():
    rng = np.random.default_rng(1)
    return Problem(rng.normal(size=(300, 10)), rng.integers(0, 6, 300))


def collinear():
    X, y = scaled(load_iris)
    return Problem(np.hstack([X, 2 * X, X[:, :1] + X[:, 1:2]]), y)


def constant_column():
    X, y = scaled(load_iris)
    return Problem(np.hstack([X, np.full((150, 1), 3.0)]), y)


def column_of_zeros():
    X, y = scaled(load_breast_cancer)
    return Problem(np.hstack([X[:, :5], np.zeros((len(y), 1))]), y)


def one_feature_two_classes():
    X, y = scaled(load_breast_cancer)
    return Problem(X[:, :1], y)


def one_feature_five_classes():
    X, y = blobs(5, std=3.0)
    return Problem(X[:, :1], y)


def fewer_rows_than_features():
    rng = np.random.default_rng(2)
    return Problem(rng.normal(size=(40, 200)), rng.integers(0, 3, 40))


def thousand_classes():
    rng = np.random.default_rng(3)
    y = np.arange(2000) % 1000
    return Problem(rng.normal(size=(1000, 5))[y] + rng.normal(size=(2000, 5)), y)


def one_row_of_a_class():
    X, y = scaled(load_iris)
    keep = np.r_[0:100, 120:121]
    return Problem(X[keep], y[keep])


def imbalance_of_200():
    X, y = blobs(2, n=1005, std=5.0)
    keep = np.flatnonzero((y == 0) | (np.arange(1005) % 200 == 0))
    return Problem(X[keep], y[keep])


def balanced_by_class_weight():
    X, y = blobs(3, n=600, std=5.0)
    keep = (y < 2) | (np.arange(600) % 10 == 0)
    return Problem(X[keep], y[keep], {"class_weight": "balanced"})


def weights_of_zero():
    X, y = scaled(load_wine)
    return Problem(X, y, {}, np.where(np.arange(len(y)) % 3, 1.0, 0.0))


def uneven_weights():
    X, y = scaled(load_iris)
    return Problem(X, y, {}, np.random.default_rng(4).exponential(size=150))


def columns_of_different_scales():
    X, y = scaled(load_wine)
    return Problem(X * np.logspace(-2, 2, X.shape[1]), y)


def no_intercept():
    return Problem(*scaled(load_iris), {"fit_intercept": False})


def strong_penalty():
    return Problem(*scaled(load_wine), {"C": 1e-4})


def weak_penalty():
    return Problem(*blobs(3, std=6.0), {"C": 1e5})


def no_penalty():
    return Problem(*blobs(4, std=8.0), {"C": math.inf})


def no_penalty_two_classes():
    X, y = scaled(load_breast_cancer)
    return Problem(X[:, :4], y, {"C": math.inf})


def far_from_zero():
    X, y = blobs(3, std=2.0)
    return Problem(X + 50, y)


def strings():
    X, y = scaled(load_wine)
    return Problem(X, np.array(["red", "white", "a rose"])[y])


def negative_and_unsorted():
    X, y = scaled(load_iris)
    return Problem(X[::-1], np.array([-7, 3, -100])[y][::-1])


PROBLEMS = [
    iris, iris_as_measured, wine, breast_cancer, digits, digits_of_bytes, separable_two_classes,
    separable_five_classes, overlapping, labels_of_noise, collinear, constant_column,
    column_of_zeros, one_feature_two_classes, one_feature_five_classes, fewer_rows_than_features,
    thousand_classes, one_row_of_a_class, imbalance_of_200, balanced_by_class_weight,
    weights_of_zero, uneven_weights, columns_of_different_scales, no_intercept, strong_penalty,
    weak_penalty, no_penalty, no_penalty_two_classes, far_from_zero, strings, negative_and_unsorted,
]  # fmt: skip

each_problem = pytest.mark.parametrize("make", PROBLEMS, ids=lambda make: make.__name__)


def scores_labels_weights(model, problem):
    X, y, _, weight = problem
    scores = X.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    labels = np.searchsorted(model.classes_, y)
    weight = np.ones(len(y)) if weight is None else weight
    if model.class_weight == "balanced":
        weight = weight * (len(y) / len(model.classes_) / np.bincount(labels))[labels]
    return scores, labels, weight


def objective(model, problem):
    """The sum of the weighted losses, and the penalties."""
    scores, labels, weight = scores_labels_weights(model, problem)
    losses = scipy.special.logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]
    squares, sizes = (model.coef_**2).sum(), np.abs(model.coef_).sum()
    penalty = (1 - model.l1_ratio) / 2 * squares + model.l1_ratio * sizes
    return (weight * losses).sum() + penalty / model.C


def gradient_size(model, problem):
    """The largest absolute entry of the gradient of that, divided by the sum of the weights."""
    scores, labels, weight = scores_labels_weights(model, problem)
    residual = scipy.special.softmax(scores, axis=1) - np.eye(scores.shape[1])[labels]
    residual *= weight[:, None]
    if len(model.coef_) == 1:
        residual = residual[:, 1:]
    of_coef = residual.T @ problem.X + model.coef_ / model.C
    return max(np.abs(of_coef).max(), np.abs(residual.sum(axis=0)).max()) / weight.sum()


def solve(cls, problem, **options):
    options = {"tol": 1e-9, "max_iter": 10_000} | problem.parameters | options
    return cls(**options).fit(problem.X, problem.y, problem.weight)


@each_problem
def test_no_worse_than_scikit_learn(make):
    problem = make()
    ours, theirs = (solve(cls, problem) for cls in (LogisticRegression, ScikitLearns))
    assert objective(ours, problem) <= objective(theirs, problem) * (1 + 1e-8)
    np.testing.assert_allclose(
        ours.predict_proba(problem.X), theirs.predict_proba(problem.X), atol=1e-4
    )
    assert (ours.classes_ == theirs.classes_).all()


@each_problem
def test_refits_are_bitwise_the_same(make):
    one, two = (solve(LogisticRegression, make(), tol=1e-4) for _ in range(2))
    assert one.coef_.tobytes() == two.coef_.tobytes()
    assert one.intercept_.tobytes() == two.intercept_.tobytes()


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(
    "make", [iris, breast_cancer, uneven_weights, balanced_by_class_weight, strong_penalty]
)
def test_tol_bounds_the_largest_entry_of_the_gradient_by_the_sum_of_weights(make, tol):
    problem = make()
    model = solve(LogisticRegression, problem, tol=tol)
    assert gradient_size(model, problem) <= tol * (1 + 1e-6)
    loose = solve(LogisticRegression, problem, tol=1e3 * tol)
    # A step of Newton's method may lead from far outside the one to within the other.
    assert loose.n_iter_[0] <= model.n_iter_[0]


@pytest.mark.parametrize(
    "make", [iris, wine, breast_cancer, overlapping, uneven_weights, collinear]
)
def test_float32(make):
    problem = make()
    ours = solve(LogisticRegression, problem._replace(X=problem.X.astype(np.float32)), tol=1e-5)
    best = solve(LogisticRegression, problem)
    assert ours.coef_.dtype == ours.intercept_.dtype == np.float32
    assert objective(ours, problem) <= objective(best, problem) * (1 + 1e-4)


@pytest.mark.parametrize("make", [iris, breast_cancer, wine, imbalance_of_200, weights_of_zero])
def test_weights_of_k_are_k_copies(make):
    problem = make()
    k = np.random.default_rng(5).integers(0, 4, len(problem.y))
    weighed = solve(LogisticRegression, problem._replace(weight=k.astype(float)))
    X, y = (np.repeat(a, k, axis=0) for a in (problem.X, problem.y))
    copied = solve(LogisticRegression, problem._replace(X=X, y=y, weight=None))
    np.testing.assert_allclose(weighed.coef_, copied.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        weighed.predict_proba(problem.X), copied.predict_proba(problem.X), atol=1e-7
    )


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("C", [0.05, 0.5])
@pytest.mark.parametrize(
    "make", [iris, wine, breast_cancer, collinear, labels_of_noise, one_feature_two_classes]
)
def test_l1_and_elastic_net(make, C, l1_ratio):
    problem = make()
    options = {"solver": "saga", "l1_ratio": l1_ratio, "C": C}
    ours = solve(LogisticRegression, problem, **options)
    theirs = solve(ScikitLearns, problem, tol=1e-7, max_iter=2000, random_state=0, **options)
    assert objective(ours, problem) <= objective(theirs, problem) * (1 + 1e-8)
    assert (ours.coef_ == 0).sum() >= (theirs.coef_ == 0).sum()


@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky", "sag", "saga"])
@pytest.mark.parametrize("make", [iris, breast_cancer])
def test_every_solver_of_the_problem_is_one_method(make, solver):
    problem = make()
    ours = solve(LogisticRegression, problem, solver=solver)
    assert ours.coef_.tobytes() == solve(LogisticRegression, problem).coef_.tobytes()
    assert solve(SoftmaxRegression, problem, solver=solver).coef_.tobytes() == ours.coef_.tobytes()
    theirs = solve(ScikitLearns, problem, solver="newton-cholesky")
    assert objective(ours, problem) <= objective(theirs, problem) * (1 + 1e-8)
