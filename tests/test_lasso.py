"""Penalties that make weights 0: optima beside a reference, certificates, supports, zeros."""

from __future__ import annotations

import numpy as np
import pytest

from softmax_ext.solvers import minimize

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


def solve(X, y, c, *, dtype=np.float64, tol=1e-10, max_iter=500, b=True, smoothing=0.0, weight=None,
          start=None, **options):  # fmt: skip
    W, intercepts = (np.zeros((X.shape[1], c), dtype), np.zeros(c, dtype)) if start is None else start
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
