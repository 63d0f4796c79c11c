"""The data of a training, checked against the model before the first step."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_row_weights
from ..model import (
    IGNORED_LABEL,
    SoftmaxModel,
    accuracy_of,
    as_kernels_like,
    check_finite,
    check_labels,
    described,
    is_blocks,
)

if TYPE_CHECKING:
    from ..datasets.blocks import Blocks
    from .block_data import BlockData
    from .run import Run

#: Data in memory, and rows of it.
Minibatches: TypeAlias = "Generator[tuple[TrainingData, NDArray[np.intp]], None, None]"


class TrainingData:
    """Examples and labels as the kernels take them, checked against a model."""

    def __init__(
        self, model: SoftmaxModel, X: Any, y: Any, sample_weight: Any, batch_size: int
    ) -> None:
        self.X = as_kernels_like(model._flatten(X))
        self.n_rows: int = self.X.shape[0]
        self.n_batches = -(-self.n_rows // batch_size)
        self.target = model._as_target(y, self.n_rows)
        self.sample_weight = None
        self._some_ignored = check_labels(self.target, model.W.shape[1])
        if sample_weight is not None:
            self.sample_weight = as_row_weights("sample_weight", sample_weight, self.n_rows)
            sample_weight = np.asarray(sample_weight)
        # As they were given.
        self._described = self.target, sample_weight
        self._is_checked = False

    def check_loss(self, loss: float) -> None:
        """Refuse data that is not finite, where a loss that is not makes one look."""
        if not math.isfinite(loss) and not self._is_checked:
            check_finite(self.X, self.target)
            self._is_checked = True

    def minibatches(self, run: Run, batch_size: int, shuffle: bool) -> Minibatches:
        """Yield what is left of the running epoch: whose rows, and which."""
        order = run.draw_order(self.n_rows, shuffle)
        for start in range(run.batch * batch_size, self.n_rows, batch_size):
            yield self, order[start : start + batch_size]

    def score(self, model: SoftmaxModel, kernels: Any) -> tuple[float, float]:
        """Return the mean loss and the accuracy of a model."""
        W, b, x_scale = model.W, model.b, model.x_scale
        loss: float = kernels.linear_cross_entropy(self.X, W, b, self.target, x_scale=x_scale)
        accuracy = accuracy_of(kernels.predict(self.X, W, b, x_scale=x_scale), self.target)
        self.check_loss(loss)
        return loss, accuracy

    def n_counted(self, rows: NDArray[np.intp]) -> int:
        """Return how many of the rows have a label that counts."""
        if self._some_ignored:
            return int(np.count_nonzero(self.target[rows] != IGNORED_LABEL))
        return len(rows)

    def description(self) -> str:
        """Return what a resumed run recognises its data by; X itself is not read."""
        values = self.X if isinstance(self.X, np.ndarray) else self.X.data
        return described(values.dtype, self.X.shape, self._described)


def training_data(
    model: SoftmaxModel, X: Any, y: Any, sample_weight: Any, batch_size: int
) -> TrainingData | BlockData:
    """Check data against a model, be it in memory or in blocks."""
    if not is_blocks(X):
        return TrainingData(model, X, y, sample_weight, batch_size)
    from .block_data import BlockData

    return BlockData(model, X, y, sample_weight, batch_size)


def check_validation_data(
    model: SoftmaxModel, validation_data: tuple[ArrayLike, ArrayLike] | Blocks, batch_size: int
) -> TrainingData | BlockData:
    with naming_validation_data():
        X, y = (validation_data, None) if is_blocks(validation_data) else validation_data
        return training_data(model, X, y, None, batch_size)


@contextmanager
def naming_validation_data() -> Iterator[None]:
    """Say in errors whose X and y they are of."""
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise type(error)(f"validation_data: {error}") from error
