#!/usr/bin/env python
"""Sweep linear_cross_entropy_with_grad over classes and features; draw the time per operation.

    python bench/sweep.py                  the best instruction set, one thread (two minutes)
    python bench/sweep.py --isa avx2       another one

A kernel that is good everywhere gives a smooth map. A cell that takes more than 1.5 times what
its neighbours suggest is measured again and, if it does so again, flagged: printed, and framed
in the picture. Writes sweep-<isa>-<threads>-thread.json and .png into --out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchlib import options as shared

# Powers of two, their neighbours, and sizes people have.
CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 63, 64, 65,
           100, 127, 128, 129, 200, 256, 300, 512, 1000, 1024, 2048)  # fmt: skip
FEATURES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 54, 63, 64, 65, 100, 128, 200, 256, 257,
            300, 512, 768, 784, 1000, 1024, 2048, 4096)  # fmt: skip
TINY = (1, 2, 3, 16, 17)

#: A cell is flagged when it takes more than this many times what its neighbours suggest.
LIMIT = 1.5

#: Bounds of the rows of a cell, and of the numbers in its X.
LEAST_ROWS, MOST_ROWS, MOST_NUMBERS = 256, 65536, 1 << 24

#: Least calls and seconds that go into one cell.
LEAST_CALLS, LEAST_SECONDS = 5, 0.03


def seconds_per_flop(
    kernels: Any, features: int, classes: int, dtype: str = "float32", work: float = 1e8
) -> float:
    """Return the least time of one useful operation over several calls.

    Each cell gets as many rows as make about `work` operations, within the bounds above: so
    many that the cost of the call itself does not show, where that is possible.

    Raises
    ------
    AssertionError
        If the answer is wrong.
    """
    from benchlib import data, timing
    from benchlib.contenders import Contender, ours, ready
    from benchlib.workloads import GRADIENT, Workload

    rows = int(work / (4 * features * classes))
    rows = max(LEAST_ROWS, min(rows, MOST_ROWS, MOST_NUMBERS // features))
    workload = Workload(GRADIENT, "sweep", rows, features, classes, dtype, dtype)
    contender = Contender(f"ours [{kernels.isa}]", "ours", ours.builders(kernels)[GRADIENT])
    job = ready(contender, workload, data.make(workload))
    times: list[float] = []
    while len(times) < LEAST_CALLS or sum(times) < LEAST_SECONDS:
        times.append(timing.seconds(job))
    return min(times) / workload.flops


def expected(
    times: Sequence[Sequence[float]], i: int, j: int, features: Sequence[int],
    classes: Sequence[int],
) -> float:  # fmt: skip
    """Return the time a cell's neighbours suggest.

    Between its two neighbours of one line (the same D, or the same C) the time is interpolated
    in logarithms of time and size, because small sizes get dearer as they shrink and that is no
    fault. The less of the two lines' suggestions counts, so that a whole bad column or row shows.
    A cell at the border has suggestions from one line; a corner has none (infinity).
    """
    suggestions = [math.inf]
    if 0 < i < len(features) - 1:
        suggestions.append(_between(features[i - 1 : i + 2], times[i - 1][j], times[i + 1][j]))
    if 0 < j < len(classes) - 1:
        suggestions.append(_between(classes[j - 1 : j + 2], times[i][j - 1], times[i][j + 1]))
    return min(suggestions)


def _between(sizes: Sequence[int], first: float, last: float) -> float:
    low, middle, high = (math.log(size) for size in sizes)
    share = (middle - low) / (high - low)
    return math.exp((1 - share) * math.log(first) + share * math.log(last))


def confirmed(
    times: list[list[float]],
    features: Sequence[int],
    classes: Sequence[int],
    measure: Callable[[int, int], float],
) -> list[tuple[int, int, float]]:
    """Return D, C and the factor of the cells that stand out, and do so when measured again.

    The lesser of a cell's two times replaces the first in `times`.
    """
    found = []
    for i, d in enumerate(features):
        for j, c in enumerate(classes):
            wanted = expected(times, i, j, features, classes)
            if times[i][j] > LIMIT * wanted:
                times[i][j] = min(times[i][j], measure(d, c))
            if times[i][j] > LIMIT * wanted:
                found.append((d, c, times[i][j] / wanted))
    return found


def run(options: argparse.Namespace) -> int:
    from benchlib import threads

    threads.prepare(options.threads)
    from benchlib import environment

    import softmax_ext

    isas = shared.isas(options.isa) or softmax_ext.available_isas()[:1]
    threads.apply(options.threads)
    described = environment.describe() | {"threads": options.threads}
    print("\n".join(environment.lines(described)), flush=True)
    for isa in isas:
        _sweep(options, softmax_ext.Kernels(isa), described)
    return 0


def _sweep(options: argparse.Namespace, kernels: Any, described: dict[str, Any]) -> None:
    from benchlib import pictures

    print(f"{kernels.isa}:", flush=True)
    classes, features = (TINY, TINY) if options.smoke else (CLASSES, FEATURES)
    work = 1e5 if options.smoke else 1e8

    def measure(d: int, c: int) -> float:
        return seconds_per_flop(kernels, d, c, options.dtype, work)

    times = []
    for d in features:
        times.append([measure(d, c) for c in classes])
        print(f"D = {d}: {min(times[-1]) * 1e12:.1f} to {max(times[-1]) * 1e12:.1f} ps", flush=True)
    found = confirmed(times, features, classes, measure)
    for d, c, factor in found:
        print(f"flagged: D = {d}, C = {c} takes {factor:.2f} times what its neighbours suggest")
    if not found:
        print("no cell flagged")
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "" if options.dtype == "float32" else f"-{options.dtype}"
    kind += "-smoke" if options.smoke else ""
    path = options.out / f"sweep-{kernels.isa}-{options.threads}-thread{kind}"
    record = {
        "environment": described | {"swept": kernels.isa}, "dtype": options.dtype,
        "features": features, "classes": classes, "seconds_per_flop": times, "flagged": found,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    title = f"linear_cross_entropy_with_grad, {options.dtype}, {kernels.isa}"
    plural = "" if options.threads == 1 else "s"
    footer = f"{described['CPU']}, {options.threads} thread{plural}; best of several calls"
    figure = pictures.heatmap(features, classes, times, found, title, footer)
    figure.savefig(path.with_suffix(".png"), dpi=120)
    print(f"written to {path}.json and .png")


def main(argv: list[str] | None = None) -> int:
    parser = shared.parser(__doc__)
    shared.add_isa(parser)
    parser.add_argument("--threads", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    return shared.main("sweep.py", run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
