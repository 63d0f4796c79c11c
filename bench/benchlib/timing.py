"""Interleaved rounds: every contender once, then every contender again, A B C, B C A, C A B.

A machine drifts: its clock rises and falls, neighbours come and go. Timed one after another,
contenders would meet different machines; in rounds they meet the same one, and medians of many
rounds may be compared.
"""

from __future__ import annotations

import statistics
from math import ceil
from typing import Any, NamedTuple

from benchlib.ceiling import Ceiling
from benchlib.runners import WARM_UP_BELOW, LocalRunner, ProcessRunner
from benchlib.workloads import Workload


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


def measure(
    workload: Workload,
    runner: LocalRunner | ProcessRunner,
    ceiling: Ceiling | None,
    effort: Effort = NORMAL,
) -> dict[str, Any]:
    """Time all contenders of one workload and return the record of it.

    Returns
    -------
    dict
        The workload's names, sizes and costs; ``ceiling`` with the medians measured in the same
        rounds (None without a compiler); ``contenders``, a list of dicts with seconds per call
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
    fma: list[float] = []
    copy: list[float] = []
    names = list(takers)
    for number in range(rounds):
        if ceiling is not None:
            fma.append(ceiling.fma(workload.dtype))
            copy.append(ceiling.copy(workload.bytes))
        # Another one begins each round, lest the same be always the one after the ceilings.
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            samples[name].append(runner.sample(name, calls[name], warm[name]))

    top = None
    if ceiling is not None:
        top = {
            "flops_per_second": statistics.median(fma),
            "bytes_per_second": statistics.median(copy),
        }
    record = {
        "op": workload.op,
        "size": workload.size,
        "shape": workload.shape,
        "dtype": workload.dtype,
        "x_dtype": workload.x_dtype if workload.features else None,
        "with_dX": workload.with_dX,
        "flops": workload.flops,
        "bytes": workload.bytes,
        "ceiling": top,
        "contenders": [
            {
                "name": name,
                "library": takers[name].library,
                "median": statistics.median(times),
                "min": min(times),
                "rounds": rounds,
                "calls": calls[name],
                **rates(workload, statistics.median(times), top),
            }
            for name, times in samples.items()
        ],
        "left_out": {c.name: c.absent for c in prepared if c.seconds is None and not c.failed},
        "failed": {c.name: c.absent for c in prepared if c.failed},
    }
    _compare(record["contenders"])
    return record


def rates(workload: Workload, seconds: float, top: dict[str, float] | None) -> dict[str, Any]:
    """Return GFLOP/s, GB/s and the share of the ceiling of a call that took `seconds`.

    The ceiling is the less of what the arithmetic and the copy allow for this workload: its
    useful operations at the speed of the register-only loop, its least memory traffic at the
    speed of a copy with as many bytes in use. ``bound`` says which.
    """
    result: dict[str, Any] = {
        "gflops": workload.flops / seconds / 1e9 if workload.flops else None,
        "gbps": workload.bytes / seconds / 1e9,
        "share": None,
        "bound": None,
    }
    if top is not None:
        by_fma = workload.flops / top["flops_per_second"]
        by_copy = workload.bytes / top["bytes_per_second"]
        result["share"] = max(by_fma, by_copy) / seconds
        result["bound"] = "arithmetic" if by_fma >= by_copy else "copy"
    return result


def _compare(contenders: list[dict[str, Any]]) -> None:
    """Add ``ratio``: the time as a multiple of ours, the best instruction set's.

    Before the kernels are built there is no time of ours; then it is None.
    """
    ours = next((c["median"] for c in contenders if c["library"] == "ours"), None)
    for contender in contenders:
        contender["ratio"] = contender["median"] / ours if ours else None
