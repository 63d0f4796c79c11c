"""What `SoftmaxModel` does with `Blocks`: piece by piece, in order."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .arguments import IGNORED_LABEL, refuse_beside
from .foreign import weight_of

if TYPE_CHECKING:
    from .datasets._parts import Piece
    from .datasets.blocks import Blocks

_Result = TypeVar("_Result")


def predict(model: Any, blocks: Blocks) -> NDArray[Any]:
    """The labels of all rows."""
    return np.concatenate(list(_each(blocks, lambda piece: model.predict(piece.X))))


def predict_proba(model: Any, blocks: Blocks) -> NDArray[Any]:
    """The probabilities of all rows."""
    return np.concatenate(list(_each(blocks, lambda piece: model.predict_proba(piece.X))))


def accuracy(model: Any, blocks: Blocks, y: Any) -> float:
    """The share of right rows of all that count."""
    refuse_beside(blocks, y=y)

    def count(piece: Piece) -> tuple[int, int]:
        X = piece.X
        target = model._as_target(_labels(piece), X.shape[0])
        labels = target.argmax(axis=1) if target.ndim == 2 else target
        right = np.count_nonzero(model._predict_indices(model._flatten(X)) == labels)
        return int(right), int(np.count_nonzero(labels != IGNORED_LABEL))

    counts = np.sum(list(_each(blocks, count)), axis=0)
    return float(counts[0] / counts[1]) if counts[1] else math.nan


def loss(model: Any, kernels: Any, blocks: Blocks, y: Any, sample_weight: Any) -> float:
    """The mean loss, by the weights that the pieces have."""
    refuse_beside(blocks, y=y, sample_weight=sample_weight)

    def add(piece: Piece) -> tuple[float, float]:
        X = model._flatten(piece.X)
        target = model._as_target(_labels(piece), X.shape[0])
        options: dict[str, Any] = {"sample_weight": piece.sample_weight, "x_scale": model.x_scale}
        total = kernels.linear_cross_entropy(
            X, model.W, model.b, target, reduction="sum", **options
        )
        return float(total), weight_of(target, piece.sample_weight)

    total, weight = np.sum(list(_each(blocks, add)), axis=0)
    return float(total / weight) if weight else math.nan


def _each(blocks: Blocks, work: Callable[[Piece], _Result]) -> Iterator[_Result]:
    """What is made of each piece, in this thread; errors name the piece."""
    with contextlib.closing(blocks.pieces()) as pieces:
        for k, _, piece in pieces:
            yield blocks.naming(k, work, piece)


def _labels(piece: Piece) -> Any:
    if piece.y is None:
        raise ValueError("y: none came, labels or probabilities were wanted")
    return piece.y
