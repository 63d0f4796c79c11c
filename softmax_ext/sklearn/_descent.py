"""Gradient descent for `SoftmaxRegression`, by `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..cli.progress import make_progress
from ..model import SoftmaxModel, kernels_or_default
from ..results import LinearCrossEntropyResult
from ..training import HistoryRow, Trainer
from ._scikit_learn import check_random_state

_Array: TypeAlias = NDArray[Any]

# With "auto", at least so many epochs, and as many as make so many steps.
_EPOCHS, _STEPS = 10, 1000


class EstimatorTrainer(Trainer):
    """A `Trainer` whose fits another one can continue, and which raises where that warns."""

    @property
    def run(self) -> Any:
        """Where the last fit ended: weights, momentum, epoch, order of the rows."""
        return self._current_run()

    def continue_from(self, run: Any, model: SoftmaxModel) -> None:
        """Let the next `fit`, of this model, go on where another trainer's ended."""
        self._continue(run, model)

    def _report_divergence(self, row: HistoryRow, advice: str) -> None:
        raise ValueError(
            f"Floating-point under-/overflow occurred at epoch #{row.epoch}. A lower learning "
            "rate, or scaling input data with StandardScaler or MinMaxScaler, might help."
        )


class WeighedSums:
    """Kernels for `Trainer` whose minibatches count by the weight of their rows.

    They give sums, where the trainer would have each minibatch's mean, which counts one of light
    rows as much as one of heavy rows.
    """

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.linear_cross_entropy = kernels.linear_cross_entropy
        self.predict = kernels.predict

    def linear_cross_entropy_with_grad(
        self, *args: Any, **options: Any
    ) -> LinearCrossEntropyResult:
        result: LinearCrossEntropyResult = self._kernels.linear_cross_entropy_with_grad(
            *args, reduction="sum", **options
        )
        mean = result.loss / result.total_weight if result.total_weight else math.nan
        return result._replace(loss=mean)


def planned_epochs(epochs: int | str, n: int, batch_size: int) -> int:
    """Return how many epochs there will be for n rows."""
    if isinstance(epochs, str):
        return max(_EPOCHS, -(-_STEPS // -(-n // batch_size)))
    return int(epochs)


def rate_schedule(
    schedule: str, learning_rate: float, power_t: float, epochs: int
) -> Callable[[int], float]:
    """Return the step size as a function of the epoch."""
    rate = float(learning_rate)
    if schedule == "invscaling":
        return lambda epoch: rate / epoch**power_t
    if schedule == "cosine":
        step = math.pi / epochs
        return lambda epoch: rate * (1 + math.cos(step * (min(epoch, epochs) - 1))) / 2
    return lambda _: rate


def make_trainer(
    estimator: Any,
    n: int,
    weight: NDArray[np.float64] | None,
    penalties: tuple[float, float],
    epochs: int,
    callbacks: Sequence[Any] = (),
    average: bool = False,
) -> EstimatorTrainer:
    """Return the trainer of an estimator's parameters.

    Parameters
    ----------
    estimator : SoftmaxRegression
        Whose parameters, and classes.
    n, weight
        Number and weights of the rows.
    penalties
        Of the sum of the losses; an L1 penalty is refused.
    epochs
        How many to train, those before among them.
    callbacks, average
        As of `Trainer`; callbacks beside those of the estimator.
    """
    l2, l1 = penalties
    if l1:
        raise ValueError(
            "Solver sgd supports only L2 penalties or none, and so does partial_fit: l1_ratio=0"
        )
    total_weight = n if weight is None else float(weight.sum())
    if len(estimator.classes_) == 2:
        l2 *= 2  # two columns of weights, -w/2 and w/2, have half of w's square
    planned = planned_epochs(estimator.epochs, n, estimator.batch_size)
    return EstimatorTrainer(
        epochs=epochs,
        batch_size=estimator.batch_size,
        learning_rate=rate_schedule(
            estimator.schedule, estimator.learning_rate, estimator.power_t, planned
        ),
        momentum=estimator.momentum,
        weight_decay=l2 / total_weight,
        decay_bias=False,
        shuffle=estimator.shuffle,
        seed=check_random_state(estimator.random_state).randint(np.iinfo(np.int32).max),
        callbacks=(*estimator.callbacks, *callbacks),
        average=average,
        label_smoothing=estimator.label_smoothing,
        kernels=None if weight is None else WeighedSums(kernels_or_default(estimator._kernels)),
    )


def descend(
    trainer: EstimatorTrainer,
    model: SoftmaxModel,
    X: Any,
    target: _Array,
    weight: NDArray[np.float64] | None,
    validation: tuple[Any, _Array] | None,
    verbose: int,
) -> None:
    """Train, and report on the terminal if that is wanted."""
    if weight is not None:
        # Then a full minibatch's sum has the mean gradient of all rows for expectation.
        weight = weight * (len(weight) / weight.sum() / trainer.batch_size)
    with make_progress() if verbose else nullcontext() as progress:
        if progress is not None:
            trainer.callbacks = (progress, *trainer.callbacks)
        trainer.fit(model, X, target, sample_weight=weight, validation_data=validation)
