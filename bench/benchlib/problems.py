"""Problems to fit, in groups: large ones, many kinds of data, awkward data, and small sets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchlib import data

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import awkward
from awkward import Problem

#: How many times as many rows the awkward problems have as in the tests.
AWKWARD_SIZE = 10


def problems(tiny: bool = False) -> dict[str, dict[str, Callable[[], Problem]]]:
    """Return functions that make the problems, by group and name; `tiny` tries the machinery."""
    return {
        "large": _large(tiny),
        "kinds": _kinds(),
        "awkward": awkward.kinds(1 if tiny else AWKWARD_SIZE),
        "small": {name: _small(name) for name in ("iris", "wine", "breast_cancer", "digits")},
    }


def drawn(rng: Any, logits: Any, noise: float = 1.0) -> Any:
    """Draw labels by the softmax of the logits, or less randomly."""
    return np.argmax(logits + noise * rng.gumbel(size=logits.shape), axis=1)


def images(rows: int, dtype: Any) -> Problem:
    X, y = (array[:rows] for array in data.fashion_mnist())
    return Problem(X if dtype == np.uint8 else X / dtype(255), y.astype(np.int64))


def texts(n: int, d: int, c: int, entries: int, *, zipf: bool = False) -> Problem:
    rng = np.random.default_rng(0)
    X = data.texts(rng, n, d, entries, zipf=zipf)
    X.sum_duplicates()
    return Problem(X, drawn(rng, X @ rng.normal(size=(d, c))))


def _large(tiny: bool) -> dict[str, Callable[[], Problem]]:
    rows = 600 if tiny else 60000

    def probe() -> Problem:
        """Embeddings: a few strong directions, many weak ones."""
        rng = np.random.default_rng(0)
        n, d, c = (500, 20, 5) if tiny else (50000, 512, 100)
        X = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
        return Problem(X.astype(np.float32), drawn(rng, X @ rng.normal(size=(d, c))))

    return {
        "mnist": lambda: images(rows, np.float32),
        "mnist-uint8": lambda: images(rows, np.uint8),
        "probe": probe,
        "text": lambda: texts(*((500, 300, 5, 10) if tiny else (20000, 50000, 20, 100))),
    }


def _kinds() -> dict[str, Callable[[], Problem]]:
    def kind(*shape: Any, change: Callable[[Any], Any] = lambda X: X) -> Callable[[], Problem]:
        def make() -> Problem:
            X, y = awkward.noisy(np.random.default_rng(0), *shape)
            return Problem(change(X), y)

        return make

    def categories() -> Problem:
        """Eight columns, one-hot: rare and frequent values of each."""
        from scipy import sparse

        rng = np.random.default_rng(0)
        n, values, columns = 20000, 60, 8
        picked = rng.zipf(1.3, (n, columns)) % values + np.arange(columns) * values
        entries = np.ones(n * columns), picked.ravel(), np.arange(n + 1) * columns
        X = sparse.csr_array(entries, (n, values * columns))
        return Problem(X, drawn(rng, X @ rng.normal(size=(480, 5))))

    def rare() -> Problem:
        rng = np.random.default_rng(0)
        X, y = awkward.noisy(rng, 20000, 40, 5)
        y[5:] = np.where(rng.random(20000 - 5) < 0.02, y[5:], 0)
        return Problem(X, y)

    scales = 10.0 ** np.random.default_rng(0).uniform(-3, 3, 40)
    return {
        "images": lambda: images(10000, np.float32),
        "correlated": kind(20000, 100, 10),
        "separable": kind(20000, 50, 5, 0.0),
        "collinear": kind(
            10000, 40, 5, change=lambda X: np.hstack([X, X[:, :20], X[:, :20] + X[:, 20:]])
        ),
        "badly scaled": kind(20000, 40, 5, change=lambda X: X * scales),
        "far from 0": kind(20000, 40, 5, change=lambda X: X + 100),
        "heavy tails": kind(20000, 40, 5, change=lambda X: X**3),
        "two classes": kind(100000, 40, 2),
        "imbalance": rare,
        "few rows": kind(400, 2000, 5),
        "many features": kind(2000, 3000, 5),
        "50 classes": kind(20000, 64, 50),
        "1000 classes": kind(10000, 32, 1000),
        "300 rows": kind(300, 8, 3),
        "text": lambda: texts(5000, 20000, 20, 60),
        "text, Zipf": lambda: texts(5000, 20000, 20, 60, zipf=True),
        "categories": categories,
    }


def _small(name: str) -> Callable[[], Problem]:
    def make() -> Problem:
        from sklearn import datasets
        from sklearn.preprocessing import StandardScaler

        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return Problem(StandardScaler().fit_transform(X), y)

    return make


def objective(problem: Problem, W: Any, b: Any) -> float:
    """The sum of the weighted losses and the squared weights over 2 C, in float64.

    Of two classes W may have one column.
    """
    X, y = problem.X, problem.y
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    scale = scale_of(problem)
    total = float(np.vdot(W, W) / (2 * problem.C)) if np.isfinite(problem.C) else 0.0
    for i in range(0, X.shape[0], 4096):
        rows = slice(i, i + 4096)
        logits = np.asarray(X[rows] @ (W * scale)) + b
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        with np.errstate(all="ignore"):
            logits -= logits.max(axis=1, keepdims=True)
            losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), y[rows]]
        total += float(losses.sum() if problem.weight is None else losses @ problem.weight[rows])
    return total


def scale_of(problem: Problem) -> float:
    """The factor of X: bytes of images are taken as fractions."""
    is_image = getattr(problem.X, "dtype", None) == np.uint8 and problem.X.shape[1] == 784
    return 1 / 255 if is_image else 1.0
