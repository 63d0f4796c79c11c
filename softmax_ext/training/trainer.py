"""`Trainer`, what users see of a training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..model import SoftmaxModel, is_blocks, kernels_or_default
from .data import TrainingData, check_validation_data, training_data
from .history import History, HistoryRow
from .loop import Loop
from .resumption import resumed
from .run import Run
from .settings import Settings
from .sgd import SGD, parameters_of

if TYPE_CHECKING:
    from ..datasets.blocks import Blocks
    from .block_data import BlockData


class Trainer(Settings):
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

    # Set by `fit` and `resume`; the next `fit` goes on from a run that was resumed.
    _run: Run | None = None
    _resumed = False

    @property
    def model(self) -> SoftmaxModel:
        """The model of the last `fit`, or after `resume` that of the checkpoint."""
        return self._current_run().model

    @property
    def history(self) -> History:
        """The history of the last `fit`, also of one that was interrupted, or of the checkpoint."""
        return self._current_run().history

    def _current_run(self) -> Run:
        if self._run is None:
            raise AttributeError("this Trainer has not trained a model yet")
        return self._run

    def fit(
        self,
        model: SoftmaxModel,
        X: ArrayLike | Blocks,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: tuple[ArrayLike, ArrayLike] | Blocks | None = None,
    ) -> History:
        """Train a model, in place.

        Parameters
        ----------
        model : SoftmaxModel
            What to train, from the weights it has. (After `resume`: from those of the checkpoint.)
        X : array_like, shape (N, D) or (N, h, w, ...)
            Examples or images: float32, float64, float16, bfloat16 or uint8; other integers are
            converted once. Or a sparse matrix (N, D) in CSR form. Or `Blocks`: each minibatch then
            has rows of one piece. The order of the pieces (but for a callable's) and that of the
            rows in each are drawn in every epoch.
        y : array_like, shape (N,) or (N, C)
            Class labels, or probabilities of a floating dtype, as `SoftmaxModel` takes them. None
            for `Blocks`.
        sample_weight : array_like, shape (N,), optional
            Weight of each row in the loss and in its minibatch's mean, at least 0.
        validation_data : tuple (X, y) or Blocks, optional
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
            loss shows it; the model is left as the last whole step left it. For what is wrong with
            a piece of `Blocks` when that is read; the model is as it was before `fit`.
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
        kernels = kernels_or_default(model.kernels if self.kernels is None else self.kernels)
        data = training_data(
            model, X, y, batch_size=self.batch_size, kernels=kernels, sample_weight=sample_weight,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        if data.n_rows == 0:
            raise ValueError("X: no rows came, at least one to train on was wanted")
        validation = None
        if validation_data is not None:
            validation = check_validation_data(model, validation_data, self.batch_size, kernels)
        run = self._begin(model, data)
        before = [p.copy() for p in parameters_of(model)] if is_blocks(X) else []
        try:
            Loop(self, run, data, validation, self._report_divergence).run_epochs()
        except (ValueError, TypeError, IndexError):
            for parameter, old in zip(parameters_of(model), before, strict=False):
                parameter[...] = old
            raise
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
        return resumed(
            cls, path, epochs=epochs, learning_rate=learning_rate, callbacks=callbacks,
            checkpoint=checkpoint, kernels=kernels,
        )  # fmt: skip

    def _begin(self, model: SoftmaxModel, data: TrainingData | BlockData) -> Run:
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
                run.data_description = data.description()
        return run

    def _new_run(self, model: SoftmaxModel) -> Run:
        return Run(model, self._new_sgd(model))

    def _new_sgd(self, model: SoftmaxModel) -> SGD:
        return SGD(model, self.momentum, self.weight_decay, self.decay_bias)

    def _continue(self, run: Run, model: SoftmaxModel) -> None:
        """Let the next `fit` go on from another Trainer's run, with this one's settings.

        With `_current_run` and `_report_divergence` it is what subclasses may build on.
        """
        sgd = self._new_sgd(model)
        for new, old in zip(sgd.velocities, run.sgd.velocities, strict=True):
            if new is not None and old is not None:
                new[...] = old
        run.model, run.sgd = model, sgd
        self._take_up(run)

    def _take_up(self, run: Run) -> None:
        """Let the next `fit` go on from a run."""
        self._run, self._resumed = run, True

    def _report_divergence(self, row: HistoryRow, advice: str) -> None:
        """Warn the caller of `fit`, to whom `Loop` and its two methods lie in between."""
        warnings.warn(
            f"loss is {row.train_loss} in epoch {row.epoch}; {advice}",
            RuntimeWarning,
            stacklevel=5,
        )
