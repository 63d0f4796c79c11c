"""The data of a training, checked against the model before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import IGNORED_LABEL, as_row_weights
from ..foreign import problem_of
from ..model import SoftmaxModel, as_kernels_like, check_finite, described, is_blocks

if TYPE_CHECKING:
    from ..datasets.blocks import Blocks
    from .block_data import BlockData
    from .run import Run

#: Data in memory, and rows of it.
Minibatches: TypeAlias = "Generator[tuple[TrainingData, NDArray[np.intp]], None, None]"


class TrainingData:
    """Examples and labels as the kernels take them, checked against a model."""

    def __init__(
        self,
        model: SoftmaxModel,
        X: Any,
        y: Any,
        *,
        batch_size: int,
        kernels: Any,
        sample_weight: Any = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.X = as_kernels_like(model._flatten(X))
        self.n_rows: int = self.X.shape[0]
        self.n_batches = -(-self.n_rows // batch_size)
        self.target = model._as_target(y, self.n_rows)
        weights = None
        if sample_weight is not None:
            weights = as_row_weights("sample_weight", sample_weight, self.n_rows)
            sample_weight = np.asarray(sample_weight)
        #: What the kernels are asked.
        self.problem = problem_of(
            kernels, self.X, self.target, model.W.shape[1], sample_weight=weights,
            label_smoothing=label_smoothing, x_scale=model.x_scale,
        )  # fmt: skip
        self.problem.check()
        self._some_ignored = self.target.ndim == 1 and bool((self.target == IGNORED_LABEL).any())
        # As they were given.
        self._described = self.target, sample_weight
        self._is_checked = False
        #: Of a piece of several: calls a function of it, and names it in errors.
        self.naming: Callable[[Callable[[TrainingData], None], TrainingData], None] | None = None

    def check_loss(self, loss: float) -> None:
        """Refuse data that is not finite, where a loss that is not makes one look."""
        if not math.isfinite(loss) and not self._is_checked:
            if self.naming is None:
                self._check_finite()
            else:
                self.naming(TrainingData._check_finite, self)
            self._is_checked = True

    def _check_finite(self) -> None:
        check_finite(self.X, self.target)

    def minibatches(self, run: Run, batch_size: int, shuffle: bool) -> Minibatches:
        """Yield what is left of the running epoch: whose rows, and which."""
        order = run.draw_order(self.n_rows, shuffle)
        for start in range(run.batch * batch_size, self.n_rows, batch_size):
            yield self, order[start : start + batch_size]

    def score(self, model: SoftmaxModel) -> tuple[float, float]:
        """Return the mean loss and the accuracy of a model."""
        loss, n_correct, _ = self.problem.evaluate(model.W, model.b)
        self.check_loss(loss)
        n_counted = self.n_counted()
        return loss, n_correct / n_counted if n_counted else math.nan

    def n_counted(self, rows: NDArray[np.intp] | None = None) -> int:
        """Return how many of the rows, or of all, have a label that counts."""
        if self._some_ignored:
            target = self.target if rows is None else self.target[rows]
            return int(np.count_nonzero(target != IGNORED_LABEL))
        return self.n_rows if rows is None else len(rows)

    def description(self) -> str:
        """Return what a resumed run recognises its data by; X itself is not read."""
        values = self.X if isinstance(self.X, np.ndarray) else self.X.data
        return described(values.dtype, self.X.shape, self._described)


def training_data(model: SoftmaxModel, X: Any, y: Any, **options: Any) -> TrainingData | BlockData:
    """Check data against a model, be it in memory or in blocks; options as of `TrainingData`."""
    if not is_blocks(X):
        return TrainingData(model, X, y, **options)
    from .block_data import BlockData

    return BlockData(model, X, y, **options)


def check_validation_data(
    model: SoftmaxModel,
    validation_data: tuple[ArrayLike, ArrayLike] | Blocks,
    batch_size: int,
    kernels: Any,
) -> TrainingData | BlockData:
    with naming_validation_data():
        X, y = (validation_data, None) if is_blocks(validation_data) else validation_data
        return training_data(model, X, y, batch_size=batch_size, kernels=kernels)


@contextmanager
def naming_validation_data() -> Iterator[None]:
    """Say in errors whose X and y they are of."""
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise type(error)(f"validation_data: {error}") from error
