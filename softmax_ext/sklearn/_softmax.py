"""`SoftmaxRegression`: `LogisticRegression` and what scikit-learn's has not."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model import SoftmaxModel
from ._arguments import (
    classes_and_indices,
    indices_among,
    is_soft,
    penalties_of,
    require_two_classes,
    require_weight,
    row_weights,
)
from ._descent import EstimatorTrainer, descend, make_trainer, planned_epochs
from ._events import BestWeights, fit_task, listeners_of
from ._parameters import SoftmaxParameters
from ._scikit_learn import LogisticRegression as ScikitLearns
from ._scikit_learn import _check_partial_fit_first_call, _fit_context
from ._weights import scikit_learns_form

_Array: TypeAlias = NDArray[Any]


class SoftmaxRegression(SoftmaxParameters):
    """Softmax regression: `LogisticRegression` and what scikit-learn's has not.

    Minibatch gradient descent and `partial_fit`, soft labels, label smoothing, a factor of X,
    early stopping by a validation set of the user's, and callbacks.

    Parameters
    ----------
    penalty : str or None, optional
        As of `LogisticRegression`, or "group": ``1 / C`` times the sum over the features of the
        norm of their coefficients takes the place of ``|coef|_1``, so that a feature is in the
        model for all classes or for none. With an `l1_ratio` between 0 and 1 a part of it, and an
        L2 penalty for the rest. For every solver but "liblinear" and "sgd".
    C, l1_ratio, dual, tol, fit_intercept, intercept_scaling, class_weight, max_iter, \
    warm_start, n_jobs, standardize
        As of `LogisticRegression`.
    solver : str, optional
        As of `LogisticRegression`, or "sgd": minibatch gradient descent, which takes L2 penalties
        only. "liblinear" takes nothing of what follows.
    random_state : int, RandomState or None, optional
        Of the order of the rows in gradient descent.
    verbose : int, optional
        Above 0: a line for each iteration, or for each epoch of gradient descent, and on a
        terminal, where tqdm is installed, a progress bar.
    x_scale : float, optional
        Multiplies X inside the kernels: 1/255 for images of bytes.
    label_smoothing : float, optional
        In [0, 1]: the part of each training target that is spread over the classes.
    epochs : int or "auto", optional
        Gradient descent: how many times to go through the data. "auto": 10 times, or as many as
        make 1000 steps.
    batch_size : int, optional
        Rows of a minibatch.
    learning_rate : float, optional
        Step size, of the first epoch.
    schedule : {"constant", "invscaling", "cosine"}, optional
        How it goes on: as it is; divided by ``epoch ** power_t``; or along half a cosine towards 0
        at the end of the last epoch.
    power_t : float, optional
        Exponent of "invscaling".
    momentum : float, optional
        As of `Trainer`; 0: none.
    average : bool, optional
        End `fit` with the mean of the weights over the last epoch's steps.
    shuffle : bool, optional
        Go through the rows in a new random order in each epoch.
    early_stopping : bool, optional
        Stop when the loss of ``X_val, y_val``, which `fit` then needs, has not become lower by
        more than `tol` within `n_iter_no_change` epochs (or iterations of another solver), and
        take the weights with which it was lowest.
    n_iter_no_change : int, optional
        The patience of `early_stopping`.
    callbacks : sequence, optional
        As of `Trainer`: each is called with a `TrainingEvent` at the end of each epoch, or has
        methods ``on_epoch_end`` and ``on_batch_end``; loss and accuracy, those of ``X_val, y_val``
        among them, are in the last row of ``event.history``. May raise `StopTraining`. For the
        other solvers an epoch is an iteration, and callbacks cost one more pass over X in each.

    Attributes
    ----------
    coef_, intercept_, classes_, n_features_in_, feature_names_in_
        As of `LogisticRegression`; float32 also for X of bytes.
    n_iter_ : ndarray, shape (1,)
        Iterations, or epochs of gradient descent, those of `partial_fit` among them.
    history_ : History
        After gradient descent: loss and accuracy of each epoch.

    Notes
    -----
    Gradient descent minimises the same objective. Each step takes the mean of a minibatch's losses
    and the penalty divided by the sum of the rows' weights. In `partial_fit` that is the sum over
    the rows of the call: to stream chunks of n out of N rows, give N / n times the `C`.

    See Also
    --------
    softmax_ext.Trainer : Gradient descent without scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.sklearn import SoftmaxRegression
    >>> X = np.array([[0, 255], [255, 0], [10, 250], [200, 0]], np.uint8)
    >>> y = ["left", "right", "left", "right"]
    >>> clf = SoftmaxRegression(solver="sgd", batch_size=2, x_scale=1 / 255, random_state=0)
    >>> clf.fit(X, y).predict(X).tolist()
    ['left', 'right', 'left', 'right']

    Soft labels are rows of probabilities:

    >>> SoftmaxRegression(x_scale=1 / 255).fit(X, [[0.9, 0.1], [0.2, 0.8]] * 2).predict(X)
    array([0, 1, 0, 1])
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> SoftmaxRegression:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)
            Features.
        y : array-like of shape (N,) or (N, C)
            Class labels, or floating probabilities; then the classes are 0 to C - 1.
        sample_weight : array-like of shape (N,), optional
            Factor of each row's loss, at least 0.
        X_val, y_val : as X and y, optional
            What to measure loss and accuracy on after each epoch; they are not trained on.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `LogisticRegression.fit`; and if gradient descent diverges.
        """
        self.__dict__.pop("_run", None)
        if self.penalty == "group" and self.solver in ("liblinear", "sgd"):
            raise ValueError(f"Solver {self.solver} supports no penalty='group'.")
        if self.solver == "liblinear":
            if self.x_scale != 1 or self.label_smoothing or self.early_stopping or self.callbacks:
                raise ValueError(
                    "Solver liblinear supports neither x_scale, label_smoothing, early_stopping "
                    "nor callbacks."
                )
            self._refuse_standardize()
            ScikitLearns.fit(self, X, y, sample_weight)
            return self
        if self.solver == "sgd":
            self._refuse_standardize()
        penalties = penalties_of(self)
        X, y = self._validate(X, y, reset=True)
        if y.ndim == 2:
            self.classes_ = np.arange(y.shape[1])
            target = indices_among(y, self.classes_)
        else:
            self.classes_, target = classes_and_indices(y)
        weight = row_weights(sample_weight, self.class_weight, X, y, self.classes_)
        require_weight(weight)
        validation = self._validation(X_val, y_val)
        best = [BestWeights(self.tol, self.n_iter_no_change)] if self.early_stopping else []
        if best and validation is None:
            raise ValueError("early_stopping: True came without X_val and y_val, which were wanted")
        with fit_task(self, X, y, sample_weight) as task:
            if self.solver == "sgd":
                epochs = planned_epochs(self.epochs, X.shape[0], self.batch_size)
                trainer = make_trainer(
                    self, X.shape[0], weight, penalties, epochs, best, self.average
                )
                model = self._model(*self._start(X, go_on=self.warm_start))
                descend(trainer, model, X, target, weight, validation, self.verbose)
                self._keep(trainer)
                W, b = model.W, model.b
            else:
                listeners = listeners_of(self, X, target, weight, validation, best)
                W, b = self._minimize(
                    X, target, weight, penalties, listeners, task,
                    label_smoothing=self.label_smoothing,
                )  # fmt: skip
            if best:
                W, b = best[0].weights
            self.coef_, self.intercept_ = scikit_learns_form(W, b)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> SoftmaxRegression:
        """Go through some rows once by gradient descent, from where the last fit ended.

        Whatever the `solver`. Calls continue one another: the epoch that the schedule goes by, the
        momentum and the order of the rows. Rows of classes whose `class_weight` is 0 alone change
        nothing.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)
            Features.
        y : array-like of shape (N,) or (N, C)
            Class labels, or floating probabilities.
        classes : array-like of shape (C,), optional
            All labels there will be; needed in the first call, unless y are probabilities.
        sample_weight : array-like of shape (N,), optional
            Factor of each row's loss, at least 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `classes` is missing in the first call, or `y` has other labels.
        """
        for name in ("early_stopping", "average", "standardize"):
            if getattr(self, name):
                raise ValueError(f"partial_fit does not support {name}=True")
        if self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' is not supported for partial_fit")
        penalties = penalties_of(self)
        if classes is None and not hasattr(self, "classes_") and is_soft(y):
            classes = np.arange(np.shape(y)[1])
        first = _check_partial_fit_first_call(self, classes) or not hasattr(self, "coef_")
        require_two_classes(self.classes_)
        X, y = self._validate(X, y, reset=first)
        target = indices_among(y, self.classes_)
        weight = row_weights(sample_weight, self.class_weight, X, y, self.classes_)
        run = getattr(self, "_run", None)
        epochs = 0 if run is None else run.epoch
        if weight is not None and not weight.any():
            weight = None  # no epoch: as if the rows were not there
        else:
            epochs += 1
        trainer = make_trainer(self, X.shape[0], weight, penalties, epochs)
        model = self._model(*self._start(X, go_on=True))
        if run is not None:
            trainer.continue_from(run, model)
        descend(trainer, model, X, target, weight, None, self.verbose)
        self._keep(trainer)
        self.coef_, self.intercept_ = scikit_learns_form(model.W, model.b)
        return self

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, the share of rows whose most probable class is their label's.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)
        y : array-like of shape (N,) or (N, C)
            Class labels; or probabilities, whose first maximum is the label.
        sample_weight : array-like of shape (N,), optional

        Returns
        -------
        float
        """
        if is_soft(y):
            y = self.classes_[np.argmax(y, axis=1)]
        return float(super().score(X, y, sample_weight))

    def _validate(self, X: Any, *y: Any, reset: bool, **options: Any) -> Any:
        if y and is_soft(y[0]):
            options["multi_output"] = True
        return super()._validate(X, *y, reset=reset, **options)

    def _validation(self, X_val: Any, y_val: Any) -> tuple[Any, _Array] | None:
        """Return the validation set as the kernels take it."""
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise ValueError("X_val and y_val: one came, both or none were wanted")
        X, y = self._validate(X_val, y_val, reset=False)
        return X, indices_among(y, self.classes_)

    def _model(self, W: _Array, b: _Array | None) -> SoftmaxModel:
        return SoftmaxModel(W, b, x_scale=self.x_scale, kernels=self._kernels)

    def _keep(self, trainer: EstimatorTrainer) -> None:
        self._run = trainer.run
        self.history_ = trainer.history
        self.n_iter_ = np.array([len(trainer.history)], np.int32)
