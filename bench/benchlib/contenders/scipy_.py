"""SciPy: the functions of `scipy.special` a user would call; and ours of the same names."""

from __future__ import annotations

from functools import partial
from typing import Any

from scipy import special

from benchlib.contenders.base import Builder, Job, classes_along, one, one_from
from benchlib.data import Data
from benchlib.workloads import Workload
from softmax_ext import special as face


def _family(module: Any) -> dict[str, Builder]:
    """softmax, log_softmax and logsumexp of SciPy or of our face of it."""

    def builder(op: str) -> Builder:
        def build(workload: Workload, data: Data) -> Job:
            x, axis = classes_along(workload, data)
            return Job(partial(getattr(module, op), x, axis=axis), one_from(workload))

        return build

    return {op: builder(op) for op in ("softmax", "log_softmax", "logsumexp")}


def _entropy(workload: Workload, data: Data) -> Job:
    return Job(lambda: special.entr(data.p).sum(axis=-1), one)


def _kl_divergence(workload: Workload, data: Data) -> Job:
    return Job(lambda: special.rel_entr(data.p, data.q).sum(axis=-1), one)


CONTENDERS: dict[str, dict[str, Builder]] = {
    "SciPy": {
        **_family(special),
        "entropy": _entropy,
        "kl_divergence": _kl_divergence,
    },
    # Ours again, as SciPy's user calls it: no peer.
    "ours, by softmax_ext.special": _family(face),
}
