#!/usr/bin/env python
"""Fits to the regularised optimum beside scikit-learn, its Intel extension and PyTorch.

    python bench/fit.py                              all problems, one thread
    python bench/fit.py --threads 2 --only mnist     one of them

Every contender runs in a process of its own, as their pools would slow each other. Time and peak
memory are those of the fit alone, above the data; the objective of every result is computed anew in
float64. Of our fits and PyTorch's each iteration is recorded, of the others the end. Written to
bench/results/ as Markdown, JSON and a picture of the gap to the lowest objective against time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from benchlib import environment, threads

PROBLEMS = ("mnist", "mnist-uint8", "probe", "text")
#: scikit-learn's default: the largest entry of the mean loss's gradient.
TOL = 1e-4
CONTENDERS = ("ours", "ours, plain", "scikit-learn", "scikit-learn-intelex")
CONTENDERS += ("PyTorch, L-BFGS", "PyTorch, SGD")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="threads of every contender (default: 1)")
    add("--only", nargs="+", choices=PROBLEMS, default=PROBLEMS, help="some of the problems")
    add(
        "--contender",
        nargs="+",
        choices=CONTENDERS,
        default=CONTENDERS,
        help="some of the fits; ours among them",
    )
    add("--iterations", type=int, default=1000, help="most iterations (default: 1000)")
    add("--tiny", action="store_true", help="tries the machinery only")
    add("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    add("--fit", nargs=2, metavar=("CONTENDER", "PROBLEM"), help=argparse.SUPPRESS)
    return parser.parse_args()


def problem(name: str, tiny: bool) -> tuple[Any, Any, float]:
    """Return X, y and the factor of X."""
    import numpy as np

    rng = np.random.default_rng(0)
    if name.startswith("mnist"):
        import softmax_ext as sx

        data = sx.datasets.load_fashion_mnist(download=False)
        rows = slice(600 if tiny else None)
        X, y = data.train_images.reshape(60000, 784)[rows], data.train_labels[rows]
        y = y.astype(np.int64)
        if name == "mnist-uint8":
            return X, y, 1 / 255
        return X / np.float32(255), y, 1.0
    if name == "probe":  # embeddings: a few strong directions, many weak ones
        n, d, c = (500, 20, 5) if tiny else (50000, 512, 100)
        X = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
        y = np.argmax(X @ rng.normal(size=(d, c)) + rng.gumbel(size=(n, c)), axis=1)
        return X.astype(np.float32), y, 1.0
    from scipy import sparse

    n, d, c, entries = (500, 300, 5, 10) if tiny else (20000, 50000, 20, 100)
    indices = np.sort(rng.integers(0, d, (n, entries)), axis=1).astype(np.int32).ravel()
    indptr = np.arange(n + 1, dtype=np.int32) * entries
    texts = sparse.csr_array((rng.random(n * entries, dtype=np.float32), indices, indptr), (n, d))
    return texts, np.argmax(texts @ rng.normal(size=(d, c)), axis=1), 1.0


def objective(X: Any, y: Any, W: Any, b: Any, scale: float) -> float:
    """The sum of the losses and half the squared weights, in float64."""
    import numpy as np

    total = 0.0
    W, b = np.asarray(W, np.float64), np.asarray(b, np.float64)
    for i in range(0, X.shape[0], 4096):
        logits = np.asarray(X[i : i + 4096] @ W) * scale + b
        logits -= logits.max(axis=1, keepdims=True)
        right = logits[np.arange(len(logits)), y[i : i + 4096]]
        total += float(np.log(np.exp(logits).sum(axis=1)).sum() - right.sum())
    return total + float(np.vdot(W, W)) / 2


def by_pytorch(sgd: bool, X: Any, y: Any, scale: float, most: int, note: Any) -> tuple[Any, Any]:
    """Minimise the mean loss by PyTorch's optimisers; W and b. note(W, b) after each step."""
    import numpy as np
    import torch

    if hasattr(X, "indptr") or X.dtype == np.uint8:
        raise SystemExit("PyTorch takes a dense float X only")
    x, target, n = torch.from_numpy(X), torch.from_numpy(y), len(y)
    linear = torch.nn.Linear(X.shape[1], int(y.max()) + 1)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)

    def loss(rows: Any) -> Any:
        penalty = linear.weight.square().sum() / (2 * n)
        return torch.nn.functional.cross_entropy(linear(x[rows]), target[rows]) + penalty

    def step(optimiser: Any, rows: Any) -> Any:
        def closure() -> Any:
            optimiser.zero_grad()
            value = loss(rows)
            value.backward()
            return value

        return optimiser.step(closure)

    def noted() -> tuple[Any, Any]:
        W, b = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
        note(W, b)
        return W, b

    if sgd:
        optimiser = torch.optim.SGD(linear.parameters(), lr=0.1)
        for _ in range(min(most, 50)):
            for rows in torch.randperm(n).split(256):
                step(optimiser, rows)
            result = noted()
        return result
    everything = slice(None)
    optimiser = torch.optim.LBFGS(
        linear.parameters(), max_iter=10, history_size=10, line_search_fn="strong_wolfe"
    )
    for _ in range(-(-most // 10)):
        step(optimiser, everything)
        result = noted()
        if max(float(p.grad.abs().max()) for p in linear.parameters()) <= TOL:
            break
    return result


def fit(contender: str, name: str, tiny: bool, most: int) -> dict[str, Any]:
    """Fit in this process; what it took."""
    import warnings

    import numpy as np

    warnings.simplefilter("ignore")  # that an iteration limit was reached is in the table
    X, y, scale = problem(name, tiny)
    curve: list[tuple[float, float]] = []
    if contender == "scikit-learn-intelex":
        from sklearnex import patch_sklearn

        patch_sklearn(verbose=False)
    if contender.startswith("ours"):
        from softmax_ext.solvers import minimize

        shape = X.shape[1], int(y.max()) + 1
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
        options = {"l2": 1.0, "x_scale": scale, "max_iter": most}
        options["precondition"] = contender == "ours"
        begin = np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)
        result = minimize(X, y, *begin, tol=TOL, **options)
        seconds = perf_counter() - start
        W, b, iterations = result.W, result.b, result.nit

        def note(state: Any) -> None:
            curve.append((perf_counter() - start, state.fun))

        # Once more, past the default tolerance, for the curve to reach the others' objectives.
        start = perf_counter()
        minimize(X, y, *begin, tol=TOL / 100, callback=note, **options)
    elif contender.startswith("PyTorch"):
        importlib.import_module("torch.optim")  # is not part of the fit
        points: list[tuple[float, Any, Any]] = []
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
        W, b = by_pytorch(
            contender.endswith("SGD"), X, y, scale, most,
            lambda W, b: points.append((perf_counter() - start, W.copy(), b.copy())),
        )  # fmt: skip
        seconds, iterations = points[-1][0], len(points)
        curve = [(t, objective(X, y, W, b, scale)) for t, W, b in points]
    else:
        from sklearn.linear_model import LogisticRegression

        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
        # Their X is a float copy of the bytes: it counts.
        given = X * np.float32(scale) if name == "mnist-uint8" else X
        model = LogisticRegression(tol=TOL, max_iter=most).fit(given, y)
        seconds = perf_counter() - start
        W, b, iterations = model.coef_.T, model.intercept_, int(model.n_iter_[0])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    value = objective(X, y, W, b, scale)
    return {
        "seconds": seconds, "iterations": iterations, "objective": value,
        "peak MiB": grown / 1024, "curve": curve or [(seconds, value)],
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, with the time in which our fit was as low as each of the others."""
    lines = [
        "| contender | seconds | iterations | objective | peak | ours as low after | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, r in results.items():
        as_low = [t for t, value in results["ours"]["curve"] if value <= r["objective"]]
        when = f"{as_low[0]:.3g} s" if as_low else "never"
        ratio = f"{r['seconds'] / as_low[0]:.1f}" if as_low else ""
        lines.append(
            f"| {name} | {r['seconds']:.3g} | {r['iterations']} | {r['objective']:.2f} "
            f"| {r['peak MiB']:.0f} MiB | {when} | {ratio} |"
        )
    return "\n".join(lines)


def picture(everything: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(everything), figsize=(4.2 * len(everything), 3.6), squeeze=False, layout="tight"
    )
    for ax, (name, results) in zip(axes[0], everything.items(), strict=True):
        lowest = min(value for r in results.values() for _, value in r["curve"])
        for contender, r in results.items():
            gaps = [(t, value / lowest - 1) for t, value in r["curve"]]
            style = "-" if len(gaps) > 1 else "o"
            ax.plot(*zip(*gaps, strict=True), style, label=contender, markersize=6)
        ax.set(title=name, xlabel="seconds", xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter("")
        ax.set_ylim(1e-6, 10)
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("objective above the lowest, relative")
    axes[0][0].legend(loc="lower left", fontsize="small")
    figure.savefig(path, dpi=80)


def main() -> None:
    given = arguments()
    if given.fit:
        print(json.dumps(fit(*given.fit, given.tiny, given.iterations)))
        return
    threads.prepare(given.threads)  # children inherit it
    everything: dict[str, dict[str, Any]] = {}
    text = [f"# Fits, {given.threads} thread(s)", "", *environment.lines(environment.describe())]
    for name in given.only:
        results: dict[str, Any] = {}
        for contender in given.contender:
            command = [sys.executable, __file__, "--fit", contender, name]
            command += ["--iterations", str(given.iterations), *(["--tiny"] * given.tiny)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{name}: {contender}: {done.stderr.strip().splitlines()[-1]}")
            else:
                results[contender] = json.loads(done.stdout.splitlines()[-1])
        everything[name] = results
        text += ["", f"## {name}", "", table(results)]
        print(f"{name}\n{table(results)}\n", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    stem = given.out / f"fit-{given.threads}"
    stem.with_suffix(".md").write_text("\n".join(text) + "\n")
    stem.with_suffix(".json").write_text(json.dumps(everything))
    picture(everything, stem.with_suffix(".png"))
    print(f"written to {stem}.md, .json, .png")


if __name__ == "__main__":
    main()
