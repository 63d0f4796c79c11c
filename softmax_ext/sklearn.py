"""Estimators for scikit-learn: `LogisticRegression` in its own's place, and `SoftmaxRegression`.

``from softmax_ext.sklearn import LogisticRegression`` takes the place of the line that imports it
from ``sklearn.linear_model``; the script stays as it is. What these classes share with
scikit-learn's they inherit from it; here is what finds the weights, and what predicts from them.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from sklearn.base import _fit_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression as _ScikitLearns
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils._param_validation import Interval, StrOptions
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import (
        _check_partial_fit_first_call,
        check_classification_targets,
    )
    from sklearn.utils.optimize import _check_optimize_result
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_is_fitted,
        check_random_state,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "softmax_ext.sklearn needs scikit-learn 1.8 or newer: pip install 'softmax-ext[sklearn]'",
        name=error.name,
    ) from error

from . import kernels
from .cli.progress import make_progress
from .model import SoftmaxModel
from .solvers import MAX_ITER, STOPPED, minimize
from .training import History, HistoryRow, StopTraining, Trainer, TrainingEvent
from .training.callbacks import listeners

if TYPE_CHECKING:
    from .results import LinearCrossEntropyResult
    from .solvers import FitResult

__all__ = ["LogisticRegression", "SoftmaxRegression"]

_Array: TypeAlias = NDArray[Any]

_NOT_CONVERGED = {
    "newton-cg": "newton-cg failed to converge at loss = {loss}. "
    "Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after {nit} iterations.",
    "sag": "The max_iter was reached which means the coef_ did not converge",
    "saga": "The max_iter was reached which means the coef_ did not converge",
}
_SOLVERS = _ScikitLearns._parameter_constraints["solver"][0].options


class LogisticRegression(_ScikitLearns):
    """Logistic regression, as `sklearn.linear_model.LogisticRegression`, on the fused kernels.

    Parameters, defaults, attributes, methods, warnings and errors are those of the scikit-learn
    installed, of whose class this one is a subclass. It minimises the same objective, in nats::

        sum_i s_i loss_i + (1 - l1_ratio) / (2 C) ||coef||^2 + l1_ratio / C |coef|_1

    with s the sample weights times the class weights, for two classes with the binomial loss and
    one row of coefficients.

    Parameters
    ----------
    C, l1_ratio, fit_intercept, class_weight, warm_start, penalty, n_jobs
        As in scikit-learn.
    solver : str, optional
        Every one of scikit-learn's, with its restrictions. All but "liblinear" minimise the same
        objective and so use one method here, that of `softmax_ext.solvers.minimize`. "liblinear"
        penalises the intercept too: that problem, with `dual` and `intercept_scaling`, is left to
        scikit-learn.
    tol : float, optional
        Converged when no entry of the gradient of the objective, divided by the sum of s, is
        larger, as in scikit-learn's "lbfgs".
    max_iter : int, optional
        Most iterations. A `ConvergenceWarning` tells that they did not suffice, or what else ended
        the fit above `tol`, unless it was a callback.
    verbose : int, optional
        Above 0: a line for each iteration.
    random_state
        Nothing is random here: equal calls give the same bits, whatever the number of threads of
        the kernels. Another number of threads of NumPy's BLAS may change the last digits.

    Attributes
    ----------
    coef_ : ndarray or sparse, shape (1, D) or (C, D)
        Coefficients; one row for two classes. float32 for float32 X, otherwise float64.
    intercept_ : ndarray, shape (1,) or (C,)
        Intercepts; 0 without `fit_intercept`.
    classes_ : ndarray, shape (C,)
        The labels, sorted.
    n_iter_ : ndarray, shape (1,)
        Iterations made.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    X may be float64, float32, uint8 or CSR without being converted; a step reads it once. No array
    of N x C elements is made in `fit` and `predict`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from softmax_ext.sklearn import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LogisticRegression(max_iter=1000).fit(X, y)
    >>> clf.predict(X[:2])
    array([0, 0])
    >>> round(clf.score(X, y), 2)
    0.97
    """

    #: What multiplies X, and the dtype of the weights for X of bytes.
    _x_scale = 1.0
    _dtype_for_bytes: type[Any] = np.float64

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> LogisticRegression:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)
            Features.
        y : array-like of shape (N,)
            Class labels: numbers or strings.
        sample_weight : array-like of shape (N,), optional
            Factor of each row's loss, at least 0.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As scikit-learn's: for NaN or infinities, one class only, weights that are all 0,
            shapes and parameters that do not fit.
        """
        if self.solver == "liblinear":
            super().fit(X, y, sample_weight)
            return self
        penalties = self._penalties()
        X, y = self._validate(X, y, reset=True)
        labels = self._encode(y)
        weight = self._row_weights(sample_weight, X, y)
        self._require_weight(weight)
        with _told(self, X, y, sample_weight) as task:
            self._store(*self._minimize(X, labels, weight, penalties, self._printer(), task))
        return self

    def decision_function(self, X: Any) -> _Array:
        """Return the logits, which grow with the confidence in a class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)

        Returns
        -------
        ndarray of shape (N,) or (N, C)
            For two classes those of ``classes_[1]``, beside 0 for the other.
        """
        W, b = self._weights()
        scores = kernels.linear(self._validate(X, reset=False), W, b, x_scale=self._x_scale)
        return scores.reshape(-1) if W.shape[1] == 1 else scores

    def predict(self, X: Any) -> _Array:
        """Return the most probable class of each row; the scores (N, C) are never held.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)

        Returns
        -------
        ndarray of shape (N,)
        """
        W, b = self._weights()
        if W.shape[1] == 1:
            indices = (self.decision_function(X) > 0).astype(np.intp)
        else:
            X = self._validate(X, reset=False)
            indices = kernels.predict(X, W, b, x_scale=self._x_scale)
        labels: _Array = self.classes_[indices]
        return labels

    def predict_proba(self, X: Any) -> _Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)

        Returns
        -------
        ndarray of shape (N, C)
            In the order of `classes_`.
        """
        W, b = self._all_weights()
        X = self._validate(X, reset=False)
        return kernels.predict_proba(X, W, b, x_scale=self._x_scale)

    def predict_log_proba(self, X: Any) -> _Array:
        """Return the logarithm of the probability of each class, finite where that underflows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)

        Returns
        -------
        ndarray of shape (N, C)
            In the order of `classes_`.
        """
        W, b = self._all_weights()
        logits = kernels.linear(self._validate(X, reset=False), W, b, x_scale=self._x_scale)
        result: _Array = kernels.log_softmax(logits, out=logits)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    # What is fitted --------------------------------------------------------------------------

    def _validate(self, X: Any, *y: Any, reset: bool, **options: Any) -> Any:
        """Return X, and y if it is given, as the kernels take them."""
        dtypes = [np.float64, np.float32, np.uint8]
        return validate_data(self, X, *y, reset=reset, accept_sparse="csr", dtype=dtypes, **options)

    def _encode(self, y: _Array) -> _Array:
        """Find the classes among labels; return their indices."""
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        self._require_two_classes()
        last = len(self.classes_) - 1
        if y.dtype.kind in "iu" and self.classes_[0] == 0 and self.classes_[-1] == last:
            return y
        indices: _Array = np.searchsorted(self.classes_, y)
        return indices

    def _require_two_classes(self) -> None:
        if len(self.classes_) < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data "
                f"contains only one class: {self.classes_[0]!r}"
            )

    def _row_weights(self, sample_weight: Any, X: Any, y: _Array) -> NDArray[np.float64] | None:
        """Return each row's sample weight times its class's weight; None if all are 1."""
        if sample_weight is None and self.class_weight is None:
            return None
        weight: NDArray[np.float64] = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True
        )
        if not weight.any():
            # scikit-learn 1.8 lets them pass.
            raise ValueError("Sample weights must contain at least one non-zero number.")
        if self.class_weight is None:
            return weight
        # Rows without weight have no part in the balance, as if they were not there.
        rows = np.flatnonzero(weight)
        labels = y[rows]
        classes = np.unique(labels) if self.class_weight == "balanced" else self.classes_
        of_class = compute_class_weight(
            self.class_weight, classes=classes, y=labels, sample_weight=weight[rows]
        )
        bad = of_class[~((of_class >= 0) & (of_class < math.inf))]
        if bad.size:
            raise ValueError(f"class_weight: {bad[0]}, wanted finite numbers of at least 0")
        weight[rows] *= of_class[np.searchsorted(classes, labels)]
        return weight

    @staticmethod
    def _require_weight(weight: NDArray[np.float64] | None) -> None:
        if weight is not None and not weight.any():
            raise ValueError("class_weight: every row's class has the weight 0")

    def _penalties(self) -> tuple[float, float]:
        """Return the factors of ||coef||^2 / 2 and |coef|_1, having had the parameters checked."""
        if (
            getattr(self, "penalty", "deprecated") != "deprecated"
            or self.l1_ratio != 0
            or math.isinf(self.C)
            or self.dual
            or getattr(self, "n_jobs", None) is not None
        ):
            self._have_parameters_checked()
        penalty = getattr(self, "penalty", "deprecated")
        if penalty is None or math.isinf(self.C):
            return 0.0, 0.0
        ratio = {"l1": 1.0, "l2": 0.0}.get(penalty, self.l1_ratio or 0.0)
        return (1 - ratio) / self.C, ratio / self.C

    def _have_parameters_checked(self) -> None:
        """Raise and warn as scikit-learn does for combinations of parameters.

        It checks them in `fit`; here it fits two rows, to a tolerance that any step is within.
        """
        theirs = _ScikitLearns()
        shared = {name: getattr(self, name) for name in theirs.get_params()}
        shared |= {"tol": 1e300, "max_iter": 100, "verbose": 0, "class_weight": None}
        if self.solver not in _SOLVERS:
            shared["solver"] = "saga"
        if self.C not in (1.0, math.inf):
            shared["C"] = 2.0
        theirs.set_params(**shared).fit([[0.0], [1.0]], [0, 1])

    # From scikit-learn's form of the weights to the kernels' and back -------------------------

    def _weights(self) -> tuple[_Array, _Array]:
        """Return coef_ as W (D, 1 or C), and intercept_."""
        check_is_fitted(self)
        dense = self.coef_.toarray() if hasattr(self.coef_, "toarray") else self.coef_
        return dense.T, np.broadcast_to(self.intercept_, len(dense))

    def _all_weights(self) -> tuple[_Array, _Array]:
        """The same with a column for each class, the first of two being 0."""
        W, b = self._weights()
        if W.shape[1] > 1:
            return W, b
        return np.concatenate([np.zeros_like(W), W], axis=1), np.append(np.zeros_like(b), b)

    def _start(self, X: Any, go_on: bool) -> tuple[_Array, _Array | None]:
        """Return W (D, C) and b to begin with: zeros, or those of the last fit.

        For two classes they are -w/2 and w/2, which has the binomial's gradient, and a penalty in
        proportion to that of w: half of ||w||^2, and the whole of |w|_1.
        """
        dtype: Any = self._dtype_for_bytes if X.dtype == np.uint8 else X.dtype
        shape = (X.shape[1], len(self.classes_))
        b: _Array | None = None
        if go_on and hasattr(self, "coef_"):
            W, intercept = self._all_weights()
            if W.shape != shape:
                raise ValueError(
                    f"coef_ of the last fit is for {W.shape[0]} features and "
                    f"{W.shape[1]} classes, X and y have {shape[0]} and {shape[1]}"
                )
            if shape[1] == 2:
                W, intercept = W - W.mean(axis=1, keepdims=True), intercept - intercept.mean()
            W = np.array(W, dtype, order="C")
            b = intercept.astype(W.dtype)
        else:
            W = np.zeros(shape, dtype)
            b = np.zeros(shape[1], W.dtype)
        return W, b if self.fit_intercept else None

    def _store(self, W: _Array, b: _Array | None) -> None:
        self.coef_, self.intercept_ = _scikit_learns_form(W, b)

    # The optimum ------------------------------------------------------------------------------

    def _minimize(
        self,
        X: Any,
        target: _Array,
        weight: NDArray[np.float64] | None,
        penalties: tuple[float, float],
        listener: Callable[[FitResult], None] | None,
        task: _FitTask | None,
        **options: Any,
    ) -> tuple[_Array, _Array | None]:
        """Return the optimal W and b; warn if they were not reached."""
        W, b = self._start(X, self.warm_start)
        l2, l1 = penalties
        tell: list[Callable[[FitResult], None]] = []
        if listener is not None:
            tell.append(listener)
        if task is not None:
            task.begin_step(W, b)
            tell.append(task)

        def callback(state: FitResult) -> None:
            for call in tell:
                call(state)

        result = minimize(
            X,
            target,
            W,
            b,
            l2=2 * l2 if W.shape[1] == 2 else l2,
            l1=l1,
            sample_weight=weight,
            x_scale=self._x_scale,
            tol=self.tol,
            max_iter=self.max_iter,
            callback=callback if tell else None,
            **options,
        )
        if task is not None:
            task.end_step()
        if not result.success and result.status != STOPPED:
            total = X.shape[0] if weight is None else weight.sum()
            self._warn_of_no_convergence(result, result.fun / total)
        self.n_iter_ = np.array([result.nit], np.int32)
        return result.W, result.b

    def _warn_of_no_convergence(self, result: FitResult, loss: float) -> None:
        """Say it in the words of scikit-learn's solver, which filters may be looking for."""
        if result.status != MAX_ITER:
            _check_optimize_result("lbfgs", result)
        elif (text := _NOT_CONVERGED.get(self.solver)) is None:
            _check_optimize_result("lbfgs", result, self.max_iter)
        else:
            warnings.warn(text.format(loss=loss, nit=result.nit), ConvergenceWarning, stacklevel=2)

    def _printer(self) -> Callable[[FitResult], None] | None:
        return _print_iteration if self.verbose else None


def _scikit_learns_form(W: _Array, b: _Array | None) -> tuple[_Array, _Array]:
    """Return W (D, C) and b as coef_ and intercept_, of one row for two classes."""
    if b is None:
        b = np.zeros(W.shape[1], W.dtype)
    if W.shape[1] == 2:
        W, b = W[:, 1:] - W[:, :1], b[1:] - b[:1]
    return np.array(W.T, order="C"), b.copy()


@contextmanager
def _told(
    estimator: LogisticRegression, X: Any, y: Any, sample_weight: Any
) -> Iterator[_FitTask | None]:
    """Tell scikit-learn's callbacks, those of `set_callbacks`, that a fit begins and ends."""
    if not hasattr(estimator, "_init_callback_context"):  # scikit-learn 1.8
        yield None
        return
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    told = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
    # One more than there are iterations, as in scikit-learn: the last is begun and not made.
    context = estimator._init_callback_context(max_subtasks=max(estimator.max_iter, 1) + 1)
    context.call_on_fit_task_begin(**told)
    by_iteration = estimator.solver == "lbfgs" and hasattr(estimator, "_skl_callbacks")
    yield _FitTask(context, told) if by_iteration else None
    context.call_on_fit_task_end(**told, reconstruction_attributes={})


class _FitTask:
    """Tells scikit-learn's callbacks that an iteration ends and the next one begins."""

    def __init__(self, context: Any, told: dict[str, Any]) -> None:
        self._context = context
        self._told = told
        self._step: Any = None

    def begin_step(self, W: _Array, b: _Array | None) -> None:
        self._step = self._context.subcontext(task_name="lbfgs-iter")
        self._step.call_on_fit_task_begin(
            **self._told, reconstruction_attributes=self._attributes(W, b)
        )

    def __call__(self, state: FitResult) -> None:
        self._step.call_on_fit_task_end(
            **self._told, reconstruction_attributes=self._attributes(state.W, state.b)
        )
        self.begin_step(state.W, state.b)

    def end_step(self) -> None:
        self._step.call_on_fit_task_end(estimator=self._told["estimator"])

    @staticmethod
    def _attributes(W: _Array, b: _Array | None) -> Callable[[], dict[str, _Array]]:
        return lambda: dict(zip(("coef_", "intercept_"), _scikit_learns_form(W, b), strict=True))


def _print_iteration(state: FitResult) -> None:
    print(
        f"iteration {state.nit}: objective {state.fun:.6g}, "
        f"largest entry of the gradient {state.grad_norm:.3g}",
        flush=True,
    )


class SoftmaxRegression(LogisticRegression):
    """Softmax regression: `LogisticRegression` and what scikit-learn's has not.

    Minibatch gradient descent and `partial_fit`, soft labels, label smoothing, a factor of X,
    early stopping by a validation set of the user's, and callbacks.

    Parameters
    ----------
    penalty, C, l1_ratio, dual, tol, fit_intercept, intercept_scaling, class_weight, max_iter, \
    warm_start, n_jobs
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

    _dtype_for_bytes = np.float32

    _parameter_constraints = {  # noqa: RUF012  (as scikit-learn has it)
        **_ScikitLearns._parameter_constraints,
        "solver": [StrOptions({*_SOLVERS, "sgd"})],
        "x_scale": [Interval(Real, None, None, closed="neither")],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
        "epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions({"constant", "invscaling", "cosine"})],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "momentum": [Interval(Real, 0, None, closed="left")],
        "average": ["boolean"],
        "shuffle": ["boolean"],
        "early_stopping": ["boolean"],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        penalty: str | None = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: dict[Any, float] | str | None = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
        x_scale: float = 1.0,
        label_smoothing: float = 0.0,
        epochs: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 0.1,
        schedule: str = "constant",
        power_t: float = 0.5,
        momentum: float = 0.0,
        average: bool = False,
        shuffle: bool = True,
        early_stopping: bool = False,
        n_iter_no_change: int = 5,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.x_scale = x_scale
        self.label_smoothing = label_smoothing
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.power_t = power_t
        self.momentum = momentum
        self.average = average
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks

    @property
    def _x_scale(self) -> float:  # type: ignore[override]
        return self.x_scale

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
        if self.solver == "liblinear":
            if self.x_scale != 1 or self.label_smoothing or self.early_stopping or self.callbacks:
                raise ValueError(
                    "Solver liblinear supports neither x_scale, label_smoothing, early_stopping "
                    "nor callbacks."
                )
            _ScikitLearns.fit(self, X, y, sample_weight)
            return self
        penalties = self._penalties()
        X, y = self._validate(X, y, reset=True)
        target = self._encode(y)
        weight = self._row_weights(sample_weight, X, y)
        self._require_weight(weight)
        validation = self._validation(X_val, y_val)
        best = [_Best(self.tol, self.n_iter_no_change)] if self.early_stopping else []
        if best and validation is None:
            raise ValueError("early_stopping=True needs a validation set: X_val and y_val")
        with _told(self, X, y, sample_weight) as task:
            if self.solver == "sgd":
                model = SoftmaxModel(*self._start(X, self.warm_start), x_scale=self.x_scale)
                epochs = self._planned_epochs(X.shape[0])
                trainer = self._trainer(X, weight, penalties, epochs, best, self.average)
                self._descend(trainer, model, X, target, weight, validation)
                W, b = model.W, model.b
            else:
                listener = self._listener(X, target, weight, penalties, validation, best)
                smoothing = self.label_smoothing
                W, b = self._minimize(
                    X, target, weight, penalties, listener, task, label_smoothing=smoothing
                )
            self._store(*(best[0].weights if best else (W, b)))
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
        for name in ("early_stopping", "average"):
            if getattr(self, name):
                raise ValueError(f"partial_fit does not support {name}=True")
        if self.class_weight == "balanced":
            raise ValueError("class_weight 'balanced' is not supported for partial_fit")
        penalties = self._penalties()
        if classes is None and not hasattr(self, "classes_") and _is_soft(y):
            classes = np.arange(np.shape(y)[1])
        first = _check_partial_fit_first_call(self, classes) or not hasattr(self, "coef_")
        self._require_two_classes()
        X, y = self._validate(X, y, reset=first)
        target = self._indices(y)
        weight = self._row_weights(sample_weight, X, y)
        run = getattr(self, "_run", None)
        epochs = 0 if run is None else run.epoch
        if weight is not None and not weight.any():
            weight = None  # no epoch: as if the rows were not there
        else:
            epochs += 1
        model = SoftmaxModel(*self._start(X, go_on=True), x_scale=self.x_scale)
        trainer = self._trainer(X, weight, penalties, epochs)
        if run is not None:
            trainer._continue(run, model)
        self._descend(trainer, model, X, target, weight, None)
        self._store(model.W, model.b)
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
        if _is_soft(y):
            y = self.classes_[np.argmax(y, axis=1)]
        return float(super().score(X, y, sample_weight))

    # Targets: labels or probabilities ---------------------------------------------------------

    def _validate(self, X: Any, *y: Any, reset: bool, **options: Any) -> Any:
        if y and _is_soft(y[0]):
            options["multi_output"] = True
        return super()._validate(X, *y, reset=reset, **options)

    def _encode(self, y: _Array) -> _Array:
        if y.ndim == 1:
            return super()._encode(y)
        self.classes_ = np.arange(y.shape[1])
        return self._indices(y)

    def _indices(self, y: _Array) -> _Array:
        """Return the places of labels in `classes_`; probabilities as they are."""
        n_classes = len(self.classes_)
        if y.ndim == 1:
            check_classification_targets(y)
            encoder = LabelEncoder()
            encoder.classes_ = self.classes_
            indices: _Array = encoder.transform(y)
            return indices
        if y.shape[1] != n_classes:
            raise ValueError(f"y: probabilities of {y.shape[1]} classes, wanted {n_classes}")
        if (y < 0).any():
            raise ValueError("y: a probability is negative")
        return y

    def _row_weights(self, sample_weight: Any, X: Any, y: _Array) -> NDArray[np.float64] | None:
        if y.ndim == 2 and self.class_weight is not None:
            raise ValueError("class_weight is for class labels; weigh probabilities' rows instead")
        return super()._row_weights(sample_weight, X, y)

    def _validation(self, X_val: Any, y_val: Any) -> tuple[Any, _Array] | None:
        """Return the validation set as the kernels take it."""
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise ValueError("X_val and y_val: one came, both or none were wanted")
        X, y = self._validate(X_val, y_val, reset=False)
        return X, self._indices(y)

    # Gradient descent -------------------------------------------------------------------------

    def _penalties(self) -> tuple[float, float]:
        l2, l1 = super()._penalties()
        if self.solver == "sgd" and l1:
            raise ValueError("Solver sgd supports only L2 penalties or none: l1_ratio=0")
        return l2, l1

    def _planned_epochs(self, n: int) -> int:
        if self.epochs != "auto":
            return int(self.epochs)
        return max(10, -(-1000 // -(-n // self.batch_size)))

    def _rates(self, n: int) -> Callable[[int], float]:
        """Return the step size as a function of the epoch, for n rows."""
        rate, epochs = float(self.learning_rate), self._planned_epochs(n)
        if self.schedule == "invscaling":
            return lambda epoch: rate / epoch**self.power_t
        if self.schedule == "cosine":
            step = math.pi / epochs
            return lambda epoch: rate * (1 + math.cos(step * (min(epoch, epochs) - 1))) / 2
        return lambda _: rate

    def _trainer(
        self,
        X: Any,
        weight: NDArray[np.float64] | None,
        penalties: tuple[float, float],
        epochs: int,
        best: Sequence[_Best] = (),
        average: bool = False,
    ) -> _Trainer:
        n = X.shape[0]
        total = n if weight is None else float(weight.sum())
        # Two columns of weights, -w/2 and w/2, have half of w's square.
        l2 = penalties[0] * (2 if len(self.classes_) == 2 else 1)
        return _Trainer(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self._rates(n),
            momentum=self.momentum,
            weight_decay=l2 / total,
            decay_bias=False,
            shuffle=self.shuffle,
            seed=check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
            callbacks=(*self.callbacks, *best),
            average=average,
            label_smoothing=self.label_smoothing,
            kernels=None if weight is None else _Weighing(),
        )

    def _descend(
        self,
        trainer: _Trainer,
        model: SoftmaxModel,
        X: Any,
        target: _Array,
        weight: NDArray[np.float64] | None,
        validation: tuple[Any, _Array] | None,
    ) -> None:
        with make_progress() if self.verbose else nullcontext() as progress:
            if progress is not None:
                trainer.callbacks = (progress, *trainer.callbacks)
            if weight is not None:
                # Then a full minibatch's sum has the mean gradient of all rows for expectation.
                weight = weight * (len(weight) / weight.sum() / self.batch_size)
            trainer.fit(model, X, target, sample_weight=weight, validation_data=validation)
        self._run = trainer._run
        self.history_ = trainer.history
        self.n_iter_ = np.array([len(trainer.history)], np.int32)

    # The other solvers ------------------------------------------------------------------------

    def _listener(
        self,
        X: Any,
        target: _Array,
        weight: NDArray[np.float64] | None,
        penalties: tuple[float, float],
        validation: tuple[Any, _Array] | None,
        best: Sequence[_Best],
    ) -> Callable[[FitResult], None] | None:
        """Return what tells the callbacks of each iteration, as `Trainer` does of an epoch."""
        on_batch_end, on_epoch_end = listeners((*self.callbacks, *best))
        printer = self._printer()
        if not on_batch_end and not on_epoch_end:
            return printer
        history = History()
        n = X.shape[0]
        total = n if weight is None else float(weight.sum())
        l2, l1 = penalties
        factor = l2 if len(self.classes_) == 2 else l2 / 2

        def penalty(W: _Array) -> float:
            return factor * float(np.vdot(W, W)) + l1 * float(np.abs(W).sum())

        started = time.perf_counter()

        def listener(state: FitResult) -> None:
            nonlocal started
            if printer is not None:
                printer(state)
            seconds = time.perf_counter() - started
            model = SoftmaxModel(state.W, state.b, x_scale=self.x_scale)
            history.append(
                HistoryRow(
                    state.nit,
                    (state.fun - penalty(state.W)) / total,
                    model.accuracy(X, target),
                    *(model.loss(*validation), model.accuracy(*validation))
                    if validation is not None
                    else (math.nan, math.nan),
                    seconds,
                    n / seconds,
                )
            )
            row = history[-1]
            event = TrainingEvent(
                model, history, row.epoch, self.max_iter, 1, 1, row.train_loss,
                row.train_accuracy, row.seconds, row.examples_per_second,
            )  # fmt: skip
            try:
                for call in (*on_batch_end, *on_epoch_end):
                    call(event)
            except StopTraining:
                raise StopIteration from None
            started = time.perf_counter()

        return listener


class _Trainer(Trainer):
    def _report_divergence(self, row: HistoryRow, advice: str) -> None:
        raise ValueError(
            f"Floating-point under-/overflow occurred at epoch #{row.epoch}. A lower learning "
            "rate, or scaling input data with StandardScaler or MinMaxScaler, might help."
        )


class _Weighing:
    """Kernels for `Trainer` whose minibatches count by the weight of their rows.

    They give sums, where the trainer would have each minibatch's mean, which counts one of light
    rows as much as one of heavy rows.
    """

    linear_cross_entropy = staticmethod(kernels.linear_cross_entropy)
    predict = staticmethod(kernels.predict)

    @staticmethod
    def linear_cross_entropy_with_grad(*args: Any, **options: Any) -> LinearCrossEntropyResult:
        result = kernels.linear_cross_entropy_with_grad(*args, reduction="sum", **options)
        mean = result.loss / result.total_weight if result.total_weight else math.nan
        return result._replace(loss=mean)


class _Best:
    """A callback that keeps the weights of the lowest validation loss, and ends the training."""

    def __init__(self, tol: float, patience: int) -> None:
        self.tol = tol
        self.patience = patience
        self.weights: tuple[_Array, _Array | None]
        self._lowest = self._to_beat = math.inf
        self._n_without = 0

    def on_epoch_end(self, event: TrainingEvent) -> None:
        loss = event.history[-1].validation_loss
        if loss < self._lowest or not hasattr(self, "weights"):
            self._lowest = loss
            model = event.model
            self.weights = model.W.copy(), None if model.b is None else model.b.copy()
        if loss < self._to_beat - self.tol:
            self._to_beat = loss
            self._n_without = 0
            return
        self._n_without += 1
        if self._n_without >= self.patience:
            raise StopTraining


def _is_soft(y: Any) -> bool:
    """Whether y is rows of probabilities rather than labels."""
    y = y if hasattr(y, "ndim") else np.asarray(y)
    if y.ndim != 2 or y.shape[1] < 2:
        return False
    dtypes = y.dtypes if hasattr(y, "dtypes") else [y.dtype]
    return all(getattr(dtype, "kind", "") == "f" for dtype in dtypes)
