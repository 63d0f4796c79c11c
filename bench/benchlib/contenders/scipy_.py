"""SciPy: the functions of `scipy.special` and `scipy.stats` a user would call."""

from __future__ import annotations

from functools import partial

from scipy import special

from benchlib.contenders.base import Builder, Job, one
from benchlib.data import Data
from benchlib.workloads import Workload


def _softmax(workload: Workload, data: Data) -> Job:
    return Job(partial(special.softmax, data.logits, axis=-1), one)


def _log_softmax(workload: Workload, data: Data) -> Job:
    return Job(partial(special.log_softmax, data.logits, axis=-1), one)


def _logsumexp(workload: Workload, data: Data) -> Job:
    return Job(partial(special.logsumexp, data.logits, axis=-1), one)


def _entropy(workload: Workload, data: Data) -> Job:
    return Job(lambda: special.entr(data.p).sum(axis=-1), one)


def _kl_divergence(workload: Workload, data: Data) -> Job:
    return Job(lambda: special.rel_entr(data.p, data.q).sum(axis=-1), one)


CONTENDERS: dict[str, dict[str, Builder]] = {
    "SciPy": {
        "softmax": _softmax,
        "log_softmax": _log_softmax,
        "logsumexp": _logsumexp,
        "entropy": _entropy,
        "kl_divergence": _kl_divergence,
    }
}
