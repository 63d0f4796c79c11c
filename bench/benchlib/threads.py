"""Equal threads for every contender.

Most libraries read their thread count from the environment, when they are imported; XLA reads
none but counts the CPUs the process may use. So `prepare` runs before any of them is imported:
it sets the variables and binds the process to exactly as many CPUs as it may have threads.
`apply` runs afterwards and tells those that can be told.
"""

from __future__ import annotations

import os
import sys

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "SOFTMAX_EXT_NUM_THREADS",
)


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
    if _can_import("threadpoolctl"):
        import threadpoolctl

        # Not used as a context manager: the limit stays for the life of the process.
        threadpoolctl.threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    ours = sys.modules.get("softmax_ext")
    if ours is not None:
        ours.set_num_threads(threads)


def found() -> dict[str, object]:
    """Return what the libraries themselves say about their threads, for the header."""
    counts: dict[str, object] = {}
    if hasattr(os, "sched_getaffinity"):
        counts["CPUs this process is bound to"] = sorted(os.sched_getaffinity(0))
    ours = sys.modules.get("softmax_ext")
    if ours is not None:
        counts["softmax_ext"] = ours.get_num_threads()
    if _can_import("threadpoolctl"):
        import threadpoolctl

        for pool in threadpoolctl.threadpool_info():
            counts[f"{pool['internal_api']} ({pool['prefix']})"] = pool["num_threads"]
    if "torch" in sys.modules:
        counts["torch"] = sys.modules["torch"].get_num_threads()
    if "jax" in sys.modules:
        counts["jax"] = "the CPUs of the process"
    return counts


def _can_import(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
