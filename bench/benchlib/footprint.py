"""What a job costs beside time, each contender in a process of its own: memory; and the import.

Memory is how far the process grows between the moment its inputs are there, in the form that the
library likes, and the end of the first call: the results and whatever else is held meanwhile.
"""

from __future__ import annotations

import gc
import mmap
import os
import statistics
import subprocess
import sys
import tracemalloc
from typing import Any

from benchlib import data, threads, timing
from benchlib.contenders import Contender, UnsuitedError, arrays, built, contenders_of
from benchlib.runners import Settings
from benchlib.workloads import Workload

IMPORT = "from time import perf_counter as t; s = t(); import {}; print(t() - s)"

LIBRARIES = ("ours", "reference", "numpy", "torch", "jax", "sklearn")

#: Calls after the first, of which the quickest counts.
CALLS = 3


def import_seconds(rounds: int) -> dict[str, float]:
    """Return the median seconds that importing NumPy and this package take, measured in turns.

    Timed inside the interpreter, so that its own start does not count.
    """

    def fresh(module: str, _: bool) -> float:
        command = [sys.executable, "-c", IMPORT.format(module)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    times = timing.in_turns(("numpy", "softmax_ext"), rounds, fresh)
    return {module: statistics.median(taken) for module, taken in times.items()}


def memory(workload: Workload, settings: Settings) -> list[dict[str, Any]]:
    """Return a dict for every contender.

    ``name``, ``bytes``, ``seconds`` (of the quickest later call) and ``workspace``: what Python
    allocates beyond the results (of ours, where all of it is told to Python; else None). Of ours
    only the best instruction set takes part, unless some are asked for. Without Linux's /proc
    nothing can be measured, and the list is empty.
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return []
    libraries = tuple(name for name in LIBRARIES if name in settings.libraries)
    settings = settings._replace(libraries=libraries)
    found: list[dict[str, Any]] = []
    for contender in contenders_of(workload, libraries, settings.isas):
        second = contender.name.startswith("ours [") and found and not settings.isas
        if contender.build is None or second:
            continue
        with threads.process() as pool:
            record = pool.submit(measure_here, workload, contender.name, settings).result()
        if record is not None:
            found.append(record)
    return found


def measure_here(workload: Workload, name: str, settings: Settings) -> dict[str, Any] | None:
    """Do the job in this process, which has done nothing yet."""
    (contender,) = [c for c in contenders_of(workload, settings.libraries) if c.name == name]
    threads.apply(settings.threads)
    try:
        # What the library allocates once, at its first call.
        small = workload.tiny()
        built(contender, small, data.make(small, settings.align)).run()
        inputs = data.make(workload, settings.align)
        before = from_now()
        tracemalloc.start()
        job = built(contender, workload, inputs)
        if contender.library == "jax":
            job.run()  # compiles
        if not _takes_arrays(contender):  # what was made was copies of the inputs
            before = from_now()
        result = job.run()
    except UnsuitedError:
        return None
    grown = max(peak() - before, mmap.PAGESIZE)
    traced = tracemalloc.get_traced_memory()[1] - sum(array.nbytes for array in arrays(result))
    tracemalloc.stop()
    del result
    return {
        "name": name,
        "bytes": grown,
        "seconds": min(timing.seconds(job.run) for _ in range(CALLS)),
        "workspace": traced if name.startswith("ours [") else None,
    }


def _takes_arrays(contender: Contender) -> bool:
    """Whether its building makes results and work arrays, and no copies of the inputs."""
    return contender.library in ("numpy", "reference") or contender.name.startswith("ours [")


def from_now() -> int:
    """Forget the largest size so far; return the size now."""
    gc.collect()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return _status("VmRSS")


def peak() -> int:
    """Return the largest size since then."""
    return _status("VmHWM")


def _status(name: str) -> int:
    """Return a size of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
