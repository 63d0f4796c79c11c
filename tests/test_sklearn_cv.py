"""`LogisticRegressionCV` beside scikit-learn's own."""

from __future__ import annotations

import inspect
import threading
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import LogisticRegressionCV as ScikitLearns
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from softmax_ext.sklearn import LogisticRegressionCV, _cv

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.skipif(
        "use_legacy_attributes" not in inspect.signature(ScikitLearns).parameters,
        reason="written for scikit-learn 1.9 and newer",
    ),
]

SMALL = {"Cs": 4, "cv": 3, "max_iter": 2000, "tol": 1e-7}


@parametrize_with_checks([LogisticRegressionCV(Cs=3, cv=3, l1_ratios=(0,))])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_check_estimator(estimator, check):
    check(estimator)


def data(binary):
    X, y = (load_breast_cancer if binary else load_iris)(return_X_y=True)
    X = StandardScaler().fit_transform(X)[::2, :6]
    return X, np.array(["one", "two", "three"])[y[::2]]


def both(X, y, weight=None, fit=None, **options):
    """Fit scikit-learn's and ours; return them, having compared every attribute."""
    options = {**SMALL, **options}
    theirs, ours = (
        cls(**options).fit(X, y, sample_weight=weight, **(fit or {}))
        for cls in (ScikitLearns, LogisticRegressionCV)
    )
    names = [name for name in vars(theirs) if name.endswith("_")]
    assert {*names} <= {*vars(ours)}
    for name in names:
        right, found = getattr(theirs, name), getattr(ours, name)
        if name == "n_iter_":
            assert found.shape == right.shape
        elif isinstance(right, dict):
            assert [*found] == [*right]
            for key, value in right.items():
                np.testing.assert_allclose(found[key], value, rtol=0.02, atol=0.005)
        elif np.asarray(right).dtype.kind == "f":
            assert np.shape(found) == np.shape(right)
            np.testing.assert_allclose(found, right, rtol=0.02, atol=0.005)
        else:
            np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-3)
    return theirs, ours


def test_signature():
    own, right = (inspect.signature(cls).parameters for cls in (LogisticRegressionCV, ScikitLearns))
    assert {name: own[name] for name in right} == dict(right)
    assert [*own] == [*right, "standardize"]
    theirs, ours = (inspect.signature(cls.fit) for cls in (ScikitLearns, LogisticRegressionCV))
    assert [*ours.parameters] == [*theirs.parameters]
    cloned = clone(LogisticRegressionCV(Cs=3, standardize=True))
    assert (cloned.Cs, cloned.standardize) == (3, True)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scoring": "neg_log_loss", "use_legacy_attributes": False, "l1_ratios": (0,)},
        {"class_weight": "balanced", "scoring": "balanced_accuracy"},
        {"refit": False, "fit_intercept": False},
        {"Cs": [10.0, 0.01, 1.0], "n_jobs": 2, "solver": "newton-cg"},
        {"cv": StratifiedKFold(4, shuffle=True, random_state=1)},
    ],
)
def test_is_scikit_learns(options, binary):
    both(*data(binary), **options)


def test_sample_weights_sparse_rows_and_groups():
    X, y = data(False)
    weight = np.random.default_rng(0).exponential(size=len(y))
    both(X, y, weight, class_weight={"one": 2, "two": 1, "three": 0.5})
    both(csr_array(np.where(np.abs(X) > 0.5, X, 0)), y)
    folds = [*GroupKFold(3).split(X, y, np.arange(len(y)) % 7)]
    both(X, y, cv=folds)


def test_absolute_values():
    X, y = data(True)
    options = {"solver": "saga", "Cs": [0.05, 1.0], "use_legacy_attributes": False}
    theirs, ours = both(X, y, l1_ratios=(0.0, 0.5), tol=1e-6, max_iter=10000, **options)
    assert ours.scores_.shape == theirs.scores_.shape == (3, 2, 2)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_features_are_taken_as_they_are(dtype):
    X, y = data(False)
    X = np.clip(40 * X + 120, 0, 255).astype(dtype)
    ours = LogisticRegressionCV(Cs=[1e-5, 1e-3], cv=3, max_iter=2000).fit(X, y)
    theirs = ScikitLearns(Cs=[1e-5, 1e-3], cv=3, max_iter=5000, tol=1e-7).fit(X, y)
    for label in theirs.classes_:
        np.testing.assert_allclose(ours.scores_[label], theirs.scores_[label], atol=0.03)


def test_liblinear_is_left_to_scikit_learn_and_one_class_is_refused():
    X, y = data(True)
    both(X, y, solver="liblinear", Cs=2)
    with pytest.raises(ValueError, match="only one class"):
        LogisticRegressionCV().fit(X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="keys"):
        LogisticRegressionCV(class_weight={"four": 1}).fit(X, y)


def test_paths_that_are_not_within_tol_warn():
    X, y = data(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        LogisticRegressionCV(Cs=4, cv=2, max_iter=1).fit(X, y)
    told = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert len(told) == 3  # two folds, and the last fit
    assert all("penalties: max_iter iterations were made" in text for text in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        LogisticRegressionCV(Cs=4, cv=2, max_iter=1000).fit(X, y)


@pytest.mark.parametrize("binary", [False, True])
def test_standardize_is_a_pipeline_in_each_fold(binary):
    """What scikit-learn does with features that each fold has scaled by itself."""
    rng = np.random.default_rng(0)
    X, y = data(binary)
    scale = 10.0 ** np.linspace(-3, 2, X.shape[1])
    X = (X + rng.normal(size=X.shape[1])) * scale
    weight = rng.exponential(size=len(y))
    folds = [*StratifiedKFold(3).split(X, y)]
    options = {**SMALL, "scoring": "neg_log_loss", "use_legacy_attributes": False}
    options.update(l1_ratios=(0,), cv=folds)
    ours = LogisticRegressionCV(standardize=True, **options).fit(X, y, sample_weight=weight)
    for fold, (train, test) in enumerate(folds):
        scaler = StandardScaler().fit(X[train], sample_weight=weight[train])
        for k, C in enumerate(ours.Cs_):
            theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000)
            theirs.fit(scaler.transform(X[train]), y[train], sample_weight=weight[train])
            P = theirs.predict_proba(scaler.transform(X[test]))
            right = -log_loss(y[test], P, sample_weight=weight[test])
            assert ours.scores_[fold, 0, k] == pytest.approx(right, abs=1e-4)
    scaler = StandardScaler().fit(X, sample_weight=weight)
    theirs = LogisticRegression(C=ours.C_, tol=1e-8, max_iter=5000)
    theirs.fit(scaler.transform(X), y, sample_weight=weight)
    np.testing.assert_allclose(
        ours.predict_proba(X), theirs.predict_proba(scaler.transform(X)), atol=1e-4
    )
    plain = LogisticRegressionCV(**options).fit(X, y, sample_weight=weight)
    assert np.abs(plain.scores_ - ours.scores_).max() > 1e-3
    with pytest.raises(ValueError, match="standardize: True came with the solver liblinear"):
        LogisticRegressionCV(standardize=True, solver="liblinear").fit(X, y)


def test_jobs_are_folds_at_the_same_time(monkeypatch):
    """Two folds wait for each other, which one after another they could not."""
    X, y = data(False)
    alone = LogisticRegressionCV(**SMALL).fit(X, y)
    meeting = threading.Barrier(2)
    plain = _cv.follow

    def follow(*args, **options):
        if threading.current_thread() is not threading.main_thread():
            meeting.wait(20)
        return plain(*args, **options)

    monkeypatch.setattr(_cv, "follow", follow)
    LogisticRegressionCV(n_jobs=2, **{**SMALL, "cv": 4}).fit(X, y)
    assert meeting.n_waiting == 0
    monkeypatch.undo()
    together = LogisticRegressionCV(n_jobs=2, **SMALL).fit(X, y)
    np.testing.assert_array_equal(together.coef_, alone.coef_)
    for label in alone.classes_:
        np.testing.assert_array_equal(together.coefs_paths_[label], alone.coefs_paths_[label])
