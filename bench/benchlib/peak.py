"""Peak memory of a job beside its time, each contender in a process of its own.

What counts is how far the process grows between the moment its inputs are there, in the form that
the library likes, and the end of the first call: the results and whatever else is held meanwhile.
"""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchlib import data, report, threads
from benchlib.contenders import Contender, UnsuitedError, contenders_of
from benchlib.contenders.base import Job
from benchlib.runners import Settings
from benchlib.workloads import Workload

#: The jobs whose memory matters: many more logits than inputs.
WORKLOADS = ("linear_cross_entropy_with_grad/vocab-50k",)

LIBRARIES = ("ours", "reference", "numpy", "torch", "jax")

#: Calls after the first, of which the quickest counts.
CALLS = 3

Record = dict[str, Any]


def measure(workload: Workload, settings: Settings) -> list[Record]:
    """Return ``name``, ``bytes`` and ``seconds`` (of the quickest later call) of every contender.

    Of ours only the best instruction set takes part, unless some are asked for. Without Linux's
    /proc nothing can be measured, and the list is empty.
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return []
    libraries = tuple(name for name in LIBRARIES if name in settings.libraries)
    found: list[Record] = []
    for contender in contenders_of(workload, libraries, settings.isas):
        second = contender.name.startswith("ours [") and found and not settings.isas
        if contender.build is None or second:
            continue
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            record = pool.submit(_measure_here, workload, contender.name, settings).result()
        if record is not None:
            found.append(record)
    return found


def _measure_here(workload: Workload, name: str, settings: Settings) -> Record | None:
    """Do the job in this process, which has done nothing yet."""
    libraries = tuple(library for library in LIBRARIES if library in settings.libraries)
    (contender,) = [c for c in contenders_of(workload, libraries) if c.name == name]
    threads.apply(settings.threads)
    try:
        # What the library allocates once, at its first call.
        _build(contender, workload.tiny(), settings).run()
        inputs = data.make(workload, settings.align)
        before = _from_now()
        job = contender.build(workload, inputs)  # type: ignore[misc]
        if contender.library == "jax":
            job.run()  # compiles
        if not _takes_arrays(contender):  # what was made was copies of the inputs
            before = _from_now()
        result = job.run()
    except UnsuitedError:
        return None
    grown = max(_status("VmHWM") - before, mmap.PAGESIZE)
    del result
    return {"name": name, "bytes": grown, "seconds": min(_seconds(job) for _ in range(CALLS))}


def _seconds(job: Job) -> float:
    started = time.perf_counter()
    job.run()
    return time.perf_counter() - started


def _build(contender: Contender, workload: Workload, settings: Settings) -> Job:
    return contender.build(workload, data.make(workload, settings.align))  # type: ignore[misc]


def _takes_arrays(contender: Contender) -> bool:
    """Whether its building makes results and work arrays, and no copies of the inputs."""
    return contender.library in ("numpy", "reference") or contender.name.startswith("ours [")


def _from_now() -> int:
    """Forget the largest size so far; return the size now."""
    gc.collect()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Return a size of this process in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def markdown(found: dict[str, list[Record]]) -> str:
    """Return the records by workload as tables."""
    parts = []
    for name, records in found.items():
        if not records:
            continue
        (ours, *_) = records
        rows = [
            [
                r["name"],
                f"{r['bytes'] / 1e6:.0f} MB",
                f"{r['bytes'] / ours['bytes']:.2f}",
                report.seconds(r["seconds"]),
                f"{r['seconds'] / ours['seconds']:.2f}",
            ]
            for r in records
        ]
        headings = ["contender", "peak memory", "/ ours", "time", "/ ours"]
        parts += [f"`{name}`", report.table(headings, rows, text=1)]
    return "\n\n".join(parts)
