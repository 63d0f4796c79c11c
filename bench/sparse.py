#!/usr/bin/env python
"""Loss and gradient of a sparse X beside SciPy's two products and scikit-learn's loss.

    python bench/sparse.py
    python bench/sparse.py --threads 2 --classes 2 20 100 --zipf

X is like a collection of texts: as many words in each, drawn from a vocabulary. Contenders take
turns in one process; every answer is checked against SciPy's in float64 before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

#: Largest error allowed, as a share of the largest number in the right answer. db is a sum that
#: nearly cancels, so float32 keeps fewer digits of it.
TOLERANCE = 1e-3


def texts(rows: int, features: int, entries: int, zipf: bool) -> Any:
    """Return a CSR matrix of float32 with so many entries in each row."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, features + 1) if zipf else np.ones(features)
    words = np.searchsorted(np.cumsum(share / share.sum())[:-1], rng.random((rows, entries)))
    words = np.sort(rng.permutation(features)[words], axis=1).astype(np.int32)
    data = rng.random(words.size, dtype=np.float32)
    indptr = np.arange(rows + 1, dtype=np.int32) * entries
    return sparse.csr_array((data, words.ravel(), indptr), (rows, features))


def products(X: Any, W: Any, b: Any, y: Any) -> tuple[Any, ...]:
    """The job as a user of SciPy writes it: two products, and NumPy in place between them."""
    at = np.arange(len(y))
    logits = X @ W
    logits += b
    logits -= logits.max(axis=1, keepdims=True)
    picked = logits[at, y]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    loss = np.log(total).mean(dtype=np.float64) - picked.mean(dtype=np.float64)
    total *= len(y)
    logits /= total
    logits[at, y] -= logits.dtype.type(1 / len(y))
    return loss, X.T @ logits, logits.sum(axis=0)


def contenders(X: Any, W: Any, b: Any, y: Any, threads: int) -> dict[str, Callable[[], Any]]:
    """Return functions that give loss, dW and db, by name."""
    import softmax_ext as sx

    step = partial(sx.linear_cross_entropy_with_grad, X, W, b, y)
    first = step()
    found: dict[str, Callable[[], Any]] = {
        "ours": lambda: step(out=first)[:3],
        "SciPy": partial(products, X, W, b, y),
    }
    try:
        from sklearn._loss import HalfMultinomialLoss
        from sklearn.linear_model._linear_loss import LinearModelLoss
    except ImportError:
        print("scikit-learn is not installed, or has no LinearModelLoss: left out")
        return found
    if len(b) > 2:
        loss = LinearModelLoss(HalfMultinomialLoss(n_classes=len(b)), fit_intercept=True)
        coef = np.asfortranarray(np.column_stack([W.T, b]))
        labels = y.astype(coef.dtype)

        def run() -> tuple[Any, ...]:
            value, gradient = loss.loss_gradient(coef, X, labels, n_threads=threads)
            return value, gradient[:, :-1].T, gradient[:, -1]

        found["scikit-learn"] = run
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--features", type=int, default=50000)
    parser.add_argument("--entries", type=int, default=100, help="of each row")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20, 100])
    parser.add_argument("--zipf", action="store_true", help="words as frequent as in a language")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    # Before the libraries are loaded, which read it then.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)

    X = texts(options.rows, options.features, options.entries, options.zipf)
    rng = np.random.default_rng(1)
    print(f"X {options.rows} x {options.features}, {X.nnz} entries, {options.threads} thread(s)")
    print("| classes | contender | median | ns an entry | times ours |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for classes in options.classes:
        W = rng.normal(0, 0.1, (options.features, classes)).astype(np.float32)
        b, y = np.zeros(classes, np.float32), rng.integers(0, classes, options.rows)
        right = products(X.astype(np.float64), W.astype(np.float64), b.astype(np.float64), y)
        jobs = contenders(X, W, b, y, options.threads)
        for name, job in jobs.items():
            for mine, wanted in zip(job(), right, strict=True):
                error, largest = np.abs(mine - wanted).max(), np.abs(wanted).max()
                if not error <= TOLERANCE * largest:
                    raise SystemExit(f"{name}: error {error:.3g}, largest number {largest:.3g}")
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(options.rounds):
            for name, job in jobs.items():
                start = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - start)
        median = {name: float(np.median(values)) for name, values in seconds.items()}
        for name, value in median.items():
            print(
                f"| {classes} | {name} | {value * 1e3:.1f} ms | {value * 1e9 / X.nnz:.1f} "
                f"| {value / median['ours']:.2f} |"
            )


if __name__ == "__main__":
    main()
