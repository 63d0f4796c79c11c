#!/usr/bin/env python
"""How many passes over X a fit takes, and how long, on many kinds of data.

    python bench/kinds.py
    python bench/kinds.py --threads 2 --only text "many classes"

scikit-learn's LogisticRegression is fitted with its defaults but for more iterations, and the other
two until they are as low: ours, and its steps without a preconditioner. A pass is an evaluation of
objective and gradient. Contenders take turns in one process; times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import threads

CONTENDERS = ("ours", "plain")


def kinds() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Return functions that make X and y, by name."""
    import numpy as np

    rng = np.random.default_rng(0)

    def noisy(n: int, d: int, c: int, noise: float = 1.0) -> tuple[Any, Any]:
        """Correlated features, and labels that a linear model explains in part."""
        X = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) / d**0.5 + np.eye(d))
        logits = X @ rng.normal(size=(d, c)) / X.std() / d**0.5 * 3
        return X, np.argmax(logits + noise * rng.gumbel(size=(n, c)), axis=1)

    def changed(change: Callable[[Any], Any], *shape: Any) -> tuple[Any, Any]:
        X, y = noisy(*shape)
        return change(X), y

    def images() -> tuple[Any, Any]:
        import softmax_ext as sx

        data = sx.datasets.load_fashion_mnist(download=False)
        X = data.train_images[:10000].reshape(-1, 784) / np.float32(255)
        return X, data.train_labels[:10000].astype(np.int64)

    def texts(zipf: bool) -> tuple[Any, Any]:
        from scipy import sparse

        n, d, c, entries = 5000, 20000, 20, 60
        share = 1 / np.arange(1, d + 1) if zipf else np.ones(d)
        words = np.searchsorted(np.cumsum(share / share.sum())[:-1], rng.random((n, entries)))
        data = rng.random(n * entries, dtype=np.float32)
        X = sparse.csr_array((data, words.ravel(), np.arange(n + 1) * entries), (n, d))
        X.sum_duplicates()
        return X, np.argmax(X @ rng.normal(size=(d, c)) + rng.gumbel(size=(n, c)), axis=1)

    def categories() -> tuple[Any, Any]:
        """Eight columns, one-hot: rare and frequent values of each."""
        from scipy import sparse

        n, values, columns = 20000, 60, 8
        picked = rng.zipf(1.3, (n, columns)) % values + np.arange(columns) * values
        X = sparse.csr_array(
            (np.ones(n * columns), picked.ravel(), np.arange(n + 1) * columns),
            (n, values * columns),
        )
        return X, np.argmax(X @ rng.normal(size=(480, 5)) + rng.gumbel(size=(n, 5)), axis=1)

    def rare() -> tuple[Any, Any]:
        X, y = noisy(20000, 40, 5)
        return X, np.where(rng.random(20000) < 0.02, y, 0)

    scales = 10.0 ** rng.uniform(-3, 3, 40)
    return {
        "images": images,
        "correlated": lambda: noisy(20000, 100, 10),
        "separable": lambda: noisy(20000, 50, 5, 0.0),
        "collinear": lambda: changed(
            lambda X: np.hstack([X, X[:, :20], X[:, :20] + X[:, 20:]]), 10000, 40, 5
        ),
        "badly scaled": lambda: changed(lambda X: X * scales, 20000, 40, 5),
        "far from 0": lambda: changed(lambda X: X + 100, 20000, 40, 5),
        "heavy tails": lambda: changed(lambda X: X**3, 20000, 40, 5),
        "two classes": lambda: noisy(100000, 40, 2),
        "imbalance": rare,
        "few rows": lambda: noisy(400, 2000, 5),
        "many features": lambda: noisy(2000, 3000, 5),
        "50 classes": lambda: noisy(20000, 64, 50),
        "1000 classes": lambda: noisy(10000, 32, 1000),
        "small": lambda: noisy(300, 8, 3),
        "text": lambda: texts(False),
        "text, Zipf": lambda: texts(True),
        "categories": categories,
    }  # fmt: skip


def theirs(X: Any, y: Any, tol: float) -> tuple[float, int, float]:
    """Fit scikit-learn's; return seconds, passes, objective (that of C rows of coefficients)."""
    import numpy as np
    from scipy.special import logsumexp
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model._linear_loss import LinearModelLoss

    passes = 0
    original = LinearModelLoss.loss_gradient

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        return original(*args, **options)

    LinearModelLoss.loss_gradient = counted
    try:
        start = perf_counter()
        model = LogisticRegression(tol=tol, max_iter=2000).fit(X, y)
        seconds = perf_counter() - start
    finally:
        LinearModelLoss.loss_gradient = original
    logits = np.asarray(X @ model.coef_.T.astype(np.float64)) + model.intercept_
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    losses = (
        logsumexp(logits, axis=1) - logits[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    )
    coef = model.coef_.astype(np.float64)
    return seconds, passes, float(losses.sum() + np.vdot(coef, coef) / 2)


def ours(X: Any, y: Any, until: float, precondition: bool) -> tuple[float, int]:
    """Fit until the objective is as low; return seconds and passes (inf where it never is)."""
    import numpy as np

    from softmax_ext.solvers import minimize

    c = len(np.unique(y))
    labels = np.unique(y, return_inverse=True)[1]
    dtype = X.dtype
    done: list[tuple[float, int]] = []

    def callback(state: Any) -> None:
        if state.fun <= until:
            done.append((perf_counter() - start, state.nfev))
            raise StopIteration

    start = perf_counter()
    minimize(
        X, labels, np.zeros((X.shape[1], c), dtype), np.zeros(c, dtype), l2=2.0 if c == 2 else 1.0,
        tol=0.0, max_iter=5000, callback=callback, precondition=precondition,
    )  # fmt: skip
    return done[0] if done else (float("inf"), sys.maxsize)


def measure(X: Any, y: Any, tol: float, rounds: int) -> Iterator[str]:
    """The cells of a line: passes, then seconds."""
    found: dict[str, list[tuple[float, int]]] = {}
    for _ in range(rounds):
        seconds, passes, value = theirs(X, y, tol)
        found.setdefault("scikit-learn", []).append((seconds, passes))
        until = value * (1 + 1e-6)
        for name in CONTENDERS:
            found.setdefault(name, []).append(ours(X, y, until, name == "ours"))
    names = (*CONTENDERS, "scikit-learn")
    for name in names:
        passes = found[name][0][1]
        yield "never" if passes == sys.maxsize else str(passes)
    medians = {name: statistics.median(s for s, _ in found[name]) for name in names}
    for name in names:
        yield f"{medians[name]:.3g} s"
    yield f"{medians['scikit-learn'] / medians['ours']:.1f}"


def main() -> None:
    names = list(kinds())
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads (default: 1)")
    add("--only", nargs="+", choices=names, default=names, metavar="KIND", help=", ".join(names))
    add("--tol", type=float, default=1e-4, help="of scikit-learn's fit (default: 1e-4)")
    add("--rounds", type=int, default=3, help="turns of each contender (default: 3)")
    options = parser.parse_args()
    threads.prepare(options.threads)
    threads.apply(options.threads)
    warnings.simplefilter("ignore")  # that an iteration limit was reached
    print("passes and time until as low as scikit-learn's fit, which see for the last column\n")
    print(f"| {options.threads} thread(s) | passes | plain | scikit-learn | time | plain "
          "| scikit-learn | times ours |")  # fmt: skip
    print("| --- |" + " ---: |" * 7)
    for name in options.only:
        X, y = kinds()[name]()  # whatever the others draw
        print(f"| {name} | {' | '.join(measure(X, y, options.tol, options.rounds))} |", flush=True)


if __name__ == "__main__":
    main()
