"""`LogisticRegressionCV`: scikit-learn's, its paths of penalties on the fused kernels."""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..solvers.continuation import follow
from ..solvers.fit import losses_and_start
from ..solvers.standardised import Standardised
from ._arguments import row_weights, validated
from ._logistic import LogisticRegression
from ._scikit_learn import (
    ConvergenceWarning,
    Parallel,
    ScikitLearnsCV,
    _fit_context,
    _log_reg_scoring_path,
    _logistic_regression_path,
)
from ._weights import of_last_fit, scikit_learns_form

_Array: TypeAlias = NDArray[Any]


def _with_standardize(init: Any) -> inspect.Signature:
    """Return the signature of a class's `__init__` with one more parameter."""
    own = inspect.Parameter("standardize", inspect.Parameter.KEYWORD_ONLY, default=False)
    signature = inspect.signature(init)
    return signature.replace(parameters=[*signature.parameters.values(), own])


class LogisticRegressionCV(ScikitLearnsCV, LogisticRegression):
    """Logistic regression whose penalty is chosen by cross-validation.

    Parameters, defaults, attributes with their shapes, methods, warnings and errors are those of
    `sklearn.linear_model.LogisticRegressionCV` of the scikit-learn installed, of whose class this
    one is a subclass. Each fold's path of penalties is that of `softmax_ext.fit_path`.

    Parameters
    ----------
    Cs, l1_ratios, fit_intercept, cv, penalty, scoring, tol, max_iter, class_weight, refit, \
    random_state, use_legacy_attributes
        As in scikit-learn.
    solver, dual, intercept_scaling
        As of `LogisticRegression`; "liblinear" is left to scikit-learn.
    n_jobs : int, optional
        As in scikit-learn: how many folds go on at a time, -1: one for each processor. In threads,
        of which one at a time has the kernels' other threads. The same bits for any number.
    verbose : int, optional
        As in scikit-learn.
    standardize : bool, optional
        As of `LogisticRegression`; the means and deviations are those of each fold's own rows.

    Attributes
    ----------
    coef_, intercept_, classes_, n_features_in_, feature_names_in_
        As of `LogisticRegression`.
    Cs_, l1_ratios_, coefs_paths_, scores_, C_, l1_ratio_, n_iter_
        As in scikit-learn.

    Notes
    -----
    X may be float64, float32, uint8 or CSR without being converted. A `ConvergenceWarning` tells
    how many penalties of a path were not fitted to `tol`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from softmax_ext.sklearn import LogisticRegressionCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LogisticRegressionCV(
    ...     Cs=5, l1_ratios=(0,), scoring="neg_log_loss", max_iter=1000, use_legacy_attributes=False
    ... ).fit(X, y)
    >>> clf.C_
    100.0
    >>> clf.scores_.shape
    (5, 1, 5)
    """

    _parameter_constraints = {  # noqa: RUF012  (as scikit-learn has it)
        **ScikitLearnsCV._parameter_constraints,
        "standardize": ["boolean"],
    }

    # The parameters are those of the version installed, and ours.
    def __init__(self, *args: Any, standardize: bool = False, **options: Any) -> None:
        ScikitLearnsCV.__init__(self, *args, **options)
        self.standardize = standardize

    __init__.__signature__ = _with_standardize(ScikitLearnsCV.__init__)  # type: ignore[attr-defined]

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any
    ) -> LogisticRegressionCV:
        """Fit the model: every penalty on every fold, then the best one on all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (N, D)
            Features.
        y : array-like of shape (N,)
            Class labels: numbers or strings.
        sample_weight : array-like of shape (N,), optional
            Factor of each row's loss, at least 0.
        **params : dict
            For the splitter and the scorer, as in scikit-learn.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As scikit-learn's.
        """
        if self.solver == "liblinear":
            self._refuse_standardize()
            super().fit(X, y, sample_weight, **params)
        else:
            _FITS[self.standardize](self, X, y, sample_weight, **params)
        return self


def _path(
    X: Any,
    y: _Array,
    *,
    classes: _Array,
    Cs: Any,
    fit_intercept: bool,
    max_iter: int,
    tol: float,
    class_weight: Any,
    sample_weight: Any,
    penalty: str | None,
    l1_ratio: float | None = None,
    coef: _Array | None = None,
    standardize: bool = False,
    **_: Any,
) -> tuple[_Array, _Array, _Array]:
    """Do what scikit-learn's function of this place does: coefficients, Cs, iterations."""
    Cs = np.logspace(-4, 4, Cs) if isinstance(Cs, int | np.integer) else np.asarray(Cs)
    C, D = len(classes), X.shape[1]
    weight = row_weights(sample_weight, class_weight, X, y, classes)
    W, b = np.zeros((D, C), X.dtype if X.dtype != np.uint8 else np.float64), np.zeros(C)
    if coef is not None:
        coef = np.atleast_2d(coef)
        W, b = of_last_fit(coef[:, :D], coef[:, D:].sum(axis=1), D, C, W.dtype)
    losses, start = losses_and_start(
        X, np.searchsorted(classes, y), W, b.astype(W.dtype) if fit_intercept else None, weight,
        1.0, 0.0, None,
    )  # fmt: skip
    scaled = Standardised(losses) if standardize else None
    if scaled is not None:
        losses, start = scaled, scaled.from_raw(start)
    ratio = {"l1": 1.0, "l2": 0.0, None: 0.0}.get(penalty, l1_ratio or 0.0)
    # Two columns of weights, -w/2 and w/2, have half of w's square.
    factor = 2 if C == 2 else 1
    strength = np.zeros(len(Cs)) if penalty is None else 1 / Cs
    order = np.argsort(-strength, kind="stable")
    penalties = [(factor * (1 - ratio) * strength[k], ratio * strength[k]) for k in order]
    results = [*follow(losses, penalties, start, tol=tol, max_iter=max_iter)]
    if scaled is not None:
        for result in results:
            scaled.fold_into(result)
    failed = [result for result in results if not result.success]
    if failed:
        warnings.warn(
            f"lbfgs failed to converge for {len(failed)} of {len(results)} penalties: "
            f"{failed[-1].message}. Increase the number of iterations or scale the data.",
            ConvergenceWarning,
            stacklevel=2,
        )
    coefs = np.empty((len(Cs), C if C > 2 else 1, D + fit_intercept), W.dtype)
    n_iter = np.empty(len(Cs), np.int32)
    for k, result in zip(order, results, strict=True):
        coefficients, intercept = scikit_learns_form(result.W, result.b)
        coefs[k, :, :D], coefs[k, :, D:] = coefficients, intercept[:, None]
        n_iter[k] = result.nit
    return coefs if C > 2 else coefs[:, 0], Cs, n_iter


class _Judged(LogisticRegression):
    """What scikit-learn scores on a fold, given weights whose shape it leaves one-dimensional."""

    def _fitted(self) -> tuple[Any, _Array]:
        return np.atleast_2d(self.coef_), np.atleast_1d(self.intercept_)


def _in_threads(n_jobs: Any = None, verbose: int = 0, **_: Any) -> Any:
    return Parallel(n_jobs=n_jobs, verbose=verbose, require="sharedmem")


def _with(function: Any, **globals_: Any) -> Any:
    """Return a function of scikit-learn's with some of the names in it meaning something else.

    So checks, folds, scores and the shapes of all attributes are those of the version installed,
    and nothing of scikit-learn itself is changed.
    """
    plain = getattr(function, "__wrapped__", function)
    result = FunctionType(
        plain.__code__, {**plain.__globals__, **globals_}, plain.__name__, plain.__defaults__
    )
    result.__kwdefaults__ = plain.__kwdefaults__
    return result


def _fit_by(path: Any) -> Any:
    """Return scikit-learn's `fit` with our path of penalties."""
    path = {_logistic_regression_path.__name__: path}
    return _with(
        ScikitLearnsCV.fit,
        **path,
        _log_reg_scoring_path=_with(_log_reg_scoring_path, **path, LogisticRegression=_Judged),
        validate_data=validated,  # theirs would make X float64
        Parallel=_in_threads,
    )


# By `standardize`.
_FITS = {False: _fit_by(_path), True: _fit_by(partial(_path, standardize=True))}
