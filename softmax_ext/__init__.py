"""Softmax regression at the machine's speed.

Fused C kernels for NumPy arrays (a linear layer with softmax cross-entropy and its gradients in
one pass, softmax within 4 ULP), and a trainer on top. Symbols everywhere: N rows, D features,
C classes; X (N, D), W (D, C), b (C,), logits O = XW + b (N, C), losses in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._kernels import available_isas, compiled_isas
from .errors import DataFormatError, ModelFormatError
from .ops import Kernels, default_kernels
from .results import CrossEntropyResult, HessianProductResult, LinearCrossEntropyResult
from .threads import get_num_threads, num_threads, set_num_threads

if TYPE_CHECKING:
    from .config import show_config
    from .datasets import Blocks
    from .linear_probe import ProbeResult, probe
    from .model import SoftmaxModel
    from .solvers import FitResult, PathResult, fit_lbfgs, fit_path
    from .training import (
        History,
        HistoryRow,
        StopTraining,
        Trainer,
        TrainingEvent,
        TrainingInterrupted,
    )

__version__ = "0.1.0"

kernels = default_kernels()
linear = kernels.linear
softmax = kernels.softmax
log_softmax = kernels.log_softmax
logsumexp = kernels.logsumexp
cross_entropy = kernels.cross_entropy
cross_entropy_with_grad = kernels.cross_entropy_with_grad
linear_cross_entropy = kernels.linear_cross_entropy
linear_cross_entropy_with_grad = kernels.linear_cross_entropy_with_grad
linear_cross_entropy_hvp = kernels.linear_cross_entropy_hvp
predict = kernels.predict
predict_proba = kernels.predict_proba
entropy = kernels.entropy
kl_divergence = kernels.kl_divergence

_SUBMODULES = ("datasets", "plots", "reference", "solvers", "special")
# These need packages that not everybody has: `from softmax_ext import *` leaves them out.
_EXTRAS = ("dask", "torch")
# Imported when first used, so that `import softmax_ext` costs little more than `import numpy`.
_LAZY = {
    "Blocks": "datasets",
    "FitResult": "solvers",
    "History": "training",
    "PathResult": "solvers",
    "ProbeResult": "linear_probe",
    "HistoryRow": "training",
    "SoftmaxModel": "model",
    "StopTraining": "training",
    "Trainer": "training",
    "TrainingEvent": "training",
    "TrainingInterrupted": "training",
    "fit_lbfgs": "solvers",
    "fit_path": "solvers",
    "probe": "linear_probe",
    "show_config": "config",
}

__all__ = [
    "Blocks",
    "CrossEntropyResult",
    "DataFormatError",
    "FitResult",
    "HessianProductResult",
    "History",
    "HistoryRow",
    "Kernels",
    "LinearCrossEntropyResult",
    "ModelFormatError",
    "PathResult",
    "ProbeResult",
    "SoftmaxModel",
    "StopTraining",
    "Trainer",
    "TrainingEvent",
    "TrainingInterrupted",
    "available_isas",
    "compiled_isas",
    "cross_entropy",
    "cross_entropy_with_grad",
    "entropy",
    "fit_lbfgs",
    "fit_path",
    "get_num_threads",
    "kernels",
    "kl_divergence",
    "linear",
    "linear_cross_entropy",
    "linear_cross_entropy_hvp",
    "linear_cross_entropy_with_grad",
    "log_softmax",
    "logsumexp",
    "num_threads",
    "predict",
    "predict_proba",
    "probe",
    "set_num_threads",
    "show_config",
    "softmax",
    *_SUBMODULES,
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _SUBMODULES or name in _EXTRAS:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_EXTRAS})
