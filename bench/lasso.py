#!/usr/bin/env python
"""Fits with an L1 penalty beside scikit-learn, liblinear, celer, skglm and glmnet.

    python bench/lasso.py                     every job, two threads
    python bench/lasso.py --only text news    some of them, by name
    python bench/lasso.py --list              their names

Every contender fits a problem again and again, from nothing, with ever smaller tolerances or ever
more iterations, until it is within a millionth of the optimum or takes longer than `--most`
seconds. A gap is how far the objective, computed anew in float64, is above the lower bound of our
certified fit, relatively. Of a path the penalties fall from the least with which all weights are 0
to a hundredth of it, and its gap is the largest. Of two classes, fits have one column of weights
and no intercept, as celer and skglm have none. Written to --out as Markdown, JSON and a picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from benchlib import options as shared
from benchlib import threads

#: Relative gaps that times are given for.
GAPS = 1e-3, 1e-6
TOLERANCES = 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8
ITERATIONS = 3, 10, 30, 100, 300, 1000, 3000
#: Penalties of a path, and the last as a share of the first.
N_PENALTIES, LAST = 100, 1e-2


class Job(NamedTuple):
    """What is minimised: the sum of the losses and of the penalties, for each strength."""

    X: Any
    y: Any
    l1: Any
    l2: float = 0.0
    intercept: bool = True


def images(tiny: bool, n: int, C: float, l1_ratio: float = 1.0) -> Job:
    import numpy as np
    from benchlib.data import fashion_mnist

    X, y = fashion_mnist()
    n = 300 if tiny else n
    return Job(X[:n] * np.float32(1 / 255), y[:n], [l1_ratio / C], (1 - l1_ratio) / C)


def text(tiny: bool, C: int, shape: tuple[int, int], intercept: bool) -> Job:
    """Return rows of words of which few, more of the frequent, tell the class."""
    import numpy as np
    from scipy import sparse

    N, D = (200, 400) if tiny else shape
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 200, N)
    words = np.minimum(D * rng.random(lengths.sum()) ** 3, D - 1).astype(np.int32)
    rows = np.repeat(np.arange(N), lengths)
    counts = sparse.csr_matrix((np.ones(len(words)), (rows, words)), (N, D))
    X = counts.multiply(1 / np.sqrt(counts.multiply(counts).sum(axis=1))).tocsr()
    W = rng.normal(size=(D, C)) * (rng.random((D, C)) < 0.02) * 40
    # Classes that no row has are none.
    y = np.unique(np.argmax(X @ W + rng.gumbel(size=(N, C)), axis=1), return_inverse=True)[1]
    return Job(X, y, [1.0], 0.0, intercept)


def genes(tiny: bool) -> Job:
    """Return few rows of many correlated features: a path."""
    import numpy as np

    N, D, C = (30, 200, 3) if tiny else (144, 16_000, 14)
    rng = np.random.default_rng(0)
    y = np.arange(N) % C
    means = rng.normal(size=(C, D)) * (rng.random((C, D)) < 0.01) * 2
    X = means[y] + rng.normal(size=(N, 20)) @ rng.normal(size=(20, D)) / 4
    X += rng.normal(size=(N, D))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    P = np.eye(C)[y] - np.bincount(y, minlength=C) / N
    first = np.abs(X.T @ P).max()
    return Job(X, y, first * np.geomspace(1, LAST, 5 if tiny else N_PENALTIES))


JOBS: dict[str, Callable[[bool], Job]] = {
    "images-10000": lambda tiny: images(tiny, 10_000, 1.0),
    "images": lambda tiny: images(tiny, 60_000, 0.01),
    "images-net": lambda tiny: images(tiny, 60_000, 0.01, 0.5),
    "images-weak": lambda tiny: images(tiny, 60_000, 1.0),
    "text": lambda tiny: text(tiny, 20, (20_000, 50_000), True),
    "news": lambda tiny: text(tiny, 2, (20_000, 100_000), False),
    "genes": genes,
}

#: Weights (D, C) and intercepts for each strength of the penalty.
Solution = list[tuple[Any, Any]]


def ours(job: Job, tol: float) -> Solution:
    import numpy as np

    from softmax_ext.sklearn import SoftmaxRegression

    if not job.intercept:
        model = SoftmaxRegression(
            C=1 / job.l1[0], l1_ratio=1.0, solver="saga", fit_intercept=False, tol=tol, max_iter=500
        )
        return [(model.fit(job.X, job.y).coef_.T, np.zeros(1))]
    return [(result.W, result.b) for result in fits(job, tol)]


def fits(job: Job, tol: float) -> Iterator[Any]:
    """Yield our result for each strength of the penalty."""
    import numpy as np

    from softmax_ext.solvers import minimize

    C, dtype = int(job.y.max()) + 1, job.X.dtype
    W, b = np.zeros((job.X.shape[1], C), dtype), np.zeros(C, dtype) if job.intercept else None
    for l1 in job.l1:
        result = minimize(job.X, job.y, W, b, l1=l1, l2=job.l2, tol=tol, max_iter=500)
        W, b = result.W, result.b
        yield result


def saga(job: Job, most: int) -> Solution:
    from sklearn.linear_model import LogisticRegression

    ratio = job.l1[0] / (job.l1[0] + job.l2)
    model = LogisticRegression(
        l1_ratio=ratio, solver="saga", tol=0, max_iter=int(most), warm_start=True,
        fit_intercept=job.intercept,
    )  # fmt: skip
    found = []
    for l1 in job.l1:
        model.set_params(C=1 / (l1 + job.l2)).fit(job.X, job.y)
        found.append((model.coef_.T.copy(), model.intercept_.copy()))
    return found


def liblinear(job: Job, tol: float) -> Solution:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=1 / job.l1[0], l1_ratio=1.0, solver="liblinear", tol=tol, max_iter=10_000,
        fit_intercept=False,
    )  # fmt: skip
    return [(model.fit(job.X, job.y).coef_.T, model.intercept_)]


def celer(job: Job, tol: float) -> Solution:
    from celer import LogisticRegression

    model = LogisticRegression(C=1 / job.l1[0], tol=tol)
    return [(model.fit(job.X, job.y).coef_.T, 0.0)]


def skglm(job: Job, tol: float) -> Solution:
    from skglm import SparseLogisticRegression

    model = SparseLogisticRegression(job.l1[0] / len(job.y), tol=tol, fit_intercept=False)
    return [(model.fit(job.X, job.y).coef_.T, 0.0)]


def glmnet(job: Job, tol: float) -> Solution:
    import numpy as np
    from glmnet import LogitNet

    model = LogitNet(
        lambda_path=np.asarray(job.l1) / len(job.y), n_splits=0, standardize=False, tol=tol,
        fit_intercept=job.intercept, max_iter=1_000_000,
    ).fit(job.X, job.y)  # fmt: skip
    paths, intercepts = model.coef_path_, model.intercept_path_
    return [(paths[..., k].T, intercepts[..., k]) for k in range(paths.shape[-1])]


class Contender(NamedTuple):
    fit: Callable[[Job, Any], Solution]
    efforts: tuple[float, ...]
    #: Whether it minimises the same: of two classes, one penalty, without an intercept; or any.
    suits: Callable[[Job], bool]


def is_binary(job: Job) -> bool:
    return not job.intercept


CONTENDERS = {
    "ours": Contender(ours, TOLERANCES, lambda job: True),
    "scikit-learn, saga": Contender(saga, ITERATIONS, lambda job: True),
    "scikit-learn, liblinear": Contender(liblinear, TOLERANCES, is_binary),
    "celer": Contender(celer, TOLERANCES, is_binary),
    "skglm": Contender(skglm, TOLERANCES, is_binary),
    "glmnet": Contender(glmnet, TOLERANCES, lambda job: len(job.l1) > 1),
}


def objectives(job: Job, found: Solution) -> Any:
    """Return the objectives in float64."""
    import numpy as np

    values = []
    for (W, b), l1 in zip(found, job.l1, strict=False):
        O = np.asarray(job.X @ W.astype(np.float64)) + b  # noqa: E741
        if O.shape[1] == 1:
            O = np.hstack([np.zeros_like(O), O])  # noqa: E741
        top = O.max(axis=1, keepdims=True)
        losses = np.log(np.exp(O - top).sum(axis=1)) + top[:, 0] - O[np.arange(len(O)), job.y]
        values.append(losses.sum() + l1 * np.abs(W).sum() + job.l2 / 2 * np.vdot(W, W))
    # A path that was given up is as far from the optimum as can be.
    return np.array(values + [math.inf] * (len(job.l1) - len(values)))


def curve(contender: Contender, job: Job, best: Any, most: float) -> Iterator[tuple[float, float]]:
    """Yield seconds and gap of ever better fits."""
    for effort in contender.efforts:
        start = perf_counter()
        found = contender.fit(job, effort)
        seconds = perf_counter() - start
        gap = float(max((objectives(job, found) - best) / best))
        yield seconds, max(gap, 1e-12)
        if gap <= GAPS[-1] or seconds > most:
            break


def run(options: argparse.Namespace) -> int:
    unknown = set(options.only) - set(JOBS)
    if unknown:
        raise ValueError(f"only: {', '.join(sorted(unknown))} came, some of {', '.join(JOBS)}")
    if options.list:
        print(*JOBS, sep="\n")
        return 0
    threads.prepare(options.threads)
    warnings.simplefilter("ignore")
    import numpy as np

    records: dict[str, dict[str, Any]] = {}
    for name in options.only or JOBS:
        try:
            job = JOBS[name](options.smoke)
        except FileNotFoundError as reason:
            print(f"{name}: {reason}")
            continue
        # What no solution can be below, however far our own fits came.
        best = np.array([result.fun - result.gap for result in fits(job, 1e-9)])
        records[name] = {}
        for title, contender in CONTENDERS.items():
            if not contender.suits(job):
                continue
            try:
                for effort in contender.efforts[:6]:
                    # What is compiled when it is first called is by now.
                    contender.fit(JOBS[name](True), effort)
            except ImportError as reason:
                print(f"{name}, {title}: left out, {reason}")
                continue
            points = list(curve(contender, job, best, options.most))
            records[name][title] = points
            print(f"{name}, {title}: {row(points)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "lasso.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    lines = ["| job | contender | to 1e-3 | to 1e-6 | least gap |", "| --- " * 5 + "|"]
    lines += [
        f"| {name} | {title} | {row(points)} |"
        for name, of_job in records.items()
        for title, points in of_job.items()
    ]
    (options.out / "lasso.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(records, options)
    return 0


def row(points: list[tuple[float, float]]) -> str:
    times = [min((t for t, gap in points if gap <= wanted), default=math.inf) for wanted in GAPS]
    cells = [f"{t:.3g} s" if math.isfinite(t) else "-" for t in times]
    return " | ".join([*cells, f"{min(gap for _, gap in points):.1e}"])


def draw(records: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Draw the gaps against time, a panel for each job."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullLocator
    except ImportError:
        return
    if not records:
        return
    n = len(records)
    rows, columns = (n + 2) // 3, min(n, 3)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for (name, of_job), axes in zip(records.items(), panels, strict=False):
        for i, title in enumerate(CONTENDERS):
            if title in of_job:
                # Each point is better than those before it.
                points = sorted(map(tuple, of_job[title]))
                least = list(itertools.accumulate((gap for _, gap in points), min))
                better = [k for k, (_, gap) in enumerate(points) if gap == least[k]]
                t, gap = zip(*(points[k] for k in better), strict=True)
                axes.loglog(t, gap, "Dvs^oP"[i] + "-", color=f"C{i}", markersize=4, label=title)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(name)
        axes.set_xlabel("seconds")
        axes.set_ylabel("relative gap")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    for axes in [*panels]:
        axes.set_axis_off()
    figure.savefig(options.out / "lasso.png", dpi=120)


def main() -> int:
    parser = shared.parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="JOB")
    parser.add_argument("--list", action="store_true", help="name the jobs")
    parser.add_argument("--most", type=float, default=60.0, help="seconds of a fit, about")
    return shared.main("lasso", run, parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
