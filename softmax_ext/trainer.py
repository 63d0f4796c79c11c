"""Minibatch stochastic gradient descent: `Trainer`, its `History`, and its checkpoints.

The trainer is thin. It draws the permutation, has the kernels compute each minibatch's loss and
gradient, steps, and records. Epochs are counted from 1 everywhere: in the history, in events, and
where a learning-rate schedule is called.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _files, _npz
from .arguments import as_weights
from .errors import ModelFormatError
from .model import (
    IGNORED_LABEL,
    OPTIONAL_ENTRIES,
    REQUIRED_ENTRIES,
    SoftmaxModel,
    accuracy_of,
    as_kernels_like,
    check_finite,
    check_labels,
    kernels_or_default,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .results import LinearCrossEntropyResult

_FILE_KIND = "softmax_ext checkpoint"
_FILE_VERSION = 1


class HistoryRow(NamedTuple):
    """What was measured in one epoch."""

    #: The epoch, counted from 1.
    epoch: int
    #: Mean loss in nats over the epoch's minibatches, each with the weights before its step.
    train_loss: float
    #: Share of the rows that were predicted right, likewise during the epoch.
    train_accuracy: float
    #: Mean loss of the validation data at the end of the epoch; nan without such data.
    validation_loss: float
    #: Accuracy of the validation data, likewise.
    validation_accuracy: float
    #: Wall time of the epoch's minibatches, without the validation.
    seconds: float
    #: Rows trained on per second of it.
    examples_per_second: float


class History(Sequence[HistoryRow]):
    """The rows of a training, one for each epoch: a sequence of `HistoryRow`.

    Each column is also an attribute, an ndarray: ``epoch``, ``train_loss``, ``train_accuracy``,
    ``validation_loss``, ``validation_accuracy``, ``seconds``, ``examples_per_second``.

    Parameters
    ----------
    rows : iterable of HistoryRow, optional
        What it starts with.

    Examples
    --------
    >>> history = History([HistoryRow(1, 0.5, 0.75, float("nan"), float("nan"), 2.0, 500.0)])
    >>> history.train_loss
    array([0.5])
    >>> history[-1].train_accuracy
    0.75
    >>> history
    epoch  train_loss  train_accuracy  seconds  examples_per_second
        1      0.5000          0.7500     2.00                  500
    """

    epoch: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]
    seconds: NDArray[np.float64]
    examples_per_second: NDArray[np.float64]

    def __init__(self, rows: Sequence[HistoryRow] = ()) -> None:
        self._rows = list(rows)

    def append(self, row: HistoryRow) -> None:
        """Add the row of another epoch."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> HistoryRow: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> HistoryRow | History:
        return History(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name not in HistoryRow._fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        values = [getattr(row, name) for row in self._rows]
        return np.array(values, np.int64 if name == "epoch" else np.float64)

    def __repr__(self) -> str:
        columns = []
        for name, form in _COLUMN_FORMATS.items():
            if name.startswith("validation") and np.isnan(getattr(self, name)).all():
                continue
            cells = [name, *(format(getattr(row, name), form) for row in self._rows)]
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
        return "\n".join("  ".join(line) for line in zip(*columns, strict=True))

    def plot(self) -> Figure:
        """Plot loss and accuracy over the epochs; needs matplotlib.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from . import plots

        return plots.plot_history(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows under a line of column names, as CSV; what was not measured is nan."""
        import csv

        with _files.writing_text(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HistoryRow._fields)
            writer.writerows(self._rows)


_COLUMN_FORMATS = {
    "epoch": "d",
    "train_loss": ".4f",
    "train_accuracy": ".4f",
    "validation_loss": ".4f",
    "validation_accuracy": ".4f",
    "seconds": ".2f",
    "examples_per_second": ".0f",
}


class TrainingEvent(NamedTuple):
    """What a callback is told, at the end of a minibatch or of an epoch."""

    #: The model, with the weights after the last step. Not to be changed during the call.
    model: SoftmaxModel
    #: The finished epochs; at an epoch's end the last row is that epoch's.
    history: History
    #: The epoch, counted from 1.
    epoch: int
    #: How many epochs there will be.
    epochs: int
    #: Minibatches done in this epoch.
    batch: int
    #: How many minibatches the epoch has.
    batches: int
    #: Mean training loss over the epoch so far, in nats.
    loss: float
    #: Share of the rows that were predicted right, likewise.
    accuracy: float
    #: Seconds the epoch has taken so far.
    seconds: float
    #: Rows trained on per second of it.
    examples_per_second: float


class StopTraining(Exception):  # noqa: N818  (a request, as StopIteration is)
    """Raised by a callback: `Trainer.fit` ends here and returns the history."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during a `Trainer.fit` with a checkpoint; the message says where that lies."""

    def __init__(self, message: str, checkpoint: str | None) -> None:
        super().__init__(message)
        #: The checkpoint file to resume from; None if there is none.
        self.checkpoint = checkpoint


class Trainer:
    """Train a `SoftmaxModel` by minibatch stochastic gradient descent.

    Parameters
    ----------
    epochs : int, optional
        How many times to go through the data.
    batch_size : int, optional
        Rows of a minibatch; the last one of an epoch has what is left.
    learning_rate : float or callable, optional
        Step size, or a schedule ``f(epoch) -> float``, called once in each epoch (1, 2, ...).
    momentum : float, optional
        mu in ``v = mu v + g``, ``W = W - learning_rate v``, as in PyTorch's SGD; v starts at 0.
    weight_decay : float, optional
        ``g`` is the gradient plus ``weight_decay`` times the parameter; as in PyTorch's SGD the
        bias decays too, unless `decay_bias` is False.
    shuffle : bool, optional
        Go through the rows in a new random order in each epoch; otherwise as they come.
    seed : int or None, optional
        Of the order: in each epoch the next ``numpy.random.default_rng(seed).permutation(N)``.
        None: a different one in each run.
    callbacks : sequence, optional
        Each one an object with a method ``on_epoch_end(event)``, ``on_batch_end(event)`` or both,
        or else a callable, called at the end of each epoch. `event` is a `TrainingEvent`. One may
        raise `StopTraining`: `fit` then returns; an epoch stopped halfway gets no row.
    checkpoint : str or path-like, optional
        A file, replaced atomically at the end of each epoch, before the callbacks are called, and
        on Ctrl-C. `Trainer.resume` goes on from it. Once weights are not finite it stays as is.
    kernels : object with the kernels' functions, optional
        What computes. None: the model's kernel set.
    average : bool, optional
        End with the mean of the weights after each step of the last epoch (Polyak and Ruppert)
        instead of the last ones, which swing with the last few minibatches. What was recorded
        during training stays as it was; the last validation sees the mean.
    label_smoothing : float, optional
        As in the kernels: the part of each training target that is spread over the classes.
        The validation loss knows nothing of it.
    decay_bias : bool, optional
        Whether `weight_decay` is applied to the bias too.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range.

    References
    ----------
    .. [1] B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging",
       SIAM J. Control Optim. 30 (1992).

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], np.float32)
    >>> y = np.array([1, 0, 1, 0])
    >>> model = sx.SoftmaxModel.zeros(2, 2)
    >>> history = sx.Trainer(epochs=20, batch_size=2).fit(model, X, y)
    >>> len(history), model.accuracy(X, y)
    (20, 1.0)
    """

    def __init__(
        self,
        *,
        epochs: int = 10,
        batch_size: int = 256,
        learning_rate: float | Callable[[int], float] = 0.1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        shuffle: bool = True,
        seed: int | None = 0,
        callbacks: Sequence[Any] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        kernels: Any = None,
        average: bool = False,
        label_smoothing: float = 0.0,
        decay_bias: bool = True,
    ) -> None:
        self.epochs = _check_int("epochs", epochs, 0)
        self.batch_size = _check_int("batch_size", batch_size, 1)
        self.learning_rate = _check_learning_rate(learning_rate)
        self.momentum = _check_number("momentum", momentum)
        self.weight_decay = _check_number("weight_decay", weight_decay)
        self.shuffle = bool(shuffle)
        self.seed = None if seed is None else _check_int("seed", seed, 0)
        self.callbacks = tuple(callbacks)
        listeners(self.callbacks)  # refuses what cannot be called
        self.checkpoint = None if checkpoint is None else os.fspath(checkpoint)
        self.kernels = kernels
        self.average = bool(average)
        self.label_smoothing = _check_number("label_smoothing", label_smoothing)
        if self.label_smoothing > 1:
            raise ValueError(f"label_smoothing: {label_smoothing}, wanted a number from 0 to 1")
        self.decay_bias = bool(decay_bias)
        self._run: _Run | None = None
        self._resumed = False

    @property
    def model(self) -> SoftmaxModel:
        """The model of the last `fit`, or after `resume` that of the checkpoint."""
        return self._current_run().model

    @property
    def history(self) -> History:
        """The history of the last `fit`, also of one that was interrupted, or of the checkpoint."""
        return self._current_run().history

    def _current_run(self) -> _Run:
        if self._run is None:
            raise AttributeError("this Trainer has not trained a model yet")
        return self._run

    def fit(
        self,
        model: SoftmaxModel,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> History:
        """Train a model, in place.

        Parameters
        ----------
        model : SoftmaxModel
            What to train, from the weights it has. (After `resume`: from those of the checkpoint.)
        X : array_like, shape (N, D) or (N, h, w, ...)
            Examples or images: float32, float64 or uint8; other integers are converted once.
            Or a sparse matrix (N, D) in CSR form.
        y : array_like, shape (N,) or (N, C)
            Class labels, or probabilities of a floating dtype, as `SoftmaxModel` takes them.
        sample_weight : array_like, shape (N,), optional
            Weight of each row in the loss and in its minibatch's mean, at least 0.
        validation_data : tuple (X, y), optional
            What to measure loss and accuracy on at the end of each epoch.

        Returns
        -------
        History
            A row for each epoch, those before a resumption among them.

        Raises
        ------
        ValueError, TypeError, IndexError
            If the arguments do not fit each other, or the model's weights or the sample weights
            are not finite; the model has not been changed then. Also if the data is not what the
            resumed run was trained on. For NaN or infinity in X or in probabilities as soon as a
            loss shows it; the model is left as the last whole step left it.
        KeyboardInterrupt
            On Ctrl-C; the model is left as the last whole step left it. With a checkpoint it is
            a `TrainingInterrupted`, and the checkpoint holds that very step.
        OSError
            If a checkpoint cannot be written; the one before is still there.

        Warns
        -----
        RuntimeWarning
            Once, if an epoch's loss is not finite.
        """
        data = _Data(model, X, y, sample_weight, self.batch_size)
        if data.n_rows == 0:
            raise ValueError("X: no rows, wanted at least one to train on")
        validation = None
        if validation_data is not None:
            validation = _check_validation_data(model, validation_data, self.batch_size)
        kernels = kernels_or_default(model.kernels if self.kernels is None else self.kernels)
        on_batch_end, on_epoch_end = listeners(self.callbacks)
        run = self._begin(model, data)

        with _InterruptGuard() as guard:
            try:
                while run.epoch < self.epochs:
                    self._run_minibatches(run, data, kernels, guard, on_batch_end)
                    self._end_epoch(run, data, validation, kernels, guard)
                    for listener in on_epoch_end:
                        listener(self._epoch_event(run, data))
            except StopTraining:
                if run.batch:
                    self._write_checkpoint(run)
            except KeyboardInterrupt as interrupt:
                if self.checkpoint is None:
                    raise
                raise self._interrupted(run, data) from interrupt
        return run.history

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        epochs: int | None = None,
        learning_rate: float | Callable[[int], float] | None = None,
        callbacks: Sequence[Any] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        kernels: Any = None,
    ) -> Trainer:
        """Make the Trainer of a checkpoint, whose next `fit` goes on where that was written.

        The checkpoint holds the weights, the optimiser's state, the place within the epoch, the
        random generator's state, the history and the settings, but not the data: hand `fit` the
        same `X`, `y` and `sample_weight` again. On the same kernel set the run then ends with
        the very bits that it would have ended with uninterrupted. ``fit(trainer.model, X, y)``
        trains the model of the checkpoint; another model of its shape is given its weights first.

        Parameters
        ----------
        path : str or path-like
            The checkpoint.
        epochs : int, optional
            To train longer, or shorter, than was planned, but not less than was trained already.
        learning_rate : float or callable, optional
            Another one from here on. A schedule is not in the file: hand it over again.
        callbacks, kernels
            As of `Trainer`; they are not in the file.
        checkpoint : str or path-like, optional
            Where to write from here on. By default `path`.

        Raises
        ------
        ModelFormatError
            If the file is not a checkpoint, is damaged, or is of a newer format.
        ValueError
            If the run had a schedule and `learning_rate` is missing, or if more than `epochs` were
            begun.
        OSError
            If the file cannot be read.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> import softmax_ext as sx
        >>> X, y = np.eye(3, dtype=np.float32), np.arange(3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "run.npz")
        ...     trainer = sx.Trainer(epochs=2, checkpoint=path)
        ...     history = trainer.fit(sx.SoftmaxModel.zeros(3, 3), X, y)
        ...     trainer = sx.Trainer.resume(path, epochs=5)
        ...     history = trainer.fit(trainer.model, X, y)
        >>> history.epoch
        array([1, 2, 3, 4, 5])
        """
        entries = _npz.read(
            path,
            _FILE_KIND,
            _FILE_VERSION,
            {**REQUIRED_ENTRIES, **_REQUIRED_ENTRIES},
            {**OPTIONAL_ENTRIES, **_OPTIONAL_ENTRIES},
        )
        model = SoftmaxModel._from_arrays(entries, path, kernels)
        try:
            settings = _read_settings(entries)
            had_schedule = math.isnan(settings["learning_rate"])
            if had_schedule:
                settings["learning_rate"] = 0.0
            trainer = cls(**settings, callbacks=callbacks, kernels=kernels)
            run = trainer._new_run(model)
            run.restore(entries)
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelFormatError(f"{os.fspath(path)}: {error}") from error
        if learning_rate is not None:
            trainer.learning_rate = _check_learning_rate(learning_rate)
        elif had_schedule:
            raise ValueError(
                f"learning_rate: the run in {os.fspath(path)} had a schedule, which is not in the "
                "file; hand it over again"
            )
        if epochs is not None:
            trainer.epochs = _check_int("epochs", epochs, 0)
            begun = run.epoch + (run.batch > 0)
            if begun > trainer.epochs:
                raise ValueError(
                    f"epochs: {epochs}, but {os.fspath(path)} is of epoch {begun}; wanted at least "
                    f"{begun}"
                )
        trainer.checkpoint = os.fspath(path if checkpoint is None else checkpoint)
        if checkpoint is None:
            run.saved = (run.epoch, run.batch)
        trainer._run = run
        trainer._resumed = True
        return trainer

    def _begin(self, model: SoftmaxModel, data: _Data) -> _Run:
        """Start a run, or take up the one of the checkpoint."""
        if self._resumed:
            run = self._current_run()
            run.check_data(data)
            run.move_to(model)
            self._resumed = False
        else:
            model._require_finite()
            run = self._run = self._new_run(model)
            run.generator_state = np.random.default_rng(self.seed).bit_generator.state
            if self.checkpoint is not None:
                run.data = data.description()
        return run

    def _new_run(self, model: SoftmaxModel) -> _Run:
        return _Run(model, self._new_sgd(model))

    def _new_sgd(self, model: SoftmaxModel) -> _SGD:
        return _SGD(model, self.momentum, self.weight_decay, self.decay_bias)

    def _continue(self, run: _Run, model: SoftmaxModel) -> None:
        """Let the next `fit` go on from another Trainer's run, with this one's settings.

        With `_current_run` and `_report_divergence` it is what subclasses may build on.
        """
        sgd = self._new_sgd(model)
        for new, old in zip(sgd.velocities, run.sgd.velocities, strict=True):
            if new is not None and old is not None:
                new[...] = old
        run.model, run.sgd = model, sgd
        self._run, self._resumed = run, True

    def _run_minibatches(
        self,
        run: _Run,
        data: _Data,
        kernels: Any,
        guard: _InterruptGuard,
        listeners: list[_Listener],
    ) -> None:
        """Step through the epoch's minibatches, from the first that has not been done."""
        X, target, sample_weight = data.X, data.target, data.sample_weight
        W, b, x_scale = run.model.W, run.model.b, run.model.x_scale
        loss_and_gradient = kernels.linear_cross_entropy_with_grad
        batch_size, rate = self.batch_size, self._rate(run.epoch + 1)
        result = None
        if self.average and not run.batch:
            # Not in the last epoch only: resumed with other epochs this may be the last.
            run.sgd.start_averaging()
        started = time.perf_counter() - run.seconds
        order = run.draw_order(data.n_rows, self.shuffle)
        try:
            # A run that diverges is reported once, not by NumPy in every step.
            with np.errstate(over="ignore", invalid="ignore"):
                for start in range(run.batch * batch_size, data.n_rows, batch_size):
                    rows = order[start : start + batch_size]
                    result = loss_and_gradient(
                        X, W, b, target,
                        sample_weight=sample_weight, x_scale=x_scale, rows=rows, out=result,
                        label_smoothing=self.label_smoothing,
                    )  # fmt: skip
                    if result.total_weight:
                        data.check_loss(result.loss)
                    else:
                        _set_to_zero(result)
                    guard.hold()
                    run.sgd.step((result.dW, result.db), rate)
                    run.count(result, data.n_counted(rows))
                    guard.release()
                    if listeners:
                        run.seconds = time.perf_counter() - started
                        event = self._batch_event(run, data)
                        for listener in listeners:
                            listener(event)
        finally:
            run.seconds = time.perf_counter() - started

    def _rate(self, epoch: int) -> float:
        if callable(self.learning_rate):
            return _check_number(f"learning_rate({epoch})", self.learning_rate(epoch))
        return self.learning_rate

    def _end_epoch(
        self, run: _Run, data: _Data, validation: _Data | None, kernels: Any, guard: _InterruptGuard
    ) -> None:
        """Validate, add the epoch's row to the history, and write the checkpoint."""
        validation_loss = validation_accuracy = math.nan
        if run.sgd.sums is not None and run.epoch + 1 == self.epochs:
            guard.hold()
            run.sgd.finish_averaging(run.batch)
            guard.release()
        if validation is not None:
            X, W, b, x_scale = validation.X, run.model.W, run.model.b, run.model.x_scale
            target = validation.target
            validation_loss = kernels.linear_cross_entropy(X, W, b, target, x_scale=x_scale)
            validation_accuracy = accuracy_of(kernels.predict(X, W, b, x_scale=x_scale), target)
            with _naming_validation_data():
                validation.check_loss(validation_loss)
        row = HistoryRow(
            run.epoch + 1,
            run.loss(),
            run.accuracy(),
            validation_loss,
            validation_accuracy,
            run.seconds,
            _per_second(data.n_rows, run.seconds),
        )
        advice = "lower the learning rate" if run.weight_sum else "no row counts"
        guard.hold()
        run.history.append(row)
        run.start_next_epoch()
        guard.release()
        if not math.isfinite(row.train_loss) and not run.warned:
            run.warned = True
            self._report_divergence(row, advice)
        self._write_checkpoint(run)

    def _report_divergence(self, row: HistoryRow, advice: str) -> None:
        warnings.warn(
            f"loss is {row.train_loss} in epoch {row.epoch}; {advice}",
            RuntimeWarning,
            stacklevel=4,
        )

    def _batch_event(self, run: _Run, data: _Data) -> TrainingEvent:
        n_done = min(run.batch * self.batch_size, data.n_rows)
        return TrainingEvent(
            run.model,
            run.history,
            run.epoch + 1,
            self.epochs,
            run.batch,
            data.n_batches,
            run.loss(),
            run.accuracy(),
            run.seconds,
            _per_second(n_done, run.seconds),
        )

    def _epoch_event(self, run: _Run, data: _Data) -> TrainingEvent:
        row = run.history[-1]
        return TrainingEvent(
            run.model,
            run.history,
            row.epoch,
            self.epochs,
            data.n_batches,
            data.n_batches,
            row.train_loss,
            row.train_accuracy,
            row.seconds,
            row.examples_per_second,
        )

    def _write_checkpoint(self, run: _Run) -> None:
        """Write the checkpoint, if one is wanted and the weights are worth keeping."""
        if self.checkpoint is None or not run.model._is_finite():
            return
        settings = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": math.nan if callable(self.learning_rate) else self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "shuffle": int(self.shuffle),
            "seed": -1 if self.seed is None else self.seed,
            "average": int(self.average),
            "label_smoothing": self.label_smoothing,
            "decay_bias": int(self.decay_bias),
        }
        arrays = {name: np.array(value) for name, value in settings.items()}
        _npz.write(self.checkpoint, _FILE_KIND, _FILE_VERSION, {**arrays, **run.to_arrays()})
        run.saved = (run.epoch, run.batch)

    def _interrupted(self, run: _Run, data: _Data) -> TrainingInterrupted:
        """Write a last checkpoint; return what tells where it is."""
        problem = ""
        try:
            self._write_checkpoint(run)
        except OSError as error:
            problem = f" (none could be written now: {error})"
        place = f"interrupted in epoch {run.epoch + 1} of {self.epochs}"
        place += f", after {run.batch} of {data.n_batches} minibatches"
        if run.epoch and not run.batch:
            place = f"interrupted at the end of epoch {run.epoch} of {self.epochs}"
        if run.saved is None:
            return TrainingInterrupted(f"{place}; there is no checkpoint{problem}", None)
        epoch, batch = run.saved
        state = f"minibatch {batch} of epoch {epoch + 1}" if batch else f"the end of epoch {epoch}"
        if run.saved == (run.epoch, run.batch):
            state = "this step"
        message = f"{place}; the checkpoint of {state} is {self.checkpoint}{problem}"
        return TrainingInterrupted(message, self.checkpoint)


_Listener = Callable[[TrainingEvent], object]


class _Data:
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
            self.sample_weight = weight = as_weights("sample_weight", sample_weight, (self.n_rows,))
            bad = ~((weight >= 0) & (weight < math.inf))
            if bad.any():
                raise ValueError(
                    f"sample_weight: {weight[bad][0]} at row {bad.argmax()}, wanted finite numbers "
                    "of at least 0"
                )
            sample_weight = np.asarray(sample_weight)
        # As they were given.
        self._described = self.target, sample_weight
        self._is_checked = False

    def check_loss(self, loss: float) -> None:
        """Refuse data that is not finite, where a loss that is not makes one look."""
        if not math.isfinite(loss) and not self._is_checked:
            check_finite(self.X, self.target)
            self._is_checked = True

    def n_counted(self, rows: NDArray[np.intp]) -> int:
        """Return how many of the rows have a label that counts."""
        if self._some_ignored:
            return int(np.count_nonzero(self.target[rows] != IGNORED_LABEL))
        return len(rows)

    def description(self) -> str:
        """Return what a resumed run recognises its data by; X itself is not read."""
        import hashlib

        digest = hashlib.sha256()
        for array in self._described:
            if array is not None:
                dtype = np.int64 if array.dtype.kind in "iu" else np.float64
                digest.update(array.astype(dtype).tobytes())
        values = self.X if isinstance(self.X, np.ndarray) else self.X.data
        return f"{values.dtype} of shape {self.X.shape}, labels {digest.hexdigest()[:16]}"


class _SGD:
    """The step rule of PyTorch's SGD; its buffers are made once."""

    def __init__(
        self, model: SoftmaxModel, momentum: float, weight_decay: float, decay_bias: bool
    ) -> None:
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.parameters = _parameters(model)
        self.velocities = [np.zeros_like(p) if momentum else None for p in self.parameters]
        self._products = [
            np.empty_like(p) if weight_decay and (decay_bias or p is model.W) else None
            for p in self.parameters
        ]
        # If the weights are to be averaged: their sums over the epoch's steps.
        self.sums: list[NDArray[np.float64]] | None = None

    def start_averaging(self) -> None:
        self.sums = [np.zeros(p.shape) for p in self.parameters]

    def finish_averaging(self, n_steps: int) -> None:
        """Put the mean of the weights of so many steps in their place."""
        assert self.sums is not None
        for parameter, total in zip(self.parameters, self.sums, strict=True):
            parameter[...] = total / n_steps
        self.sums = None

    def step(self, gradients: tuple[NDArray[Any] | None, ...], rate: float) -> None:
        """Change the parameters in place; the gradients are used up."""
        for parameter, gradient, velocity, product in zip(
            self.parameters, gradients, self.velocities, self._products, strict=False
        ):
            assert gradient is not None
            if product is not None:
                np.multiply(parameter, self.weight_decay, out=product)
                gradient += product
            if velocity is not None:
                velocity *= self.momentum
                velocity += gradient
                np.multiply(velocity, rate, out=gradient)
            else:
                gradient *= rate
            parameter -= gradient
        if self.sums is not None:
            for total, parameter in zip(self.sums, self.parameters, strict=True):
                total += parameter


class _Run:
    """Where a training stands: all that a checkpoint holds beside the settings."""

    def __init__(self, model: SoftmaxModel, sgd: _SGD) -> None:
        self.model = model
        self.sgd = sgd
        self.history = History()
        self.data = ""
        # Finished epochs; the generator's state before the running epoch's order was drawn, and
        # after it.
        self.epoch = 0
        self.generator_state: Any = None
        self._next_generator_state: Any = None
        # The running epoch: minibatches done, and the sums over them.
        self.batch = 0
        self.loss_sum = 0.0
        self.weight_sum = 0.0
        self.n_correct = 0
        self.n_counted = 0
        self.seconds = 0.0
        # Not in the file: which step the file holds, as (epoch, batch), and whether the user has
        # been warned.
        self.saved: tuple[int, int] | None = None
        self.warned = False

    def draw_order(self, n_rows: int, shuffle: bool) -> NDArray[np.intp]:
        """Return the order of the running epoch, the same each time."""
        if not shuffle:
            self._next_generator_state = self.generator_state
            return np.arange(n_rows)
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = self.generator_state
        order = generator.permutation(n_rows)
        self._next_generator_state = generator.bit_generator.state
        return order

    def count(self, result: LinearCrossEntropyResult, n_counted: int) -> None:
        """Add a minibatch to the sums."""
        # A minibatch without a label that counts has the mean loss nan.
        if result.total_weight:
            self.loss_sum += float(result.loss) * result.total_weight
            self.weight_sum += result.total_weight
        self.n_correct += result.n_correct
        self.n_counted += n_counted
        self.batch += 1

    def loss(self) -> float:
        return self.loss_sum / self.weight_sum if self.weight_sum else math.nan

    def accuracy(self) -> float:
        return self.n_correct / self.n_counted if self.n_counted else math.nan

    def start_next_epoch(self) -> None:
        self.epoch += 1
        self.generator_state = self._next_generator_state
        self.sgd.sums = None
        self.batch = self.n_correct = self.n_counted = 0
        self.loss_sum = self.weight_sum = self.seconds = 0.0

    def check_data(self, data: _Data) -> None:
        if self.data and self.data != data.description():
            raise ValueError(
                f"X, y, sample_weight: {data.description()}; the checkpoint's run was trained on "
                f"{self.data}"
            )

    def move_to(self, model: SoftmaxModel) -> None:
        """Go on with another model of the same shape, giving it the weights."""
        old, new = _parameters(self.model), _parameters(model)
        alike = [p.shape for p in old] == [p.shape for p in new] and (
            self.model.W.dtype == model.W.dtype
            and self.model.x_scale == model.x_scale
            and np.array_equal(self.model.classes, model.classes)  # type: ignore[arg-type]
        )
        if not alike:
            raise ValueError(f"model: {model!r}, wanted one like the checkpoint's {self.model!r}")
        for source, target in zip(old, new, strict=True):
            target[...] = source
        self.model = model
        self.sgd.parameters = new

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the entries of the checkpoint file."""
        arrays = self.model._to_arrays()
        for name in (*_COUNTS, *_SUMS):
            arrays[name] = np.array(getattr(self, name))
        arrays["generator_state"] = _pack_generator_state(self.generator_state)
        arrays["history"] = np.array(list(self.history), np.float64).reshape(-1, len(_COLUMNS))
        arrays["data"] = np.array(self.data)
        for name, velocity in zip(_VELOCITY_ENTRIES, self.sgd.velocities, strict=False):
            if velocity is not None:
                arrays[name] = velocity
        for name, total in zip(_SUM_ENTRIES, self.sgd.sums or (), strict=False):
            arrays[name] = total
        return arrays

    def restore(self, entries: dict[str, NDArray[Any]]) -> None:
        """Take everything but the model from the entries of a checkpoint file, or ValueError."""
        for name in (*_COUNTS, *_SUMS):
            setattr(self, name, _scalar(entries, name))
        if min(getattr(self, name) for name in _COUNTS) < 0:
            raise ValueError("a count is negative")
        self.generator_state = _unpack_generator_state(entries["generator_state"])
        self.data = _scalar(entries, "data")
        history = entries["history"]
        if history.shape != (self.epoch, len(_COLUMNS)):
            raise ValueError(f"a history of shape {history.shape} after {self.epoch} epochs")
        self.history = History([HistoryRow(int(row[0]), *row[1:]) for row in history.tolist()])
        for name, velocity in zip(_VELOCITY_ENTRIES, self.sgd.velocities, strict=False):
            stored = entries.get(name)
            if (stored is None) != (velocity is None):
                raise ValueError(f"{name} and momentum do not fit each other")
            if velocity is not None and stored is not None:
                if stored.shape != velocity.shape or stored.dtype != velocity.dtype:
                    raise ValueError(f"{name}: {stored.dtype} of shape {stored.shape}")
                velocity[...] = stored
        if "sum_W" in entries:
            self.sgd.start_averaging()
            for name, total in zip(_SUM_ENTRIES, self.sgd.sums or (), strict=False):
                if name not in entries or entries[name].shape != total.shape:
                    raise ValueError(f"{name}: missing, or not of shape {total.shape}")
                total[...] = entries[name]


class _InterruptGuard:
    """Holds Ctrl-C back while a step is half done; otherwise lets it through at once.

    Outside the main thread, and where nobody handles SIGINT in Python, there is nothing to do.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._held = False
        self._pending = False

    def __enter__(self) -> _InterruptGuard:
        import signal
        import threading

        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import signal

        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        elif self._handler is not None:
            self._handler(number, frame)

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._pending and self._handler is not None:
            import signal

            self._pending = False
            self._handler(signal.SIGINT, None)


# The checkpoint file ----------------------------------------------------------------------------

_COLUMNS = HistoryRow._fields
_COUNTS = ("epoch", "batch", "n_correct", "n_counted")
_SUMS = ("loss_sum", "weight_sum", "seconds")

# Beside the model's, and their dtype kinds, for `_npz.read`.
_SETTINGS = {
    "epochs": "i",
    "batch_size": "i",
    "learning_rate": "f",  # nan: a schedule
    "momentum": "f",
    "weight_decay": "f",
    "shuffle": "i",
    "seed": "i",  # -1: None
    "average": "i",
    "label_smoothing": "f",
    "decay_bias": "i",
}
_REQUIRED_ENTRIES = {
    **_SETTINGS,
    **dict.fromkeys(_COUNTS, "i"),
    **dict.fromkeys(_SUMS, "f"),
    "generator_state": "u",
    "history": "f",
    "data": "U",
}
# In the order of the model's parameters.
_VELOCITY_ENTRIES = ("velocity_W", "velocity_b")
_SUM_ENTRIES = ("sum_W", "sum_b")
_OPTIONAL_ENTRIES = dict.fromkeys((*_VELOCITY_ENTRIES, *_SUM_ENTRIES), "f")


def _scalar(entries: dict[str, NDArray[Any]], name: str) -> Any:
    if entries[name].shape != ():
        raise ValueError(f"{name}: shape {entries[name].shape}, wanted a single value")
    return entries[name].item()


def _read_settings(entries: dict[str, NDArray[Any]]) -> dict[str, Any]:
    settings = {name: _scalar(entries, name) for name in _SETTINGS}
    if settings["seed"] == -1:
        settings["seed"] = None
    return settings


def _pack_generator_state(state: Any) -> NDArray[np.uint64]:
    """Write the state of a PCG64, two numbers of 128 bits and a spare half word, as six words."""
    pcg = state["state"]
    halves = [half for word in (pcg["state"], pcg["inc"]) for half in divmod(word, 1 << 64)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def _unpack_generator_state(words: NDArray[np.uint64]) -> Any:
    if words.shape != (6,):
        raise ValueError(f"generator_state: shape {words.shape}, wanted (6,)")
    high, low, inc_high, inc_low, has_uint32, uinteger = words.tolist()
    state: Any = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    # Refuses what is no such state.
    np.random.PCG64().state = state
    return state


def _set_to_zero(result: LinearCrossEntropyResult) -> None:
    """Clear the gradients of a minibatch whose weights are all 0: they are means of nothing."""
    for gradient in (result.dW, result.db):
        if gradient is not None:
            gradient[...] = 0


# Arguments --------------------------------------------------------------------------------------


def _parameters(model: SoftmaxModel) -> list[NDArray[Any]]:
    return [model.W] if model.b is None else [model.W, model.b]


def _check_validation_data(
    model: SoftmaxModel, validation_data: tuple[ArrayLike, ArrayLike], batch_size: int
) -> _Data:
    with _naming_validation_data():
        X, y = validation_data
        return _Data(model, X, y, None, batch_size)


@contextmanager
def _naming_validation_data() -> Iterator[None]:
    """Say in errors whose X and y they are of."""
    try:
        yield
    except (ValueError, TypeError, IndexError) as error:
        raise type(error)(f"validation_data: {error}") from error


def listeners(callbacks: Sequence[Any]) -> tuple[list[_Listener], list[_Listener]]:
    """Return what is to be called at the end of each minibatch, and of each epoch."""
    on_batch_end = []
    on_epoch_end = []
    for callback in callbacks:
        methods = hasattr(callback, "on_batch_end"), hasattr(callback, "on_epoch_end")
        if methods[0]:
            on_batch_end.append(callback.on_batch_end)
        if methods[1]:
            on_epoch_end.append(callback.on_epoch_end)
        elif not methods[0] and callable(callback):
            on_epoch_end.append(callback)
        elif not methods[0]:
            raise TypeError(
                f"callbacks: {callback!r:.80}, wanted a callable or an object with on_batch_end "
                "or on_epoch_end"
            )
    return on_batch_end, on_epoch_end


def _check_int(name: str, value: Any, low: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {value!r:.80}, wanted an integer") from None
    if not low <= number < 1 << 63:
        raise ValueError(f"{name}: {number}, wanted an integer from {low} to 2**63 - 1")
    return number


def _check_number(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: {value!r:.80}, wanted a number")
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name}: {number}, wanted a finite number of at least 0")
    return number


def _check_learning_rate(value: Any) -> float | Callable[[int], float]:
    return value if callable(value) else _check_number("learning_rate", value)


def _per_second(n: int, seconds: float) -> float:
    return n / seconds if seconds else math.nan
