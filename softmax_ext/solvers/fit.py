"""`fit_lbfgs` and `minimize`: the arguments are checked, and a solver begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import (
    as_floating,
    as_layer,
    as_number,
    as_row_weights,
    as_target,
    finite_from_0,
    integer_between,
    refuse_beside,
)
from ..datasets.blocks import Blocks
from ..model import SoftmaxModel, as_kernels_like, kernels_or_default
from .arrays import ArrayObjective
from .blocks import blocks_objective, objective_of
from .certificate import gradient_at_zero
from .evaluation_log import EvaluationLog, LoggedObjective
from .lbfgs import minimize_penalised
from .objective import Doubles, Objective
from .penalised import Penalised
from .penalties import KINDS, SparsePenalty
from .result import FitResult
from .standardised import Standardised


def fit_lbfgs(
    model: SoftmaxModel,
    X: ArrayLike | Blocks | Objective,
    y: ArrayLike | None = None,
    *,
    C: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 1000,
    sample_weight: ArrayLike | None = None,
    standardize: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    callback: Callable[[FitResult], object] | None = None,
) -> FitResult:
    """Bring a model to its regularised optimum, from the weights that it has.

    Minimises ``sum_i s_i loss_i + ||W||^2 / (2 C)``, the objective of scikit-learn's
    `LogisticRegression`: s is `sample_weight`, and the intercept b is not penalised.

    Parameters
    ----------
    model : SoftmaxModel
        Changed in place.
    X : array_like, shape (N, D), or images (N, h, w, ...); `Blocks`; or an `Objective`
        float32, float64, float16, bfloat16, uint8, or CSR. Read once in each step, never copied.
    y : array_like, shape (N,) or (N, C)
        Labels or probabilities, as the model takes them. None for `Blocks` and objectives, which
        have them.
    C : float, optional
        Inverse strength of the penalty; infinity: none.
    tol : float, optional
        Converged when no entry of the gradient of the objective, divided by the sum of the sample
        weights, is larger.
    max_iter : int, optional
        Most iterations.
    sample_weight : array_like, shape (N,), optional
        Factors of the rows' losses, at least 0.
    standardize : bool, optional
        Penalise the weights of features that are centred and divided by their deviations, by
        `sample_weight`, as those of ``StandardScaler`` are; without intercepts only divided, as
        then nothing makes up for a mean. Folded into W and b, which take `X` as it is. A feature
        that never changes is not divided.
    checkpoint : str or path-like, optional
        A file that keeps what each pass over the data found. If it is there, the fit begins where
        it began and takes from the file what is in it, so that it goes on where it was killed and
        ends with the same bits. Of another fit, it is refused. `callback` hears of all iterations.
    callback : callable, optional
        Called with a `FitResult` after each iteration (``nit``, ``fun``, ``grad_norm``, ``W``,
        ``b``; the arrays are valid during the call only). ``raise StopIteration`` ends the fit.

    Returns
    -------
    FitResult
        ``W, b, fun, penalty, grad_norm, nit, nfev, success, status, message``.

    Raises
    ------
    ValueError, TypeError
        If `X`, `y` or `sample_weight` does not fit the model, X has NaN or infinite elements, all
        weights are 0, or another argument is out of range. The model is as it was.
    IndexError
        If an integer label is outside [0, C).
    KeyboardInterrupt
        On Ctrl-C. The model is left at the last iterate that was reached, as with any exception
        of the callback.

    See Also
    --------
    minimize : The same without a model, with more options.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> model = sx.SoftmaxModel.zeros(1, 2, dtype=np.float64, classes=["cat", "dog"])
    >>> result = sx.fit_lbfgs(model, X, ["cat", "cat", "dog", "dog"])
    >>> result.success, round(result.fun, 4)
    (True, 1.5266)
    >>> model.predict([[0.5], [2.5]]).tolist()
    ['cat', 'dog']
    """
    if not (as_number("C", C) > 0):
        raise ValueError(f"C: {C} came, a number above 0 was wanted")
    rows, target = rows_for(model, X, y, sample_weight)
    last: FitResult | None = None

    def remember(state: FitResult) -> None:
        nonlocal last
        last = FitResult(W=state.W.copy(), b=None if state.b is None else state.b.copy())
        if callback is not None:
            callback(state)

    try:
        last = result = minimize(
            rows,
            target,
            model.W,
            model.b,
            l2=1 / C,
            sample_weight=sample_weight,
            x_scale=model.x_scale,
            tol=tol,
            max_iter=max_iter,
            standardize=standardize,
            checkpoint=checkpoint,
            callback=remember,
            kernels=model.kernels,
        )
    except (ValueError, TypeError, IndexError):
        # Of the data, in whichever pass they were found: nothing half fitted is left.
        if target is None:
            last = None
        raise
    finally:
        if last is not None:
            model.W[...] = last.W
            if model.b is not None:
                model.b[...] = last.b
    return result


def minimize(
    X: Any,
    y: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    *,
    l2: float = 0.0,
    l1: float = 0.0,
    penalty: str = "l1",
    sample_weight: ArrayLike | None = None,
    x_scale: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 100,
    label_smoothing: float = 0.0,
    callback: Callable[[FitResult], object] | None = None,
    standardize: bool = False,
    precondition: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    kernels: Any = None,
) -> FitResult:
    """Minimise ``sum_i s_i loss_i + l2/2 ||W||^2 + l1 |W|_1``; b is not penalised.

    Or with ``penalty="group"`` the sum of the rows' norms, ``l1 sum_j ||W_j||``.

    Parameters
    ----------
    X : ndarray (N, D), CSR, Blocks, or an object that keeps the protocol `Objective`
        float32, float64, float16, bfloat16 or uint8, in any layout. An objective of one's own is
        asked for values and gradients, as `softmax_ext.solvers.objective` says; what is about rows
        is its business.
    y : ndarray, shape (N,) or (N, C); None for Blocks and objectives
        Integer labels in [0, C), -100 for a row that does not count; or floating probabilities.
    W : ndarray, shape (D, C)
        Starting point; not modified. As everywhere, X and W of float32 are computed in float32,
        any float64 makes it float64, and X of uint8 or halves takes W's dtype.
    b : ndarray, shape (C,), or None
        Starting point of the intercepts; None: there are none.
    l2, l1 : float, optional
        Strengths of the penalties, at least 0.
    sample_weight : array_like, shape (N,), optional
        Factors s of the rows' losses, at least 0. None: 1.
    x_scale : float, optional
        Multiplies X inside the kernels.
    tol : float, optional
        Converged when no entry of the gradient of the objective, divided by the sum of s, is
        larger. With a preconditioner, no more than a small share of the objective (in proportion to
        tol, at most a thousandth) may be expected to be gained by further steps either. With l1:
        when the duality gap is at most tol times the objective, which then is above its least value
        by no more than that.
    max_iter : int, optional
        Most iterations.
    label_smoothing : float, optional
        In [0, 1], as in the kernels.
    standardize : bool, optional
        As of `fit_lbfgs`; ``fun`` and ``grad_norm`` are then those of the standardised features.
    precondition : bool, optional
        False: plain L-BFGS, for comparison, or where an objective has no sample.
    checkpoint : str or path-like, optional
        As of `fit_lbfgs`.
    callback : callable, optional
        Called with a `FitResult` after each iteration (``nit``, ``fun``, ``grad_norm``, ``W``,
        ``b``; the arrays are valid during the call only). ``raise StopIteration`` ends the fit.
    kernels : object with the kernels' functions, optional
        None: ``softmax_ext.kernels``.

    Returns
    -------
    FitResult
        ``W, b, fun, penalty, grad_norm, gap, nit, nfev, success, status, message``.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `fit_lbfgs`.

    See Also
    --------
    lambda_max : The least l1 with which all weights are 0.

    Notes
    -----
    L-BFGS [1]_ with the line search conditions of Hager and Zhang [2]_: close to the optimum the
    objective's differences drown in rounding, those of its slope do not, and as the objective is
    convex the slope alone tells a good step.

    The first Hessian is an estimate from a sample of the rows. With up to 2048 features it is made
    of the weighted second moments of the features; of each class's own, as soon as the fit has cost
    as much as those do; and where it is small, it is the whole Hessian. With more features it is
    made of their variances.

    With l1, proximal Newton steps [3]_: coordinate descent on a quadratic model of the loss and the
    penalty itself, and Newton's method, by conjugate gradients, on the weights that are not 0. The
    model comes from the second moments of the features; with more than 2048, or more than rows, the
    Hessian is applied by columns to a working set of weights. The gap holds for float64 arithmetic,
    in which it is computed at the end also for float32 data.

    References
    ----------
    .. [1] J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed. (2006), chapter 7.
    .. [2] W. Hager, H. Zhang, "A new conjugate gradient method with guaranteed descent and an
       efficient line search", SIAM J. Optim. 16 (2005).
    .. [3] J. Lee, Y. Sun, M. Saunders, "Proximal Newton-type methods for minimizing composite
       functions", SIAM J. Optim. 24 (2014).

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.solvers import minimize
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> result = minimize(X, np.array([0, 0, 1, 1]), np.zeros((1, 2)), np.zeros(2), l2=1.0)
    >>> result.success, round(result.fun, 4)
    (True, 1.5266)
    """
    l2, l1, tol = finite_from_0("l2", l2), finite_from_0("l1", l1), finite_from_0("tol", tol)
    max_iter = integer_between("max_iter", max_iter, 0)
    _check_kind(penalty)
    losses, start = losses_and_start(X, y, W, b, sample_weight, x_scale, label_smoothing, kernels)
    if checkpoint is not None:
        settings = {
            "l2": l2, "l1": l1, "penalty": penalty, "label_smoothing": label_smoothing,
            "x_scale": x_scale, "standardize": bool(standardize),
            "precondition": bool(precondition),
        }  # fmt: skip
        log = EvaluationLog(checkpoint, losses, start, settings)
        losses, start = LoggedObjective(losses, log), log.start
    if standardize:
        losses = scaled = Standardised(losses)
        start = scaled.from_raw(start)
        callback = None if callback is None else partial(_tell_raw, callback, scaled)
    result = minimize_penalised(
        Penalised(losses, l2, l1, penalty),
        start,
        tol=tol,
        max_iter=max_iter,
        callback=callback,
        precondition=precondition,
    )
    if standardize:
        scaled.fold_into(result)
    return result


def lambda_max(
    X: Any,
    y: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    *,
    penalty: str = "l1",
    sample_weight: ArrayLike | None = None,
    x_scale: float = 1.0,
    label_smoothing: float = 0.0,
    kernels: Any = None,
) -> float:
    """Return the least l1 of `minimize` with which all weights are 0 at the optimum, for any l2.

    It is the largest size of a part of the gradient at weights of 0 and the best intercepts there,
    which give each class its share of the weight.

    Parameters
    ----------
    X, y, W, b, penalty, sample_weight, x_scale, label_smoothing, kernels
        As of `minimize`; of W and b the shapes count, not the numbers. Computed in float64.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError, IndexError
        As `minimize`.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.solvers import lambda_max, minimize
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> data = X, np.array([0, 0, 1, 1]), np.zeros((1, 2)), np.zeros(2)
    >>> lambda_max(*data)
    2.0
    >>> minimize(*data, l1=2.0).W.any(), minimize(*data, l1=1.9).W.any()
    (np.False_, np.True_)
    """
    _check_kind(penalty)
    losses, _ = losses_and_start(X, y, W, b, sample_weight, x_scale, label_smoothing, kernels)
    objective = Penalised(losses.in_float64(), 0.0)
    gradient = gradient_at_zero(objective.loss_and_gradient, losses.shape, losses.has_intercept)
    sizes = SparsePenalty(penalty, 1.0).sizes(gradient)
    return float(sizes.max(initial=0)) * objective.total_weight


def _check_kind(penalty: str) -> None:
    if penalty not in KINDS:
        raise ValueError(f"penalty: {penalty!r} came, one of {', '.join(KINDS)} was wanted")


def losses_and_start(
    X: Any,
    y: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    sample_weight: ArrayLike | None,
    x_scale: float,
    label_smoothing: float,
    kernels: Any,
) -> tuple[Objective, Doubles]:
    """Check the data and a starting point, and make an objective and parameters of them."""
    if hasattr(X, "value_and_gradient") or isinstance(X, Blocks):
        refuse_beside(X, y=y, sample_weight=sample_weight)
        losses, W, b = without_rows(X, W, b, x_scale, label_smoothing, kernels)
    else:
        losses, W, b = _of_rows(X, y, W, b, sample_weight, x_scale, label_smoothing, kernels)
    parameters = [W] if b is None else [W, b]
    for name, values in zip("Wb", parameters, strict=False):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: NaN or infinite elements came, finite ones were wanted")
    return losses, np.vstack(parameters).astype(np.float64)


def rows_for(
    model: SoftmaxModel, X: Any, y: Any, sample_weight: Any
) -> tuple[Any, NDArray[Any] | None]:
    """Return a model's data as `minimize` takes them: rows and targets, or what has both."""
    if isinstance(X, Blocks):
        refuse_beside(X, y=y, sample_weight=sample_weight)
        return objective_of(model, X), None
    if hasattr(X, "value_and_gradient"):
        return X, None
    rows = model._flatten(X)
    return rows, model._as_target(y, rows.shape[0])


def _of_rows(
    X: Any,
    y: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    sample_weight: ArrayLike | None,
    x_scale: float,
    label_smoothing: float,
    kernels: Any,
) -> tuple[Objective, NDArray[Any], NDArray[Any] | None]:
    """Check rows in memory, and make their objective; return W and b in its dtype too."""
    X, W, b = as_layer(as_kernels_like(X), W, b)
    (N, D), C = X.shape, W.shape[1]
    if C == 0:
        raise ValueError(f"W: shape {W.shape} came, ({D}, C) with C at least 1 was wanted")
    if N == 0:
        raise ValueError("X: no rows came, at least one was wanted")
    y = as_target(y, (N, C), (N,), "y")
    if sample_weight is not None:
        sample_weight = as_row_weights("sample_weight", sample_weight, N)
    losses = ArrayObjective(
        X,
        y,
        sample_weight=sample_weight,
        n_classes=C,
        has_intercept=b is not None,
        dtype=W.dtype,
        x_scale=x_scale,
        label_smoothing=label_smoothing,
        kernels=kernels_or_default(kernels),
    )
    return losses, W, b


def without_rows(
    X: Any,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    x_scale: float,
    label_smoothing: float,
    kernels: Any,
) -> tuple[Objective, NDArray[Any], NDArray[Any] | None]:
    """Do the same for blocks, and for what is an objective already."""
    W = as_floating("W", W)
    b = None if b is None else as_floating("b", b)
    losses: Objective = X
    if isinstance(X, Blocks):
        if W.ndim != 2 or W.shape[1] == 0 or (b is not None and b.shape != W.shape[1:]):
            raise ValueError(f"W: shape {W.shape} came, (D, C) with C at least 1 was wanted")
        losses = blocks_objective(
            X, W, b, classes=None, x_scale=x_scale, label_smoothing=label_smoothing, kernels=kernels
        )
    wanted = losses.shape[0] - losses.has_intercept, losses.shape[1]
    if W.shape != wanted or (b is not None) != losses.has_intercept:
        raise ValueError(
            f"W, b: shape {W.shape} with{'out' * (b is None)} b came, {wanted} "
            f"with{'out' * (not losses.has_intercept)} b, as the objective has, was wanted"
        )
    return losses, W.astype(losses.dtype), None if b is None else b.astype(losses.dtype)


def _tell_raw(
    callback: Callable[[FitResult], object], scaled: Standardised, state: FitResult
) -> None:
    scaled.fold_into(state)
    callback(state)
