"""L-BFGS: the loop, when it ends, and the line search.

A step is one pass over the rows, seldom more. The inverse Hessian is that of `pairs`, over a
preconditioner that `renewal` makes anew as the fit goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .objective import Doubles
from .pairs import InverseHessian
from .penalised import Penalised
from .products import inner
from .proximal import minimize_sparse
from .renewal import Renewal
from .result import CONVERGED, MAX_ITER, MESSAGES, ROUNDED, STOPPED, FitResult

# A preconditioned gradient is within a loose tol long before the objective is near its least
# value. So a fit goes on while more than a share of the objective is to be gained: a share in
# proportion to tol, and at most MOST_GAIN. What is to be gained is what the next step promises, or,
# as a step of L-BFGS sees less than there is, what the decreases so far let expect.
PROMISED_GAIN, EXPECTED_GAIN, MOST_GAIN = 1e-3, 0.3, 1e-3
# Without a penalty the objective may fall towards 0 for ever, and every share of it be gained
# again: there a promise below this share of tol counts for nothing.
NEGLIGIBLE_GAIN = 1e-4
# The label's entry p - 1 of a row's gradient has float32's rounding for an error, however small the
# row's loss is: a mean loss below so many times that rounding is not the end, but for float64.
TRUSTED_LOSS = 100
# Iterations over which decreases are compared: those of single ones go up and down.
SPAN = 5
# So many iterations that neither lower the objective, but by its rounding, nor halve the gradient
# are the end. Plain steps go up and down for longer.
PATIENCE, PLAIN_PATIENCE = 15, 60

# The line search's conditions, with the names and values of Hager & Zhang.
DELTA, SIGMA = 0.1, 0.9
# A rise of the objective by so much of its value is taken for rounding: their epsilon.
ROUNDING = 1e-6
# Points that a line search looks at.
MOST_POINTS = 40
# How much longer the next step is while the slope is still downhill.
LENGTHEN = 4
# A guess is kept away from either end of the interval by this share of it.
MARGIN = 0.1


def minimize_penalised(
    objective: Penalised,
    start: Doubles,
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[FitResult], object] | None = None,
    precondition: bool = True,
) -> FitResult:
    """Minimise from a starting point; `fit.minimize` says what the arguments are."""
    if objective.sparse is not None:
        return minimize_sparse(objective, start, tol=tol, max_iter=max_iter, callback=callback)
    return _Fit(objective, start, tol, precondition).run(max_iter, callback)


class _Fit:
    """Where a fit stands: a point, value and gradients there, and an inverse Hessian."""

    def __init__(
        self, objective: Penalised, start: Doubles, tol: float, precondition: bool
    ) -> None:
        self._objective = objective
        self._tol = tol
        self._precondition = precondition
        self._negligible = 0.0 if objective.l2 else NEGLIGIBLE_GAIN * tol
        self._nit = 0
        self._begin(objective.representable(start))

    def _begin(self, theta: Doubles) -> None:
        """Begin at a point, without anything that earlier steps have shown."""
        objective = self._objective
        value, gradient = objective.value_and_gradient(theta)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise ValueError("W: a penalty that overflows came, smaller elements were wanted")
        self._place(theta, value, gradient)
        self._inverse_hessian = InverseHessian(objective.losses.shape, objective.dtype)
        self._renewal: Renewal | None = None
        if self._precondition:
            self._renewal = Renewal(objective, self._inverse_hessian)
        self._progress = Progress(PLAIN_PATIENCE if self._renewal is None else PATIENCE)

    def _place(self, theta: Doubles, value: float, gradient: Doubles) -> None:
        self._theta, self._value, self._gradient = theta, value, gradient
        self._norm = float(np.abs(gradient).max())

    def run(self, max_iter: int, callback: Callable[[FitResult], object] | None) -> FitResult:
        """Step until there is a reason to end."""
        # Where float32 led, if that was not far enough.
        narrow_end: Doubles | None = None
        while True:
            within_tol = self._norm <= self._tol
            if within_tol and self._renewal is None:
                status = CONVERGED
                break
            if self._nit == max_iter and not within_tol:
                status = MAX_ITER
                break
            if self._renewal is not None:
                self._renewal.update(self._nit, self._theta, self._value, within_tol)
            direction = self._inverse_hessian.direction(self._gradient)
            reached = None
            is_end = within_tol and self._little_is_to_be_gained(direction)
            if is_end and (not self._objective.is_narrow or self._value_can_be_trusted()):
                status = CONVERGED
                break
            if self._nit == max_iter:
                status = MAX_ITER
                break
            if not is_end and self._progress.goes_on(
                self._value, self._norm, self._objective.dtype
            ):
                reached = search(
                    self._objective, self._theta, self._value, self._gradient, direction,
                    self._inverse_hessian.first_step(direction),
                )  # fmt: skip
                if reached is None and (self._inverse_hessian.forget() or self._drop()):
                    continue
            if reached is None:
                if not self._objective.is_narrow:
                    status = ROUNDED
                    break
                narrow_end = self._theta
                self._objective.widen()
                self._begin(narrow_end)
                continue
            self._step(*reached)
            if callback is not None:
                try:
                    callback(self._state())
                except StopIteration:
                    status = STOPPED
                    break
        if narrow_end is not None:
            self._round(narrow_end)
            if status == CONVERGED and self._norm > self._tol:
                status = ROUNDED
        result = self._state()
        result.update(success=status == CONVERGED, status=status, message=MESSAGES[status])
        return result

    def _drop(self) -> bool:
        """Go on without the preconditioner, where there is one and no step along it was good."""
        if self._renewal is None or not self._renewal.drop():
            return False
        self._progress = Progress(PLAIN_PATIENCE)
        return True

    def _step(self, theta: Doubles, value: float, gradient: Doubles) -> None:
        self._inverse_hessian.add(theta - self._theta, self._gradient, gradient)
        self._place(theta, value, gradient)
        self._nit += 1

    def _little_is_to_be_gained(self, direction: Doubles) -> bool:
        """Whether further steps would lower the objective by less than counts."""
        value = abs(self._value)
        if self._inverse_hessian.has_first:
            promised = -inner(self._gradient, direction) / 2
            if promised <= min(PROMISED_GAIN * self._tol, MOST_GAIN) * value + self._negligible:
                return True
        if self._renewal is None or self._renewal.is_newton:
            # A step of Newton's method promises all there is.
            return False
        return self._progress.expected() <= min(EXPECTED_GAIN * self._tol, MOST_GAIN) * value

    def _value_can_be_trusted(self) -> bool:
        return abs(self._value) > TRUSTED_LOSS * float(np.finfo(self._objective.dtype).eps)

    def _round(self, narrow_end: Doubles) -> None:
        """Go to the better of two points that float32 can hold: the end rounded, and another."""
        objective = self._objective
        ends = [objective.representable(self._theta, objective.result_dtype), narrow_end]
        (value, gradient), theta = min(
            ((objective.value_and_gradient(end), end) for end in ends), key=lambda end: end[0][0]
        )
        self._place(theta, value, gradient)

    def _state(self) -> FitResult:
        objective = self._objective
        return objective.result(
            self._theta, self._value, grad_norm=self._norm, nit=self._nit, nfev=objective.nfev
        )


class Progress:
    """Tells how much is to be expected of a fit, and whether rounding leads it in circles."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._least_value = self._least_norm = math.inf
        self._in_vain = 0
        self._values = [math.inf] * (2 * SPAN + 1)

    def expected(self) -> float:
        """Guess what there is to come if the decrease goes on to shrink as it did."""
        before, middle, last = self._values[0], self._values[SPAN], self._values[-1]
        if math.isinf(before):  # too few steps to tell
            return math.inf
        share = (middle - last) / (before - middle) if before - middle > 0 else math.inf
        return (middle - last) * share / (1 - share) if share < 1 else math.inf

    def goes_on(self, value: float, norm: float, dtype: np.dtype[np.floating]) -> bool:
        """Take the objective and the gradient's norm at the next point."""
        self._values = [*self._values[1:], value]
        self._in_vain += 1
        if value < self._least_value - np.finfo(dtype).eps * abs(value):
            self._least_value, self._in_vain = value, 0
        if norm < self._least_norm / 2:
            self._least_norm, self._in_vain = norm, 0
        return self._in_vain < self._patience


def search(
    objective: Penalised,
    theta: Doubles,
    value: float,
    gradient: Doubles,
    direction: Doubles,
    t: float,
) -> tuple[Doubles, float, Doubles] | None:
    """Return the next point, its value and gradient; None where rounding hides all progress.

    Close to the optimum the objective's differences drown in rounding, those of its slope do not;
    and as the objective is convex, the slope alone tells a good step.
    """
    slope = inner(gradient, direction)
    if not -math.inf < slope < 0:
        return None
    low, low_slope = 0.0, slope
    high, high_slope = math.inf, math.nan
    width = math.inf
    for _ in range(MOST_POINTS):
        new = objective.representable(theta + t * direction)
        if np.array_equal(new, theta):
            return None
        new_value, new_gradient = objective.value_and_gradient(new)
        new_slope = inner(new_gradient, direction)
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
            t *= LENGTHEN
        elif high - low > width / 2:
            # Guesses close in on one end only, as where one row's loss has a sharp bend.
            t, width = low + MARGIN * (high - low), math.inf
        elif math.isfinite(high_slope) and high_slope > low_slope:
            # Where the slope would be 0 if it changed evenly, but not at the ends.
            width = high - low
            t = low - low_slope * (high - low) / (high_slope - low_slope)
            margin = MARGIN * (high - low)
            t = min(max(t, low + margin), high - margin)
        else:
            t = low + MARGIN * (high - low)
    return None
