"""Paths: every optimum on them, what is chosen, and how they end."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext.solvers import minimize
from softmax_ext.solvers.curvature import Curvature
from softmax_ext.solvers.spectrum import BetweenClasses, Spectrum

D, C = 60, 6
CS = np.logspace(-5, 3, 17)


def make_data(n=1500, d=D, c=C, dtype="float32", seed=0):
    """Overlapping classes, of features whose variances fall."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    X = (rng.normal(size=(c, d))[y] + 2 * rng.normal(size=(n, d))) / np.sqrt(1 + np.arange(d))
    X = X @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 0.5
    return (np.clip(60 * X + 100, 0, 255) if dtype == "uint8" else X).astype(dtype), y


def optimum(X, y, C, **options):
    X = X.astype(np.float64)
    W, b = np.zeros((X.shape[1], int(y.max()) + 1)), np.zeros(int(y.max()) + 1)
    result = minimize(X, y, W, b, l2=1 / C, tol=1e-9, max_iter=5000, **options)
    assert result.success
    return result


def require_optima(path, X, y, **options):
    """Each objective is within 1e-4 of the least, as is that of what was returned."""
    assert path.success.all()
    for k in range(0, len(path.Cs), 4):
        right = optimum(X, y, path.Cs[k], **options)
        assert -1e-6 < path.fun[k] / right.fun - 1 < 1e-4
        found = minimize(
            X.astype(np.float64), y, path.W[k].astype(np.float64), path.b[k].astype(np.float64),
            l2=1 / path.Cs[k], max_iter=0, **options,
        )  # fmt: skip
        assert found.fun / right.fun - 1 < 1e-4


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_every_objective_is_the_least(dtype, standardize):
    X, y = make_data(dtype=dtype)
    scale = 1 / 255 if dtype == "uint8" else 1.0
    kind = "float64" if dtype == "float64" else "float32"
    model = sx.SoftmaxModel.zeros(D, C, x_scale=scale, dtype=kind)
    weight = np.random.default_rng(0).exponential(size=len(y))
    path = sx.fit_path(model, X, y, CS, standardize=standardize, sample_weight=weight)
    options = {"standardize": standardize, "sample_weight": weight, "x_scale": scale}
    require_optima(path, X, y, **options)
    assert path.W.dtype == model.W.dtype
    assert path.best == len(CS) - 1
    np.testing.assert_array_equal(model.W, path.W[-1])
    np.testing.assert_array_equal(model.b, path.b[-1])


def test_a_path_costs_a_few_fits():
    X, y = make_data(n=4000, d=100, c=10)
    Cs = np.logspace(-5, 3, 33)
    path = sx.fit_path(sx.SoftmaxModel.zeros(100, 10), X, y, Cs)
    alone = sx.fit_lbfgs(sx.SoftmaxModel.zeros(100, 10), X, y, C=1.0)
    assert path.success.all()
    assert path.nfev < 8 * alone.nfev
    cold = [sx.fit_lbfgs(sx.SoftmaxModel.zeros(100, 10), X, y, C=C).nfev for C in Cs[::4]]
    assert path.nfev < 2 * sum(cold)


def test_separable_data_and_no_intercept():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    X = (rng.normal(size=(200, 150)) + 3 * (y[:, None] == np.arange(150))).astype(np.float32)
    model = sx.SoftmaxModel(np.zeros((150, 3), np.float32), None)
    path = sx.fit_path(model, X, y, CS)
    assert path.b is None
    for k in (0, 8, 16):
        W = np.zeros((150, 3))
        right = minimize(X.astype(float), y, W, None, l2=1 / CS[k], tol=1e-10, max_iter=5000)
        gap = path.fun[k] / right.fun - 1
        assert -1e-6 < gap < (1e-3 if path.success[k] else 1)
    assert path.success.all()


def test_a_small_path_is_of_newtons_steps():
    X, y = make_data(d=6, c=3, dtype="float64")
    path = sx.fit_path(sx.SoftmaxModel.zeros(6, 3, dtype="float64"), X, y, CS)
    require_optima(path, X, y)
    assert (path.nit <= 8).all()


def test_many_features_and_sparse_rows():
    from test_standardize import Csr

    rng = np.random.default_rng(0)
    X = rng.random((100, 3000)) * (rng.random((100, 3000)) < 0.01)
    y = rng.integers(0, 2, 100)
    path = sx.fit_path(sx.SoftmaxModel.zeros(3000, 2, dtype="float64"), Csr(X), y, [1.0, 0.01, 30])
    for C, fun in zip(path.Cs, path.fun, strict=True):
        assert fun / optimum(X, y, C).fun - 1 < 1e-4
    assert path.success.all()


@pytest.mark.parametrize("standardize", [False, True])
def test_data_in_pieces(standardize):
    X, y = make_data()
    blocks = sx.datasets.Blocks([(X[:700], y[:700]), (X[700:], y[700:])])
    whole, pieces = sx.SoftmaxModel.zeros(D, C), sx.SoftmaxModel.zeros(D, C)
    right = sx.fit_path(whole, X, y, CS[::4], standardize=standardize)
    found = sx.fit_path(pieces, blocks, None, CS[::4], standardize=standardize)
    assert found.success.all()
    np.testing.assert_allclose(found.fun, right.fun, rtol=1e-4)
    np.testing.assert_allclose(pieces.predict_proba(X), whole.predict_proba(X), atol=0.01)


def test_data_in_pieces_with_absolute_values():
    X, y = make_data()
    blocks = sx.datasets.Blocks([(X[:700], y[:700]), (X[700:], y[700:])])
    models = [sx.SoftmaxModel.zeros(D, C) for _ in range(2)]
    options = {"l1_ratio": 0.7, "tol": 1e-5}
    right, found = (
        sx.fit_path(model, *data, [0.01, 0.1], **options)
        for model, data in zip(models, ((X, y), (blocks, None)), strict=True)
    )
    assert found.success.all()
    assert 0 < np.count_nonzero(found.W[0]) < found.W[0].size
    np.testing.assert_allclose(found.fun, right.fun, rtol=2e-5)


def test_absolute_values():
    X, y = make_data(dtype="float64")
    path = sx.fit_path(
        sx.SoftmaxModel.zeros(D, C, dtype="float64"), X, y, [0.003, 0.01, 0.1], l1_ratio=0.5
    )
    assert path.success.all()
    zeros = (path.W == 0).sum(axis=(1, 2))
    assert zeros[0] > zeros[1] > zeros[2]
    assert np.array_equal(path.n_nonzero, D * C - zeros)
    right = minimize(X, y, np.zeros((D, C)), np.zeros(C), l1=50.0, l2=50.0, tol=1e-7, max_iter=5000)
    assert path.fun[1] / right.fun - 1 < 1e-4


def test_the_best_by_each_score_is_chosen():
    X, y = make_data()
    seen, penalties = [], {}

    def note(result):
        seen.append((result.C, result.score))
        penalties[result.C] = result.penalty

    def brier(model, X, y):
        return -float(np.square(model.predict_proba(X) - np.eye(C)[y]).sum(axis=1).mean())

    for scoring in ("loss", "accuracy", brier):
        model = sx.SoftmaxModel.zeros(D, C)
        path = sx.fit_path(
            model, X[:500], y[:500], CS[::-1], validation_data=(X[500:], y[500:]),
            scoring=scoring, callback=note,
        )  # fmt: skip
        np.testing.assert_array_equal(path.Cs, CS)
        by = {"loss": model.loss, "accuracy": model.accuracy}
        told = by[scoring](X[500:], y[500:]) if scoring in by else brier(model, X[500:], y[500:])
        best = path.scores.min() if scoring == "loss" else path.scores.max()
        assert told == best == path.scores[path.best]
        assert path.best == int(np.flatnonzero(path.scores == best)[0])
        np.testing.assert_array_equal(model.W, path.W[path.best])
        assert 0 < path.best < len(CS) - 1
        for k in (0, -1):
            one, C_ = path.W[k].astype(np.float64), path.Cs[k]
            total = sx.linear_cross_entropy(X[:500], path.W[k], path.b[k], y[:500], reduction="sum")
            penalty = np.square(one).sum() / (2 * C_)
            assert path.fun[k] == pytest.approx(total + penalty, rel=1e-5)
            assert penalties[C_] == pytest.approx(penalty, rel=1e-5)
    assert [C for C, _ in seen] == [*CS] * 3
    assert [score for _, score in seen[-len(CS) :]] == path.scores.tolist()


def test_patience_callback_and_interrupt_end_it():
    X, y = make_data()
    data = {"validation_data": (X[500:], y[500:])}
    model = sx.SoftmaxModel.zeros(D, C)
    whole = sx.fit_path(model, X[:500], y[:500], CS, **data)
    path = sx.fit_path(sx.SoftmaxModel.zeros(D, C), X[:500], y[:500], CS, patience=2, **data)
    assert len(path.Cs) == whole.best + 3
    assert (path.best, path.Cs[path.best]) == (whole.best, CS[whole.best])

    def stop(result):
        if CS[4] == result.C:
            raise StopIteration

    path = sx.fit_path(sx.SoftmaxModel.zeros(D, C), X[:500], y[:500], CS, callback=stop)
    assert len(path.Cs) == len(path.W) == 5

    def interrupt(result):
        if CS[-1] == result.C:
            raise KeyboardInterrupt

    model = sx.SoftmaxModel.zeros(D, C)
    with pytest.raises(KeyboardInterrupt):
        sx.fit_path(model, X[:500], y[:500], CS, callback=interrupt, **data)
    np.testing.assert_array_equal(model.W, whole.W[whole.best])


def test_a_fit_that_is_not_within_tol_says_so():
    X, y = make_data()
    path = sx.fit_path(sx.SoftmaxModel.zeros(D, C), X, y, CS, max_iter=1)
    assert not path.success.all()
    assert set(path.status[~path.success]) == {1}
    assert (path.grad_norm[path.success] <= 1e-4).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Cs": []}, "Cs: none came, finite numbers above 0 were wanted"),
        ({"Cs": [0.0, 1.0]}, "Cs: 0.0 to 1.0 came"),
        ({"Cs": [1.0, np.inf]}, "Cs: 1.0 to inf came"),
        ({"l1_ratio": 1.5}, "l1_ratio: 1.5 came"),
        ({"scoring": "f1"}, "scoring: 'f1' came, 'loss', 'accuracy' or a callable was wanted"),
        ({"patience": 0}, "patience: 0 came"),
        ({"validation_data": (1,)}, "validation_data: 1 arrays came"),
    ],
)
def test_arguments_are_refused(options, message):
    X, y = make_data(n=50)
    model = sx.SoftmaxModel.zeros(D, C)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        sx.fit_path(model, X, y, **{"Cs": CS, **options})
    assert not model.W.any()


def test_one_decomposition_is_the_inverse_for_every_penalty():
    from test_standardize import losses

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)) * [1, 10, 0.1, 1] + 3, rng.integers(0, 3, 200)
    objective = losses(X, y)
    curvature = Curvature(objective, 0.0)
    theta = rng.normal(size=objective.shape) / 10
    spectrum = Spectrum(curvature, theta)
    P = objective.probabilities(X, theta)
    weight = (1 - (P**2).sum(axis=1)) / 2 / len(X)
    wide = np.hstack([X, np.ones((200, 1))])
    H = (wide * weight[:, None]).T @ wide
    g = rng.normal(size=objective.shape)
    for l2 in (1e-6, 1.0, 1e6):
        right = np.linalg.solve(H + l2 * np.diag([1, 1, 1, 1, 0]), g)
        np.testing.assert_allclose(spectrum.preconditioner(l2)(g), right, rtol=1e-6)


@pytest.mark.parametrize("intercept", [False, True])
def test_between_classes_is_the_whole_hessian_where_features_do_not_meet(intercept):
    """Of rows with one feature each; with intercepts, of pairs of opposite rows at W = 0."""
    from test_standardize import losses

    rng = np.random.default_rng(0)
    n, d = 240, 4
    X = np.zeros((n, d))
    X[np.arange(n), rng.integers(0, d, n)] = rng.normal(size=n) * 10.0 ** rng.integers(-1, 2, n)
    if intercept:
        X[n // 2 :] = -X[: n // 2]
    objective = losses(X, rng.integers(0, 3, n), has_intercept=intercept)
    c = objective.shape[1]
    theta = rng.normal(size=objective.shape) * np.linspace(0.1, 3, c)
    if intercept:
        theta[:d] = 0
    curvature = Curvature(objective, 0.0)
    spectrum = Spectrum(curvature, theta)
    classes = BetweenClasses(curvature, spectrum, theta)
    g = rng.normal(size=objective.shape)
    g -= g.mean(axis=1, keepdims=True)
    P = objective.probabilities(X, theta)
    K = np.einsum("ia,ab->iab", P, np.eye(c)) - np.einsum("ia,ib->iab", P, P)
    wide = np.hstack([X, np.ones((n, 1))]) if intercept else X
    H = np.einsum("ij,ik,iab->jakb", wide, wide, K).reshape(g.size, g.size) / n
    is_penalised = np.repeat(np.arange(len(g)) < d, c)
    for l2 in (1e-6, 1e-2, 1e3):
        inverse = np.linalg.pinv(H + l2 * np.diag(is_penalised), rcond=1e-12, hermitian=True)
        right = (inverse @ g.ravel()).reshape(g.shape)
        found = spectrum.preconditioner(l2, classes)(g)
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-7 * np.abs(right).max())
        if l2 < 1:
            assert np.abs(spectrum.preconditioner(l2)(g) - right).max() > 0.1 * np.abs(right).max()


def test_weights_are_there_once():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2500)).astype(np.float32), np.arange(60) % 50
    model = sx.SoftmaxModel.zeros(2500, 50)
    tracemalloc.start()
    path = sx.fit_path(model, X, y, np.logspace(-3, 0, 80), max_iter=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.W.nbytes > 35e6
    assert peak < path.W.nbytes + 90e6


def test_picture():
    pytest.importorskip("matplotlib")
    X, y = make_data(n=200)
    model = sx.SoftmaxModel.zeros(D, C)
    path = sx.fit_path(model, X[:100], y[:100], CS, validation_data=(X[100:], y[100:]), max_iter=5)
    (axes,) = path.plot().axes
    assert axes.get_ylabel() == "validation loss (nats)"
    assert axes.get_xscale() == "log"
    curve = axes.lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), path.scores)
    marked = axes.lines[-1].get_xydata()[0]
    np.testing.assert_allclose(marked, [path.Cs[path.best], path.scores.min()])
    assert len(axes.lines) == 2 + (not path.success.all())


def test_the_callback_is_told_what_a_fit_tells():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 60)), rng.integers(0, 6, 300)
    seen = []
    sx.fit_path(sx.SoftmaxModel.zeros(60, 6), X, y, [0.1, 1.0], callback=seen.append)
    alone = sx.fit_lbfgs(sx.SoftmaxModel.zeros(60, 6), X, y)
    assert all(set(alone) <= set(state) for state in seen)
    assert seen
