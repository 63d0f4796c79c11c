"""Every contender at every workload, by pytest-benchmark: ``pytest bench``.

pytest-benchmark times contenders one after another; a machine that drifts favours some of them.
``bench/table.py`` times the same contenders in turns and is the one to compare by. This one is
for following a single contender, with pytest-benchmark's saving and comparing of runs.
"""

from __future__ import annotations

from typing import Any

import pytest
from benchlib import threads
from benchlib.contenders import UnsuitedError, ready
from benchlib.timing import Top, rates


# A peer's deprecation warning is no fault of ours.
@pytest.mark.filterwarnings("default")
def test_workload(
    benchmark: Any, workload: Any, contender: Any, inputs: Any, ceiling: Any, pytestconfig: Any
) -> None:
    data, right = inputs(workload)
    threads.apply(pytestconfig.getoption("bench_threads"))
    try:
        run = ready(contender, workload, data, right)
    except UnsuitedError as reason:
        pytest.skip(str(reason))
    benchmark.group = f"{workload.name} ({workload.shape}, {workload.dtype})"
    benchmark(run)
    if benchmark.enabled:
        limits = Top(ceiling, workload)
        for _ in range(9):
            limits.sample()
        top = limits.record()
        benchmark.extra_info.update(
            ceiling=top,
            threads=threads.found(),
            data=data.source,
            **rates(workload, benchmark.stats.stats.median, top),
        )
