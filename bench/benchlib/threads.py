"""Equal threads for every contender, and processes of their own.

Most libraries read their thread count from the environment, when they are imported; XLA reads
none but counts the CPUs the process may use. So `prepare` runs before any of them is imported:
it sets the variables and binds the process to exactly as many CPUs as it may have threads.
`apply` runs afterwards and tells those that can be told.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec

VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "SOFTMAX_EXT_NUM_THREADS",
)  # fmt: skip


def prepare(threads: int) -> None:
    """Bind this process to `threads` CPUs and set what libraries read when imported.

    Raises
    ------
    ValueError
        If the process may not use that many CPUs.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        if not 1 <= threads <= len(cpus):
            raise ValueError(f"threads: {threads} asked for, this process may use {len(cpus)} CPUs")
        os.sched_setaffinity(0, cpus[:threads])
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    # NumPy is to have the kernels that OpenBLAS itself would choose for this machine.
    os.environ.pop("OPENBLAS_CORETYPE", None)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"


def apply(threads: int) -> None:
    """Set the thread count of every library that is already imported."""
    if find_spec("threadpoolctl"):
        import threadpoolctl

        # Not used as a context manager: the limit stays for the life of the process.
        threadpoolctl.threadpool_limits(threads)
    for library in ("torch", "softmax_ext"):
        if library in sys.modules:
            sys.modules[library].set_num_threads(threads)


def found() -> dict[str, object]:
    """Return what the libraries themselves say about their threads, for the header."""
    counts: dict[str, object] = {}
    if hasattr(os, "sched_getaffinity"):
        counts["CPUs this process is bound to"] = sorted(os.sched_getaffinity(0))
    if find_spec("threadpoolctl"):
        import threadpoolctl

        for pool in threadpoolctl.threadpool_info():
            counts[f"{pool['internal_api']} ({pool['prefix']})"] = pool["num_threads"]
    for library in ("softmax_ext", "torch"):
        if library in sys.modules:
            counts[library] = sys.modules[library].get_num_threads()
    if "jax" in sys.modules:
        counts["jax"] = "the CPUs of the process"
    return counts


def process(checkout: str = "") -> ProcessPoolExecutor:
    """Return a new process of one worker, with the same CPUs and variables as this one.

    It imports softmax_ext from `checkout`, if one is given.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_import_from, initargs=(checkout,))


def _import_from(checkout: str) -> None:
    # Nothing has imported the package yet: neither a script nor this module does.
    if checkout:
        sys.path.insert(0, checkout)
