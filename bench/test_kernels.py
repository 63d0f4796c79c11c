"""Every job by our kernels, the NumPy reference and plain NumPy: ``pytest bench``.

pytest-benchmark times contenders one after another; a machine that drifts favours some of them.
``bench/table.py`` takes turns, and has the other libraries: compare by that. This one is for
following one contender over time, with pytest-benchmark's saving and comparing of runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from benchlib import data, threads, truth
from benchlib.contenders import UnsuitedError, contenders_of, ready
from benchlib.workloads import WORKLOADS, Workload

CASES = [
    pytest.param(workload, contender.name, id=f"{workload.name}-{contender.name}")
    for workload in WORKLOADS
    for contender in contenders_of(workload, ("ours", "reference", "numpy"))
]


@lru_cache(maxsize=1)
def inputs(workload: Workload) -> tuple[Any, Any]:
    made = data.make(workload)
    return made, truth.compute(workload, made)


@pytest.mark.parametrize(("workload", "name"), CASES)
def test_kernel(benchmark: Any, workload: Workload, name: str, pytestconfig: Any) -> None:
    workload = workload.tiny() if pytestconfig.getoption("bench_smoke") else workload
    threads.apply(pytestconfig.getoption("bench_threads"))
    benchmark.group = f"{workload.name} ({workload.shape}, {workload.dtype})"
    (contender,) = [c for c in contenders_of(workload, ("ours", "reference", "numpy"))
                    if c.name == name]  # fmt: skip
    try:
        made, right = inputs(workload)
        run = ready(contender, workload, made, lambda: right)
    except UnsuitedError as reason:
        pytest.skip(str(reason))
    benchmark(run)
