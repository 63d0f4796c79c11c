"""`LogisticRegression`: scikit-learn's, on the fused kernels."""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model import kernels_or_default
from ..solvers import FitResult, minimize
from ..solvers.result import MAX_ITER, STOPPED
from ._arguments import (
    classes_and_indices,
    penalties_of,
    require_weight,
    row_weights,
    validated,
)
from ._events import FitTask, Listener, fit_task, print_iteration
from ._scikit_learn import (
    ConvergenceWarning,
    _check_optimize_result,
    _fit_context,
    check_is_fitted,
)
from ._scikit_learn import LogisticRegression as ScikitLearns
from ._weights import as_stored, of_all_classes, of_last_fit, scikit_learns_form

_Array: TypeAlias = NDArray[Any]

# scikit-learn's words, which filters may be looking for; "lbfgs" and the others have a function.
_NOT_CONVERGED = {
    "newton-cg": "newton-cg failed to converge at loss = {loss}. "
    "Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after {nit} iterations.",
    "sag": "The max_iter was reached which means the coef_ did not converge",
    "saga": "The max_iter was reached which means the coef_ did not converge",
}


class LogisticRegression(ScikitLearns):
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
        larger, as in scikit-learn's "lbfgs"; with an L1 part, when the duality gap is at most this
        share of the objective.
    max_iter : int, optional
        Most iterations. A `ConvergenceWarning` tells that they did not suffice, or what else ended
        the fit above `tol`, unless it was a callback.
    verbose : int, optional
        Above 0: a line for each iteration.
    standardize : bool, optional
        The only parameter that scikit-learn's has not: as if `StandardScaler` had been applied to X
        (with the sample and class weights; without `fit_intercept` not centred), at no memory, and
        with CSR left sparse. `coef_` and `intercept_` take X as it is. Not for "liblinear".
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
    dual_gap_ : float
        With an L1 part only: the objective is above its least value by no more than this, in nats.
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

    _parameter_constraints = {  # noqa: RUF012  (as scikit-learn has it)
        **ScikitLearns._parameter_constraints,
        "standardize": ["boolean"],
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
        standardize: bool = False,
    ) -> None:
        super().__init__(
            penalty,
            C=C,
            l1_ratio=l1_ratio,
            dual=dual,
            tol=tol,
            fit_intercept=fit_intercept,
            intercept_scaling=intercept_scaling,
            class_weight=class_weight,
            random_state=random_state,
            solver=solver,
            max_iter=max_iter,
            verbose=verbose,
            warm_start=warm_start,
            n_jobs=n_jobs,
        )
        self.standardize = standardize

    #: What multiplies X, and the dtype of the weights for X of bytes.
    _x_scale = 1.0
    _dtype_for_bytes: type[Any] = np.float64
    #: What computes; None: the package's kernels. No parameter, for scikit-learn's has none.
    _kernels: Any = None

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
            self._refuse_standardize()
            super().fit(X, y, sample_weight)
            return self
        penalties = penalties_of(self)
        X, y = self._validate(X, y, reset=True)
        self.classes_, labels = classes_and_indices(y)
        weight = row_weights(sample_weight, self.class_weight, X, y, self.classes_)
        require_weight(weight)
        listeners: list[Listener] = [print_iteration] if self.verbose else []
        with fit_task(self, X, y, sample_weight) as task:
            W, b = self._minimize(X, labels, weight, penalties, listeners, task)
            self.coef_, self.intercept_ = scikit_learns_form(W, b)
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
        W, b = as_stored(*self._fitted())
        X = self._validate(X, reset=False)
        scores: _Array = self._kernel_set().linear(X, W, b, x_scale=self._x_scale)
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
        W, b = as_stored(*self._fitted())
        if W.shape[1] == 1:
            indices = (self.decision_function(X) > 0).astype(np.intp)
        else:
            X = self._validate(X, reset=False)
            indices = self._kernel_set().predict(X, W, b, x_scale=self._x_scale)
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
        W, b = of_all_classes(*self._fitted())
        X = self._validate(X, reset=False)
        result: _Array = self._kernel_set().predict_proba(X, W, b, x_scale=self._x_scale)
        return result

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
        W, b = of_all_classes(*self._fitted())
        X = self._validate(X, reset=False)
        logits = self._kernel_set().linear(X, W, b, x_scale=self._x_scale)
        result: _Array = self._kernel_set().log_softmax(logits, out=logits)
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _validate(self, X: Any, *y: Any, reset: bool, **options: Any) -> Any:
        """Return X, and y if it is given, as the kernels take them."""
        return validated(self, X, *y, reset=reset, accept_sparse="csr", **options)

    def _refuse_standardize(self) -> None:
        if self.standardize:
            raise ValueError(
                f"standardize: True came with the solver {self.solver}, another solver was wanted"
            )

    def _kernel_set(self) -> Any:
        return kernels_or_default(self._kernels)

    def _fitted(self) -> tuple[Any, _Array]:
        check_is_fitted(self)
        return self.coef_, self.intercept_

    def _start(self, X: Any, *, go_on: bool) -> tuple[_Array, _Array | None]:
        """Return W (D, C) and b to begin with: zeros, or those of the last fit."""
        dtype: Any = self._dtype_for_bytes if X.dtype == np.uint8 else X.dtype
        D, C = X.shape[1], len(self.classes_)
        if go_on and hasattr(self, "coef_"):
            W, b = of_last_fit(self.coef_, self.intercept_, D, C, dtype)
        else:
            W = np.zeros((D, C), dtype)
            b = np.zeros(C, W.dtype)
        return W, b if self.fit_intercept else None

    def _minimize(
        self,
        X: Any,
        target: _Array,
        weight: NDArray[np.float64] | None,
        penalties: tuple[float, float],
        listeners: list[Listener],
        task: FitTask | None,
        **options: Any,
    ) -> tuple[_Array, _Array | None]:
        """Return the optimal W and b; warn if they were not reached."""
        W, b = self._start(X, go_on=self.warm_start)
        l2, l1 = penalties
        is_grouped = getattr(self, "penalty", None) == "group"
        if is_grouped and W.shape[1] == 2:
            l1 *= math.sqrt(2)  # the norm of -w/2 and w/2 is |w| divided by that
        if task is not None:
            task.begin_step(W, b)
            listeners = [*listeners, task]

        def callback(state: FitResult) -> None:
            for listener in listeners:
                listener(state)

        result = minimize(
            X,
            target,
            W,
            b,
            l2=2 * l2 if W.shape[1] == 2 else l2,
            l1=l1,
            penalty="group" if is_grouped else "l1",
            sample_weight=weight,
            x_scale=self._x_scale,
            tol=self.tol,
            max_iter=self.max_iter,
            standardize=self.standardize,
            callback=callback if listeners else None,
            kernels=self._kernels,
            **options,
        )
        if task is not None:
            task.end_step()
        if not result.success and result.status != STOPPED:
            total_weight = X.shape[0] if weight is None else weight.sum()
            self._warn_of_no_convergence(result, result.fun / total_weight)
        self.n_iter_ = np.array([result.nit], np.int32)
        self.__dict__.pop("dual_gap_", None)
        if result.gap is not None:
            self.dual_gap_ = result.gap
        return result.W, result.b

    def _warn_of_no_convergence(self, result: FitResult, loss: float) -> None:
        text = _NOT_CONVERGED.get(self.solver)
        if result.status != MAX_ITER:
            _check_optimize_result("lbfgs", result)
        elif text is None:
            _check_optimize_result("lbfgs", result, self.max_iter)
        else:
            warnings.warn(text.format(loss=loss, nit=result.nit), ConvergenceWarning, stacklevel=2)
