#!/usr/bin/env python
"""Paths of penalties beside fits one by one, ours and scikit-learn's.

    python bench/path.py embeddings         50000 x 512 x 100, made, 45 values of C
    python bench/path.py fashion            Fashion-MNIST as bytes, 45 values
    python bench/path.py text               20000 x 50000 x 20, made, 100 entries a row, 45 values
    python bench/path.py folds              5 folds x 10 values, its first 20000 images
    python bench/path.py embeddings --check 4    and every 11th objective beside a tight fit

`--peer N` has scikit-learn fit N of the values, spread over the path, cold (of `folds`: on one
fold, each from the one before), and says what all would take if they took as long; `--most` bounds
its iterations, and those of a check. A gap is how far an objective is above that of a fit in
float64 with tol 1e-7 that begins there. Memory is that beyond the data and the paths, on Linux.
"""

from __future__ import annotations

import argparse
import os
from time import perf_counter
from typing import Any

from benchlib import threads


def embeddings(tiny: bool) -> Any:
    """Return rows about 100 centres, whose variances fall as those of embeddings do."""
    import numpy as np

    N, D, C = (2000, 64, 10) if tiny else (50_000, 512, 100)
    rng = np.random.default_rng(0)
    spread = (1 + np.arange(D)) ** -0.5
    spread *= np.sqrt(D / np.sum(spread**2))
    y = rng.integers(0, C, N)
    X = rng.normal(size=(C, D))[y] + 9 * rng.normal(size=(N, D))
    X = (X * spread) @ np.linalg.qr(rng.normal(size=(D, D)))[0]
    return X.astype(np.float32), y, 1.0


def fashion(tiny: bool) -> Any:
    from benchlib.data import fashion_mnist

    X, y = fashion_mnist()
    n = 1000 if tiny else len(X)
    return X[:n], y[:n], 1 / 255


def text(tiny: bool) -> Any:
    from benchlib.problems import texts

    problem = texts(*((800, 300, 5, 10) if tiny else (20_000, 50_000, 20, 100)))
    return problem.X, problem.y, 1.0


JOBS = {"embeddings": embeddings, "fashion": fashion, "text": text}


def sweep(options: argparse.Namespace) -> None:
    import numpy as np
    from benchlib import footprint

    import softmax_ext as sx
    from softmax_ext.solvers import minimize

    X, y, x_scale = JOBS[options.job](options.smoke)
    D, C = X.shape[1], int(y.max()) + 1
    held = np.random.default_rng(1).permutation(len(y)) < len(y) // 10
    train, valid = (X[~held], y[~held]), (X[held], y[held])
    Cs = np.logspace(-6, 5, 45)

    def model() -> Any:
        return sx.SoftmaxModel.zeros(D, C, x_scale=x_scale)

    start = perf_counter()
    cold = sx.fit_lbfgs(model(), *train, C=1.0)
    cold_seconds = perf_counter() - start
    print(f"cold fit at C = 1: {cold_seconds:.2f} s, {cold.nfev} passes", flush=True)
    has_status = os.path.exists("/proc/self/clear_refs")
    before = footprint.from_now() if has_status else 0
    path = sx.fit_path(model(), *train, Cs, validation_data=valid)
    if has_status:
        beyond = footprint.peak() - before - path.W.nbytes
        print(f"memory beyond the data and {path.W.nbytes / 2**20:.0f} MiB of paths: "
              f"{beyond / 2**20:.0f} MiB")  # fmt: skip
    print(
        f"path of 45: {path.seconds:.2f} s = {path.seconds / cold_seconds:.1f} cold fits, "
        f"{path.nfev} passes = {path.nfev / cold.nfev:.1f}; C {path.Cs[path.best]:.3g}, validation "
        f"loss {path.scores[path.best]:.4f}; not converged: {int((~path.success).sum())}",
        flush=True,
    )
    if options.check:
        gaps = []
        for k in range(0, 45, 44 // options.check):
            tight = minimize(
                train[0], train[1], path.W[k].astype(float), path.b[k].astype(float),
                l2=1 / Cs[k], x_scale=x_scale, tol=1e-7, max_iter=options.most,
            )  # fmt: skip
            gaps.append(path.fun[k] / tight.fun - 1)
            print(f"  C {Cs[k]:.2g}: gap {gaps[-1]:.1e} ({'' if tight.success else 'at least'})")
    if options.peer:
        from sklearn.linear_model import LogisticRegression

        scaled = train[0] if x_scale == 1 else train[0] * np.float32(x_scale)
        chosen = [round(44 * (i + 0.5) / options.peer) for i in range(options.peer)]
        times = []
        for k in chosen:
            start = perf_counter()
            theirs = LogisticRegression(C=Cs[k], max_iter=options.most).fit(scaled, train[1])
            times.append(perf_counter() - start)
            W = theirs.coef_.astype(np.float64)
            P = theirs.predict_log_proba(scaled)[np.arange(len(train[1])), train[1]]
            above = (np.vdot(W, W) / 2 / Cs[k] - P.sum(dtype=np.float64)) / path.fun[k] - 1
            print(f"  scikit-learn, C {Cs[k]:.2g}: {times[-1]:.1f} s, {theirs.n_iter_[0]} steps, "
                  f"objective {above:+.1e} of ours", flush=True)  # fmt: skip
        whole = 45 * np.mean(times)
        print(f"scikit-learn: 45 values would take {whole:.0f} s, {whole / path.seconds:.0f} times "
              "as long", flush=True)  # fmt: skip


def folds(options: argparse.Namespace) -> None:
    import warnings

    import numpy as np
    from sklearn.linear_model import LogisticRegressionCV as ScikitLearns
    from sklearn.model_selection import StratifiedKFold

    from softmax_ext.sklearn import LogisticRegressionCV

    warnings.simplefilter("ignore")
    X, y, _ = fashion(options.smoke)
    X, y = X[:20_000] * np.float32(1 / 255), y[:20_000]
    shared = {"Cs": 10, "max_iter": options.most, "scoring": "neg_log_loss", "l1_ratios": (0,)}
    cv = StratifiedKFold(5)
    start = perf_counter()
    ours = LogisticRegressionCV(
        cv=cv, use_legacy_attributes=False, n_jobs=options.jobs, **shared
    ).fit(X, y)
    seconds = perf_counter() - start
    print(f"5 folds x 10 values: {seconds:.2f} s, C {ours.C_:.3g}", flush=True)
    if options.peer:
        chosen = [round(9 * (i + 0.5) / options.peer) for i in range(options.peer)]
        some = {**shared, "Cs": ours.Cs_[chosen]}
        start = perf_counter()
        ScikitLearns(
            cv=[next(cv.split(X, y))], refit=False, use_legacy_attributes=False, **some
        ).fit(X, y)
        theirs = (perf_counter() - start) * 50 / options.peer
        print(f"scikit-learn: {options.peer} values on one fold; 5 folds of 10 would take "
              f"{theirs:.0f} s, without the last fit: {theirs / seconds:.1f} times")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=[*JOBS, "folds"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", type=int, default=0, metavar="N")
    parser.add_argument("--peer", type=int, default=0, metavar="N")
    parser.add_argument(
        "--most", type=int, default=1000, help="iterations of a check's fit, and of scikit-learn"
    )
    parser.add_argument("--jobs", type=int, help="of folds: our n_jobs")
    parser.add_argument("--smoke", action="store_true", help="small data, for a test")
    options = parser.parse_args()
    threads.prepare(options.threads)
    (folds if options.job == "folds" else sweep)(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
