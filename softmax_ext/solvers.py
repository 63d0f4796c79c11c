"""The regularised optimum of softmax regression: `fit_lbfgs`, and `minimize` under it.

Each step is one pass of the fused kernel over X. The optimiser's own vectors are float64, whatever
the kernels compute in, and every point at which they are asked can be held in their dtype, so that
a step and the change of the gradient along it belong to each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_integer, as_number, as_weights
from .curvature import Curvature, Preconditioner
from .model import SoftmaxModel, as_kernels_like, check_labels, kernels_or_default

_Vector: TypeAlias = NDArray[np.float64]

# The line search's conditions, named as by Hager & Zhang.
DELTA, SIGMA = 0.1, 0.9
# A rise of the objective by so much of its value is taken for rounding.
ROUNDING = 1e-6
# Pairs of step and gradient change that L-BFGS remembers.
MEMORY = 10
# Elements of them that are multiplied in their own dtype, and added up in float64.
PIECE = 1 << 15
# A preconditioned fit is soon within a loose tol, far above where plain steps would be by then.
# So it goes on while more than a share of the objective is to be gained, in proportion to tol and
# at most MOST: by what the next step promises (which is all there is, if it is one of Newton's
# method), or by what the last ones let expect.
PROMISED, EXPECTED, MOST = 1e-3, 3, 1e-3
# Without a penalty the objective may have no least value but near 0 for ever: there a promise of
# this share of tol is none.
NEARLY_NOTHING = 1e-4
# Iterations over which decreases are compared.
SPAN = 5
# In float32, p - 1 of a label's probability p has an error that is no longer small beside a mean
# loss of so many times its rounding.
FAINT = 100
# So many iterations that neither lower the objective, but by its rounding, nor halve the gradient
# are the end; plain steps go up and down for longer.
PATIENCE, PLAIN_PATIENCE = 15, 60
# Length of the first step: a whole one may leap far over the optimum of separable data.
FIRST_STEP = 0.03

CONVERGED, MAX_ITER, ROUNDED, STOPPED = range(4)
_MESSAGES = {
    CONVERGED: "the gradient is within tol",
    MAX_ITER: "max_iter iterations were made",
    ROUNDED: "no further progress: rounding hides what a step would change",
    STOPPED: "the callback raised StopIteration",
}


class FitResult(dict[str, Any]):
    """What a solver found; its entries are attributes too, as in SciPy's OptimizeResult.

    Attributes
    ----------
    W : ndarray, shape (D, C)
        Weights, in the dtype that was computed in.
    b : ndarray, shape (C,), or None
        Intercepts.
    fun : float
        The objective at `W` and `b`: a sum over rows, in nats.
    grad_norm : float
        Largest absolute entry of the gradient of the objective divided by the sum of the weights
        of the rows; this is what `tol` bounds.
    nit, nfev : int
        Iterations, and evaluations of objective and gradient, each a pass over X.
    success : bool
        Whether `grad_norm` is at most `tol`.
    status : int
        0: converged, 1: `max_iter` iterations, 2: stopped by rounding, 3: by the callback.
    message : str
        The same in words.

    Examples
    --------
    >>> from softmax_ext.solvers import FitResult
    >>> FitResult(fun=1.5, nit=3).nit
    3
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self})

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = []
        for name, value in self.items():
            shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else repr(value)
            lines.append(f"{name.rjust(width)}: {shown}")
        return "\n".join(lines)


def fit_lbfgs(
    model: SoftmaxModel,
    X: ArrayLike,
    y: ArrayLike,
    *,
    C: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 1000,
    sample_weight: ArrayLike | None = None,
    callback: Callable[[FitResult], object] | None = None,
) -> FitResult:
    """Bring a model to its regularised optimum, from the weights that it has.

    Minimises ``sum_i s_i loss_i + ||W||^2 / (2 C)``, the objective of scikit-learn's
    `LogisticRegression`: s is `sample_weight`, and the intercept b is not penalised.

    Parameters
    ----------
    model : SoftmaxModel
        Changed in place.
    X : array_like, shape (N, D), or images (N, h, w, ...)
        float32, float64, uint8 or CSR. Read once in each step, never copied.
    y : array_like, shape (N,) or (N, C)
        Labels or probabilities, as the model takes them.
    C : float, optional
        Inverse strength of the penalty; infinity: none.
    tol : float, optional
        Converged when no entry of the gradient of the objective, divided by the sum of the sample
        weights, is larger.
    max_iter : int, optional
        Most iterations.
    sample_weight : array_like, shape (N,), optional
        Factors of the rows' losses, at least 0.
    callback : callable, optional
        Called with a `FitResult` after each iteration (``nit``, ``fun``, ``grad_norm``, ``W``,
        ``b``; the arrays are valid during the call only). ``raise StopIteration`` ends the fit.

    Returns
    -------
    FitResult
        ``W, b, fun, grad_norm, nit, nfev, success, status, message``.

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
        raise ValueError(f"C: {C}, wanted a number above 0")
    rows = model._flatten(X)
    target = model._as_target(y, rows.shape[0])
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
            callback=remember,
            kernels=model.kernels,
        )
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
    sample_weight: ArrayLike | None = None,
    x_scale: float = 1.0,
    tol: float = 1e-4,
    max_iter: int = 100,
    label_smoothing: float = 0.0,
    callback: Callable[[FitResult], object] | None = None,
    precondition: bool = True,
    kernels: Any = None,
) -> FitResult:
    """Minimise ``sum_i s_i loss_i + l2/2 ||W||^2 + l1 |W|_1``; b is not penalised.

    Parameters
    ----------
    X : ndarray (N, D) or CSR
        float32, float64 or uint8, in any layout.
    y : ndarray, shape (N,) or (N, C)
        Integer labels in [0, C), -100 for a row that does not count; or floating probabilities.
    W : ndarray, shape (D, C)
        Starting point; not modified. As everywhere, X and W of float32 are computed in float32,
        any float64 makes it float64, and uint8 X takes W's dtype.
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
        larger; with l1, of its subgradient of least norm. With a preconditioner, no more than a
        small share of the objective (in proportion to tol, at most a thousandth) may be expected
        to be gained by further steps either.
    max_iter : int, optional
        Most iterations.
    label_smoothing : float, optional
        In [0, 1], as in the kernels.
    precondition : bool, optional
        False: plain L-BFGS, for comparison.
    callback : callable, optional
        Called with a `FitResult` after each iteration (``nit``, ``fun``, ``grad_norm``, ``W``,
        ``b``; the arrays are valid during the call only). ``raise StopIteration`` ends the fit.
    kernels : object with the kernels' functions, optional
        None: ``softmax_ext.kernels``.

    Returns
    -------
    FitResult
        ``W, b, fun, grad_norm, nit, nfev, success, status, message``.

    Raises
    ------
    ValueError, TypeError, IndexError
        As `fit_lbfgs`.

    Notes
    -----
    L-BFGS [1]_ with the line search conditions of Hager and Zhang [2]_: close to the optimum the
    objective's differences drown in rounding, those of its slope do not, and as the objective is
    convex the slope alone tells a good step. With l1, steps stay within an orthant [3]_.

    The first Hessian is an estimate from a sample of the rows (see `softmax_ext.curvature`): with
    up to 2048 features the weighted second moments of the features, for each class by itself as
    soon as the fit has cost as much as that does, or where it is small the whole Hessian; otherwise
    their variances. With l1 it is the second moments of dense features by themselves.

    References
    ----------
    .. [1] J. Nocedal, S. Wright, "Numerical Optimization", 2nd ed. (2006), chapter 7.
    .. [2] W. Hager, H. Zhang, "A new conjugate gradient method with guaranteed descent and an
       efficient line search", SIAM J. Optim. 16 (2005).
    .. [3] G. Andrew, J. Gao, "Scalable training of L1-regularized log-linear models", ICML 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.solvers import minimize
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> result = minimize(X, np.array([0, 0, 1, 1]), np.zeros((1, 2)), np.zeros(2), l2=1.0)
    >>> result.success, round(result.fun, 4)
    (True, 1.5266)
    """
    penalties = {"l2": l2, "l1": l1, "tol": tol}
    for name, value in penalties.items():
        if not (math.isfinite(as_number(name, value)) and value >= 0):
            raise ValueError(f"{name}: {value}, wanted a finite number of at least 0")
    if as_integer("max_iter", max_iter) < 0:
        raise ValueError(f"max_iter: {max_iter}, wanted at least 0")
    objective = _Objective(
        X, y, W, b, l2, l1, sample_weight, x_scale, label_smoothing, kernels_or_default(kernels)
    )
    return _lbfgs(objective, tol, max_iter, callback, precondition)


# The objective ----------------------------------------------------------------------------------


class _Objective:
    """The objective divided by the sum of the weights, and the gradient of its smooth part.

    Parameters are one array (D + 1, C), or (D, C) without intercepts: W, and b below it.
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        W: NDArray[Any],
        b: NDArray[Any] | None,
        l2: float,
        l1: float,
        sample_weight: ArrayLike | None,
        x_scale: float,
        label_smoothing: float,
        kernels: Any,
    ) -> None:
        X = as_kernels_like(X)
        n, self.D = X.shape
        W = np.asarray(W)
        if W.ndim != 2 or W.shape[0] != self.D or W.shape[1] == 0:
            raise ValueError(f"W: shape {W.shape}, wanted ({self.D}, C) with C at least 1")
        if n == 0:
            raise ValueError("X: no rows, wanted at least one to fit")
        check_labels(y, W.shape[1])
        if sample_weight is not None:
            sample_weight = as_weights("sample_weight", sample_weight, (n,))
            if not (np.isfinite(sample_weight).all() and sample_weight.min() >= 0):
                raise ValueError("sample_weight: wanted finite numbers of at least 0")
        arrays = [W] if b is None else [W, b]
        start = np.concatenate([np.atleast_2d(a) for a in arrays]).astype(np.float64)
        if not np.isfinite(start).all():
            raise ValueError("W, b: the starting point is not finite")
        x_dtype = (X.data if hasattr(X, "indptr") else X).dtype
        self.dtype = np.result_type(*arrays, *([] if x_dtype == np.uint8 else [x_dtype]))
        self.X, self.sample_weight = X, sample_weight
        self.y = y if y.ndim == 1 else y.astype(self.dtype, copy=False)
        self.l2, self.l1 = l2, l1
        self._options: dict[str, Any] = {
            "sample_weight": sample_weight,
            "x_scale": x_scale,
            "label_smoothing": label_smoothing,
            "reduction": "sum",
        }
        self._kernels = kernels
        self._theta = np.empty(start.shape, self.dtype)
        self._gradient = np.empty(start.shape, self.dtype)
        self.has_intercept = b is not None
        self.nfev = 0
        #: The sum of the weights of the rows that count; known after the first evaluation.
        self.total = math.nan
        self.start = self.rounded(start)
        #: What W and b are returned in; the same as `dtype` until `widen`.
        self.result_dtype = self.dtype

    @property
    def cost(self) -> float:
        """Multiplications of an evaluation, with what a call costs however small it is."""
        X = self.X
        size = X.data.size if hasattr(X, "indptr") else X.size
        return float(2 * size * self.start.shape[1] + 3e6)

    def curvature(self) -> Curvature:
        n = self.X.shape[0]
        factors = np.ones(n) if self.sample_weight is None else self.sample_weight.copy()
        if self.y.ndim == 1:
            factors[self.y < 0] = 0
        else:
            factors *= self.y.sum(axis=1)

        def predict_proba(x: Any, theta: _Vector) -> NDArray[Any]:
            W, b = self.split(theta.astype(self.dtype))
            result: NDArray[Any] = self._kernels.predict_proba(
                x, W, b, x_scale=self._options["x_scale"]
            )
            return result

        def linear(W: _Vector, b: _Vector) -> NDArray[Any]:
            result: NDArray[Any] = self._kernels.linear(
                self.X, W.astype(self.dtype), b.astype(self.dtype), x_scale=self._options["x_scale"]
            )
            return result

        return Curvature(
            self.X,
            factors,
            self._options["x_scale"],
            self.l2 / self.total,
            self.start.shape[1],
            self.has_intercept,
            self.dtype,
            predict_proba,
            linear,
        )

    def rounded(self, theta: _Vector, dtype: np.dtype[Any] | None = None) -> _Vector:
        """Return the nearest point that the kernels can be asked at (or that `dtype` can hold).

        What is the same for all classes changes no probability and is penalised, so it is taken
        away; of absolute values it is not the mean that is least.
        """
        if not self.l1:
            theta = theta - theta.mean(axis=1, keepdims=True)
        return theta.astype(dtype or self.dtype).astype(np.float64)

    @property
    def is_narrow(self) -> bool:
        """Whether the kernels compute in less than float64."""
        return self.dtype != np.float64

    def widen(self) -> None:
        """Compute in float64 from now on."""
        self.dtype = np.dtype(np.float64)
        self._theta, self._gradient = np.empty((2, *self._theta.shape))
        if self.y.ndim == 2:
            self.y = self.y.astype(np.float64)

    def split(self, theta: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return W and b, as views."""
        return theta[: self.D], theta[self.D] if self.has_intercept else None

    def _pass(self, theta: _Vector) -> Any:
        self._theta[...] = theta
        W, b = self.split(self._theta)
        return self._kernels.linear_cross_entropy_with_grad(
            self.X, W, b, self.y, out=self.split(self._gradient), **self._options
        )

    def __call__(self, theta: _Vector) -> tuple[float, _Vector]:
        result = self._pass(theta)
        if self.nfev == 0:
            self.total = self._checked(result.total_weight)
        self.nfev += 1
        W = theta[: self.D]
        # A row's gradient adds up to 0 over the classes: what does not is rounding.
        gradient = self._gradient - self._gradient.mean(axis=1, keepdims=True, dtype=np.float64)
        value = result.loss
        if self.l2:
            gradient[: self.D] += self.l2 * W
            value += self.l2 / 2 * np.vdot(W, W)
        if self.l1:
            value += self.l1 * np.abs(W).sum()
        gradient /= self.total
        return float(value) / self.total, gradient

    def _checked(self, total: float) -> float:
        if total == 0:
            weight = self.sample_weight
            raise ValueError(
                "y: no label that counts"
                if weight is None or weight.any()
                else "sample_weight: all are 0"
            )
        return total

    def subgradient(self, theta: _Vector, gradient: _Vector) -> _Vector:
        """Return the subgradient of least norm, given the gradient of the smooth part."""
        if not self.l1:
            return gradient
        l1 = self.l1 / self.total
        W, g = theta[: self.D], gradient[: self.D]
        result: _Vector = gradient.copy()
        result[: self.D] = np.where(
            W == 0, np.sign(g) * np.maximum(np.abs(g) - l1, 0), g + l1 * np.sign(W)
        )
        return result

    def check_start(self, value: float, gradient: _Vector) -> None:
        """Say what is wrong where the very first value is not finite."""
        if math.isfinite(value) and np.isfinite(gradient).all():
            return
        data = self.X.data if hasattr(self.X, "indptr") else self.X
        if not all(np.isfinite(data[i : i + 1024]).all() for i in range(0, data.shape[0], 1024)):
            raise ValueError("X: NaN or infinite elements came, finite ones were wanted")
        raise ValueError("X: the loss at the starting point overflows; scale X down")


# L-BFGS -----------------------------------------------------------------------------------------


def _lbfgs(
    objective: _Objective,
    tol: float,
    max_iter: int,
    callback: Callable[[FitResult], object] | None,
    precondition: bool,
) -> FitResult:
    theta = objective.start
    value, gradient = objective(theta)
    objective.check_start(value, gradient)
    steepest = objective.subgradient(theta, gradient)
    model, schedule = _first_model(objective, precondition)
    search = _search_orthant if objective.l1 else _search
    newton = schedule is not None and schedule.curvature.use_whole
    slack = 0.0 if objective.l2 else NEARLY_NOTHING * tol
    progress = _Progress(PLAIN_PATIENCE if schedule is None else PATIENCE)
    #: Where float32 led, if it was not far enough.
    narrow: _Vector | None = None
    nit = 0

    def state(**more: Any) -> FitResult:
        W, b = objective.split(theta.astype(objective.result_dtype))
        return FitResult(
            W=W, b=b, fun=value * objective.total, grad_norm=float(np.abs(steepest).max()),
            nit=nit, nfev=objective.nfev, **more,
        )  # fmt: skip

    while True:
        norm = float(np.abs(steepest).max())
        within_tol = norm <= tol
        if nit == max_iter or (within_tol and schedule is None):
            status = CONVERGED if within_tol else MAX_ITER
            break
        if schedule is not None:
            schedule.update(model, nit, theta, value)
        direction = model.direction(steepest)
        promise = -float(np.vdot(steepest, direction)) / 2
        found = None
        if within_tol and (
            promise <= min(PROMISED * tol, MOST) * abs(value) + slack
            or (not newton and progress.left() <= min(EXPECTED * tol, MOST) * abs(value))
        ):
            if abs(value) > FAINT * np.finfo(objective.dtype).eps or not objective.is_narrow:
                status = CONVERGED
                break
        elif progress.goes_on(value, norm, objective.dtype):
            step = model.first_step(direction)
            found = search(objective, theta, value, steepest, direction, step)
            if found is None and model.forget():
                continue
        if found is None:
            if not objective.is_narrow:
                status = ROUNDED
                break
            narrow = theta
            objective.widen()
            value, gradient = objective(theta)
            steepest = objective.subgradient(theta, gradient)
            model, schedule = _first_model(objective, precondition)
            progress.begin()
            continue
        new_theta, value, new_gradient = found
        model.add(new_theta - theta, gradient, new_gradient)
        theta, gradient = new_theta, new_gradient
        steepest = objective.subgradient(theta, gradient)
        nit += 1
        if callback is not None:
            try:
                callback(state())
            except StopIteration:
                status = STOPPED
                break
    if narrow is not None:
        # Of what float32 can hold, the better of the two.
        ends = [objective.rounded(theta, objective.result_dtype), narrow]
        (value, gradient), theta = min(
            ((objective(end), end) for end in ends), key=lambda found: found[0][0]
        )
        steepest = objective.subgradient(theta, gradient)
        if status == CONVERGED and np.abs(steepest).max() > tol:
            status = ROUNDED
    return state(success=status == CONVERGED, status=status, message=_MESSAGES[status])


def _first_model(objective: _Objective, precondition: bool) -> tuple[_Pairs, _Schedule | None]:
    """Return an inverse Hessian to begin with, and what renews it."""
    model = _Pairs(objective.start.shape, objective.dtype)
    if precondition and not objective.l1:
        return model, _Schedule(objective)
    if precondition and not hasattr(objective.X, "indptr"):
        # Within an orthant a preconditioner that mixes features leads astray.
        model.set_first(objective.curvature().scales())
    return model, None


class _Progress:
    """Tells how a fit goes on: how much is left, or that rounding leads it in circles."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.begin()

    def begin(self) -> None:
        self._value = self._norm = math.inf
        self._in_vain = 0
        self._values = [math.inf] * (2 * SPAN + 1)

    def left(self) -> float:
        """Guess what there is to come if the decrease goes on to shrink as it did."""
        before, middle, last = self._values[0], self._values[SPAN], self._values[-1]
        share = (middle - last) / (before - middle) if before - middle > 0 else math.inf
        return (middle - last) * share / (1 - share) if share < 1 else math.inf

    def goes_on(self, value: float, norm: float, dtype: np.dtype[Any]) -> bool:
        """Take the objective and the gradient's norm at the next point."""
        self._values = [*self._values[1:], value]
        self._in_vain += 1
        if value < self._value - np.finfo(dtype).eps * abs(value):
            self._value, self._in_vain = value, 0
        if norm < self._norm / 2:
            self._norm, self._in_vain = norm, 0
        return self._in_vain < self._patience


class _Pairs:
    """The inverse Hessian that the last steps and changes of the gradient make of a first one.

    L-BFGS's two loops go over the products of the vectors with each other, so that the vectors are
    read only twice an iteration: for the gradient's products with them, and to be added up.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        # Steps, changes of the gradient, and the first inverse Hessian times those.
        self._S = np.zeros((MEMORY, *shape), dtype)
        self._Y = np.zeros((MEMORY, *shape), dtype)
        self._Z = self._Y
        # Where they are, the oldest first.
        self._order: list[int] = []
        # By place: products of a step with the changes since, and of changes with Z.
        self._SY = np.zeros((MEMORY, MEMORY))
        self._YZ = np.zeros((MEMORY, MEMORY))
        self._first: Preconditioner | None = None
        self._first_step = FIRST_STEP
        self._applied: tuple[_Vector, _Vector] | None = None

    def set_first(self, first: Preconditioner, newton: bool = False) -> None:
        """Begin with another inverse Hessian; for Newton's method, without memory."""
        self._first, self._applied = first, None
        self._first_step = 1.0 if newton else FIRST_STEP
        if newton:
            self._order.clear()
        if self._Z is self._Y:
            self._Z = np.zeros_like(self._Y)
        n = len(self._order)
        for i in range(n):
            self._Z[i] = first(self._Y[i].astype(np.float64))
            self._YZ[:n, i] = _products(self._Y[:n], self._Z[i])

    def first_step(self, direction: _Vector) -> float:
        """Return the length to try first."""
        if self._order:
            return 1.0
        if self._first is not None:
            return self._first_step
        return min(1.0, 1 / float(np.abs(direction).sum()))

    def forget(self) -> bool:
        """Forget all steps; return whether there were any."""
        there_were = bool(self._order)
        self._order.clear()
        return there_were

    def _apply(self, gradient: _Vector) -> _Vector:
        """Return the first inverse Hessian times a gradient, which is not modified."""
        if self._first is None:
            return gradient
        if self._applied is None or self._applied[0] is not gradient:
            self._applied = gradient, self._first(gradient)
        return self._applied[1]

    def add(self, s: _Vector, gradient: _Vector, new_gradient: _Vector) -> None:
        """Remember a step, given the gradients before and after it."""
        y = new_gradient - gradient
        # The first is linear, and has been applied to the one and is about to be to the other.
        z = y if self._first is None else -self._apply(gradient) + self._apply(new_gradient)
        product, length = float(np.vdot(s, y)), float(np.vdot(y, z))
        if not (length > 0 and product > 1e-14 * length):
            return
        i = self._order.pop(0) if len(self._order) == MEMORY else len(self._order)
        self._order.append(i)
        self._S[i], self._Y[i], self._Z[i] = s, y, z
        n = len(self._order)
        self._SY[:n, i] = _products(self._S[:n], y)
        self._SY[i, i] = product
        self._YZ[:n, i] = self._YZ[i, :n] = _products(self._Z[:n], y)

    def direction(self, gradient: _Vector) -> _Vector:
        """Return minus the inverse Hessian times the gradient."""
        n = len(self._order)
        if n == 0:
            return -self._apply(gradient)
        order = np.array(self._order)
        Sg, Zg = (_products(vectors[:n], gradient)[order] for vectors in (self._S, self._Z))
        SY, YZ = (products[np.ix_(order, order)] for products in (self._SY, self._YZ))
        scale = SY[-1, -1] / YZ[-1, -1]
        a, c = np.zeros(n), np.zeros(n)
        for i in reversed(range(n)):
            a[i] = -(Sg[i] + SY[i, i + 1 :] @ a[i + 1 :]) / SY[i, i]
        products = -scale * (Zg + YZ @ a)
        for i in range(n):
            c[i] = a[i] - (products[i] + SY[:i, i] @ c[:i]) / SY[i, i]
        factors = np.zeros((2, n))
        factors[:, order] = c, -scale * a
        result: _Vector = -scale * self._apply(gradient)
        _add_up(factors[0], self._S[:n], result)
        _add_up(factors[1], self._Z[:n], result)
        return result


def _products(vectors: NDArray[Any], x: NDArray[Any]) -> _Vector:
    """Return the inner product of each of the vectors with x."""
    vectors, x = vectors.reshape(len(vectors), -1), x.reshape(-1)
    result = np.zeros(len(vectors))
    for i in range(0, len(x), PIECE):
        result += vectors[:, i : i + PIECE] @ x[i : i + PIECE].astype(vectors.dtype)
    return result


def _add_up(factors: _Vector, vectors: NDArray[Any], result: _Vector) -> None:
    """Add the sum of the vectors times their factors to the result."""
    vectors, result = vectors.reshape(len(vectors), -1), result.reshape(-1)
    factors = factors.astype(vectors.dtype)
    for i in range(0, len(result), PIECE):
        result[i : i + PIECE] += factors @ vectors[:, i : i + PIECE]


class _Schedule:
    """Renews the preconditioner when as much has been spent on steps as that costs.

    So renewals never take much more than the steps, and a fit of few steps gets none.
    """

    def __init__(self, objective: _Objective) -> None:
        self.objective = objective
        self.curvature = objective.curvature()
        # Whether one with products of features is still to come, and what the next one costs.
        self._first_to_come = self.curvature.has_moments
        if not self._first_to_come:
            self._cost = math.inf
        elif self.curvature.use_whole:
            self._cost = self.curvature.cost_whole()
        else:
            self._cost = self.curvature.cost_shared()
        # When the last one was made.
        self._nfev = self._nit = 0
        self._value = math.inf

    def update(self, model: _Pairs, nit: int, theta: _Vector, value: float) -> None:
        first = self._next(nit, theta, value)
        if first is None and nit == 0:
            model.set_first(self.curvature.diagonal())
        elif first is not None:
            model.set_first(first, newton=self.curvature.use_whole)

    def _next(self, nit: int, theta: _Vector, value: float) -> Preconditioner | None:
        curvature, objective = self.curvature, self.objective
        spent = (objective.nfev - self._nfev) * objective.cost
        if self._first_to_come:
            # In few passes it is always worth it.
            due = spent + 5 * objective.cost >= self._cost
        else:
            # A search of many steps tells that the last one is of a place too far away.
            far = objective.nfev - self._nfev > 2 * (nit - self._nit)
            due = (
                (spent >= self._cost or far)
                if curvature.use_whole
                else (spent >= self._cost and nit >= self._nit + 3 and value < 0.9 * self._value)
            )
        if not due:
            return None
        self._nfev, self._nit, self._value = objective.nfev, nit, value
        first_to_come, self._first_to_come = self._first_to_come, False
        if curvature.use_whole:
            return curvature.whole(theta)
        if first_to_come:
            self._cost = curvature.cost_blocks() if curvature.use_blocks else math.inf
            return curvature.shared(theta)
        self._cost = 4 * curvature.cost_blocks()
        return curvature.blocks(theta)


def _search(
    objective: _Objective,
    theta: _Vector,
    value: float,
    gradient: _Vector,
    direction: _Vector,
    t: float,
) -> tuple[_Vector, float, _Vector] | None:
    """Return the next point, its value and gradient; None where rounding hides all progress."""
    slope = float(np.vdot(gradient, direction))
    if not slope < 0:
        return None
    low, low_slope = 0.0, slope
    high, high_slope = math.inf, math.nan
    width = math.inf
    for _ in range(40):
        new = objective.rounded(theta + t * direction)
        if np.array_equal(new, theta):
            return None
        new_value, new_gradient = objective(new)
        new_slope = float(np.vdot(new_gradient, direction))
        finite = math.isfinite(new_value) and math.isfinite(new_slope)
        if finite and new_slope >= SIGMA * slope:
            wolfe = new_value <= value + DELTA * t * slope
            approximate = new_slope <= (2 * DELTA - 1) * slope
            if wolfe or (approximate and new_value <= value + ROUNDING * abs(value)):
                return new, new_value, new_gradient
        if not finite or new_slope > 0 or new_value > value + ROUNDING * abs(value):
            high, high_slope = t, new_slope if finite else math.nan
        else:
            low, low_slope = t, new_slope
        if math.isinf(high):
            t *= 4
        elif high - low > width / 2:
            # Guesses close in on one end only, as where one row's loss has a sharp bend.
            t, width = low + 0.1 * (high - low), math.inf
        elif math.isfinite(high_slope) and high_slope > low_slope:
            # Where the slope would be 0 if it changed evenly, but not at the ends.
            width = high - low
            t = low - low_slope * (high - low) / (high_slope - low_slope)
            margin = 0.1 * (high - low)
            t = min(max(t, low + margin), high - margin)
        else:
            t = low + 0.1 * (high - low)
    return None


def _search_orthant(
    objective: _Objective,
    theta: _Vector,
    value: float,
    steepest: _Vector,
    direction: _Vector,
    t: float,
) -> tuple[_Vector, float, _Vector] | None:
    """Do what `_search` does along the direction's projection onto an orthant, where l1 is smooth.

    A weight that would change its sign stops at 0; one at 0 leaves it downhill only.
    """
    D = objective.D
    direction = np.where(direction * steepest < 0, direction, 0)
    orthant = np.where(theta == 0, -np.sign(steepest), np.sign(theta))[:D]
    noise = np.finfo(objective.dtype).eps * abs(value)
    for _ in range(40):
        new = objective.rounded(theta + t * direction)
        new[:D][new[:D] * orthant < 0] = 0
        if np.array_equal(new, theta):
            return None
        new_value, new_gradient = objective(new)
        if new_value <= value + 1e-4 * np.vdot(steepest, new - theta) + noise:
            return new, new_value, new_gradient
        t /= 2
    return None
