"""Who takes part: the one list both the table and the pytest benchmarks use."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import softmax_ext
from benchlib import truth
from benchlib.contenders import bare, kernels, numpy_
from benchlib.contenders.base import Builder, UnsuitedError
from benchlib.data import Data
from benchlib.workloads import Workload
from softmax_ext import reference

__all__ = ["LIBRARIES", "Contender", "UnsuitedError", "contenders_of", "isas", "ready"]

#: Libraries that may be missing: the package to import and the module of its contenders.
PEERS = {"scipy": "scipy_", "torch": "torch_", "jax": "jax_", "sklearn": "sklearn_"}

#: Every library, in the order of the table.
LIBRARIES = ("ours", "reference", "numpy", "bare", *PEERS)


@dataclass(frozen=True)
class Contender:
    """Somebody who can be asked to do a workload.

    Attributes
    ----------
    name : str
        What the table calls it.
    library : str
        One of `LIBRARIES`.
    build : callable or None
        Makes the job; None where the contender cannot take part.
    absent : str
        Why it cannot take part.
    """

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
    """Return everybody who does `workload`'s operation, and the absent with the reason.

    Parameters
    ----------
    workload : Workload
    libraries : tuple of str
        Only these; the others are not even imported.
    wanted_isas : tuple of str
        Only these instruction sets of ours; none given: all.
    """
    found = _ours(workload, wanted_isas) if "ours" in libraries else []
    for library in libraries:
        if library != "ours":
            found += _others(library, workload)
    return found


def _ours(workload: Workload, wanted_isas: tuple[str, ...]) -> list[Contender]:
    able, unable = isas()
    found = []
    for isa in able + unable:
        if wanted_isas and isa not in wanted_isas:
            continue
        name = f"ours [{isa}]"
        if isa in unable:
            found.append(Contender(name, "ours", None, f"this processor cannot run {isa}"))
            continue
        handle = softmax_ext.Kernels(isa)
        found.append(Contender(name, "ours", kernels.builders(handle)[workload.op]))
        if workload.x_dtype == "uint8" and workload.op in kernels.from_floats(handle):
            build = kernels.from_floats(handle)[workload.op]
            found.append(Contender(f"ours [{isa}], X as floats", "ours", build))
    return found


def _others(library: str, workload: Workload) -> list[Contender]:
    table, absent = _builders(library)
    if absent:
        return [Contender(library, library, None, absent)]
    return [
        Contender(name, "ours" if name.startswith("ours") else library, ops[workload.op])
        for name, ops in table.items()
        if workload.op in ops
    ]


@lru_cache
def _builders(library: str) -> tuple[dict[str, dict[str, Builder]], str]:
    """Return a library's contenders by name, or the reason why there are none."""
    if library == "reference":
        return {"reference": kernels.builders(reference)}, ""
    if library in ("numpy", "bare"):
        return (numpy_ if library == "numpy" else bare).CONTENDERS, ""
    with warnings.catch_warnings():
        # What a peer has to say about itself when imported is not the benchmark's affair.
        warnings.simplefilter("ignore")
        try:
            import_module(library)
        except ImportError:
            return {}, f"{library} is not installed"
        return import_module(f"benchlib.contenders.{PEERS[library]}").CONTENDERS, ""


def ready(
    contender: Contender, workload: Workload, data: Data, right: Callable[[], truth.Answer]
) -> Callable[[], Any]:
    """Build the contender's job, check its first answer and return the function to time.

    Raises
    ------
    UnsuitedError
        If the contender cannot do this workload here.
    AssertionError
        If its answer is wrong.
    """
    if contender.build is None:
        raise UnsuitedError(contender.absent)
    job = contender.build(workload, data)
    answer = job.answer() if job.answer else right()
    truth.check(contender.name, workload, job.read(job.run()), answer)
    gc.collect()
    return job.run
