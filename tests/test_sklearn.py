"""The estimators: scikit-learn's own checks, what is mirrored, gradient descent, and edge cases.

The cases 117 to 125 are the estimator's rows of the table of edge cases. Whether the optimum is the
optimum is in test_sklearn_optimum.py.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import pickle
import signal
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.8")

import joblib
import pandas as pd
import scipy.sparse
from problems import assert_same_bits
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression as ScikitLearns
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import softmax_ext as sx
from softmax_ext.problem import Problem
from softmax_ext.sklearn import (
    LogisticRegression,
    LogisticRegressionCV,
    SoftmaxRegression,
    _descent,
    _logistic,
)
from softmax_ext.sklearn._scikit_learn import SOLVERS

WEIGHT_CHECKS = (
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
)


def expected_failures(estimator):
    if estimator.solver == "sgd":
        # Copies of a row are in minibatches of their own.
        return dict.fromkeys(WEIGHT_CHECKS, "minibatches are drawn from rows")
    if math.isinf(estimator.C):
        # The check's rows can be separated, so without a penalty there is no optimum, and where the
        # fit stops depends on last bits, which differ by instruction set: 1.1e-7 where 1e-7 may.
        return dict.fromkeys(WEIGHT_CHECKS, "no optimum without a penalty")
    return {}


@parametrize_with_checks(
    [
        LogisticRegression(),
        LogisticRegression(C=math.inf),
        LogisticRegression(solver="saga", l1_ratio=0.5),
        SoftmaxRegression(),
        LogisticRegression(standardize=True),
        SoftmaxRegression(label_smoothing=0.1, x_scale=0.5, solver="newton-cholesky"),
        SoftmaxRegression(solver="sgd"),
    ],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X.astype(np.uint8), y


both = pytest.mark.parametrize("cls", [LogisticRegression, SoftmaxRegression])


def fitted(estimator):
    return {k: v for k, v in vars(estimator).items() if k.endswith("_")}


def told(call):
    """The error and the warnings of a call, as text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
            error = None
        except Exception as e:
            error = f"{type(e).__name__}: {e}"
    return error, [
        f"{w.category.__name__}: {w.message}" for w in caught if "converge" not in str(w.message)
    ]


# What is mirrored --------------------------------------------------------------------------------


def test_signature_is_scikit_learns():
    ours, theirs = (inspect.signature(cls) for cls in (LogisticRegression, ScikitLearns))
    *same, ours_alone = ours.parameters.values()
    assert [p.replace(annotation=p.empty) for p in same] == [*theirs.parameters.values()]
    assert (ours_alone.name, ours_alone.default) == ("standardize", False)
    assert LogisticRegression().get_params() == ScikitLearns().get_params() | {"standardize": False}
    for name in ("fit", "predict", "predict_proba", "predict_log_proba", "decision_function"):
        ours, theirs = (
            list(inspect.signature(getattr(cls, name)).parameters)
            for cls in (LogisticRegression, ScikitLearns)
        )
        assert ours == theirs


def test_softmax_regression_has_the_same_parameters_and_more():
    theirs = ScikitLearns().get_params()
    ours = SoftmaxRegression().get_params()
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_combinations_of_parameters_are_refused_and_warned_of_alike(solver, iris):
    X, y = iris[0][:100:5], iris[1][:100:5]
    penalties = ("deprecated", "l1", "l2", "elasticnet", None)
    grid = itertools.product(penalties, (1.0, 0.3, math.inf), (0.0, 0.5, 1), (False, True))
    for penalty, C, l1_ratio, dual in grid:
        if solver == "liblinear" and math.isinf(C):
            continue  # scikit-learn's never ends
        parameters = {"penalty": penalty, "C": C, "l1_ratio": l1_ratio, "dual": dual, "max_iter": 2}
        expected = told(lambda p=parameters: ScikitLearns(solver=solver, **p).fit(X, y))
        for cls in (LogisticRegression, SoftmaxRegression):
            actual = told(lambda c=cls, p=parameters: c(solver=solver, **p).fit(X, y))
            assert actual == expected


@pytest.mark.parametrize(
    "parameters",
    [{"C": -1}, {"C": 0}, {"tol": -1}, {"max_iter": -1}, {"solver": "adam"}, {"n_jobs": 2},
     {"l1_ratio": None}, {"l1_ratio": 2}, {"penalty": "l3"}, {"class_weight": "even"},
     {"class_weight": {7: 2.0}}, {"fit_intercept": "yes"}],
    ids=str,
)  # fmt: skip
def test_a_wrong_parameter_is_refused_alike(parameters, iris):
    expected = told(lambda: ScikitLearns(**parameters).fit(*iris))
    assert told(lambda: LogisticRegression(**parameters).fit(*iris)) == expected
    assert any(expected)


def test_convergence_warning_is_scikit_learns(iris):
    with pytest.warns(ConvergenceWarning) as caught:
        model = LogisticRegression(max_iter=3).fit(*iris)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("lbfgs failed to converge after 3 iteration(s) (status=1)")
    assert "Increase the number of iterations to improve the convergence (max_iter=3)" in text
    assert model.n_iter_.tolist() == [3]


@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky", "sag", "saga"])
def test_convergence_warnings_of_other_solvers(solver, iris):
    """Word for word; newton-cg's has the loss, where each is then."""
    texts = []
    for cls in (LogisticRegression, ScikitLearns):
        with pytest.warns(ConvergenceWarning) as caught:
            cls(solver=solver, max_iter=1, tol=1e-12, random_state=0).fit(*iris)
        texts.append(str(caught[0].message))
    ours, theirs = (text.split("loss = ")[0] for text in texts)
    assert ours == theirs
    if solver == "newton-cg":
        loss = float(texts[0].split("loss = ")[1].split(". ")[0])
        assert 0 < loss < math.log(3)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "saga"])
@pytest.mark.parametrize("status", [2, 7])
def test_an_end_above_tol_is_a_warning_with_its_reason(solver, status, iris, monkeypatch):
    solve = _logistic.minimize

    def stopped(*args, max_iter, **options):
        result = solve(*args, max_iter=3, **options)
        return type(result)(result, success=False, status=status, message="the moon is full")

    monkeypatch.setattr(_logistic, "minimize", stopped)
    for model in (LogisticRegression(solver=solver), SoftmaxRegression(solver=solver, max_iter=3)):
        with pytest.warns(ConvergenceWarning, match="the moon is full") as caught:
            model.fit(*iris)
        assert len(caught) == 1
        assert "Increase the number of iterations" not in str(caught[0].message)


def test_classes_without_weight_have_no_part_in_the_balance(iris):
    X, y = iris
    weight = np.where(y == 1, 0.0, 1.0)
    weight[y == 2] = np.arange(50) % 3
    shares = np.bincount(y, weight)
    of_class = np.array([shares.sum() / 2 / shares[0], 0, shares.sum() / 2 / shares[2]])
    balanced = LogisticRegression(class_weight="balanced", max_iter=1000).fit(X, y, weight)
    by_hand = LogisticRegression(max_iter=1000).fit(X, y, weight * of_class[y])
    assert np.isfinite(balanced.coef_).all()
    np.testing.assert_array_equal(balanced.coef_, by_hand.coef_)
    np.testing.assert_array_equal(balanced.intercept_, by_hand.intercept_)


@pytest.mark.parametrize("value", [-1.0, np.inf, np.nan])
def test_class_weights_that_are_refused(value, iris):
    match = f"class_weight: {value} came, finite numbers of at least 0 were wanted"
    with pytest.raises(ValueError, match=match):
        LogisticRegression(class_weight={0: value}).fit(*iris)


def test_class_weights_that_are_all_zero(iris):
    with pytest.raises(ValueError, match="class_weight: 0 came for every row's class"):
        LogisticRegression(class_weight={0: 0, 1: 0, 2: 0}).fit(*iris)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_attributes_have_scikit_learns_shapes_and_dtypes(binary, dtype, fit_intercept, digits):
    X, y = digits[0][:300].astype(dtype), digits[1][:300]
    if binary:
        X, y = X[y < 2], y[y < 2]
    ours = LogisticRegression(fit_intercept=fit_intercept, tol=0.01).fit(X, y)
    theirs = ScikitLearns(fit_intercept=fit_intercept, max_iter=1000).fit(X, y)
    assert sorted(fitted(ours)) == sorted(fitted(theirs))
    for name, value in fitted(theirs).items():
        if isinstance(value, np.ndarray):
            assert getattr(ours, name).shape == value.shape, name
        else:
            assert getattr(ours, name) == value
    for method in ("decision_function", "predict_proba", "predict_log_proba", "predict"):
        assert getattr(ours, method)(X).shape == getattr(theirs, method)(X).shape
    # As scikit-learn's since 1.9, of every solver.
    floating = np.float32 if dtype == np.float32 else np.float64
    assert ours.coef_.dtype == ours.intercept_.dtype == ours.predict_proba(X).dtype == floating
    assert ours.n_iter_.dtype == np.int32


@pytest.mark.parametrize(
    "parameters",
    [{}, {"l1_ratio": 1}, {"fit_intercept": False}, {"dual": True, "intercept_scaling": 3.0}],
    ids=str,
)
@both
def test_liblinear_is_scikit_learns_own(cls, parameters, cancer):
    parameters |= {"solver": "liblinear", "random_state": 0, "max_iter": 10000}
    ours = cls(**parameters).fit(*cancer)
    theirs = ScikitLearns(**parameters).fit(*cancer)
    assert_same_bits(ours.coef_, theirs.coef_)
    np.testing.assert_allclose(
        ours.decision_function(cancer[0]), theirs.decision_function(cancer[0])
    )
    assert (ours.predict(cancer[0]) == theirs.predict(cancer[0])).all()


def test_liblinear_knows_nothing_of_the_rest(cancer):
    with pytest.raises(ValueError, match="liblinear supports neither x_scale"):
        SoftmaxRegression(solver="liblinear", x_scale=0.5).fit(*cancer)


def test_saying_nothing_of_array_api():
    assert not LogisticRegression().__sklearn_tags__().array_api_support


def test_verbose_tells_of_iterations(iris, capsys):
    model = LogisticRegression(verbose=1).fit(*iris)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_[0]
    assert lines[0].startswith("iteration 1: objective ")


@pytest.mark.skipif(not hasattr(ScikitLearns, "set_callbacks"), reason="scikit-learn 1.9's")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", ["lbfgs", "saga"])
@both
def test_scikit_learns_callbacks(cls, solver, n_classes, iris):
    """They are told of the same tasks as by scikit-learn's, with the estimator as it then is."""
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]

    class Recorder:
        def __init__(self):
            self.told = []
            self.losses = []

        def setup(self, estimator, context):
            self.told.append("setup")

        def teardown(self, estimator, context):
            self.told.append("teardown")

        def on_fit_task_begin(self, estimator, context, *, X, y, metadata, fitted_estimator):
            self.told.append(("begin", context.task_name, X.shape, y.tolist(), sorted(metadata)))
            self.score(fitted_estimator)

        def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
            self.told.append(("end", context.task_name))
            self.score(fitted_estimator)

        def score(self, fitted_estimator):
            if fitted_estimator is not None:
                loss = log_loss(y, fitted_estimator.predict_proba(X))
                self.losses.append(loss)

    def run(cls):
        recorder = Recorder()
        model = cls(solver=solver, max_iter=1000, tol=1e-7 if solver == "lbfgs" else 1e-4)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.set_callbacks(recorder)
        model.fit(X, y, np.ones(len(X)))
        iterations = (recorder.told.count(("end", "lbfgs-iter")), int(model.n_iter_[0]))
        kinds = sorted({str(t[:2]) if isinstance(t, tuple) else t for t in recorder.told})
        return (
            recorder,
            iterations,
            kinds,
            [str(w.message).replace(cls.__name__, "") for w in caught],
        )

    ours, (told, made), *rest = run(cls)
    theirs, (their_told, their_made), *their_rest = run(ScikitLearns)
    assert rest == their_rest
    if solver == "lbfgs":  # one task more is begun than there are iterations
        assert told - made == their_told - their_made == 1
    else:
        assert told == their_told == 0
    assert [ours.told[i] for i in (0, 1, -2, -1)] == [theirs.told[i] for i in (0, 1, -2, -1)]
    if solver == "lbfgs":  # saga's tolerance is of another quantity
        np.testing.assert_allclose(ours.losses[0], theirs.losses[0])
        np.testing.assert_allclose(ours.losses[-1], theirs.losses[-1], rtol=1e-3)


# Every instruction set ---------------------------------------------------------------------------


@pytest.fixture
def estimators_kernels(compiled, monkeypatch):
    """The estimators compute with one instruction set, and nothing with the default one."""

    def unwanted(*args, **options):
        raise AssertionError("the default kernels were called")

    monkeypatch.setattr(LogisticRegression, "_kernels", compiled)
    for name in dir(sx.kernels):
        if not name.startswith("_") and callable(getattr(sx.kernels, name)):
            monkeypatch.setattr(sx.kernels, name, unwanted, raising=False)
    made = Problem.__init__

    def make(problem, kernels, *args, **options):
        assert kernels is compiled
        made(problem, kernels, *args, **options)

    monkeypatch.setattr(Problem, "__init__", make)
    return compiled


@functools.cache
def scikit_learns_probabilities(n_classes, l1_ratio, weighted):
    X, y = load_iris(return_X_y=True)
    X, y = StandardScaler().fit_transform(X)[: 50 * n_classes], y[: 50 * n_classes]
    options = {"l1_ratio": l1_ratio, "solver": "saga"} if l1_ratio else {}
    model = ScikitLearns(C=0.1, tol=1e-8, max_iter=20000, **options)
    return model.fit(X, y, np.arange(len(y)) % 3 if weighted else None).predict_proba(X)


@pytest.mark.usefixtures("estimators_kernels")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("form", [np.float32, np.float64, scipy.sparse.csr_array])
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(C=0.1, tol=1e-6),
        LogisticRegression(C=0.1, tol=1e-5, max_iter=2000, l1_ratio=1, solver="saga"),
        SoftmaxRegression(C=0.1, tol=1e-6, callbacks=[lambda event: None]),
        SoftmaxRegression(
            C=0.1, solver="sgd", epochs=300, batch_size=25, schedule="cosine", random_state=0
        ),
    ],
    ids=["lbfgs", "l1", "callbacks", "sgd"],
)
def test_estimators_on_every_instruction_set(model, form, n_classes, iris):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    x = form(X) if form is scipy.sparse.csr_array else X.astype(form)
    for weight in (None, np.arange(len(y)) % 3 + 0.0):
        fit = clone(model).fit(x, y, weight)
        expected = scikit_learns_probabilities(n_classes, model.l1_ratio, weight is not None)
        probabilities, scores = fit.predict_proba(x), fit.decision_function(x)
        atol = 5e-3 if model.solver == "sgd" else 1e-3
        np.testing.assert_allclose(probabilities, expected, atol=atol)
        np.testing.assert_allclose(np.exp(fit.predict_log_proba(x)), probabilities, atol=1e-6)
        assert (fit.predict(x) == probabilities.argmax(axis=1)).all()
        # The probability of the last class: of the scores, by the definition.
        scores = np.column_stack([0 * scores, scores]) if n_classes == 2 else scores
        last = 1 / np.exp(scores - scores[:, -1:]).sum(axis=1)
        np.testing.assert_allclose(last, probabilities[:, -1], rtol=1e-4)


# Data without copies -----------------------------------------------------------------------------


class Spy:
    def __init__(self, call):
        self.call, self.X = call, []

    def __call__(self, X, *args, **options):
        self.X.append(X)
        return self.call(X, *args, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_x_comes_to_the_kernels_as_it_is(dtype, digits, monkeypatch):
    X, y = digits[0][:200].astype(dtype), digits[1][:200]
    spy = Spy(_logistic.minimize)
    monkeypatch.setattr(_logistic, "minimize", spy)
    model = LogisticRegression(tol=0.1).fit(X, y)
    assert np.shares_memory(spy.X[0], X)
    assert spy.X[0].dtype == dtype
    seen = Spy(sx.kernels.predict)
    monkeypatch.setattr(sx.kernels, "predict", seen, raising=False)
    model.predict(X)
    assert np.shares_memory(seen.X[0], X)


def test_bytes_are_the_same_numbers_as_floats(digits):
    X, y = digits
    bytes_, floats = (LogisticRegression(tol=0.01).fit(x, y) for x in (X, X.astype(float)))
    np.testing.assert_allclose(bytes_.coef_, floats.coef_, rtol=1e-6, atol=1e-9)


SPARSE_MODELS = [
    LogisticRegression(tol=1e-5, max_iter=1000),
    SoftmaxRegression(tol=1e-5, max_iter=1000, x_scale=1 / 16),
    SoftmaxRegression(solver="sgd", epochs=3, random_state=0, x_scale=1 / 16),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize(
    "form", [scipy.sparse.csr_array, scipy.sparse.csr_matrix, scipy.sparse.csc_array]
)
@pytest.mark.parametrize("binary", [False, True])
def test_sparse_x(dtype, form, binary, digits):
    X, y = digits[0][:300].astype(dtype), digits[1][:300]
    if binary:
        X, y = X[y < 2], y[y < 2]
    for model in SPARSE_MODELS:
        dense, sparse = clone(model).fit(X, y), clone(model).fit(form(X), y)
        assert sparse.coef_.dtype == dense.coef_.dtype
        np.testing.assert_allclose(sparse.predict_proba(form(X)), dense.predict_proba(X), atol=1e-3)
        for method in ("predict_proba", "predict_log_proba", "decision_function"):
            of_sparse = getattr(sparse, method)(form(X))
            np.testing.assert_allclose(of_sparse, getattr(sparse, method)(X), rtol=1e-4, atol=1e-4)
        assert (sparse.predict(form(X)) == sparse.predict(X)).all()


def test_csr_comes_to_the_kernels_as_it_is(digits, monkeypatch):
    X, y = scipy.sparse.csr_array(digits[0].astype(np.float32)), digits[1]
    spy = Spy(_logistic.minimize)
    monkeypatch.setattr(_logistic, "minimize", spy)
    LogisticRegression(tol=0.1).fit(X, y)
    assert np.shares_memory(spy.X[0].data, X.data)
    assert np.shares_memory(spy.X[0].indices, X.indices)


@pytest.mark.parametrize(
    "model", [*SPARSE_MODELS, LogisticRegressionCV(Cs=3, cv=3, max_iter=1000)], ids=str
)
@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("before", [0, 2])
def test_entries_of_no_row_are_not_looked_at(model, form, before, digits):
    X, y = form(digits[0][:200].astype(np.float64)), digits[1][:200]
    unused = X.copy()
    nothing = np.full(before, np.nan), np.full(before, 10**6, np.int32)
    unused.data = np.concatenate([nothing[0], X.data, [np.nan]])
    unused.indices = np.concatenate([nothing[1], X.indices, [10**6]]).astype(np.int32)
    unused.indptr = X.indptr + np.int32(before)
    content = unused.data.tobytes(), unused.indices.tobytes(), unused.indptr.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        plain, model = clone(model).fit(X, y), clone(model).fit(unused, y)
    assert_same_bits(model.coef_, plain.coef_)
    for method in ("predict", "predict_proba", "decision_function"):
        assert_same_bits(getattr(model, method)(unused), getattr(plain, method)(X))
    assert (unused.data.tobytes(), unused.indices.tobytes(), unused.indptr.tobytes()) == content
    unused.data[before + 5] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(unused)


def test_predict_holds_no_scores(rng):
    X = rng.normal(size=(20_000, 4)).astype(np.float32)
    model = LogisticRegression(tol=1.0).fit(X[:2000], np.arange(2000) % 500)
    tracemalloc.start()
    try:
        model.predict(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # the scores are 40 MB, the labels and their indices 0.3 MB


FIT_OF_BYTES = """
import resource
import warnings
import numpy as np
from softmax_ext.solvers import curvature
from softmax_ext.sklearn import SoftmaxRegression

rng = np.random.default_rng(0)
y = np.arange(60000) % 10
X = rng.integers(0, 100, (60000, 784), np.uint8)
for label in range(10):  # in place: what was freed would be taken for unused
    X[label::10] += rng.integers(0, 12, 784, np.uint8)
X[::3] += rng.integers(0, 100, 784, np.uint8)
most = []
original = curvature.Curvature.blocks

def blocks(self, theta):
    most.append(1)
    return original(self, theta)

curvature.Curvature.blocks = blocks
warnings.simplefilter("ignore")
model = SoftmaxRegression(x_scale=1 / 255, max_iter=25, tol=0.0)

def fit(rows, features):
    model.fit(X[:rows, :features], y[:rows])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = fit(500, 10)
most.clear()
print(fit(60000, 784) - before, len(most))
"""


def test_a_fit_of_images_in_bytes_takes_64_mib_at_most():
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", FIT_OF_BYTES], capture_output=True, text=True, check=True
    )
    grown, times = map(int, done.stdout.split())
    assert times > 0  # the largest preconditioner was made
    assert grown <= 64 << 20


@both
def test_ctrl_c_ends_a_fit_and_leaves_the_last_one(cls, digits, monkeypatch):
    X, y = digits
    model = cls(tol=1e-3).fit(X, y)
    coef = model.coef_.copy()
    original, calls = Problem.value_and_gradient, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **options)

    monkeypatch.setattr(Problem, "value_and_gradient", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) == 4
    assert_same_bits(model.coef_, coef)
    monkeypatch.undo()
    assert_same_bits(model.fit(X, y).coef_, coef)


# In scikit-learn's company -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.parametrize(
    "model", [LogisticRegression(), SoftmaxRegression(solver="sgd", epochs=5, random_state=0)]
)
def test_grid_search(backend, model, iris):
    grid = {"logistic__C": [0.01, 1.0]}
    pipe = make_pipeline(StandardScaler(), clone(model))
    pipe.steps[1] = ("logistic", pipe.steps[1][1])
    with joblib.parallel_backend(backend, n_jobs=2):
        search = GridSearchCV(pipe, grid, cv=3).fit(*iris)
    alone = GridSearchCV(pipe, grid, cv=3).fit(*iris)
    assert search.best_score_ > 0.8
    assert (search.cv_results_["mean_test_score"] == alone.cv_results_["mean_test_score"]).all()


@both
def test_cross_validation_scores_are_scikit_learns(cls, cancer):
    ours, theirs = (
        cross_val_score(c(tol=1e-6, max_iter=1000), *cancer) for c in (cls, ScikitLearns)
    )
    np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_calibration(method, iris):
    calibrated = CalibratedClassifierCV(LogisticRegression(), method=method, cv=3).fit(*iris)
    assert calibrated.score(*iris) > 0.9


@both
def test_pickle_joblib_and_clone(cls, iris, tmp_path):
    model = cls(C=0.5).fit(*iris)
    joblib.dump(model, tmp_path / "model")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):
        assert_same_bits(copy.predict_proba(iris[0]), model.predict_proba(iris[0]))
    blank = clone(model)
    assert blank.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        blank.predict(iris[0])


@both
def test_pandas(cls, iris):
    X = pd.DataFrame(iris[0], columns=list("abcd"))
    y = pd.Series(np.array(["setosa", "versicolor", "virginica"])[iris[1]])
    model = cls().fit(X, y)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert model.predict(X[:2]).tolist() == ["setosa"] * 2
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[list("bacd")])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(iris[0])


@both
def test_sparsify_and_densify(cls, cancer):
    X, y = cancer
    model = cls(solver="saga", l1_ratio=1, C=0.05).fit(X, y)
    dense, proba = model.coef_, model.predict_proba(X)
    assert (dense == 0).mean() > 0.5
    assert scipy.sparse.issparse(model.sparsify().coef_)
    assert_same_bits(model.predict_proba(X), proba)
    assert_same_bits(model.decision_function(X), model.densify().decision_function(X))
    assert_same_bits(model.coef_, dense)


def test_class_weights_multiply_sample_weights(iris, rng):
    X, y = iris[0][:120], iris[1][:120]
    weight = rng.random(120)
    for class_weight in ("balanced", {0: 2.0, 1: 0.5, 2: 1.0}, {2: 10}):
        ours, theirs = (
            cls(class_weight=class_weight, tol=1e-9, max_iter=1000).fit(X, y, weight)
            for cls in (LogisticRegression, ScikitLearns)
        )
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
@both
def test_warm_start(cls, n_classes, iris):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    model = cls(warm_start=True, tol=1e-6, max_iter=1000).fit(X, y)
    cold = model.n_iter_[0]
    first = model.predict_proba(X)
    assert model.fit(X, y).n_iter_[0] <= 1 < cold
    np.testing.assert_allclose(model.predict_proba(X), first, atol=1e-5)
    assert model.set_params(warm_start=False).fit(X, y).n_iter_[0] == cold
    with pytest.raises(ValueError, match="coef_: that of a fit of 4 features"):
        model.set_params(warm_start=True).fit(X[:, :3], y)


def test_metadata_routing(iris):
    X, y = iris
    with config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, model).fit(X, y, sample_weight=np.arange(150.0))
        plain = LogisticRegression().fit(StandardScaler().fit_transform(X), y, np.arange(150.0))
    assert_same_bits(routed[-1].coef_, plain.coef_)


def test_importing_the_package_imports_no_scikit_learn():
    code = "import sys, softmax_ext; assert not any(m.startswith('sklearn') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_the_error_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import softmax_ext.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith(
        "ImportError: softmax_ext.sklearn needs scikit-learn 1.8 or newer: "
        "pip install 'softmax-ext[sklearn]'\n"
    )


# Edge cases by number ----------------------------------------------------------------------------

all_three = pytest.mark.parametrize(
    "model",
    [LogisticRegression(), SoftmaxRegression(), SoftmaxRegression(solver="sgd", random_state=0)],
    ids=["LogisticRegression", "SoftmaxRegression", "sgd"],
)


@all_three
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_case_117_nan_and_infinity_in_x(model, bad, iris):
    X, y = iris[0].copy(), iris[1]
    fit = clone(model).fit(X, y)
    X[7, 2] = bad
    text = "Input X contains NaN" if np.isnan(bad) else "Input X contains infinity"
    for call in (lambda: clone(model).fit(X, y), lambda: fit.predict(X)):
        with pytest.raises(ValueError, match=text):
            call()


@all_three
def test_case_118_y_nan_or_continuous(model, iris):
    y = iris[1].astype(float)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        clone(model).fit(iris[0], y + 0.5)
    y[3] = np.nan
    with pytest.raises(ValueError, match="Input y contains NaN"):
        clone(model).fit(iris[0], y)


@all_three
def test_case_119_single_class(model, iris):
    expected, _ = told(lambda: ScikitLearns().fit(iris[0], np.full(150, "only")))
    assert told(lambda: clone(model).fit(iris[0], np.full(150, "only")))[0] == expected
    assert "contains only one class" in expected


@all_three
def test_case_120_all_weights_zero(model, iris):
    with pytest.raises(
        ValueError, match="Sample weights must contain at least one non-zero number"
    ):
        clone(model).fit(*iris, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        clone(model).fit(*iris, sample_weight=np.full(150, -1.0))


@pytest.mark.parametrize("cls", [LogisticRegression, SoftmaxRegression])
def test_case_121_weights_are_copies(cls, iris, rng):
    X, y = iris
    weight = rng.integers(0, 4, 150)
    weighed, copied = cls(tol=1e-10, max_iter=1000), cls(tol=1e-10, max_iter=1000)
    weighed.fit(X, y, sample_weight=weight)
    copied.fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighed.coef_, copied.coef_, rtol=1e-7)
    np.testing.assert_allclose(weighed.predict_proba(X), copied.predict_proba(X), rtol=1e-7)


@all_three
@pytest.mark.parametrize("n_classes", [2, 3])
def test_case_122_a_row_s_prediction_is_its_own(model, n_classes, iris, rng):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    model = clone(model).fit(X, y)
    order = rng.permutation(len(X))
    for method in ("predict", "decision_function", "predict_proba", "predict_log_proba"):
        whole = getattr(model, method)(X)
        assert_same_bits(getattr(model, method)(X[order]), whole[order])
        assert_same_bits(getattr(model, method)(X[5:12]), whole[5:12])
        assert_same_bits(getattr(model, method)(X[3:4]), whole[3:4])


@all_three
def test_case_123_fit_twice_and_predict_change_nothing(model, iris):
    X, y = iris
    kept = X.copy(), y.copy()
    model = clone(model).fit(X, y)
    state = pickle.dumps(fitted(model))
    coef = model.coef_
    model.predict(X), model.predict_proba(X), model.score(X, y)
    assert pickle.dumps(fitted(model)) == state
    with sx.num_threads(1):
        assert_same_bits(model.fit(X, y).coef_, coef)
    assert_same_bits(X, kept[0])
    assert_same_bits(y, kept[1])


@all_three
def test_case_124_unfitted_and_shapes_that_do_not_fit(model, iris):
    X, y = iris
    unfitted = clone(model)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(NotFittedError, match="instance is not fitted yet"):
            getattr(unfitted, method)(X)
    with pytest.raises(NotFittedError):
        unfitted.sparsify()
    fit = clone(model).fit(X, y)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(ValueError, match="X has 3 features, but .* is expecting 4 features"):
            getattr(fit, method)(X[:, :3])
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            getattr(fit, method)(X[0])
        with pytest.raises(ValueError, match="Found array with 0 sample"):
            getattr(fit, method)(X[:0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        unfitted.fit(X, y[:-1])
    with pytest.raises(ValueError, match="sample_weight.shape == "):
        unfitted.fit(X, y, sample_weight=np.ones(7))
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        unfitted.fit(X, y[:, None])


LABELS = [
    ["b", "a", "c"],
    np.array(["b", "a"], object),
    [-5, 7, -100],
    [10**12, 3, -1],
    [2.0, -1.0, 0.0],
    [True, False],
]


@all_three
@pytest.mark.parametrize("names", LABELS, ids=str)
@pytest.mark.parametrize("kind", [np.asarray, list, pd.Series])
def test_case_125_labels_of_any_kind(model, names, kind, iris):
    X, y = iris[0][: 50 * len(names)], iris[1][: 50 * len(names)]
    labels = [names[i] for i in y]
    plain = clone(model).fit(X, np.argsort(np.argsort(names))[y])
    model = clone(model).fit(X, kind(labels))
    assert model.classes_.tolist() == sorted(names)
    predicted = model.predict(X)
    assert (predicted == np.array(sorted(names))[plain.predict(X)]).all()
    assert predicted.dtype == model.classes_.dtype
    assert_same_bits(model.predict_proba(X), plain.predict_proba(X))
    assert model.score(X, labels) > 0.8


@both
@pytest.mark.parametrize(
    "names", [[0, 1, 2], [0.0, 1.0], [True, False], [2**70, 1], ["a", 1], [None, 1], ["a", "b"]],
    ids=str,
)  # fmt: skip
def test_arrays_of_objects_are_taken_where_scikit_learn_takes_them(cls, names, iris):
    X, y = iris[0][: 50 * len(names)], iris[1][: 50 * len(names)]
    labels = np.array([names[i] for i in y], object)
    ours, theirs = cls(), ScikitLearns()
    assert told(lambda: ours.fit(X, labels)) == told(lambda: theirs.fit(X, labels))
    if hasattr(theirs, "coef_"):
        assert (ours.predict(X) == theirs.predict(X)).all()


# Gradient descent --------------------------------------------------------------------------------


def sgd(**options):
    return SoftmaxRegression(solver="sgd", **{"random_state": 0, "batch_size": 32, **options})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("average", [False, True])
def test_sgd_is_the_trainers(momentum, average, digits):
    X, y = digits
    options = {"epochs": 3, "momentum": momentum, "average": average, "batch_size": 64}
    estimator = sgd(**options, x_scale=1 / 16).fit(X, y)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    model = sx.SoftmaxModel.zeros(64, 10, x_scale=1 / 16)
    trainer = sx.Trainer(**options, seed=seed, weight_decay=1 / len(X), decay_bias=False)
    history = trainer.fit(model, X, y)
    assert estimator.coef_.dtype == np.float32
    assert_same_bits(estimator.coef_.T, model.W)
    assert_same_bits(estimator.intercept_, model.b)
    assert (estimator.history_.train_loss == history.train_loss).all()
    assert estimator.n_iter_.tolist() == [3]
    assert_same_bits(estimator.predict(X), model.predict(X))


def test_sgd_comes_close_to_the_optimum(iris):
    best = SoftmaxRegression(C=0.1, tol=1e-8, max_iter=1000).fit(*iris)
    near = sgd(C=0.1, epochs=300, schedule="cosine").fit(*iris)
    np.testing.assert_allclose(near.predict_proba(iris[0]), best.predict_proba(iris[0]), atol=5e-3)
    np.testing.assert_allclose(near.coef_, best.coef_, atol=0.02)


def test_sgd_with_two_classes_comes_close_to_the_binomial_optimum(cancer):
    best = ScikitLearns(C=0.01, tol=1e-8).fit(*cancer)
    near = sgd(C=0.01, epochs=200, schedule="cosine", learning_rate=0.05).fit(*cancer)
    np.testing.assert_allclose(near.coef_, best.coef_, atol=0.01)
    np.testing.assert_allclose(near.intercept_, best.intercept_, atol=0.02)


RATES = {
    "constant": [0.4, 0.4, 0.4, 0.4],
    "invscaling": [0.4, 0.4 / 2**0.7, 0.4 / 3**0.7, 0.4 / 4**0.7],
    "cosine": [0.4, 0.2 + 0.2 * math.sqrt(0.5), 0.2, 0.2 - 0.2 * math.sqrt(0.5)],
}


@pytest.mark.parametrize("schedule", RATES)
def test_schedules(schedule, iris, monkeypatch):
    seen = []

    def watched(*parameters):
        rate = rate_schedule(*parameters)
        return lambda epoch: seen.append(rate(epoch)) or seen[-1]

    rate_schedule = _descent.rate_schedule
    monkeypatch.setattr(_descent, "rate_schedule", watched)
    model = sgd(learning_rate=0.4, schedule=schedule, power_t=0.7, epochs=4).fit(*iris)
    np.testing.assert_allclose(seen, RATES[schedule])
    model.partial_fit(*iris)
    last = {"constant": 0.4, "invscaling": 0.4 / 5**0.7, "cosine": RATES["cosine"][-1]}
    np.testing.assert_allclose(seen[-1], last[schedule])


def test_epochs_of_few_rows_are_many(iris):
    assert sgd(batch_size=256).fit(*iris).n_iter_.tolist() == [1000]
    assert sgd(batch_size=15).fit(*iris).n_iter_.tolist() == [100]
    X, y = np.repeat(iris[0], 100, axis=0), np.repeat(iris[1], 100)
    assert sgd(batch_size=150).fit(X, y).n_iter_.tolist() == [10]


def test_rows_count_by_their_weight(iris):
    """In minibatches of one row, a mean would make nothing of its weight."""
    X, y = iris[0], iris[1]
    weight = np.where(y == 1, 1.0, 1e-3)
    model = sgd(batch_size=1, epochs=3).fit(X, y, sample_weight=weight)
    assert (model.predict(X) == 1).mean() > 0.7
    assert (sgd(batch_size=1, epochs=3).fit(X, y).predict(X) == 1).mean() < 0.5


def test_minibatches_without_weight_change_nothing(iris):
    X, y = np.vstack([iris[0], 1e3 * iris[0]]), np.tile(iris[1], 2)
    weight = np.repeat([1.0, 0.0], 150)
    model = sgd(batch_size=2, epochs=2, C=math.inf).fit(X, y, sample_weight=weight)
    assert np.isfinite(model.coef_).all()
    assert model.score(*iris) > 0.8


def test_only_l2(iris):
    for parameters in ({"l1_ratio": 1.0}, {"l1_ratio": 0.2}):
        with pytest.raises(ValueError, match="sgd supports only L2 penalties"):
            sgd(**parameters).fit(*iris)
    with pytest.raises(ValueError, match="so does partial_fit"):
        SoftmaxRegression(solver="saga", l1_ratio=1.0).partial_fit(*iris, [0, 1, 2])


@pytest.mark.filterwarnings("error")
def test_divergence(iris):
    with pytest.raises(ValueError, match="Floating-point under-/overflow occurred at epoch #"):
        sgd(learning_rate=1e5, C=1e-3).fit(*iris)


def test_random_state(iris):
    one, same, other = (sgd(random_state=s, epochs=2).fit(*iris).coef_ for s in (1, 1, 2))
    assert_same_bits(one, same)
    assert (one != other).any()
    as_they_come = (sgd(random_state=s, epochs=2, shuffle=False).fit(*iris).coef_ for s in (1, 2))
    assert_same_bits(*as_they_come)


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress(verbose, iris, capsys):
    sgd(epochs=3, verbose=verbose).fit(*iris)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"epoch {i}/3" for i in (1, 2, 3)][
        : 3 * verbose
    ]


# partial_fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_partial_fits_are_the_epochs_of_a_fit(pickled, n_classes, iris):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    options = {"momentum": 0.9, "schedule": "invscaling", "C": 0.1}
    whole = sgd(**options, epochs=4).fit(X, y)
    parts = sgd(**options)
    for _ in range(4):
        parts.partial_fit(X, y, classes=np.unique(y))
        if pickled:
            parts = pickle.loads(pickle.dumps(parts))
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-12)
    np.testing.assert_allclose(parts.intercept_, whole.intercept_, rtol=1e-12)
    assert parts.n_iter_.tolist() == [4]
    np.testing.assert_allclose(parts.history_.train_loss, whole.history_.train_loss)


def test_partial_fit_streams_chunks(digits):
    X, y = digits
    model = sgd(x_scale=1 / 16, C=100.0)
    for _ in range(10):
        for rows in np.array_split(np.random.default_rng(0).permutation(len(X)), 10):
            model.partial_fit(X[rows], y[rows], classes=range(10))
    assert model.score(X, y) > 0.93


def test_partial_fit_with_one_class_in_a_batch(iris):
    X, y = iris
    model = sgd()
    for label in (0, 1, 2):
        model.partial_fit(X[y == label], y[y == label], classes=[2, 0, 1])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(X).shape == (150, 3)


def test_partial_fit_of_rows_without_weight_changes_nothing(iris):
    """Not the weights, nor the order of later rows, the momentum or the epoch of the schedule."""
    X, y = iris
    light, heavy = y == 0, y != 0
    options = {"class_weight": {0: 0}, "momentum": 0.9, "schedule": "invscaling", "batch_size": 10}
    with_light, without = sgd(**options), sgd(**options)
    for n_calls in (1, 2):
        with_light.partial_fit(X[light], y[light], range(3))
        for model in (with_light, without):
            model.partial_fit(X[heavy], y[heavy], range(3))
            assert model.n_iter_.tolist() == [n_calls]
        np.testing.assert_array_equal(with_light.coef_, without.coef_)


def test_partial_fit_of_labels(iris):
    X, y = iris[0], np.array(["x", "y", "z"])[iris[1]]
    model = sgd()
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        model.partial_fit(X, y)
    model.partial_fit(X, y, classes=["z", "y", "x"])
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        model.partial_fit(X, y, classes=["x", "y"])
    with pytest.raises(ValueError, match="previously unseen labels"):
        model.partial_fit(X, np.where(y == "x", "w", y))
    with pytest.raises(ValueError, match="X has 3 features"):
        model.partial_fit(X[:, :3], y)
    with pytest.raises(ValueError, match="class_weight 'balanced' is not supported"):
        sgd(class_weight="balanced").partial_fit(X, y, classes=["x", "y", "z"])
    for name in ("average", "early_stopping"):
        with pytest.raises(ValueError, match=f"partial_fit does not support {name}=True"):
            sgd(**{name: True}).partial_fit(X, y, classes=["x", "y", "z"])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_partial_fit_goes_on_from_an_optimum(n_classes, iris):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    model = SoftmaxRegression(random_state=0, learning_rate=1e-9).fit(X, y)
    coef = model.coef_.copy()
    np.testing.assert_allclose(model.partial_fit(X, y).coef_, coef, atol=1e-8)
    model.set_params(learning_rate=0.5).partial_fit(1 + X, y)
    assert np.abs(model.coef_ - coef).max() > 1e-3


def test_partial_fit_class_weight_and_sample_weight(iris):
    X, y = iris
    by_class = sgd(class_weight={0: 2.0, 1: 1.0, 2: 0.5}).partial_fit(X, y, classes=[0, 1, 2])
    by_row = sgd().partial_fit(X, y, [0, 1, 2], np.array([2.0, 1.0, 0.5])[y])
    assert_same_bits(by_class.coef_, by_row.coef_)


# Soft labels, smoothing, x_scale -----------------------------------------------------------------

each_way = pytest.mark.parametrize("solver", ["lbfgs", "sgd"])


@each_way
@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_hot_rows_are_labels(solver, n_classes, iris):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    options = {"solver": solver, "random_state": 0, "max_iter": 1000, "tol": 1e-8}
    hard = SoftmaxRegression(**options).fit(X, y)
    for Y in (
        np.eye(n_classes)[y],
        pd.DataFrame(np.eye(n_classes)[y]),
        np.eye(n_classes)[y].tolist(),
    ):
        soft = SoftmaxRegression(**options).fit(X, Y)
        assert soft.classes_.tolist() == list(range(n_classes))
        np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=1e-5, atol=1e-7)
        assert soft.score(X, Y) == hard.score(X, y)


@each_way
def test_smoothing_is_a_soft_label(solver, iris):
    X, y = iris
    options = {"solver": solver, "random_state": 0, "max_iter": 1000, "tol": 1e-8}
    smoothed = SoftmaxRegression(label_smoothing=0.3, **options).fit(X, y)
    soft = SoftmaxRegression(**options).fit(X, 0.7 * np.eye(3)[y] + 0.1)
    np.testing.assert_allclose(smoothed.coef_, soft.coef_, rtol=1e-5, atol=1e-7)
    assert smoothed.predict_proba(X).max() < 0.97


def test_soft_labels_are_fitted(rng):
    """Without a penalty, the mean of the probabilities is the mean of the targets."""
    X, Y = rng.normal(size=(200, 3)), rng.dirichlet(np.ones(4), 200)
    model = SoftmaxRegression(C=math.inf, tol=1e-10, max_iter=1000).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X).mean(axis=0), Y.mean(axis=0), rtol=1e-7)


def test_soft_labels_that_do_not_fit(iris, rng):
    X, Y = iris[0], rng.dirichlet(np.ones(3), 150)
    with pytest.raises(ValueError, match="y: -0.* came, probabilities of at least 0"):
        SoftmaxRegression().fit(X, Y - 0.5)
    with pytest.raises(ValueError, match="contains NaN"):
        SoftmaxRegression().fit(X, np.where(Y > 0.9, np.nan, Y))
    with pytest.raises(ValueError, match="class_weight: 'balanced' came with probabilities for y"):
        SoftmaxRegression(class_weight="balanced").fit(X, Y)
    with pytest.raises(ValueError, match="y should be a 1d array"):
        SoftmaxRegression().fit(X, np.eye(3, dtype=int)[iris[1]])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        LogisticRegression().fit(X, Y)
    model = SoftmaxRegression().partial_fit(X, Y)
    with pytest.raises(ValueError, match="probabilities of 2 classes came, 3 were wanted"):
        model.partial_fit(X, Y[:, :2])


@each_way
def test_x_scale_is_a_factor(solver, digits):
    X, y = digits
    options = {"solver": solver, "random_state": 0, "epochs": 3, "tol": 0.01}
    scaled = SoftmaxRegression(x_scale=1 / 16, **options).fit(X, y)
    floats = SoftmaxRegression(**options).fit((X / 16).astype(np.float32), y)
    np.testing.assert_allclose(scaled.coef_, floats.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        scaled.predict_proba(X), floats.predict_proba((X / 16).astype(np.float32)), atol=1e-4
    )


# Validation, callbacks ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    """Few rows of many features, half of the labels wrong: what soon gets worse on other rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 50))
    y = np.where(rng.random(400) < 0.5, X[:, 0] > 0, rng.random(400) < 0.5).astype(int)
    return X[:100], y[:100], X[100:], y[100:]


@each_way
def test_early_stopping_keeps_the_best(solver, noisy):
    X, y, X_val, y_val = noisy
    losses = []
    model = SoftmaxRegression(
        solver=solver, random_state=0, epochs=500, C=1e6, early_stopping=True, n_iter_no_change=3,
        tol=1e-4, callbacks=[lambda event: losses.append(event.history[-1].validation_loss)],
    )  # fmt: skip
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert 3 < len(losses) < 500
    assert model.n_iter_.tolist() == [len(losses)]
    proba = model.predict_proba(X_val)[np.arange(300), y_val]
    np.testing.assert_allclose(-np.log(proba).mean(), min(losses), rtol=1e-6)
    assert min(losses) < losses[-1]


def test_early_stopping_needs_a_validation_set(noisy):
    X, y, X_val, y_val = noisy
    with pytest.raises(ValueError, match="early_stopping: True came without X_val and y_val"):
        SoftmaxRegression(early_stopping=True).fit(X, y)
    with pytest.raises(ValueError, match="X_val and y_val: one came"):
        SoftmaxRegression().fit(X, y, X_val=X_val)
    with pytest.raises(ValueError, match="previously unseen labels"):
        SoftmaxRegression().fit(X, y, X_val=X_val, y_val=y_val + 1)
    with pytest.raises(ValueError, match="X has 3 features"):
        SoftmaxRegression().fit(X, y, X_val=X_val[:, :3], y_val=y_val)


class Callback:
    def __init__(self, stop_at):
        self.events, self.batches, self.stop_at = [], 0, stop_at

    def on_batch_end(self, event):
        self.batches += 1

    def on_epoch_end(self, event):
        row = event.history[-1]
        assert row.epoch == event.epoch
        self.events.append(
            (row, event.model.loss(*Callback.data), event.model.accuracy(*Callback.data))
        )
        if event.epoch == self.stop_at:
            raise sx.StopTraining


@each_way
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_callbacks_are_told_loss_and_score(solver, n_classes, weighted, iris, rng):
    X, y = iris[0][: 50 * n_classes], iris[1][: 50 * n_classes]
    callback = Callback(stop_at=4)
    Callback.data = X, y
    weight = rng.random(len(X)) if weighted else None
    model = SoftmaxRegression(solver=solver, callbacks=[callback], C=0.1, max_iter=50)
    model.fit(X, y, weight, X_val=X, y_val=y)
    assert model.n_iter_.tolist() == [4] == [len(callback.events)]
    assert callback.batches >= 4
    for row, loss, accuracy in callback.events:
        np.testing.assert_allclose((row.validation_loss, row.validation_accuracy), (loss, accuracy))
        if solver == "lbfgs" and not weighted:
            np.testing.assert_allclose((row.train_loss, row.train_accuracy), (loss, accuracy))
    assert callback.events[-1][1] < callback.events[0][1]


def test_a_callback_has_to_be_callable(iris):
    with pytest.raises(TypeError, match="came, a callable or an object with on_batch_end"):
        SoftmaxRegression(callbacks=[7]).fit(*iris)


@pytest.mark.parametrize("rows", [300, 9000])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.filterwarnings("error")
def test_a_fit_takes_few_passes_however_the_features_are_scaled(form, rows):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, 30)) @ rng.normal(size=(30, 30)) * 10.0 ** rng.uniform(-3, 3, 30)
    y = np.argmax(X[:, :4] / X[:, :4].std(axis=0) + rng.gumbel(size=(rows, 4)), axis=1)
    assert LogisticRegression().fit(form(X), y).n_iter_[0] < 30
