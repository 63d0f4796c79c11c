"""The cells of the sweep: the time of each, and which stand out from their neighbours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchlib import data, truth
from benchlib.contenders import Contender, kernels, ready
from benchlib.workloads import Workload

OP = "linear_cross_entropy_with_grad"

#: A cell is flagged when it takes more than this many times what its neighbours suggest.
LIMIT = 1.5

#: Bounds of the rows of a cell, and of the numbers in its X.
LEAST_ROWS, MOST_ROWS, MOST_NUMBERS = 256, 65536, 1 << 24

#: Least calls and seconds that go into one cell.
LEAST_CALLS, LEAST_SECONDS = 5, 0.03


def seconds_per_flop(
    handle: Any, features: int, classes: int, dtype: str = "float32", work: float = 1e8
) -> float:
    """Return the least time of one useful operation over several calls.

    Each cell gets as many rows as make about `work` operations, within the bounds above: so
    many that the cost of the call itself does not show, where that is possible.

    Raises
    ------
    AssertionError
        If the answer is wrong.
    """
    rows = int(work / (4 * features * classes))
    rows = max(LEAST_ROWS, min(rows, MOST_ROWS, MOST_NUMBERS // features))
    workload = Workload(OP, "sweep", rows, features, classes, dtype, dtype)
    inputs = data.make(workload)
    contender = Contender(f"ours [{handle.isa}]", "ours", kernels.builders(handle)[OP])
    job = ready(contender, workload, inputs, lambda: truth.compute(workload, inputs))
    best, spent, calls = math.inf, 0.0, 0
    while calls < LEAST_CALLS or spent < LEAST_SECONDS:
        start = time.perf_counter()
        job()
        taken = time.perf_counter() - start
        best, spent, calls = min(best, taken), spent + taken, calls + 1
    return best / workload.flops


def expected(
    times: Sequence[Sequence[float]], at: tuple[int, int], features: Sequence[int],
    classes: Sequence[int],
) -> float:  # fmt: skip
    """Return the time a cell's neighbours suggest.

    Between its two neighbours of one line (the same D, or the same C) the time is interpolated
    in logarithms of time and size, because small sizes get dearer as they shrink and that is no
    fault. The less of the two lines' suggestions counts, so that a whole bad column or row shows.
    A cell at the border has suggestions from one line; a corner has none (infinity).
    """
    i, j = at
    suggestions = [math.inf]
    if 0 < i < len(features) - 1:
        ends = times[i - 1][j], times[i + 1][j]
        suggestions.append(_between(features[i - 1 : i + 2], ends))
    if 0 < j < len(classes) - 1:
        ends = times[i][j - 1], times[i][j + 1]
        suggestions.append(_between(classes[j - 1 : j + 2], ends))
    return min(suggestions)


def _between(sizes: Sequence[int], ends: tuple[float, float]) -> float:
    low, middle, high = (math.log(size) for size in sizes)
    share = (middle - low) / (high - low)
    return math.exp((1 - share) * math.log(ends[0]) + share * math.log(ends[1]))


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
            wanted = expected(times, (i, j), features, classes)
            if times[i][j] > LIMIT * wanted:
                times[i][j] = min(times[i][j], measure(d, c))
            if times[i][j] > LIMIT * wanted:
                found.append((d, c, times[i][j] / wanted))
    return found
