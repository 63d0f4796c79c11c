"""SciPy: the functions of `scipy.special`, a sparse X's two products; and ours by its names."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy import special

from benchlib.contenders import Builder
from benchlib.data import Data, UnsuitedError
from benchlib.workloads import Workload
from softmax_ext import special as face


def _by(module: Any, workload: Workload, data: Data) -> Any:
    return partial(getattr(module, workload.op), data.logits, axis=data.axis)


def _family(module: Any) -> dict[str, Builder]:
    return dict.fromkeys(("softmax", "log_softmax", "logsumexp"), partial(_by, module))


def _sparse_gradient(workload: Workload, data: Data) -> Any:
    """As a user of SciPy writes it: two products, and NumPy in place between them."""
    if not workload.entries:
        raise UnsuitedError("X is not sparse")
    X, W, b, y, n = data.X, data.W, data.b, data.y, workload.rows
    at = np.arange(n)

    def run() -> Any:
        logits = X @ W
        logits += b
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[at, y]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1, keepdims=True)
        loss = np.log(total).mean(dtype=np.float64) - picked.mean(dtype=np.float64)
        total *= n
        logits /= total
        logits[at, y] -= logits.dtype.type(1 / n)
        return loss, X.T @ logits, logits.sum(axis=0)

    return run


CONTENDERS: dict[str, dict[str, Builder]] = {
    "SciPy": {
        **_family(special),
        "entropy": lambda workload, data: lambda: special.entr(data.p).sum(axis=-1),
        "kl_divergence": lambda workload, data: (
            lambda: special.rel_entr(data.p, data.q).sum(axis=-1)
        ),
        "linear_cross_entropy_with_grad": _sparse_gradient,
    },
    # Ours again, as SciPy's user calls it: no peer.
    "ours, by softmax_ext.special": _family(face),
}
