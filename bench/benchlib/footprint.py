"""What the package costs beside time: its import, and the workspace of a call.

Both are measured in fresh interpreters: an import happens once, and workspace is kept by the
process that has used it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchlib.workloads import Workload

IMPORT = "from time import perf_counter as t; s = t(); import {}; print(t() - s)"

#: The result arrays exist beforehand, so what the call allocates at most is its workspace.
WORKSPACE = """
import tracemalloc
import numpy as np
import softmax_ext
n, d, c, with_dX = {rows}, {features}, {classes}, {with_dX}
X, W, b = np.ones((n, d), "{x_dtype}"), np.ones((d, c), "{dtype}"), np.ones(c, "{dtype}")
y = np.zeros(n, np.int64)
out = np.empty_like(W), np.empty_like(b), np.empty((n, d), "{dtype}") if with_dX else None
kernels = softmax_ext.Kernels("{isa}")
softmax_ext.set_num_threads({threads})
tracemalloc.start()
kernels.linear_cross_entropy_with_grad(X, W, b, y, with_dX=with_dX, out=out)
print(tracemalloc.get_traced_memory()[1])
"""


def import_seconds(rounds: int) -> dict[str, float]:
    """Return the median seconds that importing NumPy and this package take, measured in turns.

    Timed inside the interpreter, so that its own start does not count.
    """
    times: dict[str, list[float]] = {"numpy": [], "softmax_ext": []}
    for _ in range(rounds):
        for module, taken in times.items():
            taken.append(_fresh(IMPORT.format(module)))
    return {module: statistics.median(taken) for module, taken in times.items()}


def workspace(workload: Workload, isa: str, threads: int) -> int:
    """Return the bytes that the gradient allocates at most beyond its results."""
    return int(_fresh(WORKSPACE.format(**vars(workload), isa=isa, threads=threads)))


def _fresh(code: str) -> float:
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
