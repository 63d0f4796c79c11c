"""Whom a fit reports to: scikit-learn's callbacks, the user's, and the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..model import SoftmaxModel
from ..solvers import FitResult
from ..training import History, HistoryRow, StopTraining, TrainingEvent
from ..training.callbacks import listeners
from ._weights import scikit_learns_form

_Array: TypeAlias = NDArray[Any]
#: Called after each iteration of a solver.
Listener: TypeAlias = Callable[[FitResult], None]


@contextmanager
def fit_task(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Iterator[FitTask | None]:
    """Report to scikit-learn's callbacks, those of `set_callbacks`, that a fit begins and ends.

    Yields whom to tell of iterations, if they are to be told.
    """
    if not hasattr(estimator, "_init_callback_context"):  # scikit-learn 1.8
        yield None
        return
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    details = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    # One more than there are iterations, as in scikit-learn: the last is begun and not made.
    context = estimator._init_callback_context(max_subtasks=max(estimator.max_iter, 1) + 1)
    context.call_on_fit_task_begin(**details)
    by_iteration = estimator.solver == "lbfgs" and hasattr(estimator, "_skl_callbacks")
    yield FitTask(context, details) if by_iteration else None
    context.call_on_fit_task_end(**details, reconstruction_attributes={})


class FitTask:
    """Tells scikit-learn's callbacks that an iteration ends and the next one begins."""

    def __init__(self, context: Any, details: dict[str, Any]) -> None:
        self._context = context
        self._details = details
        self._step: Any = None

    def begin_step(self, W: _Array, b: _Array | None) -> None:
        self._step = self._context.subcontext(task_name="lbfgs-iter")
        self._step.call_on_fit_task_begin(
            **self._details, reconstruction_attributes=self._attributes(W, b)
        )

    def __call__(self, state: FitResult) -> None:
        self._step.call_on_fit_task_end(
            **self._details, reconstruction_attributes=self._attributes(state.W, state.b)
        )
        self.begin_step(state.W, state.b)

    def end_step(self) -> None:
        self._step.call_on_fit_task_end(estimator=self._details["estimator"])

    @staticmethod
    def _attributes(W: _Array, b: _Array | None) -> Callable[[], dict[str, _Array]]:
        return lambda: dict(zip(("coef_", "intercept_"), scikit_learns_form(W, b), strict=True))


def print_iteration(state: FitResult) -> None:
    print(
        f"iteration {state.nit}: objective {state.fun:.6g}, "
        f"largest entry of the gradient {state.grad_norm:.3g}",
        flush=True,
    )


class IterationEvents:
    """Tells callbacks of a solver's iterations, as `Trainer` does of epochs.

    Parameters
    ----------
    callbacks : sequence
        As of `Trainer`.
    X, y, weight : the rows, and their weights or None
        As the kernels take them.
    validation : tuple (X, y) or None
        What to measure besides.
    n_iterations : int
        How many there may be.
    model_options : dict
        As of `SoftmaxModel`.
    """

    def __init__(
        self,
        callbacks: Sequence[Any],
        X: Any,
        y: _Array,
        weight: NDArray[np.float64] | None,
        validation: tuple[Any, _Array] | None,
        n_iterations: int,
        model_options: dict[str, Any],
    ) -> None:
        on_batch_end, on_epoch_end = listeners(callbacks)
        self._callbacks = (*on_batch_end, *on_epoch_end)
        self._X, self._y = X, y
        self._total_weight = X.shape[0] if weight is None else float(weight.sum())
        self._validation = validation
        self._n_iterations = n_iterations
        self._model_options = model_options
        self._history = History()
        self._started = time.perf_counter()

    def __call__(self, state: FitResult) -> None:
        seconds = time.perf_counter() - self._started
        n = self._X.shape[0]
        model = SoftmaxModel(state.W, state.b, **self._model_options)
        validation_loss = validation_accuracy = math.nan
        if self._validation is not None:
            validation_loss = model.loss(*self._validation)
            validation_accuracy = model.accuracy(*self._validation)
        row = HistoryRow(
            state.nit,
            (state.fun - state.penalty) / self._total_weight,
            model.accuracy(self._X, self._y),
            validation_loss,
            validation_accuracy,
            seconds,
            n / seconds,
        )
        self._history.append(row)
        event = TrainingEvent(
            model, self._history, row.epoch, self._n_iterations, 1, 1, row.train_loss,
            row.train_accuracy, row.seconds, row.examples_per_second,
        )  # fmt: skip
        try:
            for call in self._callbacks:
                call(event)
        except StopTraining:
            raise StopIteration from None
        self._started = time.perf_counter()


def listeners_of(
    estimator: Any,
    X: Any,
    y: _Array,
    weight: NDArray[np.float64] | None,
    validation: tuple[Any, _Array] | None,
    callbacks: Sequence[Any],
) -> list[Listener]:
    """Return whom a `SoftmaxRegression` tells of a solver's iterations; its callbacks and more."""
    listeners: list[Listener] = [print_iteration] if estimator.verbose else []
    callbacks = (*estimator.callbacks, *callbacks)
    if callbacks:
        options = {"x_scale": estimator.x_scale, "kernels": estimator._kernels}
        events = IterationEvents(callbacks, X, y, weight, validation, estimator.max_iter, options)
        listeners.append(events)
    return listeners


class BestWeights:
    """A callback that keeps the weights of the lowest validation loss, and ends the training.

    Parameters
    ----------
    tol : float
        By how much a loss has to be lower to count.
    patience : int
        How many epochs in a row may pass without such a loss.
    """

    def __init__(self, tol: float, patience: int) -> None:
        self._tol = tol
        self._patience = patience
        self.weights: tuple[_Array, _Array | None]
        self._lowest = self._to_beat = math.inf
        self._in_vain = 0

    def on_epoch_end(self, event: TrainingEvent) -> None:
        loss = event.history[-1].validation_loss
        if loss < self._lowest or not hasattr(self, "weights"):
            self._lowest = loss
            model = event.model
            self.weights = model.W.copy(), None if model.b is None else model.b.copy()
        if loss < self._to_beat - self._tol:
            self._to_beat = loss
            self._in_vain = 0
            return
        self._in_vain += 1
        if self._in_vain >= self._patience:
            raise StopTraining
