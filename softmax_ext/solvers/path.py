"""`fit_path`: a model's optima for many penalties, and the best of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_number, finite_from_0, integer_between
from ..model import SoftmaxModel
from .continuation import follow
from .fit import losses_and_start, rows_for
from .result import FitResult
from .standardised import Standardised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The score of a model on X and y.
Scorer = Callable[[SoftmaxModel, Any, Any], float]


class PathResult(FitResult):
    """What `fit_path` found, from the strongest penalty (the smallest C) to the weakest.

    Its entries are attributes too. K is the number of penalties fitted.

    Attributes
    ----------
    Cs : ndarray, shape (K,)
        Inverse strengths of the penalty, ascending, whatever order they came in.
    W : ndarray, shape (K, D, C)
        Weights.
    b : ndarray, shape (K, C), or None
        Intercepts.
    fun : ndarray, shape (K,)
        The objectives: sums over rows, in nats.
    scores : ndarray, shape (K,)
        On the validation data: the mean loss in nats, the accuracy, or what `scoring` returned;
        NaN without validation data.
    best : int
        Index of the best score, the strongest penalty of several; without validation data the last.
    success : ndarray of bool, shape (K,)
        Whether each fit is within `tol`, as of `FitResult`.
    status, nit : ndarray of int, shape (K,)
        Why each fit ended, as of `FitResult`, and its iterations.
    n_nonzero : ndarray of int, shape (K,)
        Weights that are not 0 in each fit.
    grad_norm : ndarray, shape (K,)
        Largest absolute entry of each gradient, as of `FitResult`.
    nfev : int
        Passes over X in all, without those over the validation data.
    seconds : float
        The time they took, with those over the validation data.
    scoring : str
        The name of the score.
    """

    def plot(self) -> Figure:
        """Draw the score, or the objective without one, against C; the best is marked.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from .. import plots

        figure: Figure = plots._prepare(None, 6.0, 3.6)
        axes = figure.subplots()
        judged = np.isfinite(self.scores).any()
        values = self.scores if judged else self.fun
        axes.plot(self.Cs, values, color=plots._TRAIN_COLOUR, marker="o", markersize=4)
        missed = ~self.success
        if missed.any():
            axes.plot(self.Cs[missed], values[missed], "x", color="black", label="not within tol")
        best = self.best
        axes.plot(
            self.Cs[best], values[best], "D", markersize=9, fillstyle="none",
            markeredgewidth=2, color=plots._VALIDATION_COLOUR, label=f"C = {self.Cs[best]:.3g}",
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlabel("C (strong penalty to weak)")
        name = f"validation {self.scoring}" if judged else self.scoring
        axes.set_ylabel(f"{name} (nats)" if self.scoring in ("loss", "objective") else name)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        return figure


def fit_path(
    model: SoftmaxModel,
    X: Any,
    y: Any,
    Cs: ArrayLike,
    *,
    validation_data: tuple[Any, Any] | None = None,
    sample_weight: ArrayLike | None = None,
    l1_ratio: float = 0.0,
    standardize: bool = False,
    scoring: str | Scorer = "loss",
    patience: int | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
    callback: Callable[[FitResult], object] | None = None,
) -> PathResult:
    """Find the optima for many penalties in the time of a few, and bring a model to the best.

    Minimises ``sum_i s_i loss_i + (1 - l1_ratio) / (2 C) ||W||^2 + l1_ratio / C |W|_1`` for each C,
    as `fit_lbfgs` does for one, from the strongest penalty to the weakest.

    Parameters
    ----------
    model : SoftmaxModel
        Changed in place: left at the best by `scoring`, or without validation data at the last.
        The first fit begins at the weights that it has.
    X, y, sample_weight
        As of `fit_lbfgs`.
    Cs : array_like, shape (K,)
        Inverse strengths of the penalty, above 0 and finite, in any order; equal ones are one.
    validation_data : tuple (X, y), optional
        What each model is judged by: one pass over it for each.
    l1_ratio : float, optional
        In [0, 1]: the part of the penalty that is of absolute values. Above 0 each fit begins at
        the optimum before it, and nothing else is shared.
    standardize, tol
        As of `fit_lbfgs`.
    scoring : {"loss", "accuracy"} or callable, optional
        The mean loss on the validation data, of which the lowest is best, or the accuracy. A
        callable gets the model and the validation data's X and y; the highest of what it returns
        is best.
    patience : int, optional
        Stop after so many scores in a row that are no better than the best before them.
    max_iter : int, optional
        Most iterations for each penalty.
    callback : callable, optional
        Called after each penalty with its `FitResult`, which has the entries ``C`` and ``score``
        besides. ``raise StopIteration`` ends the path there.

    Returns
    -------
    PathResult
        ``Cs, W, b, fun, scores, best, success, status, nit, n_nonzero, grad_norm, nfev, seconds``,
        and ``plot()``.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `fit_lbfgs`.
    KeyboardInterrupt
        On Ctrl-C. The model is left at the best so far, as with any exception of the callback.

    Notes
    -----
    With penalties of squares alone, a path is one long L-BFGS: when the penalty changes, the
    gradients' changes along earlier steps change by a multiple of the steps, and are kept; the
    sample of rows is drawn once; the eigenvectors of its second moments, and what up to 32 classes
    have between them along each, give the first inverse Hessian for every penalty; and the first
    step of each fit leads along the line through the last two optima over the logarithm of C. A fit
    has converged when its gradient is within `tol`, and what its next step promises, times all
    passes made so far (counted up to 1000), is at most ``5 tol`` of the objective.

    See Also
    --------
    fit_lbfgs : The optimum for one penalty.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=400)
    >>> X = rng.normal(size=(400, 20)) + (y[:, None] == np.arange(20))
    >>> model = sx.SoftmaxModel.zeros(20, 3, dtype=np.float64)
    >>> path = sx.fit_path(model, X[:300], y[:300], np.logspace(-4, 2, 13),
    ...                    validation_data=(X[300:], y[300:]))
    >>> bool(path.success.all()), round(float(path.Cs[path.best]), 3)
    (True, 0.032)
    >>> bool(np.array_equal(model.W, path.W[path.best]))
    True
    """
    Cs = _checked(Cs)
    l1_ratio = as_number("l1_ratio", l1_ratio)
    if not 0 <= l1_ratio <= 1:
        raise ValueError(f"l1_ratio: {l1_ratio} came, a number in [0, 1] was wanted")
    tol, max_iter = finite_from_0("tol", tol), integer_between("max_iter", max_iter, 0)
    most_in_vain = math.inf if patience is None else integer_between("patience", patience, 1)
    if validation_data is not None and len(validation_data) != 2:
        raise ValueError(
            f"validation_data: {len(validation_data)} arrays came, X and y were wanted"
        )
    found = _Found(model, scoring, validation_data, len(Cs))
    rows, target = rows_for(model, X, y, sample_weight)
    start = time.perf_counter()
    losses, theta = losses_and_start(
        rows, target, model.W, model.b, sample_weight, model.x_scale, 0.0, model.kernels
    )
    scaled = Standardised(losses) if standardize else None
    if scaled is not None:
        losses, theta = scaled, scaled.from_raw(theta)
    penalties = [((1 - l1_ratio) / C, l1_ratio / C) for C in Cs]
    fits = follow(losses, penalties, theta, tol=tol, max_iter=max_iter)
    try:
        for C, result in zip(Cs, fits, strict=True):
            if scaled is not None:
                scaled.fold_into(result)
            result["C"] = float(C)
            found.add(result)
            if callback is not None:
                try:
                    callback(result)
                except StopIteration:
                    break
            if found.in_vain >= most_in_vain:
                break
    finally:
        found.use_best()
    return found.path(time.perf_counter() - start)


def joined(first: PathResult, second: PathResult) -> PathResult:
    """Return the path of all the values of C of two, which were judged alike.

    The best is the better one of theirs, by what `scoring` says, which is a name.
    """
    Cs = np.concatenate([first.Cs, second.Cs])
    order = np.argsort(Cs)
    result = PathResult(first)
    of_each = ("Cs", "W", "b", "fun", "scores", "success", "status", "nit", "grad_norm")
    for name in (*of_each, "n_nonzero"):
        if first[name] is not None:
            result[name] = np.concatenate([first[name], second[name]])[order]
    result.update(nfev=first.nfev + second.nfev, seconds=first.seconds + second.seconds)
    sign = -1.0 if first.scoring == "loss" else 1.0
    result["best"] = int(np.argmax(sign * result.scores))
    return result


def _checked(Cs: ArrayLike) -> NDArray[np.float64]:
    values = np.unique(np.asarray(Cs, np.float64))
    if values.size == 0 or not (np.isfinite(values).all() and values[0] > 0):
        came = "none" if values.size == 0 else f"{values[0]} to {values[-1]}"
        raise ValueError(f"Cs: {came} came, finite numbers above 0 were wanted")
    return values


def _scorer(scoring: str | Scorer) -> tuple[Scorer, float]:
    """Return what gives a score, and 1 if the largest is best, -1 if the lowest is."""
    if callable(scoring):
        return scoring, 1.0
    if scoring == "loss":
        return lambda model, X, y: model.loss(X, y), -1.0
    if scoring == "accuracy":
        return lambda model, X, y: model.accuracy(X, y), 1.0
    raise ValueError(f"scoring: {scoring!r} came, 'loss', 'accuracy' or a callable was wanted")


class _Found:
    """The optima so far, and which of them is best.

    Parameters
    ----------
    model : SoftmaxModel
        Whose optima they are.
    scoring, validation
        As of `fit_path`; without validation data the last is best.
    n : int
        How many there will be at most.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        scoring: str | Scorer,
        validation: tuple[Any, Any] | None,
        n: int,
    ) -> None:
        self._model = model
        self._score, self._sign = _scorer(scoring)
        self._validation = validation
        self._name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
        self._results: list[FitResult] = []
        # The weights of all, so that they need not be copied at the end.
        self._W: NDArray[Any] | None = None
        self._n = n
        self._best = -1
        #: Scores in a row that were no better than the best.
        self.in_vain = 0

    def add(self, result: FitResult) -> None:
        """Judge another, and write its score into it."""
        result["score"] = math.nan
        if self._W is None:
            self._W = np.empty((self._n, *result.W.shape), result.W.dtype)
        W = self._W[len(self._results)]
        W[...] = result.W
        # b may be a view of the array that W was.
        result.update(W=W, b=None if result.b is None else result.b.copy())
        self._results.append(result)
        if self._validation is None:
            self._best += 1
            return
        model = self._model
        fitted = SoftmaxModel(
            result.W, result.b, model.classes, model.x_scale, kernels=model.kernels
        )
        result["score"] = float(self._score(fitted, *self._validation))
        self.in_vain += 1
        best = self._sign * self._results[self._best].score if self._best >= 0 else math.nan
        if math.isnan(best) or self._sign * result.score > best:
            self._best, self.in_vain = len(self._results) - 1, 0

    def use_best(self) -> None:
        """Bring the model to the best, if there is one."""
        if self._best < 0:
            return
        best, model = self._results[self._best], self._model
        model.W[...] = best.W
        if model.b is not None:
            model.b[...] = best.b

    def path(self, seconds: float) -> PathResult:
        def all_of(name: str) -> NDArray[Any]:
            return np.array([result[name] for result in self._results])

        assert self._W is not None
        return PathResult(
            Cs=all_of("C"), W=self._W[: len(self._results)],
            b=None if self._model.b is None else all_of("b"),
            fun=all_of("fun"), scores=all_of("score"), best=self._best,
            success=all_of("success"), status=all_of("status"), nit=all_of("nit"),
            n_nonzero=np.array([np.count_nonzero(result.W) for result in self._results]),
            grad_norm=all_of("grad_norm"), nfev=int(all_of("nfev").sum()), seconds=seconds,
            scoring="objective" if self._validation is None else self._name,
        )  # fmt: skip
