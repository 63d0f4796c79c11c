"""Data that a fit can go wrong on, each kind after a report of somebody, and where its optimum is.

`kinds` makes small ones for the tests; bench/fit.py makes them larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Problem(NamedTuple):
    """What ``LogisticRegression(C=C).fit(X, y, weight)`` is asked."""

    X: Any
    y: np.ndarray
    C: float = 1.0
    weight: np.ndarray | None = None


def noisy(rng, n, d, c, noise=1.0):
    """Correlated features, and labels of which a linear model explains a part."""
    X = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) / d**0.5 + np.eye(d))
    logits = X @ rng.normal(size=(d, c)) / X.std() / d**0.5 * 3
    y = np.argmax(logits + noise * rng.gumbel(size=(n, c)), axis=1)
    y[:c] = np.arange(c)
    return X, y


def kinds(size: int = 1) -> dict[str, Callable[[], Problem]]:
    """Return functions that make the problems, by name; `size` multiplies their rows."""

    def kind(make: Callable[[Any], Problem]) -> Callable[[], Problem]:
        return lambda: make(np.random.default_rng(7))

    def one_small_column(rng, factor=1e-6, C=1.0):
        X, y = noisy(rng, 200 * size, 5, 3)
        X[:, 2] *= factor
        return Problem(X, y, C)

    def pixels(rng, dtype, C):
        d = 36
        y = rng.integers(0, 5, 300 * size)
        X = np.clip(rng.normal(rng.uniform(0, 200, (5, d))[y], 120), 0, 255)
        X[:, :3] = 0
        return Problem(X.astype(dtype), y, C)

    def balanced(rng, rare=8):
        X, y = noisy(rng, 2000 * size, 10, 2)
        y[:] = 0
        y[rng.choice(len(y), rare * size, replace=False)] = 1
        X[y == 1, 0] += 1
        count = np.bincount(y)
        return Problem(X, y, 1.0, len(y) / (2 * count[y]))

    def few_rows_count(rng):
        X, y = noisy(rng, 4000 * size, 6, 3)
        weight = np.zeros(len(y))
        weight[rng.choice(len(y), 30, replace=False)] = 1
        return Problem(X, y, 1.0, weight)

    def importance(rng):
        X, y = noisy(rng, 1000 * size, 6, 3)
        return Problem(X, y, 1.0, 10.0 ** rng.uniform(-6, 2, len(y)))

    def few_heavy_rows(rng):
        X, y = noisy(rng, 1000 * size, 6, 3)
        return Problem(X, y, 1.0, np.where(np.arange(len(y)) % 100, 1.0, 1e5))

    def changed(rng, change, *shape, C=1.0):
        X, y = noisy(rng, shape[0] * size, *shape[1:])
        return Problem(change(X), y, C)

    def dummies(rng, C):
        """Three categorical columns, one-hot with all their values: collinear with each other."""
        n = 400 * size
        codes = [rng.integers(0, k, n) for k in (3, 4, 5)]
        X = np.hstack([np.eye(k)[code] for k, code in zip((3, 4, 5), codes, strict=True)])
        y = np.argmax(X @ rng.normal(size=(12, 3)) + rng.gumbel(size=(n, 3)), axis=1)
        return Problem(X, y, C)

    def abundances(rng):
        """Shares that sum to 1, most of them tiny."""
        X = rng.dirichlet(10.0 ** rng.uniform(-3, 1, 30), 200 * size)
        score = np.log(X[:, :5] + 1e-6) @ rng.normal(size=(5, 2))
        return Problem(X, np.argmax(score + rng.gumbel(size=(len(X), 2)), axis=1), 100.0)

    def nanoseconds(rng):
        t = 1.7e18 + 3.6e12 * rng.uniform(size=300 * size)
        y = (t - t.mean() + 1e12 * rng.normal(size=len(t)) > 0).astype(int)
        return Problem(t[:, None], y)

    def lone_classes(rng):
        """Eight classes, five of them of one row."""
        X, y = noisy(rng, 300 * size, 6, 8)
        y[8:] = y[8:] % 3
        return Problem(X, y)

    def outlier(rng):
        X, y = noisy(rng, 300 * size, 6, 3)
        X[0, 0] = 1e6
        return Problem(X, y)

    def cauchy(rng):
        X, y = noisy(rng, 300 * size, 6, 3)
        return Problem(X / rng.normal(size=X.shape), y)

    def rare_columns(rng, value=1.0):
        """Half of the columns are 0 but in three rows each."""
        X, y = noisy(rng, 500 * size, 6, 3)
        rare = np.zeros_like(X)
        for column in rare.T:
            column[rng.choice(len(X), 3, replace=False)] = value
        return Problem(np.hstack([X, rare]), y, 1e3)

    def mixture(rng):
        """One row in a hundred is a thousand times as large."""
        X, y = noisy(rng, 500 * size, 8, 3)
        X[::100] *= 1e3
        return Problem(X, y)

    scales = 10.0 ** np.linspace(-4, 4, 8)
    result = {
        "one tiny ridge": lambda rng: Problem(
            np.array([[0.0], [1e-6], [0.0], [0.0]]), np.array([0, 1, 1, 1])
        ),
        "one huge float32 column": lambda rng: Problem(
            np.float32([[0], [1e8], [2e8]] * 3), np.array([0, 1, 2] * 3)
        ),
        "column of 1e-6": one_small_column,
        "column of 1e-160": lambda rng: one_small_column(rng, 1e-160),
        "column of 1e160": lambda rng: one_small_column(rng, 1e160),
        "all of 1e-200": lambda rng: changed(rng, lambda X: X * 1e-200, 200, 5, 3),
        "all of 1e-310": lambda rng: changed(rng, lambda X: X * 1e-310, 200, 5, 3),
        "column of 1e-6, no penalty": lambda rng: one_small_column(rng, 1e-6, np.inf),
        "C = 1e-12": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=1e-12),
        "C = 1e-10": lambda rng: changed(rng, lambda X: X, 200, 5, 2, C=1e-10),
        "C = 1e-100": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=1e-100),
        "C = 1e-4": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=1e-4),
        "C = 1e4": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=1e4),
        "C = 1e12": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=1e12),
        "C = infinity": lambda rng: changed(rng, lambda X: X, 200, 5, 3, C=np.inf),
        "pixels": lambda rng: pixels(rng, np.float32, 1.0),
        "pixels, C = 1e8": lambda rng: pixels(rng, np.float32, 1e8),
        "bytes, C = 1e4": lambda rng: pixels(rng, np.uint8, 1e4),
        "balanced": balanced,
        "few rows count": few_rows_count,
        "importance": importance,
        "few heavy rows": few_heavy_rows,
        "separable": lambda rng: Problem(*noisy(rng, 300 * size, 6, 3, 0.0)),
        "separable, C = 1e6": lambda rng: Problem(*noisy(rng, 300 * size, 6, 3, 0.0), C=1e6),
        "nearly separable": lambda rng: Problem(*noisy(rng, 300 * size, 6, 3, 0.05), C=1e4),
        "constant columns": lambda rng: changed(
            rng, lambda X: np.hstack([X, np.zeros((len(X), 1)), np.full((len(X), 1), 1e3)]),
            200, 5, 3, C=100.0,
        ),
        # With a column of ones beside the intercept.
        "polynomial, no penalty": lambda rng: Problem(
            np.vander(rng.uniform(size=400), 7), rng.integers(0, 3, 400) // 2, np.inf
        ),
        "duplicate columns": lambda rng: changed(
            rng, lambda X: np.hstack([X, X, X[:, :2] + X[:, 2:4]]), 200, 5, 3, C=1e4
        ),
        "duplicate columns, no penalty": lambda rng: changed(
            rng, lambda X: np.hstack([X, X]), 200, 4, 3, C=np.inf
        ),
        "dummies": lambda rng: dummies(rng, 1.0),
        "dummies, no penalty": lambda rng: dummies(rng, np.inf),
        "nanoseconds": nanoseconds,
        "abundances": abundances,
        "lone classes": lone_classes,
        "outlier": outlier,
        "Cauchy": cauchy,
        "rare columns": rare_columns,
        "rare columns of 1e4": lambda rng: rare_columns(rng, 1e4),
        "mixture": mixture,
        "scales": lambda rng: changed(rng, lambda X: X * scales, 300, 8, 4),
        "scales, no penalty": lambda rng: changed(rng, lambda X: X * scales, 300, 8, 4, C=np.inf),
        "heavy tails": lambda rng: changed(rng, lambda X: X**3, 300, 8, 4),
        "mean 1e4": lambda rng: changed(rng, lambda X: X + 1e4, 200, 5, 3),
        "mean 1e8": lambda rng: changed(rng, lambda X: X + 1e8, 200, 5, 3),
        "more features than rows": lambda rng: changed(rng, lambda X: X, 60, 100, 3),
    }  # fmt: skip
    return {name: kind(make) for name, make in result.items()}


def scikit_learns_sets() -> Iterator[tuple[str, Problem]]:
    """Yield its small data sets as they come: nothing is scaled."""
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield name, Problem(X, y)


def objective(X, y, weight, C, W, b) -> float:
    """The objective at W (D, c) and b, in float64; two classes may have one column."""
    X, W = _dense(X), np.asarray(W, np.float64)
    if W.shape[1] == 1:
        logits = np.concatenate([np.zeros((len(X), 1)), X @ W + b], axis=1)
    else:
        logits = X @ W + b
    with np.errstate(all="ignore"):
        top = logits.max(axis=1, keepdims=True)
        lse = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    losses = lse - logits[np.arange(len(y)), y]
    total = losses.sum() if weight is None else losses @ weight
    return float(total + (np.vdot(W, W) / (2 * C) if np.isfinite(C) else 0))


def optimum(X, y, C=1.0, weight=None) -> float:
    """The least objective, by Newton's method on standardised features in float64.

    Of two classes one has no weights. A class's last digits matter here, so nothing is shared with
    the library.
    """
    X = _dense(X)
    n, d = X.shape
    c = int(y.max()) + 1
    weight = np.ones(n) if weight is None else weight
    largest = np.abs(X).max(axis=0)
    largest[largest == 0] = 1
    Z = X / largest
    share = weight / weight.sum()
    mean = share @ Z
    Z = Z - mean
    spread = np.sqrt(share @ Z**2)
    flat = spread <= 1e-14 * (np.abs(mean) + np.finfo(float).tiny)
    spread[flat] = 1
    Z = np.hstack([np.where(flat, 0, Z / spread), np.ones((n, 1))])
    # The penalty of w' = w x scale; with two classes of w over two.
    with np.errstate(all="ignore"):
        ridge = np.append(1 / C / (largest * spread) / (largest * spread), 0.0)
    ridge = np.minimum(ridge, 1e300)
    binary = c == 2
    free = 1 if binary else c
    onehot = np.eye(c)[y]

    def at(theta):
        logits = Z @ theta
        if binary:
            logits = np.hstack([np.zeros((n, 1)), logits])
        top = logits.max(axis=1, keepdims=True)
        P = np.exp(logits - top)
        total = P.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) + top[:, 0] - logits[np.arange(n), y]
        value = losses @ weight + (ridge[:, None] * theta * theta).sum() / 2
        return value, P / total

    theta = np.zeros((d + 1, free))
    value, P = at(theta)
    damping = 1e-12
    for _ in range(500):
        G = Z.T @ (weight[:, None] * (P - onehot))[:, c - free :] + ridge[:, None] * theta
        Q = P[:, c - free :]
        H = np.zeros((free, d + 1, free, d + 1))
        for i in range(free):
            for j in range(free):
                k = weight * Q[:, i] * ((i == j) - Q[:, j])
                H[i, :, j] = Z.T @ (k[:, None] * Z)
            H[i, :, i].flat[:: d + 2] += ridge
        H = H.reshape(free * (d + 1), -1)
        scale = np.sqrt(np.maximum(H.diagonal(), np.finfo(float).tiny))
        H = H / scale[:, None] / scale
        g = G.T.ravel() / scale
        while True:
            step = np.linalg.solve(H + damping * np.eye(len(g)), g) / scale
            new = theta - step.reshape(free, d + 1).T
            new_value, new_P = at(new)
            if new_value <= value or damping > 1e10:
                break
            damping *= 10
        done = value - new_value <= 1e-13 * abs(value)
        if new_value < value:
            theta, value, P = new, new_value, new_P
            damping = max(damping / 10, 1e-12)
        if done:
            break
    return float(value)


def _dense(X) -> np.ndarray:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, np.float64)
