"""What the kernels return: named tuples, and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class CrossEntropyResult(NamedTuple):
    """Loss and its gradient with respect to the logits."""

    #: The reduced loss in nats (a float), or the rows' losses with ``reduction="none"``.
    loss: float | NDArray[Any]
    #: Gradient of the reduced loss, or of the sum with ``reduction="none"``, in the logits' shape.
    dlogits: NDArray[np.floating[Any]]


class LinearCrossEntropyResult(NamedTuple):
    """Loss of a linear layer followed by cross-entropy, and its gradients."""

    #: The reduced loss in nats (a float), or the rows' losses with ``reduction="none"``.
    loss: float | NDArray[Any]
    #: Gradient with respect to W, shape (D, C).
    dW: NDArray[np.floating[Any]]
    #: Gradient with respect to b, shape (C,); None without a bias.
    db: NDArray[np.floating[Any]] | None
    #: Gradient with respect to X (or X[rows]), shape (n, D); None unless asked for.
    dX: NDArray[np.floating[Any]] | None
    #: The weights of the rows that count, added up, which is the denominator of the mean.
    total_weight: float
    #: How many of those rows have their label as the first largest logit.
    n_correct: int


class HessianProductResult(NamedTuple):
    """The Hessian of the loss of a linear layer with cross-entropy, times a direction (V, v)."""

    #: The part that belongs to W, shape (D, C).
    dW: NDArray[np.floating[Any]]
    #: The part that belongs to b, shape (C,); None without a bias.
    db: NDArray[np.floating[Any]] | None
