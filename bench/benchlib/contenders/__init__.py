"""Who takes part in a job: ours by instruction set, and a module for each library beside it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

import softmax_ext
from benchlib.data import Data, UnsuitedError
from benchlib.truth import Answer, check, compute
from benchlib.workloads import Workload

#: Libraries that may be missing: the package to import and the module of its contenders.
PEERS = {"scipy": "scipy_", "torch": "torch_", "jax": "jax_", "sklearn": "sklearn_"}

#: Every library, in the order of the table. "before" is the package as another checkout has it.
LIBRARIES = ("ours", "reference", "numpy", "bare", *PEERS)
OURS = ("ours", "before")


def arrays(result: Any) -> Answer:
    """Turn what a contender returned into NumPy arrays, whatever the library."""
    if isinstance(result, (tuple, list)):
        return tuple(array for part in result if part is not None for array in arrays(part))
    return (np.asarray(result.detach() if hasattr(result, "detach") else result),)


class Job(NamedTuple):
    """One contender made ready for one workload."""

    #: Does the work once; this and nothing else is timed.
    run: Callable[[], Any]
    #: Turns what `run` returned into arrays in the order of `truth.compute`.
    read: Callable[[Any], Answer] = arrays
    #: The right answer, where it is not that of `truth.compute`.
    answer: Callable[[], Answer] | None = None


#: Makes a job, or just its `run`.
Builder = Callable[[Workload, Data], Job | Callable[[], Any]]


class Contender(NamedTuple):
    """Somebody who can be asked to do a job, or the reason why they cannot."""

    name: str
    library: str
    build: Builder | None
    absent: str = ""


def isas() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the compiled instruction sets that can run here, and those that cannot."""
    able = tuple(softmax_ext.available_isas())
    return able, tuple(isa for isa in softmax_ext.compiled_isas() if isa not in able)


def contenders_of(
    workload: Workload, libraries: tuple[str, ...] = LIBRARIES, wanted_isas: tuple[str, ...] = ()
) -> list[Contender]:
    """Return everybody who does a job's operation, and the absent with the reason.

    Parameters
    ----------
    workload : Workload
    libraries : tuple of str
        Only these; the others are not even imported.
    wanted_isas : tuple of str
        Only these instruction sets of ours; none given: all.
    """
    found = []
    for library in libraries:
        if library in OURS:
            found += _ours(library, workload, wanted_isas)
            continue
        table, absent = _builders(library)
        if absent:
            found.append(Contender(library, library, None, absent))
        found += [
            Contender(name, "ours" if name.startswith("ours") else library, ops[workload.op])
            for name, ops in table.items()
            if workload.op in ops
        ]
    return found


def _ours(library: str, workload: Workload, wanted_isas: tuple[str, ...]) -> list[Contender]:
    from benchlib.contenders import ours

    able, unable = isas()
    found = []
    for isa in able + unable:
        name = f"{library} [{isa}]"
        if wanted_isas and isa not in wanted_isas:
            continue
        if isa in unable:
            found.append(Contender(name, library, None, f"this processor cannot run {isa}"))
            continue
        kernels = softmax_ext.Kernels(isa)
        found.append(Contender(name, library, ours.builders(kernels)[workload.op]))
        if workload.x_dtype != workload.dtype and workload.op.endswith("_with_grad"):
            build = ours.from_floats(kernels)
            found.append(Contender(f"{name}, X as floats", library, build))
    return found


@lru_cache
def _builders(library: str) -> tuple[dict[str, dict[str, Builder]], str]:
    """Return a library's contenders by name, or the reason why there are none."""
    if library == "reference":
        from benchlib.contenders import ours

        return {"reference": ours.builders(softmax_ext.reference)}, ""
    if library in ("numpy", "bare"):
        numpy_ = import_module("benchlib.contenders.numpy_")
        return (numpy_.CONTENDERS if library == "numpy" else numpy_.BARE), ""
    with warnings.catch_warnings():
        # What a peer has to say about itself when imported is not the benchmark's affair.
        warnings.simplefilter("ignore")
        try:
            import_module(library)
        except ImportError:
            return {}, f"{library} is not installed"
        return import_module(f"benchlib.contenders.{PEERS[library]}").CONTENDERS, ""


def ready(
    contender: Contender,
    workload: Workload,
    data: Data,
    right: Callable[[], Answer] | None = None,
) -> Callable[[], Any]:
    """Build the contender's job, check its first answer and return the function to time.

    Raises
    ------
    UnsuitedError
        If the contender cannot do this job here.
    AssertionError
        If its answer is wrong.
    """
    job = built(contender, workload, data)
    answer = job.answer or right or (lambda: compute(workload, data))
    check(contender.name, workload, job.read(job.run()), answer())
    gc.collect()
    return job.run


def built(contender: Contender, workload: Workload, data: Data) -> Job:
    if contender.build is None:
        raise UnsuitedError(contender.absent)
    job = contender.build(workload, data)
    return job if isinstance(job, Job) else Job(job)


def dense(workload: Workload) -> None:
    """Refuse a sparse X."""
    if workload.entries:
        raise UnsuitedError("X is sparse")


def next_batch(data: Data) -> Callable[[], Any]:
    """Return a function that gives the next minibatch's rows, for ever."""
    return cycle(data.batches).__next__
