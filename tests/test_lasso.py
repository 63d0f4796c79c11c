"""Penalties that make weights 0: optima beside a reference, certificates, supports, zeros."""

from __future__ import annotations

import numpy as np
import pytest

from softmax_ext.solvers import lambda_max, minimize

scipy_sparse = pytest.importorskip("scipy.sparse")


def blobs(n=80, d=6, c=3, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    y[:c] = np.arange(c)
    centres = rng.normal(size=(c, d)) * (rng.random(d) < 0.6)
    return centres[y] + noise * rng.normal(size=(n, d)), y


class Reference:
    """The penalised objective in NumPy, and its optimum: nothing of the package is in it.

    Accelerated proximal steps find the support; on that Newton's method ends in rounding, and the
    optimality conditions tell whether the support was the right one.
    """

    def __init__(self, X, y, c, *, l1, l2=0.0, penalty="l1", weight=None, smoothing=0.0, b=True):
        X = np.asarray(X.toarray() if hasattr(X, "toarray") else X, float)
        self.X = np.hstack([X, np.ones((len(X), 1))]) if b else X
        self.D, self.c, self.l1, self.l2, self.grouped = X.shape[1], c, l1, l2, penalty == "group"
        Y = np.eye(c)[y] if y.ndim == 1 else y
        total = Y.sum(axis=1, keepdims=True)
        self.Y = (1 - smoothing) * Y + smoothing * total / c
        self.s = np.ones(len(X)) if weight is None else np.asarray(weight, float)
        self.mass = self.s * total[:, 0]

    def loss(self, theta):
        O = self.X @ theta  # noqa: E741
        m = O.max(axis=1, keepdims=True)
        lse = m[:, 0] + np.log(np.exp(O - m).sum(axis=1))
        P = np.exp(O - lse[:, None])
        value = self.mass @ lse - self.s @ (self.Y * O).sum(axis=1)
        return value, self.X.T @ (self.mass[:, None] * P - self.s[:, None] * self.Y), P

    def sizes(self, W):
        return np.linalg.norm(W, axis=1, keepdims=True) if self.grouped else np.abs(W)

    def value(self, theta):
        W = theta[: self.D]
        penalty = self.l2 / 2 * (W**2).sum() + self.l1 * self.sizes(W).sum()
        return self.loss(theta)[0] + penalty

    def violation(self, theta):
        """The largest entry of the subgradient of least norm."""
        W, G = theta[: self.D], self.loss(theta)[1]
        G[: self.D] += self.l2 * W
        sizes = self.sizes(W)
        g, on = G[: self.D], np.broadcast_to(sizes > 0, W.shape)
        moving = g + self.l1 * W / np.where(sizes > 0, sizes, 1)
        shrunk = g * np.maximum(1 - self.l1 / np.maximum(self.sizes(g), 1e-300), 0)
        G[: self.D] = np.where(on, moving, shrunk)
        return np.abs(G).max()

    def prox(self, theta, step):
        new = theta.copy()
        W = new[: self.D]
        shrink = np.maximum(1 - step[: self.D] * self.l1 / np.maximum(self.sizes(W), 1e-300), 0)
        new[: self.D] = W * shrink
        return new

    def newton(self, theta):
        """Newton's method on the support, with steps made shorter while they do not descend."""
        on = np.ones(theta.shape, bool)
        on[: self.D] = self.sizes(theta[: self.D]) > 0
        for _ in range(30):
            W = theta[: self.D]
            _, G, P = self.loss(theta)
            n = theta.size
            K = np.einsum("ic,ce->ice", P, np.eye(self.c)) - np.einsum("ic,ie->ice", P, P)
            H = np.einsum("i,ij,ik,ice->jcke", self.mass, self.X, self.X, K)
            G[: self.D] += self.l2 * W
            sizes = self.sizes(W)
            U = W / np.where(sizes > 0, sizes, 1)
            G[: self.D] += self.l1 * U
            for j in range(self.D):
                H[j, :, j] += self.l2 * np.eye(self.c)
                if self.grouped and sizes[j, 0]:
                    H[j, :, j] += self.l1 / sizes[j, 0] * (np.eye(self.c) - np.outer(U[j], U[j]))
            on_flat = on.ravel()
            H = H.reshape(n, n)[np.ix_(on_flat, on_flat)]
            step = np.zeros(n)
            step[on_flat] = -np.linalg.pinv(H, rcond=1e-13, hermitian=True) @ G.ravel()[on_flat]
            t, now = 1.0, self.value(theta)
            while self.value(theta + t * step.reshape(theta.shape)) > now + 1e-13 * abs(now):
                t /= 2
                if t < 1e-6:
                    return theta
            theta = theta + t * step.reshape(theta.shape)
        return theta

    def optimum(self, rounds=12):
        # No step is too long for scaled features: K_i is at most half of the identity.
        scale = np.sqrt((self.X**2).mean(axis=0))
        scale[scale == 0] = 1
        norm = np.linalg.norm(self.X / scale * np.sqrt(self.mass / 2)[:, None], 2) ** 2
        step = np.repeat(0.9 / (norm * scale**2 + self.l2)[:, None], self.c, axis=1)
        theta = np.zeros(step.shape)
        for _ in range(rounds):
            z, momentum = theta, 1.0
            for _ in range(400):
                G = self.loss(z)[1]
                G[: self.D] += self.l2 * z[: self.D]
                new = self.prox(z - step * G, step)
                if np.vdot(z - new, new - theta) > 0:  # the momentum leads uphill
                    momentum = 1.0
                following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
                z, theta = new + (momentum - 1) / following * (new - theta), new
                momentum = following
            best = self.newton(theta)
            if self.violation(best) < 1e-8 * max(1, self.l1):
                break
        return best


def problem(name):
    """X, y, number of classes, and options: small problems of every kind."""
    rng = np.random.default_rng(7)
    X, y = blobs()
    plain = {"l1": 4.0}
    kinds = {
        "plain": (X, y, 3, plain),
        "weak penalty": (X, y, 3, {"l1": 0.3}),
        "strong penalty": (X, y, 3, {"l1": 15.0}),
        "elastic net": (X, y, 3, {"l1": 3.0, "l2": 3.0}),
        "mostly l2": (X, y, 3, {"l1": 0.3, "l2": 10.0}),
        "little l2": (X, y, 3, {"l1": 3.0, "l2": 1e-4}),
        "no intercept": (X + 0.3, y, 3, plain | {"b": False}),
        "two classes": (X[y < 2], y[y < 2], 2, plain),
        "two classes, elastic net": (X[y < 2], y[y < 2], 2, {"l1": 1.0, "l2": 1.0}),
        "four classes": (*blobs(c=4, seed=3), 4, {"l1": 2.0}),
        "nine classes": (*blobs(n=150, c=9, d=5, seed=4), 9, {"l1": 2.0}),
        "separable": (*blobs(noise=0.05, seed=1), 3, {"l1": 0.5}),
        "separable, elastic net": (*blobs(noise=0.05, seed=1), 3, {"l1": 0.1, "l2": 0.1}),
        "collinear": (np.hstack([X, X @ rng.normal(size=(6, 3))]), y, 3, {"l1": 2.0}),
        "duplicate columns": (np.hstack([X, X[:, :3]]), y, 3, plain),
        "constant column": (np.hstack([X, np.full((80, 1), 2.0)]), y, 3, plain),
        "zero column": (np.hstack([X, np.zeros((80, 1))]), y, 3, plain),
        "unequal scales": (X * 10.0 ** np.linspace(-2, 2, 6), y, 3, plain),
        "far from 0": (X + 5.0, y, 3, plain),
        "weights": (X, y, 3, plain | {"weight": rng.exponential(size=80)}),
        "weights of 0": (X, y, 3, plain | {"weight": rng.integers(0, 3, 80)}),
        "rare class": (*rare(), 3, {"l1": 1.0}),
        "soft labels": (X, rng.dirichlet(np.ones(3), 80), 3, {"l1": 1.0}),
        "label smoothing": (X, y, 3, plain | {"smoothing": 0.1}),
        "more features than rows": (*blobs(n=20, d=40), 3, {"l1": 2.0}),
        "labels of noise": (X, rng.integers(0, 3, 80), 3, {"l1": 5.0}),
        "groups": (X, y, 3, plain | {"penalty": "group"}),
        "groups, weak": (X, y, 3, {"l1": 0.5, "penalty": "group"}),
        "groups, elastic net": (X, y, 3, {"l1": 3.0, "l2": 2.0, "penalty": "group"}),
        "groups, weights, scales": (
            X * 10.0 ** np.linspace(-1, 1, 6), y, 3,
            {"l1": 2.0, "penalty": "group", "weight": rng.exponential(size=80)},
        ),
        "groups, two classes": (X[y < 2], y[y < 2], 2, plain | {"penalty": "group"}),
        "groups, no intercept": (X, y, 3, plain | {"penalty": "group", "b": False}),
        "groups, more features than rows": (
            *blobs(n=20, d=40), 3, {"l1": 2.0, "penalty": "group"},
        ),
        "sparse": (scipy_sparse.csr_array(X * (rng.random(X.shape) < 0.4)), y, 3, {"l1": 1.0}),
    }  # fmt: skip
    return kinds if name is None else kinds[name]


def rare():
    X, y = blobs(seed=5)
    y[y == 2] = 0
    y[7] = 2
    return X, y


def solve(
    X, y, c, *, dtype=np.float64, tol=1e-10, max_iter=500, b=True, smoothing=0.0, weight=None,
    start=None, **options,
):  # fmt: skip
    W, intercepts = start or (np.zeros((X.shape[1], c), dtype), np.zeros(c, dtype))
    return minimize(
        X, y, W, intercepts if b else None, tol=tol, max_iter=max_iter, sample_weight=weight,
        label_smoothing=smoothing, **options,
    )  # fmt: skip


def stacked(result):
    return result.W if result.b is None else np.vstack([result.W, result.b])


@pytest.mark.parametrize("name", problem(None))
def test_optimum_of_the_reference(name):
    X, y, c, options = problem(name)
    reference = Reference(X, y, c, **options)
    best = reference.optimum()
    assert reference.violation(best) < 1e-6
    least = reference.value(best)
    seen = []

    def check(state):
        theta = np.vstack([state.W, state.b]) if state.b is not None else state.W
        value = reference.value(theta)
        np.testing.assert_allclose(state.fun, value, rtol=1e-12)
        assert state.gap >= value - least - 1e-9 * least
        seen.append(state.gap)

    result = solve(X, y, c, **options, callback=check)
    assert result.success, result
    assert reference.value(stacked(result)) <= least * (1 + 1e-8)
    assert result.gap <= 1e-10 * result.fun
    if "duplicate" not in name and "collinear" not in name:
        # The same zeros, where the problem tells which: its conditions hold with room to spare.
        W = best[: reference.D]
        G = reference.loss(best)[1][: reference.D] + options.get("l2", 0) * W
        sizes = reference.sizes(G)
        must_be_0 = np.broadcast_to(sizes < options["l1"] * (1 - 1e-5), W.shape)
        assert (result.W[must_be_0] == 0).all()
        if c % 2:  # or else a constant may be added to a feature's weights for nothing
            assert (result.W[np.abs(W) > 1e-4 * np.abs(W).max()] != 0).all()


def as_bytes(X):
    return np.clip(np.round(20 * X + 100), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize("shape", [(200, 12), (30, 60)])
def test_storage_makes_no_difference(penalty, shape):
    n, d = shape
    X, y = blobs(n=n, d=d, c=4, seed=2)
    X = X * (np.random.default_rng(0).random(X.shape) < 0.5)
    options = {"l1": 2.0, "l2": 0.1, "penalty": penalty}
    expected = solve(X, y, 4, **options)
    assert expected.success
    csr = scipy_sparse.csr_array(X)
    for x, dtype, rtol in (
        (csr, np.float64, 1e-9), (np.asfortranarray(X), np.float64, 1e-9),
        (X.astype(np.float32), np.float32, 1e-6), (csr.astype(np.float32), np.float32, 1e-6),
    ):  # fmt: skip
        result = solve(x, y, 4, dtype=dtype, tol=1e-7 if dtype == np.float32 else 1e-10, **options)
        assert result.success, result
        assert result.W.dtype == dtype
        np.testing.assert_allclose(result.fun, expected.fun, rtol=rtol)
        np.testing.assert_allclose(result.W, expected.W, atol=1e-3)
    bytes_, scale = as_bytes(X), 1 / 20
    of_bytes = solve(bytes_, y, 4, dtype=np.float32, tol=1e-7, x_scale=scale, **options)
    of_floats = solve(bytes_ * scale, y, 4, **options)
    assert of_bytes.success
    np.testing.assert_allclose(of_bytes.fun, of_floats.fun, rtol=1e-6)


@pytest.mark.parametrize("penalty", ["l1", "group"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_lambda_max_is_where_the_first_weight_stirs(penalty, intercept, wide):
    X, y = blobs(n=20, d=50) if wide else blobs()
    weight = np.random.default_rng(3).exponential(size=len(y))
    b = np.zeros(3) if intercept else None
    data = {"penalty": penalty, "sample_weight": weight, "label_smoothing": 0.05}
    start = X, y, np.zeros((X.shape[1], 3)), b
    least = lambda_max(*start, **data)
    at, below = (minimize(*start, l1=least * t, tol=1e-12, **data) for t in (1.0, 0.999))
    assert at.success
    assert below.success
    assert not at.W.any()
    assert below.W.any()


def test_a_warm_start_at_the_optimum_is_the_end():
    X, y = blobs()
    first = solve(X, y, 3, l1=2.0)
    again = solve(X, y, 3, l1=2.0, tol=1e-8, start=(first.W, first.b))
    assert again.success
    assert again.nit == 0
    np.testing.assert_array_equal(again.W, first.W)


def test_a_fit_that_did_not_come_to_its_end_says_so():
    X, y = blobs()
    cut = solve(X, y, 3, l1=0.1, tol=1e-12, max_iter=2)
    assert not cut.success
    assert cut.gap > 1e-12 * cut.fun
    assert cut.message == "max_iter iterations were made"
    impossible = solve(X, y, 3, l1=0.1, tol=0.0)
    assert impossible.success == (impossible.gap == 0)
    assert "no further progress" in impossible.message or impossible.success


def test_the_callback_ends_a_fit():
    X, y = blobs()

    def stop(state):
        raise StopIteration

    result = solve(X, y, 3, l1=0.1, callback=stop)
    assert (result.nit, result.success) == (1, False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_words_whose_rows_are_sure_of_their_class(dtype):
    """Weights on the way are so large that probabilities, and with them curvatures, vanish."""
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    N, D, C = 1000, 3000, 8
    lengths = rng.integers(20, 60, N)
    words = (D * rng.random(lengths.sum()) ** 3).astype(np.int32)
    rows = np.repeat(np.arange(N), lengths)
    X = sparse.csr_matrix((np.full(len(words), 60**-0.5), (rows, words)), (N, D))
    W = rng.normal(size=(D, C)) * (rng.random((D, C)) < 0.05) * 40
    y = np.argmax(X @ W + rng.gumbel(size=(N, C)), axis=1)
    start = np.zeros((D, C), dtype), np.zeros(C, dtype)
    cold = minimize(X.astype(dtype), y, *start, l1=0.1, tol=1e-6)
    assert cold.success
    short = minimize(X.astype(dtype), y, *start, l1=0.1, tol=1e-6, max_iter=5)
    assert (short.nit, short.success, short.status) == (5, False, 1)
    # Far from the optimum, with weights to begin with.
    start = (np.where(rng.random((D, C)) < 0.01, 30, 0).astype(dtype), np.zeros(C, dtype))
    warm = minimize(X.astype(dtype), y, *start, l1=0.1, tol=1e-6)
    assert warm.success
    np.testing.assert_allclose(warm.fun, cold.fun, rtol=2e-6)


def test_unknown_penalties_are_refused():
    X, y = blobs()
    for call in (minimize, lambda_max):
        with pytest.raises(ValueError, match="penalty: 'l0' came, one of l1, group was wanted"):
            call(X, y, np.zeros((6, 3)), np.zeros(3), penalty="l0")


@pytest.mark.parametrize("c", [2, 3])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_groups_of_the_estimator(c, l1_ratio):
    sklearn = pytest.importorskip("softmax_ext.sklearn")
    X, y = blobs(c=c)
    model = sklearn.SoftmaxRegression("group", C=0.1, l1_ratio=l1_ratio, tol=1e-9).fit(X, y)
    assert 0 < (model.coef_ == 0).sum() < model.coef_.size
    zero = model.coef_ == 0
    assert (zero.all(axis=0) == zero.any(axis=0)).all()
    assert model.dual_gap_ < 1e-5
    ratio = l1_ratio or 1.0

    def objective(coef, intercept):
        logits = X @ coef.T + intercept
        if c == 2:
            logits = np.hstack([np.zeros_like(logits), logits])
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        sizes = np.linalg.norm(coef, axis=0).sum()
        return losses.sum() + ((1 - ratio) / 2 * (coef**2).sum() + ratio * sizes) / 0.1

    best = objective(model.coef_, model.intercept_)
    rng = np.random.default_rng(0)
    for size in 10.0 ** rng.uniform(-6, 0, 300):
        step = size * rng.normal(size=(*model.coef_.shape,)) * (rng.random(X.shape[1]) < 0.3)
        assert objective(model.coef_ + step, model.intercept_) >= best * (1 - 1e-8)
    for solver in ("sgd", "liblinear"):
        with pytest.raises(ValueError, match=f"Solver {solver} supports no penalty='group'"):
            sklearn.SoftmaxRegression("group", solver=solver).fit(X, y)
