"""One call of `Trainer.fit`, minibatch by minibatch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import checkpoint
from .callbacks import StopTraining, TrainingEvent, listeners
from .data import TrainingData, naming_validation_data
from .history import HistoryRow
from .interrupt import InterruptGuard, TrainingInterrupted
from .run import Run
from .settings import Settings

if TYPE_CHECKING:
    from ..results import LinearCrossEntropyResult
    from .block_data import BlockData


class Loop:
    """Brings a `Run` to the end of its epochs, however often it was interrupted before.

    Ctrl-C is held back wherever the run is between two whole steps, so that the model, the history
    and the checkpoint are always of one step.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        data: TrainingData | BlockData,
        validation: TrainingData | BlockData | None,
        report_divergence: Callable[[HistoryRow, str], None],
    ) -> None:
        self.settings = settings
        self.run = run
        self.data = data
        self.validation = validation
        self.report_divergence = report_divergence
        self.on_batch_end, self.on_epoch_end = listeners(settings.callbacks)
        self.guard = InterruptGuard()

    def run_epochs(self) -> None:
        """Train until the last epoch, a callback, an error or Ctrl-C."""
        with self.guard:
            try:
                while self.run.epoch < self.settings.epochs:
                    self._run_minibatches()
                    self._end_epoch()
                    for listener in self.on_epoch_end:
                        listener(self._epoch_event())
            except StopTraining:
                if self.run.batch:
                    self._write_checkpoint()
            except KeyboardInterrupt as interrupt:
                if self.settings.checkpoint is None:
                    raise
                raise self._interrupted() from interrupt

    def _run_minibatches(self) -> None:
        """Step through the epoch's minibatches, from the first that has not been done."""
        settings, run, data = self.settings, self.run, self.data
        W, b = run.model.W, run.model.b
        batch_size, rate = settings.batch_size, settings.rate(run.epoch + 1)
        result = None
        if settings.average and not run.batch:
            # Not in the last epoch only: resumed with other epochs this may be the last.
            run.sgd.start_averaging()
        started = time.perf_counter() - run.seconds
        minibatches = data.minibatches(run, batch_size, settings.shuffle)
        try:
            # A run that diverges is reported once, not by NumPy in every step.
            with np.errstate(over="ignore", invalid="ignore"), contextlib.closing(minibatches):
                for part, rows in minibatches:
                    result = part.problem.value_and_gradient(W, b, rows=rows, out=result)
                    if result.total_weight:
                        part.check_loss(float(result.loss))
                    else:
                        _set_to_zero(result)
                    self.guard.hold()
                    run.sgd.step((result.dW, result.db), rate)
                    run.count(result, part.n_counted(rows))
                    self.guard.release()
                    if self.on_batch_end:
                        run.seconds = time.perf_counter() - started
                        event = self._batch_event()
                        for listener in self.on_batch_end:
                            listener(event)
        finally:
            run.seconds = time.perf_counter() - started

    def _end_epoch(self) -> None:
        """Validate, add the epoch's row to the history, and write the checkpoint."""
        run = self.run
        if run.sgd.sums is not None and run.epoch + 1 == self.settings.epochs:
            self.guard.hold()
            run.sgd.finish_averaging(run.batch)
            self.guard.release()
        row = HistoryRow(
            run.epoch + 1,
            run.loss(),
            run.accuracy(),
            *self._validate(),
            run.seconds,
            _per_second(self.data.n_rows, run.seconds),
        )
        advice = "lower the learning rate" if run.weight_sum else "no row counts"
        self.guard.hold()
        run.history.append(row)
        run.start_next_epoch()
        self.guard.release()
        if not math.isfinite(row.train_loss) and not run.warned:
            run.warned = True
            self.report_divergence(row, advice)
        self._write_checkpoint()

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy of the validation data."""
        if self.validation is None:
            return math.nan, math.nan
        with naming_validation_data():
            return self.validation.score(self.run.model)

    def _batch_event(self) -> TrainingEvent:
        run = self.run
        n_done = min(run.batch * self.settings.batch_size, self.data.n_rows)
        return TrainingEvent(
            run.model,
            run.history,
            run.epoch + 1,
            self.settings.epochs,
            run.batch,
            self.data.n_batches,
            run.loss(),
            run.accuracy(),
            run.seconds,
            _per_second(n_done, run.seconds),
        )

    def _epoch_event(self) -> TrainingEvent:
        row = self.run.history[-1]
        return TrainingEvent(
            self.run.model,
            self.run.history,
            row.epoch,
            self.settings.epochs,
            self.data.n_batches,
            self.data.n_batches,
            row.train_loss,
            row.train_accuracy,
            row.seconds,
            row.examples_per_second,
        )

    def _write_checkpoint(self) -> None:
        """Write the checkpoint, if one is wanted and the weights are worth keeping."""
        path, run = self.settings.checkpoint, self.run
        if path is None or not run.model._is_finite():
            return
        checkpoint.write(path, self.settings, run)
        run.saved = (run.epoch, run.batch)

    def _interrupted(self) -> TrainingInterrupted:
        """Write a last checkpoint; return what tells where it is."""
        run, path, epochs = self.run, self.settings.checkpoint, self.settings.epochs
        problem = ""
        try:
            self._write_checkpoint()
        except OSError as error:
            problem = f" (none could be written now: {error})"
        place = f"interrupted in epoch {run.epoch + 1} of {epochs}"
        place += f", after {run.batch} of {self.data.n_batches} minibatches"
        if run.epoch and not run.batch:
            place = f"interrupted at the end of epoch {run.epoch} of {epochs}"
        if run.saved is None:
            return TrainingInterrupted(f"{place}; there is no checkpoint{problem}", None)
        epoch, batch = run.saved
        state = f"minibatch {batch} of epoch {epoch + 1}" if batch else f"the end of epoch {epoch}"
        if run.saved == (run.epoch, run.batch):
            state = "this step"
        message = f"{place}; the checkpoint of {state} is {path}{problem}"
        return TrainingInterrupted(message, path)


def _set_to_zero(result: LinearCrossEntropyResult) -> None:
    """Clear the gradients of a minibatch whose weights are all 0: they are means of nothing."""
    for gradient in (result.dW, result.db):
        if gradient is not None:
            gradient[...] = 0


def _per_second(n: int, seconds: float) -> float:
    return n / seconds if seconds else math.nan
