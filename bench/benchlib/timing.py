"""The timing loop: every contender once, then every contender again, A B C, B C A, C A B.

A machine drifts: its clock rises and falls, neighbours come and go. Timed one after another,
contenders would meet different machines; in rounds they meet the same one, and medians of many
rounds may be compared.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from math import ceil
from typing import Any, NamedTuple

from benchlib.workloads import Workload

#: Calls shorter than this are preceded by an untimed one, so that each finds its caches warm
#: and its threads awake.
WARM_UP_BELOW = 0.05

#: The ceilings are measured once a round, and before every call that takes longer, in seconds.
CEILING_ABOVE = 0.02

#: A workload counts as disturbed when half of its ceilings are below this share of the best.
DISTURBED_BELOW = 0.9


class Effort(NamedTuple):
    """How long to measure a workload: so many seconds, within bounds that win over them."""

    seconds: float = 15.0
    least_rounds: int = 5
    most_rounds: int = 101
    #: Calls are repeated within a round until they take this long, in seconds.
    least_sample: float = 2e-3


NORMAL = Effort()
QUICK = Effort(seconds=2.0, least_rounds=3, most_rounds=15)
SMOKE = Effort(seconds=0.0, least_rounds=2, most_rounds=2, least_sample=0.0)


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Return seconds per call, of so many in a row."""
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in repeat(None, calls):
            run()
        return (time.perf_counter() - start) / calls
    finally:
        gc.enable()


def estimate(run: Callable[[], Any]) -> float:
    """Return about the time of one call; of a short one, when its caches are warm."""
    best, calls = seconds(run), 1
    # Powers of two until they take long enough; the least, for one may have been interrupted.
    while best <= WARM_UP_BELOW and calls * best < 2e-3:
        calls *= 2
        best = min(best, seconds(run, calls))
    return best


def in_turns(
    names: Sequence[str], rounds: int, sample: Callable[[str, bool], float]
) -> dict[str, list[float]]:
    """Return the samples of each by name; ``sample(name, whether first of its round)`` takes one.

    Another one begins each round, lest the same be always the one after a pause.
    """
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % max(1, len(names))
        for place, name in enumerate([*names[first:], *names[:first]]):
            samples[name].append(sample(name, place == 0))
    return samples


def measure(
    workload: Workload, runner: Any, ceiling: Any, effort: Effort = NORMAL
) -> dict[str, Any]:
    """Time all contenders of one workload and return the record of it.

    Returns
    -------
    dict
        The workload's names, sizes and costs; ``ceiling`` with the best that was measured
        between the contenders (see `Top`); ``contenders``, a list of dicts with seconds per call
        (``median``, ``min``), ``rounds``, ``calls``, what `rates` derives, ``ratio`` (the time as
        a multiple of ours, the best instruction set's) and, for one of another checkout, ``gain``
        (the median over the rounds of its time over that of its like here); ``left_out`` and
        ``failed``, the names and reasons of those that did not take part.
    """
    prepared = runner.prepare(workload)
    takers = {c.name: c for c in prepared if c.seconds is not None}
    calls = {n: max(1, ceil(effort.least_sample / max(c.seconds, 1e-9))) for n, c in takers.items()}
    warm = {name: c.seconds < WARM_UP_BELOW for name, c in takers.items()}
    round_seconds = sum(c.seconds * (calls[name] + warm[name]) for name, c in takers.items())
    wished = int(effort.seconds / max(round_seconds, 1e-9))
    rounds = min(max(wished, effort.least_rounds), effort.most_rounds)
    top = Top(ceiling, workload)

    def sample(name: str, first: bool) -> float:
        if first or takers[name].seconds > CEILING_ABOVE:
            top.sample()
        return runner.sample(name, calls[name], warm[name])

    samples = in_turns(list(takers), rounds, sample)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    ours = next((medians[n] for n, c in takers.items() if c.library == "ours"), None)
    limits = top.record()
    contenders = []
    for name, times in samples.items():
        contenders.append({
            "name": name, "library": takers[name].library,
            "median": medians[name], "min": min(times), "rounds": rounds, "calls": calls[name],
            "ratio": medians[name] / ours if ours else None,
            **rates(workload, medians[name], limits),
        })  # fmt: skip
        here = samples.get(name.replace("before", "ours", 1))
        if takers[name].library == "before" and here:
            pairs = zip(times, here, strict=True)
            contenders[-1]["gain"] = statistics.median(before / now for before, now in pairs)
    return {
        "op": workload.op, "size": workload.size, "shape": workload.shape,
        "dtype": workload.dtype, "x_dtype": workload.x_dtype if workload.features else None,
        "with_dX": workload.with_dX, "flops": workload.flops, "bytes": workload.bytes,
        "ceiling": limits, "contenders": contenders,
        "left_out": {c.name: c.absent for c in prepared if c.seconds is None and not c.failed},
        "failed": {c.name: c.absent for c in prepared if c.failed},
    }  # fmt: skip


class Top:
    """The ceilings of one workload: the best of samples taken between its contenders.

    Whatever disturbs a sample lowers it, and a ceiling measured too low would flatter everybody.
    """

    def __init__(self, ceiling: Any, workload: Workload) -> None:
        self._ceiling, self._workload = ceiling, workload
        self._flops: list[float] = []
        self._bytes: list[float] = []

    def sample(self) -> None:
        w = self._workload
        if w.features and not w.entries:
            flops = self._ceiling.product(w.dtype, w.x_dtype, w.features, w.classes)
        else:
            flops = self._ceiling.arithmetic(w.dtype)
        self._flops.append(flops)
        self._bytes.append(self._ceiling.memory(self._workload.read, self._workload.written))

    def record(self) -> dict[str, Any]:
        """Return the best speeds; ``disturbed`` where half of the samples were far below them."""
        best = max(self._flops)
        return {
            "flops_per_second": best,
            "bytes_per_second": max(self._bytes),
            "disturbed": statistics.median(self._flops) < DISTURBED_BELOW * best,
        }


def rates(workload: Workload, seconds: float, top: dict[str, Any]) -> dict[str, Any]:
    """Return GFLOP/s, GB/s and the share of the ceiling of a call that took `seconds`.

    The ceiling is the less of what arithmetic and memory allow for this workload: its useful
    operations at the speed of multiply-adds in registers (or in tiles), its least memory traffic
    at the speed of reading (or of a copy, where much is written) with as many bytes in use.
    ``bound`` says which.
    """
    by_flops = workload.flops / top["flops_per_second"]
    by_bytes = workload.bytes / top["bytes_per_second"]
    return {
        "gflops": workload.flops / seconds / 1e9 if workload.flops else None,
        "gbps": workload.bytes / seconds / 1e9,
        "share": max(by_flops, by_bytes) / seconds,
        "bound": "arithmetic" if by_flops >= by_bytes else "memory",
    }
