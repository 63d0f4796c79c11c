#!/usr/bin/env python
"""Fits to the regularised optimum beside scikit-learn, its Intel extension and PyTorch.

    python bench/fit.py                                  the large problems, one thread
    python bench/fit.py --threads 2 --only mnist text    some of them, by name
    python bench/fit.py --only kinds                     many kinds of data; or: awkward, small
    python bench/fit.py --against ../before              our fits beside another checkout's

Every contender lives in a process of its own, as their pools would slow each other, and they take
turns. Time and peak memory are those of the fit alone, above the data. A gap is how far the
objective, computed anew in float64, is above the lowest that anybody reached (of awkward problems:
above the optimum by Newton's method), relatively; "!" behind it: the fit warned that it had not
converged. A pass is an evaluation of objective and gradient. "Ours as low after" is when our way
had come as low as the contender's end, "ratio" its time over that. Written to bench/results/ as
Markdown, JSON and a picture of the ways.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from functools import lru_cache
from time import perf_counter
from typing import Any

from benchlib import options as shared
from benchlib import threads

#: scikit-learn's default: the largest entry of the mean loss's gradient.
TOL = 1e-4
CONTENDERS = ("ours", "ours, plain", "scikit-learn", "scikit-learn-intelex")
CONTENDERS += ("PyTorch, L-BFGS", "PyTorch, SGD")
GROUPS = ("large", "kinds", "awkward", "small")
#: PyTorch is as everybody writes it: it has no preconditioning, weights or sparse X, and is slow.
DEFAULTS = {"large": CONTENDERS} | dict.fromkeys(GROUPS[1:], CONTENDERS[:3])

#: A fit that takes longer, in seconds, is done once.
LONG = 5.0


@lru_cache(maxsize=1)
def problem_of(group: str, name: str, tiny: bool) -> Any:
    from benchlib import problems

    return problems.problems(tiny)[group][name]()


def fit(contender: str, group: str, name: str, tiny: bool, most: int, first: bool) -> Any:
    """Fit in this process; what it took, or why it cannot be."""
    from benchlib import footprint, problems
    from benchlib.data import UnsuitedError

    try:
        problem = problem_of(group, name, tiny)
        method = _method(contender, problem, most)
    except (ImportError, FileNotFoundError, UnsuitedError) as reason:
        return str(reason)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, start = footprint.from_now(), perf_counter()
        W, b, steps, passes, curve = method()
        seconds = perf_counter() - start
        grown = footprint.peak() - before
        if first and contender in ("ours", "ours, plain", "before"):
            # Once more, past the default tolerance, for the way to reach the others' ends.
            curve = _way(problem, most, contender != "ours, plain")
    value = problems.objective(problem, W, b)
    return {
        "seconds": seconds, "steps": steps, "passes": passes, "objective": value, "peak": grown,
        "warned": any("Convergence" in w.category.__name__ for w in caught),
        "curve": curve or [(seconds, passes, value)],
    }  # fmt: skip


def _method(contender: str, problem: Any, most: int) -> Any:
    """Return a function that fits: W, b, steps, passes and perhaps the way."""
    if contender.startswith("PyTorch"):
        return _by_pytorch(contender.endswith("SGD"), problem, most)
    if contender == "ours, plain":
        return lambda: _minimize(problem, most, precondition=False)
    return _by_estimator(contender, problem, most)


def _by_estimator(contender: str, problem: Any, most: int) -> Any:
    """LogisticRegression at its defaults but for max_iter; X as the estimator wants it."""
    import numpy as np
    from benchlib.problems import scale_of

    X, options = problem.X, {"tol": TOL, "max_iter": most, "C": problem.C}
    theirs = contender.startswith("scikit-learn")
    counted: Any = [None]
    if theirs:
        if contender.endswith("intelex"):
            from sklearnex import patch_sklearn

            patch_sklearn(verbose=False)
        else:
            counted = _count_passes()
        from sklearn.linear_model import LogisticRegression as Estimator
    else:
        from softmax_ext.sklearn import SoftmaxRegression as Estimator

        options["x_scale"] = scale_of(problem)

    def run() -> Any:
        # Their X is a float copy of the images' bytes: it counts.
        scaled = theirs and scale_of(problem) != 1
        given = X * np.float32(scale_of(problem)) if scaled else X
        model = Estimator(**options).fit(given, problem.y, problem.weight)
        return model.coef_.T, model.intercept_, int(model.n_iter_[0]), counted[0], None

    return run


def _count_passes() -> list[int]:
    """Count scikit-learn's evaluations from now on."""
    from sklearn.linear_model._linear_loss import LinearModelLoss

    counted, original = [0], getattr(LinearModelLoss, "original", LinearModelLoss.loss_gradient)

    def loss_gradient(*args: Any, **options: Any) -> Any:
        counted[0] += 1
        return original(*args, **options)

    LinearModelLoss.original, LinearModelLoss.loss_gradient = original, loss_gradient
    return counted


def _minimize(problem: Any, most: int, tol: float = TOL, **options: Any) -> Any:
    import numpy as np
    from benchlib.problems import scale_of

    from softmax_ext.solvers import minimize

    X, c = problem.X, int(problem.y.max()) + 1
    dtype = np.float32 if X.dtype == np.uint8 else X.dtype
    # Two classes are fitted with one column by the estimators: the penalty of w is that of +-w/2.
    l2 = (2 if c == 2 else 1) / problem.C
    result = minimize(
        X, problem.y, np.zeros((X.shape[1], c), dtype), np.zeros(c, dtype), l2=l2, tol=tol,
        max_iter=most, sample_weight=problem.weight, x_scale=scale_of(problem), **options,
    )  # fmt: skip
    W, b = result.W, result.b
    if c == 2:
        W, b = W[:, 1:] - W[:, :1], b[1:] - b[:1]
    return W, b, result.nit, result.nfev, None


def _way(problem: Any, most: int, precondition: bool) -> list[tuple[float, int, float]]:
    """Return seconds, passes and objective after each of our steps."""
    points: list[tuple[float, int, float]] = []
    start = perf_counter()

    def note(state: Any) -> None:
        points.append((perf_counter() - start, state.nfev, state.fun))

    _minimize(problem, most, TOL / 100, precondition=precondition, callback=note)
    return points


def _by_pytorch(sgd: bool, problem: Any, most: int) -> Any:
    """Minimise the mean loss by PyTorch's optimisers, until the gradient is as small."""
    import numpy as np
    import torch
    from benchlib import problems
    from benchlib.data import UnsuitedError

    X, y, n = problem.X, problem.y, len(problem.y)
    if hasattr(X, "indptr") or X.dtype == np.uint8 or problem.weight is not None:
        raise UnsuitedError("PyTorch takes a dense float X only, and no weights here")

    def run() -> Any:
        x, target = torch.from_numpy(X), torch.from_numpy(y)
        linear = torch.nn.Linear(X.shape[1], int(y.max()) + 1, dtype=x.dtype)
        parameters = list(linear.parameters())
        for parameter in parameters:
            torch.nn.init.zeros_(parameter)
        points: list[tuple[float, Any, Any]] = []
        passes, start = 0, perf_counter()

        def step(rows: Any) -> None:
            def closure() -> Any:
                nonlocal passes
                passes += 1
                optimiser.zero_grad()
                penalty = linear.weight.square().sum() / (2 * n * problem.C)
                loss = torch.nn.functional.cross_entropy(linear(x[rows]), target[rows]) + penalty
                loss.backward()
                return loss

            optimiser.step(closure)

        def note() -> None:
            W, b = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
            points.append((perf_counter() - start, W.copy(), b.copy()))

        if sgd:
            optimiser: Any = torch.optim.SGD(parameters, lr=0.1)
            for _ in range(min(most, 50)):
                for rows in torch.randperm(n).split(256):
                    step(rows)
                note()
            passes = len(points)
        else:
            optimiser = torch.optim.LBFGS(
                parameters, max_iter=10, history_size=10, line_search_fn="strong_wolfe"
            )
            for _ in range(-(-most // 10)):
                step(slice(None))
                note()
                if max(float(p.grad.abs().max()) for p in parameters) <= TOL:
                    break
        curve = [(t, None, problems.objective(problem, W, b)) for t, W, b in points]
        return (*points[-1][1:], len(points), passes, curve)

    return run


def compare(group: str, name: str, contenders: Any, pools: Any, options: Any) -> Any:
    """Let the contenders take turns; return what was found of each."""
    most = 100 if group == "awkward" else options.iterations
    results: dict[str, dict[str, Any]] = {}
    for number in range(options.rounds):
        for contender in contenders:
            if number and results.get(contender, {"times": [LONG]})["times"][0] >= LONG:
                continue
            job = contender, group, name, options.smoke, most, number == 0
            found = pools[contender].submit(fit, *job).result()
            if isinstance(found, str):
                if not number:
                    print(f"{name}: {contender}: {found}")
                continue
            results.setdefault(contender, found | {"times": []})["times"].append(found["seconds"])
    for result in results.values():
        result["seconds"] = statistics.median(result["times"])
    return results


def table(results: dict[str, Any], best: float) -> str:
    from benchlib import report

    way = results.get("ours", {"curve": []})["curve"]
    rows = []
    for name, r in results.items():
        as_low = [point for point in way if point[2] <= r["objective"] * (1 + 1e-6)]
        seconds, passes, _ = as_low[0] if as_low else (None, None, None)
        rows.append([
            name, report.seconds(r["seconds"]), str(r["steps"]), str(r["passes"] or ""),
            f"{r['objective']:.6g}", f"{(r['objective'] - best) / abs(best):.1e}"
            f"{'!' if r['warned'] else ''}", report.size(r["peak"]),
            f"{report.seconds(seconds)}, {passes} passes" if as_low else "never",
            f"{r['seconds'] / seconds:.1f}" if as_low else "",
        ])  # fmt: skip
    headings = ["contender", "time", "steps", "passes", "objective", "gap", "peak memory",
                "ours as low after", "ratio"]  # fmt: skip
    return report.table(headings, rows, text=1)


def run(options: argparse.Namespace) -> int:
    against = shared.checkout(options.against)
    threads.prepare(options.threads)  # the contenders' processes inherit it
    from benchlib import environment, pictures, problems

    groups = problems.problems(options.smoke)
    wanted = options.only or ["large"]
    for only in wanted:
        if only not in groups and not any(only in names for names in groups.values()):
            raise ValueError(f"only: {only!r} is none of the groups and problems (see --list)")
    # A name that two groups have is the first one's.
    home = {name: group for group in reversed(groups) for name in groups[group]}
    chosen = [
        (group, name)
        for group, names in groups.items()
        for name in names
        if group in wanted or (name in wanted and home[name] == group)
    ]
    if options.list:
        print("\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items()))
        return 0
    described = environment.describe() | {"threads": options.threads}
    text = [f"# Fits, {options.threads} thread(s)", "```", *environment.lines(described), "```"]
    everything, ways = {}, {}
    pools = {
        name: threads.process(against if name == "before" else "")
        for name in (*CONTENDERS, *(["before"] if against else []))
    }
    try:
        for group, name in chosen:
            default = ("ours", "before") if against else DEFAULTS[group]
            contenders = options.contender or default
            results = compare(group, name, contenders, pools, options)
            if not results:
                continue
            ends = [r["objective"] for r in results.values()]
            best = min(*ends, *(value for r in results.values() for _, _, value in r["curve"]))
            if group == "awkward":
                problem = problem_of(group, name, options.smoke)
                best = problems.awkward.optimum(*problem)
            everything[name] = results
            ways[name] = {who: [(t, v) for t, _, v in r["curve"]] for who, r in results.items()}
            text += ["", f"## {name}", "", table(results, best)]
            print(f"\n{name}\n{table(results, best)}", flush=True)
    finally:
        for pool in pools.values():
            pool.shutdown()
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"fit-{options.threads}{'-smoke' if options.smoke else ''}"
    stem.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    stem.with_suffix(".json").write_text(json.dumps(everything), encoding="utf-8")
    large = {name: ways[name] for group, name in chosen if group == "large" and name in ways}
    if large:
        footer = f"{described['CPU']}, {options.threads} thread(s)"
        pictures.fits(large, footer).savefig(stem.with_suffix(".png"), dpi=80)
    print(f"written to {stem}.md, .json{', .png' if large else ''}")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = shared.parser(__doc__)
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads of every contender (default: 1)")
    add("--only", nargs="+", metavar="NAME", help=f"groups ({', '.join(GROUPS)}) or problems")
    add("--contender", nargs="+", choices=CONTENDERS, help="some of the fits; ours among them")
    add("--against", default="", metavar="PATH", help="another checkout, as in table.py")
    add("--iterations", type=int, default=1000, help="most iterations (default: 1000; awkward: "
        "the estimators' 100)")  # fmt: skip
    add("--rounds", type=int, default=3, help="turns of each contender whose fit is short")
    add("--list", action="store_true", help="list the problems and end")
    return shared.main("fit.py", run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
