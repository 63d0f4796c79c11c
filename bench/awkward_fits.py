#!/usr/bin/env python
"""How far above the optimum fits of awkward data end, and whether they say so.

    python bench/awkward_fits.py
    python bench/awkward_fits.py --size 30 --only mixture pixels

The kinds are those of tests/awkward.py, with --size times their rows: scikit-learn's
LogisticRegression at its defaults, ours in its place, and ours without a preconditioner. A gap is
(objective - optimum) / optimum, the optimum by Newton's method in float64; "!" behind it: the fit
warned that it had not converged.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import awkward
from benchlib import threads


def contenders() -> dict[str, Any]:
    """Return classes of estimators by name."""
    from sklearn.linear_model import LogisticRegression as ScikitLearns

    from softmax_ext.sklearn import LogisticRegression

    class Plain(LogisticRegression):
        def _minimize(self, *arguments: Any, **options: Any) -> Any:
            return super()._minimize(*arguments, precondition=False, **options)

    return {"ours": LogisticRegression, "plain": Plain, "scikit-learn": ScikitLearns}


def fit(estimator: Any, problem: awkward.Problem, best: float) -> tuple[str, str, str]:
    """Return gap, steps and milliseconds."""
    X, y, _, weight = problem
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = perf_counter()
        estimator.fit(X, y, weight)
        milliseconds = 1e3 * (perf_counter() - start)
    value = awkward.objective(*problem[:2], weight, problem.C, estimator.coef_.T.astype(float),
                              estimator.intercept_.astype(float))  # fmt: skip
    said = "!" if any("Convergence" in w.category.__name__ for w in caught) else ""
    steps = str(int(estimator.n_iter_[0]))
    return f"{(value - best) / abs(best):.1e}{said}", steps, f"{milliseconds:.3g}"


def main() -> None:
    kinds = awkward.kinds
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", type=int, default=10, help="factor of the tests' numbers of rows (default: 10)")
    add("--threads", type=int, default=1, help="threads (default: 1)")
    add("--only", nargs="+", choices=list(kinds()), default=list(kinds()), metavar="KIND",
        help=", ".join(kinds()))  # fmt: skip
    options = parser.parse_args()
    threads.prepare(options.threads)
    threads.apply(options.threads)
    classes = contenders()
    columns = [f"{name}: {what}" for what in ("gap", "steps", "ms") for name in classes]
    print("| kind | optimum | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * (1 + len(columns)))
    for name in options.only:
        problem = kinds(options.size)[name]()
        best = awkward.optimum(problem.X, problem.y, problem.C, problem.weight)
        found = [fit(made(C=problem.C), problem, best) for made in classes.values()]
        cells = [cell for what in zip(*found, strict=True) for cell in what]
        print(f"| {name} | {best:.6g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
