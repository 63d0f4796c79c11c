"""Interleaved rounds: every contender once, then every contender again, A B C, B C A, C A B.

A machine drifts: its clock rises and falls, neighbours come and go. Timed one after another,
contenders would meet different machines; in rounds they meet the same one, and medians of many
rounds may be compared.
"""

from __future__ import annotations

import statistics
from math import ceil
from typing import Any, NamedTuple

from benchlib.runners import WARM_UP_BELOW, LocalRunner, ProcessRunner
from benchlib.workloads import Workload
from softmax_ext.ceiling import Ceiling


class Effort(NamedTuple):
    """How long to measure.

    Attributes
    ----------
    seconds : float
        Wished for per workload.
    least_rounds, most_rounds : int
        Bounds that win over `seconds`.
    least_sample : float
        Calls are repeated within a round until they take this long, in seconds.
    """

    seconds: float = 15.0
    least_rounds: int = 5
    most_rounds: int = 101
    least_sample: float = 2e-3


NORMAL = Effort()
QUICK = Effort(seconds=2.0, least_rounds=3, most_rounds=15)
SMOKE = Effort(seconds=0.0, least_rounds=2, most_rounds=2, least_sample=0.0)

#: The ceilings are measured once a round, and before every call that takes longer, in seconds.
CEILING_ABOVE = 0.02

#: A workload counts as disturbed when half of its ceilings are below this share of the best.
DISTURBED_BELOW = 0.9


def measure(
    workload: Workload,
    runner: LocalRunner | ProcessRunner,
    ceiling: Ceiling,
    effort: Effort = NORMAL,
) -> dict[str, Any]:
    """Time all contenders of one workload and return the record of it.

    Returns
    -------
    dict
        The workload's names, sizes and costs; ``ceiling`` with the best that was measured
        between the contenders (see `Top`); ``contenders``, a list of dicts with seconds per call
        (``median``, ``min``), ``rounds``, ``calls``, and what `_rates` derives; ``left_out``
        and ``failed``, the names and reasons of those that did not take part.
    """
    prepared = runner.prepare(workload)
    takers = {c.name: c for c in prepared if c.seconds is not None}
    calls = {
        name: max(1, ceil(effort.least_sample / max(c.seconds, 1e-9))) for name, c in takers.items()
    }
    warm = {name: c.seconds < WARM_UP_BELOW for name, c in takers.items()}
    round_seconds = sum(c.seconds * (calls[name] + warm[name]) for name, c in takers.items())
    wished = int(effort.seconds / max(round_seconds, 1e-9))
    rounds = min(max(wished, effort.least_rounds), effort.most_rounds)

    samples: dict[str, list[float]] = {name: [] for name in takers}
    top = Top(ceiling, workload)
    names = list(takers)
    for number in range(rounds):
        # Another one begins each round, lest the same be always the one after the ceilings.
        first = number % max(1, len(names))
        for place, name in enumerate(names[first:] + names[:first]):
            if place == 0 or takers[name].seconds > CEILING_ABOVE:
                top.sample()
            samples[name].append(runner.sample(name, calls[name], warm[name]))
    limits = top.record()
    record = {
        "op": workload.op,
        "size": workload.size,
        "shape": workload.shape,
        "dtype": workload.dtype,
        "x_dtype": workload.x_dtype if workload.features else None,
        "with_dX": workload.with_dX,
        "flops": workload.flops,
        "bytes": workload.bytes,
        "ceiling": limits,
        "contenders": [
            {
                "name": name,
                "library": takers[name].library,
                "median": statistics.median(times),
                "min": min(times),
                "rounds": rounds,
                "calls": calls[name],
                **rates(workload, statistics.median(times), limits),
            }
            for name, times in samples.items()
        ],
        "left_out": {c.name: c.absent for c in prepared if c.seconds is None and not c.failed},
        "failed": {c.name: c.absent for c in prepared if c.failed},
    }
    _compare(record["contenders"])
    return record


class Top:
    """The ceilings of one workload: the best of samples taken between its contenders.

    Whatever disturbs a sample lowers it, and a ceiling measured too low would flatter everybody.
    """

    def __init__(self, ceiling: Ceiling, workload: Workload) -> None:
        self._ceiling, self._workload = ceiling, workload
        self._flops: list[float] = []
        self._bytes: list[float] = []

    def sample(self) -> None:
        self._flops.append(self._ceiling.arithmetic(self._workload.dtype))
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
    operations at the speed of multiply-adds in registers, its least memory traffic at the speed
    of reading (or of a copy, where much is written) with as many bytes in use. ``bound`` says
    which.
    """
    by_flops = workload.flops / top["flops_per_second"]
    by_bytes = workload.bytes / top["bytes_per_second"]
    return {
        "gflops": workload.flops / seconds / 1e9 if workload.flops else None,
        "gbps": workload.bytes / seconds / 1e9,
        "share": max(by_flops, by_bytes) / seconds,
        "bound": "arithmetic" if by_flops >= by_bytes else "memory",
    }


def _compare(contenders: list[dict[str, Any]]) -> None:
    """Add ``ratio``: the time as a multiple of ours, the best instruction set's.

    Before the kernels are built there is no time of ours; then it is None.
    """
    ours = next((c["median"] for c in contenders if c["library"] == "ours"), None)
    for contender in contenders:
        contender["ratio"] = contender["median"] / ours if ours else None
