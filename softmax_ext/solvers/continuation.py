"""The optima for one penalty after another, each from a prediction of it.

L-BFGS goes on from penalty to penalty, and keeps what it has learnt. The gradient's change along a
step is known for any penalty, as that of the penalty is the step's multiple. The first inverse
Hessian comes from one decomposition for all penalties (`spectrum`). The next optimum lies near the
line through the last two, along the logarithm of the penalty: a first step leads there; later ones
are those of L-BFGS, of which the first is the derivative of the optimum by the penalty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .curvature import MOST_WHOLE, Curvature
from .lbfgs import TRUSTED_LOSS, Progress, minimize_penalised, search
from .objective import Doubles, Objective
from .pairs import MEMORY, InverseHessian
from .penalised import Penalised
from .products import inner
from .result import CONVERGED, MAX_ITER, MESSAGES, ROUNDED, FitResult
from .spectrum import BetweenClasses, Spectrum

# The pairs kept: more than for a single fit, as they serve all; but not of many parameters.
MOST_PAIRS, PAIRS_BYTES = 30, 16 << 20
# A step of L-BFGS sees a part of what there is to be gained, and the smaller a part the more steps
# are behind it: what has not been found then is what steps hardly see. Where the curvature is known
# badly, the gap is about as many times the promise as passes were made since the path began; else
# it is less. The end is where that is this share of the value: a share in proportion to tol.
EXPECTED_GAIN, MOST_GAIN = 5.0, 1e-3
# Passes that are taken for made at least and at most; and steps whose promises are compared, as
# those of single ones go up and down.
LEAST_PASSES, MOST_PASSES, SPAN = 10, 1000, 3
# The decomposition is made anew when the losses are this share or less of what they were at the
# last, and passes have cost as much.
LOSS_SHARE = 0.8
# The first is made so many passes before they are spent: a path saves more.
FIRST_ADVANCE = 60
# Steps without progress that are the end, as of `lbfgs`.
PATIENCE = 30


def follow(
    losses: Objective,
    penalties: Sequence[tuple[float, float]],
    start: Doubles,
    *,
    tol: float,
    max_iter: int,
) -> Iterator[FitResult]:
    """Yield the optimum for each pair of penalties, l2 and l1, from the first to the last.

    `fit.minimize` says what the arguments are, and `nfev` is of the one penalty. With l1, without
    any penalty, and for so few parameters that a fit is a few steps of Newton's method, each is a
    fit of its own that begins at the optimum before it.
    """
    n_parameters, C = losses.shape
    is_small = (C - 1) * n_parameters <= MOST_WHOLE
    continuation: Continuation | None = None
    theta = start
    for l2, l1 in penalties:
        if l1 or not l2 or is_small:
            result = minimize_penalised(
                Penalised(losses, l2, l1), theta, tol=tol, max_iter=max_iter
            )
            parts = [result.W] if result.b is None else [result.W, result.b]
            theta = np.vstack(parts).astype(np.float64)
            yield result
            continue
        if continuation is None:
            continuation = Continuation(losses, l2, theta, tol, max_iter)
        yield continuation.advance(l2)


class Continuation:
    """Where the path stands: a point, value and gradient there, and an inverse Hessian."""

    def __init__(
        self, losses: Objective, l2: float, start: Doubles, tol: float, max_iter: int
    ) -> None:
        self._objective = Penalised(losses, l2, 0.0)
        self._tol, self._max_iter = tol, max_iter
        self._curvature: Curvature | None = None
        self._spectrum: Spectrum | None = None
        self._classes: BetweenClasses | None = None
        self._classes_nfev = 0
        self._spectrum_nfev, self._spectrum_loss = 0, math.inf
        # The last two optima, and the logarithms of their penalties.
        self._optima: list[tuple[float, Doubles]] = []
        self._nfev = 0
        self._begin(self._objective.representable(start))

    def _begin(self, theta: Doubles) -> None:
        """Begin at a point, without anything that earlier steps have shown."""
        objective = self._objective
        value, gradient = objective.value_and_gradient(theta)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise ValueError("W: a penalty that overflows came, smaller elements were wanted")
        self._place(theta, value, gradient)
        size = theta.size * objective.dtype.itemsize
        memory = int(np.clip(PAIRS_BYTES // size, MEMORY, MOST_PAIRS))
        self._inverse_hessian = InverseHessian(theta.shape, objective.dtype, memory)

    def _place(self, theta: Doubles, value: float, gradient: Doubles) -> None:
        self._theta, self._value, self._gradient = theta, value, gradient
        self._norm = float(np.abs(gradient).max())

    def advance(self, l2: float) -> FitResult:
        """Go to the optimum for another penalty, above 0."""
        self._change_penalty(l2)
        status, nit = self._minimize(self._prediction())
        if status == ROUNDED and self._objective.is_narrow:
            self._objective.widen()
            self._begin(self._theta)
            self._use_spectrum()
            status, more = self._minimize(None)
            nit += more
        if self._objective.dtype != self._objective.result_dtype:
            theta = self._objective.representable(self._theta, self._objective.result_dtype)
            self._place(theta, *self._objective.value_and_gradient(theta))
            if status == CONVERGED and self._norm > self._tol:
                status = ROUNDED
        self._optima = [*self._optima[-1:], (math.log(l2), self._theta)]
        return self._result(status, nit)

    def _change_penalty(self, l2: float) -> None:
        objective = self._objective
        D = objective.n_features
        change = (l2 - objective.l2) / objective.total_weight
        objective.l2 = l2
        W = self._theta[:D]
        gradient = self._gradient.copy()
        gradient[:D] += change * W
        self._place(self._theta, self._value + change / 2 * inner(W, W), gradient)
        self._inverse_hessian.add_penalty(change, D)
        self._use_spectrum()

    def _use_spectrum(self) -> None:
        """Give the inverse Hessian its first, for the penalty; decompose anew if it is time."""
        objective = self._objective
        l2 = objective.l2 / objective.total_weight
        if self._curvature is None:
            self._curvature = objective.curvature()
        curvature = self._curvature
        curvature.l2 = l2
        loss = self._value - objective.penalty(self._theta)
        passes = (
            objective.nfev - self._spectrum_nfev + (FIRST_ADVANCE if self._spectrum is None else 0)
        )
        if (
            curvature.has_moments
            and loss <= LOSS_SHARE * self._spectrum_loss
            and passes * objective.losses.cost >= Spectrum.cost(curvature)
        ):
            self._spectrum = Spectrum(curvature, self._theta)
            self._spectrum_nfev, self._spectrum_loss = objective.nfev, loss
            self._classes = None
        if self._spectrum is None:
            self._inverse_hessian.set_first(curvature.diagonal())
            return
        passes = objective.nfev - self._classes_nfev
        if BetweenClasses.is_wanted(curvature) and (
            self._classes is None
            or passes * objective.losses.cost >= BetweenClasses.cost(curvature)
        ):
            self._classes = BetweenClasses(curvature, self._spectrum, self._theta)
            self._classes_nfev = objective.nfev
        self._inverse_hessian.set_first(self._spectrum.preconditioner(l2, self._classes))

    def _prediction(self) -> Doubles | None:
        """Return the step to where the line through the last two optima leads."""
        if len(self._optima) < 2:
            return None
        (x0, before), (x1, last) = self._optima
        x = math.log(self._objective.l2)
        return (x - x1) / (x1 - x0) * (last - before)

    def _minimize(self, step: Doubles | None) -> tuple[int, int]:
        """Step until there is a reason to end, first along a step; return it and how many."""
        objective = self._objective
        progress = Progress(PATIENCE)
        self._promises: list[float] = []
        nit = 0
        while True:
            direction = self._inverse_hessian.direction(self._gradient)
            promise = -inner(self._gradient, direction) / 2
            self._promises = [*self._promises[1 - SPAN :], promise]
            if self._norm <= self._tol and self._little_is_to_be_gained():
                if objective.is_narrow and not self._value_can_be_trusted():
                    return ROUNDED, nit
                return CONVERGED, nit
            if nit >= self._max_iter:
                return MAX_ITER, nit
            if not progress.goes_on(self._value, self._norm, objective.dtype):
                return ROUNDED, nit
            if step is not None and inner(self._gradient, step) < 0:
                direction, step = step, None
            length = self._inverse_hessian.first_step(direction) if not self._optima else 1.0
            reached = search(objective, self._theta, self._value, self._gradient, direction, length)
            if reached is not None:
                theta, value, gradient = reached
                self._inverse_hessian.add(theta - self._theta, self._gradient, gradient)
                self._place(theta, value, gradient)
                nit += 1
            elif not self._inverse_hessian.forget():
                return ROUNDED, nit

    def _little_is_to_be_gained(self) -> bool:
        promise = max(self._promises[-1], float(np.mean(self._promises)))
        expected = promise * min(max(LEAST_PASSES, self._objective.nfev), MOST_PASSES)
        return expected <= min(EXPECTED_GAIN * self._tol, MOST_GAIN) * abs(self._value)

    def _value_can_be_trusted(self) -> bool:
        return abs(self._value) > TRUSTED_LOSS * float(np.finfo(self._objective.dtype).eps)

    def _result(self, status: int, nit: int) -> FitResult:
        objective = self._objective
        nfev, self._nfev = objective.nfev - self._nfev, objective.nfev
        result = objective.result(
            self._theta, self._value, grad_norm=self._norm, nit=nit, nfev=nfev
        )
        result.update(success=status == CONVERGED, status=status, message=MESSAGES[status])
        return result
