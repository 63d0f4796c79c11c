#!/usr/bin/env python
"""Measure the estimators beside the bare kernels and beside scikit-learn.

    python bench/estimator.py                        all three, one thread
    python bench/estimator.py --only epoch fit       some of them
    python bench/estimator.py --rows 100000          rows to predict (at 800 classes)

Contenders take turns; times are medians. Memory is what a process of its own grows by at its
highest, above the data and the fitted estimator.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import threads

FEATURES, CLASSES = 64, 800
PEERS = {"ours": "softmax_ext.sklearn", "scikit-learn": "sklearn.linear_model"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads (default: 1)")
    add("--rounds", type=int, default=9, help="turns of each contender (default: 9)")
    add("--rows", type=int, default=1_000_000, help="rows to predict (default: 1000000)")
    add(
        "--only",
        nargs="+",
        choices=("epoch", "fit", "predict"),
        default=("epoch", "fit", "predict"),
    )
    add("--grow", choices=PEERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Call each once untimed and then in turns; return the medians in seconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def epoch(rounds: int) -> None:
    """Fashion-MNIST in bytes: fits of several epochs beside the calls they cannot do without."""
    import numpy as np

    import softmax_ext as sx
    from softmax_ext.sklearn import SoftmaxRegression

    data = sx.datasets.load_fashion_mnist(download=False)
    X, y = data.train_images.reshape(60000, 784), data.train_labels
    W, b = np.zeros((784, 10), np.float32), np.zeros(10, np.float32)
    order = np.random.default_rng(0).permutation(len(X))

    def kernels(epochs: int) -> None:
        result = None
        for start in [*range(0, len(X), 256)] * epochs:
            rows = order[start : start + 256]
            result = sx.linear_cross_entropy_with_grad(
                X, W, b, y, x_scale=1 / 255, rows=rows, out=result
            )

    def estimator(epochs: int) -> None:
        SoftmaxRegression(solver="sgd", epochs=epochs, x_scale=1 / 255, random_state=0).fit(X, y)

    for epochs in (1, 10):
        medians = in_turns(
            {"kernels": lambda: kernels(epochs), "estimator": lambda: estimator(epochs)},  # noqa: B023
            rounds,
        )
        bare, whole = (medians[name] / epochs * 1e3 for name in ("kernels", "estimator"))
        print(
            f"epoch of Fashion-MNIST in a fit of {epochs:2}: kernels alone {bare:.1f} ms, "
            f"SoftmaxRegression {whole:.1f} ms, ratio {whole / bare:.3f}",
            flush=True,
        )


def fit(rounds: int) -> None:
    """scikit-learn's small data sets, by both with their defaults but enough iterations."""
    import importlib

    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    for name in ("iris", "wine", "breast_cancer", "digits"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        models = {
            peer: importlib.import_module(module).LogisticRegression(max_iter=1000)
            for peer, module in PEERS.items()
        }
        medians = in_turns({p: lambda m=m: m.fit(X, y) for p, m in models.items()}, rounds)  # noqa: B023
        ours, theirs = (medians[peer] * 1e3 for peer in PEERS)
        print(
            f"fit of {name}: ours {ours:.2f} ms ({models['ours'].n_iter_[0]} iterations), "
            f"scikit-learn {theirs:.2f} ms ({models['scikit-learn'].n_iter_[0]}), "
            f"{theirs / ours:.2f} times as long",
            flush=True,
        )


def predict(rows: int, n_threads: int) -> None:
    """Time and memory of labels for many rows of many classes, each in a process of its own."""
    for peer in PEERS:
        command = [sys.executable, __file__, "--grow", peer, "--rows", str(rows)]
        command += ["--threads", str(n_threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(
            f"predict of {rows} rows at {CLASSES} classes, {peer}: {done.stdout.strip()}",
            flush=True,
        )


def grow(peer: str, rows: int) -> None:
    import importlib

    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, FEATURES), np.float32)
    model = importlib.import_module(PEERS[peer]).LogisticRegression()
    model.coef_ = rng.standard_normal((CLASSES, FEATURES), np.float32)
    model.intercept_ = np.zeros(CLASSES, np.float32)
    model.classes_ = np.arange(CLASSES)
    model.predict(X[:1000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    model.predict(X)
    seconds = perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{seconds:.2f} s, {grown:.0f} MiB more at the highest")


def main() -> None:
    options = arguments()
    threads.prepare(options.threads)
    threads.apply(options.threads)
    if options.grow:
        grow(options.grow, options.rows)
        return
    if "epoch" in options.only:
        epoch(options.rounds)
    if "fit" in options.only:
        fit(options.rounds)
    if "predict" in options.only:
        predict(options.rows, options.threads)


if __name__ == "__main__":
    main()
