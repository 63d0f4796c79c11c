"""Every contender at every workload, by pytest-benchmark: ``pytest bench``.

pytest-benchmark times contenders one after another; a machine that drifts favours some of them.
``bench/table.py`` times the same contenders in turns and is the one to compare by. This one is
for following a single contender, with pytest-benchmark's saving and comparing of runs.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest
from benchlib import threads
from benchlib.contenders import UnsuitedError, ready
from benchlib.timing import rates


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
    top = None
    if ceiling is not None and benchmark.enabled:
        top = {
            "flops_per_second": median(ceiling.fma(workload.dtype) for _ in range(5)),
            "bytes_per_second": median(ceiling.copy(workload.bytes) for _ in range(5)),
        }
    benchmark(run)
    if benchmark.enabled:
        benchmark.extra_info.update(
            ceiling=top,
            threads=threads.found(),
            data=data.source,
            **rates(workload, benchmark.stats.stats.median, top),
        )
