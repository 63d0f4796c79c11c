"""Solvers: the optimum they reach, what they refuse, and how they stop."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from softmax_ext import Blocks, SoftmaxModel, kernels, reference
from softmax_ext.arguments import as_matrix
from softmax_ext.solvers import minimize, minimize_many
from softmax_ext.solvers.arrays import ArrayObjective
from softmax_ext.solvers.lbfgs import minimize_penalised
from softmax_ext.solvers.objective import Evaluation
from softmax_ext.solvers.penalised import Penalised


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


def losses_of(X, y, c, *, intercept=True, weight=None, dtype=np.float64):
    """The objective that `minimize` makes of arrays, before penalties."""
    return ArrayObjective(
        as_matrix(X), y, sample_weight=weight, n_classes=c, has_intercept=intercept,
        dtype=np.dtype(dtype), x_scale=1.0, label_smoothing=0.0, kernels=kernels,
    )  # fmt: skip


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


def test_few_steps_where_features_are_correlated_and_badly_scaled():
    rng = np.random.default_rng(1)
    X, y = make_data(n=4000, d=40, c=5)
    y = np.where(rng.random(4000) < 0.3, rng.integers(0, 5, 4000), y)
    X = X @ rng.normal(size=(40, 40)) * 10.0 ** rng.uniform(-3, 3, 40) + 100.0
    passes = {}
    for precondition in (True, False):
        result = solve(X, y, l2=1e-2, tol=1e-5, max_iter=1000, precondition=precondition)
        passes[precondition] = result.nfev
    assert passes[True] < 100
    assert passes[False] > 1000


@pytest.mark.parametrize("intercept", [True, False])
def test_small_problems_are_solved_by_newtons_steps(intercept):
    """Of few rows all are in the sample: the preconditioner is the inverse of the Hessian."""
    rng = np.random.default_rng(4)
    X, y = make_data(n=200, d=5, c=3)
    scale = 10.0 ** np.arange(-2, 3)
    X = (X + 1) * scale
    weight = rng.exponential(size=200)
    W, b = rng.normal(size=(5, 3)) / scale[:, None] / 10, rng.normal(size=3)
    losses = losses_of(X, y, 3, intercept=intercept, weight=weight)
    objective = Penalised(losses, 2.0, 0.0)
    theta = objective.representable(np.vstack([W, b]) if intercept else W)
    gradient = objective.value_and_gradient(theta)[1]

    def along(e):
        change = np.zeros(theta.size)
        change[e] = 1e-5
        change = change.reshape(theta.shape)
        above, below = (objective.value_and_gradient(theta + s * change)[1] for s in (1, -1))
        return (above - below).ravel() / 2e-5

    hessian = np.array([along(e) for e in range(theta.size)])
    step = objective.curvature().whole(theta)(gradient)
    # A common shift of the intercepts changes nothing: the Hessian times the step is what counts.
    np.testing.assert_allclose(hessian @ step.ravel(), gradient.ravel(), rtol=1e-3, atol=1e-6)
    result = solve(X, y, l2=2.0, intercept=intercept, sample_weight=weight, tol=1e-10)
    assert result.success
    assert result.nfev < 30
    assert solve(X, y, l2=2.0, intercept=intercept, precondition=False).nfev > 300


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_that_never_change_cost_no_passes(dtype):
    """Without a penalty nothing but the solver's own guess tells how curved they are."""
    rng = np.random.default_rng(7)
    X, y = rng.normal(size=(500, 30)) @ rng.normal(size=(30, 30)), rng.integers(0, 10, 500)
    X = X.astype(dtype)
    never = np.repeat(np.array([[0, 0, 1]], dtype), 500, axis=0)
    plain, more = (solve(x, y, dtype=dtype, tol=1e-5) for x in (X, np.hstack([X, never])))
    assert plain.success
    assert more.success
    assert more.nfev <= plain.nfev + 3


@pytest.mark.parametrize("precondition", [True, False])
def test_slopes_lead_on_where_the_objective_shows_no_difference(precondition):
    """Near the optimum its values drown in rounding long before the gradient does."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(500, 40)), rng.integers(0, 8, 500)
        loose, tight = (
            solve(X, y, l2=1.0, tol=tol, precondition=precondition) for tol in (1e-9, 1e-12)
        )
        assert tight.success
        assert tight.nfev <= 2 * loose.nfev


def test_l1_takes_few_passes_however_the_features_are_scaled():
    rng = np.random.default_rng(9)
    X, y = make_data(n=2000, d=20, c=4)
    y = np.where(rng.random(2000) < 0.2, rng.integers(0, 4, 2000), y)
    X = X * 10.0 ** rng.uniform(-3, 3, 20)
    result = solve(X, y, l1=1.0, tol=1e-9)
    assert result.success
    assert result.nfev < 100


def test_sparse_rows_are_in_the_sample_as_dense_ones_are():
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(6)
    X = rng.normal(size=(900, 60)) * (rng.random((900, 60)) < 0.2) * 10.0 ** rng.uniform(-2, 2, 60)
    y = np.argmax(X[:, :10] / X[:, :10].std(axis=0) + rng.gumbel(size=(900, 10)), axis=1)
    X[7] = 0
    csr = sparse.csr_array(X)
    # Each entry in two parts, and a row without any.
    parts = sparse.csr_array(
        (np.repeat(csr.data / 2, 2), np.repeat(csr.indices, 2), csr.indptr * 2), shape=csr.shape
    )
    assert (np.diff(csr.indptr) == 0).any()
    theta = np.zeros((61, 10))
    gradient = rng.normal(size=(61, 10))
    steps = []
    for x in (X, csr, parts):
        objective = Penalised(losses_of(x, y, 10), 1.0, 0.0)
        objective.value_and_gradient(theta)
        steps.append(objective.curvature().shared(theta)(gradient))
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-6, atol=1e-9)
    # Their sums of squares are others: what is scaled by hardly matters.
    np.testing.assert_allclose(steps[2], steps[0], rtol=1e-3, atol=1e-2)
    passes = [solve(csr, y, l2=1.0, tol=1e-6, precondition=p).nfev for p in (True, False)]
    assert 4 * passes[0] < passes[1]


def test_loose_tolerance_is_no_excuse_for_stopping_far_above_the_optimum():
    """With many rare features every entry of the mean gradient is small, wherever one is."""
    scipy_sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(2)
    n, d, c, entries = 4000, 10000, 20, 50
    words = rng.integers(0, d, n * entries)
    X = scipy_sparse.csr_array(
        (rng.random(n * entries), words, np.arange(n + 1) * entries), shape=(n, d)
    )
    y = np.argmax(X @ rng.normal(size=(d, c)), axis=1)
    loose, tight = (solve(X, y, l2=1.0, tol=tol) for tol in (3e-3, 1e-6))
    assert loose.success
    assert loose.nit < tight.nit
    assert loose.fun < 1.01 * tight.fun


class TwoMachines:
    """The protocol of objectives and nothing else: sums over two parts of the rows, added up."""

    def __init__(self, X, y, c, dtype):
        self._data = X, y, c
        self._parts = [
            losses_of(x, t, c, dtype=dtype) for x, t in ((X[:99], y[:99]), (X[99:], y[99:]))
        ]
        # What the machines would send each other once: some of their rows.
        self._gathered = losses_of(X[::2], y[::2], c, dtype=dtype)
        self.shape, self.has_intercept, self.dtype = (X.shape[1] + 1, c), True, np.dtype(dtype)
        self.n_rows, self.is_sparse, self.cost = len(y), False, 2.0 * X.size * c

    def value_and_gradient(self, theta):
        sums = zip(*(part.value_and_gradient(theta) for part in self._parts), strict=True)
        return Evaluation(*map(sum, sums))

    def hessian_product(self, theta, V):
        return sum(part.hessian_product(theta, V) for part in self._parts)

    def sample(self, n, *, by_length):
        return self._gathered.sample(n, by_length=by_length)

    def in_float64(self):
        return TwoMachines(*self._data, np.float64)


@pytest.mark.parametrize(("l2", "l1"), [(1.0, 0.0), (0.5, 5.0)])
@pytest.mark.parametrize("d", [6, 100])
def test_an_objective_can_be_anything_that_keeps_the_protocol(l2, l1, d):
    X, y = make_data(n=3000 if d == 100 else 300, d=d)
    expected = solve(X, y, l2=l2, l1=l1)
    objective = Penalised(TwoMachines(X, y, 4, np.float64), l2, l1)
    result = minimize_penalised(objective, np.zeros((d + 1, 4)), tol=1e-9, max_iter=5000)
    assert result.success
    np.testing.assert_allclose(result.fun, expected.fun, rtol=3e-9)
    np.testing.assert_allclose(result.W, expected.W, atol=1e-5)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_objectives_hessian_product_is_its_gradients_change(intercept, dtype):
    X, y = make_data(n=100, d=5, c=3)
    X = X.astype(dtype)
    losses = losses_of(X, y, 3, intercept=intercept, weight=np.arange(100.0), dtype=dtype)
    rng = np.random.default_rng(0)
    theta, V = rng.normal(size=(2, *losses.shape))
    wide = losses.in_float64()
    above, below = (wide.value_and_gradient(theta + s * V)[1].copy() for s in (1e-5, -1e-5))
    product = losses.hessian_product(theta, V)
    assert product.dtype == dtype
    rtol = {"float32": 1e-4, "float64": 1e-6}[dtype]
    expected = (above - below) / 2e-5
    np.testing.assert_allclose(product, expected, rtol, rtol * np.abs(expected).max())
    assert losses.value_and_gradient(theta)[1].shape == theta.shape  # nothing of it is disturbed


def test_any_objective_goes_on_in_float64_where_float32_ends():
    X, y = make_data(n=500)
    objective = Penalised(TwoMachines(X.astype(np.float32), y, 4, np.float32), 1.0, 0.0)
    result = minimize_penalised(objective, np.zeros((7, 4)), tol=0.0, max_iter=5000)
    assert objective.dtype == np.float64
    assert result.W.dtype == np.float32
    exact = solve(X.astype(np.float32).astype(np.float64), y, l2=1.0)
    np.testing.assert_allclose(result.W, exact.W, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("c", [2, 10, 40])
def test_preconditioned_optimum_is_that_of_plain_steps(c):
    X, y = make_data(n=3000, d=20, c=c)
    fitted = [solve(X, y, l2=1.0, precondition=p) for p in (True, False)]
    assert fitted[0].success
    np.testing.assert_allclose(fitted[0].fun, fitted[1].fun, rtol=1e-10)
    np.testing.assert_allclose(fitted[0].W, fitted[1].W, atol=1e-4)


def test_refits_are_the_same_to_the_bit_for_every_number_of_threads(sx):
    X, y = make_data(n=70000, d=40, c=10)
    X = X.astype(np.float32)
    results = []
    for threads in (1, 2, 1):
        with sx.num_threads(threads):
            results.append(solve(X, y, l2=1.0, dtype=np.float32, tol=1e-5))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].W, other.W)
        np.testing.assert_array_equal(results[0].b, other.b)


def test_weight_of_k_is_k_copies():
    X, y = make_data()
    k = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = solve(X, y, l2=1.0, sample_weight=k)
    copied = solve(np.repeat(X, k, axis=0), np.repeat(y, k), l2=1.0)
    np.testing.assert_allclose(weighted.fun, copied.fun, rtol=1e-11)
    np.testing.assert_allclose(weighted.W, copied.W, atol=1e-6)


def test_float32_comes_within_its_rounding():
    X, y = make_data(n=5000)
    exact = solve(X.astype(np.float32).astype(np.float64), y, l2=1.0)
    result = solve(X.astype(np.float32), y, l2=1.0, dtype=np.float32, tol=1e-6)
    assert result.success
    assert result.W.dtype == np.float32
    np.testing.assert_allclose(result.fun, exact.fun, rtol=1e-6)


def test_tolerance_that_rounding_forbids_ends():
    X, y = make_data()
    result = solve(X.astype(np.float32), y, l2=1.0, dtype=np.float32, tol=0.0, max_iter=2000)
    assert not result.success
    assert result.status in (1, 2)
    assert result.grad_norm < 1e-5


def test_bytes_are_scaled_in_the_kernel():
    rng = np.random.default_rng(3)
    X = rng.integers(0, 256, (400, 12), dtype=np.uint8)
    y = (X[:, 0] > 100).astype(np.int64) + (X[:, 1] > 200)
    raw = solve(X, y, l2=1.0, x_scale=1 / 255)
    scaled = solve(X / 255, y, l2=1.0)
    np.testing.assert_allclose(raw.fun, scaled.fun, rtol=1e-10)


def test_soft_labels_and_smoothing_are_those_of_the_kernels():
    X, y = make_data()
    smooth = solve(X, y, l2=1.0, label_smoothing=0.2)
    soft = solve(X, np.eye(4)[y] * 0.8 + 0.05, l2=1.0)
    np.testing.assert_allclose(smooth.fun, soft.fun, rtol=1e-11)


def test_csr_is_fitted_like_dense():
    sparse = pytest.importorskip("scipy.sparse")
    X, y = make_data(n=500, d=30)
    X[np.abs(X) < 1] = 0
    dense = solve(X, y, l2=1.0)
    csr = solve(sparse.csr_array(X), y, l2=1.0)
    assert csr.success
    np.testing.assert_allclose(csr.fun, dense.fun, rtol=1e-11)


def test_start_is_not_modified_and_an_optimum_stays():
    X, y = make_data()
    optimum = solve(X, y, l2=1.0)
    W, b = optimum.W.copy(), optimum.b.copy()
    again = minimize(X, y, W, b, l2=1.0, tol=1e-8)
    assert again.nit == 0
    np.testing.assert_array_equal(W, optimum.W)
    start = np.ones((6, 4))
    minimize(X, y, start, None, l2=1.0)
    assert (start == 1).all()


def test_callback_sees_each_iteration_and_can_stop():
    X, y = make_data()
    seen = []

    def callback(state):
        seen.append((state.nit, state.fun))
        if state.nit == 5:
            raise StopIteration

    result = solve(X, y, l2=1.0, callback=callback)
    assert [nit for nit, _ in seen] == [1, 2, 3, 4, 5]
    assert result.status == 3
    assert not result.success
    assert result.fun == seen[-1][1]


def test_interruption_leaves_the_last_iterate(sx):
    X, y = make_data()
    model = SoftmaxModel.zeros(6, 4, dtype=np.float64)
    last = []

    def callback(state):
        last[:] = [state.W.copy(), state.b.copy()]
        if state.nit == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sx.fit_lbfgs(model, X, y, callback=callback)
    np.testing.assert_array_equal(model.W, last[0])
    np.testing.assert_array_equal(model.b, last[1])
    assert model.W.any()


def test_max_iter_is_kept_to():
    X, y = make_data()
    result = solve(X, y, l2=1.0, max_iter=3)
    assert (result.nit, result.status, result.success) == (3, 1, False)


def test_ignored_rows_do_not_count():
    X, y = make_data()
    ignored = y.copy()
    ignored[::3] = -100
    kept = ignored >= 0
    a, b = solve(X, ignored, c=4, l2=1.0), solve(X[kept], y[kept], c=4, l2=1.0)
    np.testing.assert_allclose(a.fun, b.fun, rtol=1e-11)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": "nan"}, ValueError, "X: NaN or infinite elements"),
        ({"X": "inf"}, ValueError, "X: NaN or infinite elements"),
        (
            {"sample_weight": np.zeros(300)},
            ValueError,
            "sample_weight: zeros alone came, at least one",
        ),
        ({"sample_weight": -np.ones(300)}, ValueError, "sample_weight: -1.0 came at row 0, finite"),
        ({"sample_weight": np.ones(299)}, ValueError, "sample_weight: shape"),
        ({"y": np.full(300, 4)}, IndexError, "label 4 at row 0 is outside"),
        ({"y": np.full(300, -100)}, ValueError, "y: no label that counts came, at least one"),
        ({"W": np.zeros((5, 4))}, ValueError, "W: shape (5, 4) came, (6, C) was wanted"),
        ({"W": np.zeros((6, 0)), "b": None}, ValueError, "W: shape (6, 0) came, (6, C) with C at"),
        ({"b": np.zeros(3)}, ValueError, "b: shape (3,) came, (4,) was wanted"),
        ({"b": np.full(4, np.inf)}, ValueError, "b: NaN or infinite elements came"),
        (
            {"W": np.full((6, 4), [0, 0, 0, 1e200]), "l2": 1.0},
            ValueError,
            "W: a penalty that overflows came",
        ),
        ({"X": np.zeros((0, 6)), "y": np.zeros(0, int)}, ValueError, "X: no rows came"),
        ({"y": np.zeros(299, int)}, ValueError, "y: shape (299,) came, (300,) was wanted"),
        ({"W": np.full((6, 4), np.nan)}, ValueError, "W: NaN or infinite elements came"),
        ({"l2": -1.0}, ValueError, "l2: -1.0 came, a finite number of at least 0"),
        ({"tol": np.nan}, ValueError, "tol: nan came, a finite"),
        ({"max_iter": -1}, ValueError, "max_iter: -1 came, an integer from 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter: float came, an integer"),
    ],
)
def test_unfit_arguments_are_refused(change, error, message):
    X, y = make_data()
    arguments = {"X": X, "y": y, "W": np.zeros((6, 4)), "b": np.zeros(4), **change}
    if isinstance(arguments["X"], str):
        arguments["X"] = X.copy()
        arguments["X"][7, 2] = float(change["X"])
    with pytest.raises(error) as caught:
        minimize(**arguments)
    assert message in str(caught.value)


def test_refused_arguments_leave_the_model(sx):
    X, y = make_data()
    model = SoftmaxModel.zeros(6, 4, dtype=np.float64)
    for options in ({"C": 0.0}, {"tol": -1.0}, {"sample_weight": np.zeros(300)}):
        with pytest.raises(ValueError):
            sx.fit_lbfgs(model, X, y, **options)
    assert not model.W.any()


def data_sets():
    """Kinds of data that have broken solvers."""
    rng = np.random.default_rng(11)
    X, y = make_data(n=400, d=8, c=3)
    yield "blobs", X, y, 1.0
    yield "separable", X * 10, np.argmax(X[:, :3], axis=1), 1e-2
    yield "collinear", np.hstack([X, X @ rng.normal(size=(8, 8))]), y, 1.0
    yield "copied column", np.hstack([X, X]), y, 1e-3
    yield "constant column", np.hstack([X, np.full((400, 1), 3.0)]), y, 1.0
    yield "column of zeros", np.hstack([X, np.zeros((400, 1))]), y, 1.0
    yield "one feature", X[:, :1], y, 1.0
    yield "two classes", X, (y > 0).astype(int), 1.0
    yield "far from 0", X + 1000, y, 1.0
    yield "badly scaled", X * 10.0 ** np.arange(-4, 4), y, 1.0
    yield "few rows", *make_data(n=20, d=50, c=3), 1.0
    yield "one row a class", *make_data(n=6, d=4, c=6), 1.0
    yield "many classes", *make_data(n=1000, d=5, c=100), 1.0
    yield "imbalance", X, np.where(rng.random(400) < 0.02, y, 0), 1.0
    yield "noise", rng.normal(size=(300, 10)), rng.integers(0, 4, 300), 1.0
    yield "strong penalty", X, y, 1e4
    yield "weak penalty", X, y, 1e-3
    yield "integers", rng.integers(-5, 6, (300, 6)).astype(float), rng.integers(0, 3, 300), 1.0
    yield "heavy tails", rng.standard_t(2, size=(300, 5)), rng.integers(0, 3, 300), 1.0
    yield "XOR", X[:, :2], ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(int), 1.0
    try:
        from sklearn import datasets
    except ImportError:
        return
    for name in ("iris", "wine", "breast_cancer", "digits"):
        yield name, *getattr(datasets, f"load_{name}")(return_X_y=True), 1.0


@pytest.mark.parametrize(
    ("X", "y", "l2"), [pytest.param(*values, id=name) for name, *values in data_sets()]
)
def test_optimum_of_every_kind_of_data(X, y, l2):
    """Convexity bounds the distance to the optimum: gap <= |gradient|^2 / (2 l2)."""
    result = solve(X, y, l2=l2, tol=1e-10)
    dW, db = gradient(X, y, result, l2=l2)
    # The intercept, not penalised, has a curvature of its own; its gradient must nearly vanish.
    assert np.abs(db).max() < 1e-5 * len(y)
    assert np.vdot(dW, dW) / (2 * l2) <= 1e-8 * max(1.0, result.fun)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("X", "y", "l2"), [pytest.param(*values, id=name) for name, *values in data_sets()]
)
def test_no_worse_than_scikit_learn(X, y, l2):
    linear_model = pytest.importorskip("sklearn.linear_model")
    from scipy.special import log_softmax

    result = solve(X, y, l2=l2, tol=1e-10)
    c = result.W.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge
        peer = linear_model.LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20000).fit(X, y)
    if c == 2:
        # scikit-learn's two classes share one row of coefficients: half of it each way.
        theirs, shift = np.vstack([-peer.coef_, peer.coef_]) / 2, np.r_[0, peer.intercept_]
    else:
        theirs, shift = peer.coef_, peer.intercept_
    logits = X @ theirs.T + shift
    value = -log_softmax(logits, axis=1)[np.arange(len(y)), y].sum() + l2 / 2 * (theirs**2).sum()
    assert result.fun <= value + 1e-8 * max(1.0, value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"l2": 1.0}, {"l1": 1.0}, {"precondition": False}])
def test_one_class_is_an_optimum(dtype, options):
    X = np.random.default_rng(0).normal(size=(30, 4)).astype(dtype)
    W, b = np.zeros((4, 1), dtype), np.zeros(1, dtype)
    result = minimize(X, np.zeros(30, int), W, b, **options)
    assert result.success
    assert result.fun == 0


def test_a_few_steps_tell_nothing_of_what_is_left():
    """With more features than have moments, a fit is within tol after some steps, but not near."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2100)) @ (rng.normal(size=(2100, 2100)) / 2100**0.5 + np.eye(2100))
    y = np.argmax(X[:, :5] + rng.gumbel(size=(400, 5)), axis=1)
    default, tight = (solve(X, y, l2=1.0, tol=tol, max_iter=1000) for tol in (1e-4, 1e-8))
    assert default.success
    assert default.fun <= 1.001 * tight.fun


@pytest.mark.parametrize("options", [{}, {"standardize": True}, {"checkpoint": "fit.log"}])
@pytest.mark.parametrize("kind", ["array", "blocks", "many"])
def test_the_solver_multiplies_by_the_kernels_it_is_given(
    kind, options, monkeypatch, tmp_path, compiled
):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 60)), rng.integers(0, 6, 500)
    W, b = np.zeros((60, 6)), np.zeros(6)

    def unwanted(*args, **options):
        raise AssertionError("the default kernels were called")

    monkeypatch.setattr(kernels, "linear", unwanted)
    monkeypatch.chdir(tmp_path)
    data = (X, y) if kind == "array" else (Blocks([X], [y]), None)
    if kind == "many":
        if "checkpoint" in options:
            pytest.skip("several fits have no checkpoint")
        results = minimize_many(data[0], W, b, [1.0, 10.0], kernels=compiled, **options)
    else:
        results = [minimize(*data, W, b, l2=1.0, kernels=compiled, **options)]
    assert all(result.success for result in results)
