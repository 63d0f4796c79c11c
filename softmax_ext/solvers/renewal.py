"""When a preconditioner is made anew."""

from __future__ import annotations

import math

from .curvature import Preconditioner
from .objective import Doubles
from .pairs import InverseHessian
from .penalised import Penalised

# The first one with products of features is made so many passes before they are spent: it saves
# at least as many.
ADVANCE = 5
# The blocks are made anew when so many steps have lowered the objective to this share of its value
# or less, or else the probabilities that they come from have hardly changed; and after so many
# times their cost, of which NumPy does much on one thread: a hundred steps need them once.
BLOCKS_STEPS, BLOCKS_SHARE, BLOCKS_COSTS = 3, 0.9, 16
# After so many steps with a preconditioner, more than most fits take, some are tried without; and
# again after twice as many. It is dropped if those lower the objective so many times as much as the
# same number before them.
FIRST_TRIAL, TRIAL_STEPS, TRIAL_GAIN = 60, 10, 4


class Renewal:
    """Renews the preconditioner when as much has been spent on steps as that costs.

    So renewals never take much more than the steps, and a fit of a few steps gets none.
    """

    def __init__(self, objective: Penalised, inverse_hessian: InverseHessian) -> None:
        self._objective = objective
        self._inverse_hessian = inverse_hessian
        self._curvature = curvature = objective.curvature()
        # Whether one with products of features is still to come, and what the next one costs.
        self._first_to_come = curvature.has_moments
        if not self._first_to_come:
            self._cost = math.inf
        elif curvature.use_whole:
            self._cost = curvature.cost_whole()
        else:
            self._cost = curvature.cost_shared()
        # When the last one was made.
        self._nfev = self._nit = 0
        self._value = math.inf
        self._is_dropped = False
        self._first: Preconditioner | None = None
        # Values after the last steps; when the next trial begins, and how much it has to gain.
        self._values: list[float] = []
        self._trial = FIRST_TRIAL
        self._to_be_gained = 0.0

    @property
    def is_newton(self) -> bool:
        """Whether steps are those of Newton's method."""
        return self._curvature.use_whole and not self._is_dropped

    def drop(self) -> bool:
        """Do without a preconditioner from now on; return whether there was one."""
        had_one, self._is_dropped = not self._is_dropped, True
        self._inverse_hessian.set_first(None)
        return had_one

    def update(self, nit: int, theta: Doubles, value: float, within_tol: bool) -> None:
        """Renew the preconditioner at a point, or try to do without it, if it is time.

        Plain steps cannot tell whether a point within tol is the end, so a trial ends there.
        """
        if self._is_dropped:
            return
        self._try_without(nit, value, within_tol)
        if nit >= self._trial:
            return
        first = self._next(value, nit, theta) if self._is_due(nit, value) else None
        newton = self.is_newton and first is not None
        if nit == 0 and first is None:
            first = self._curvature.diagonal()
        if first is not None:
            self._first = first
            self._inverse_hessian.set_first(first, newton=newton)

    def _try_without(self, nit: int, value: float, within_tol: bool) -> None:
        """Begin or end a trial, if it is time; drop the preconditioner if that gained more."""
        self._values = [*self._values[-TRIAL_STEPS:], value]
        gained = self._values[0] - value
        if nit == self._trial and not within_tol:
            self._to_be_gained = TRIAL_GAIN * gained
            self._inverse_hessian.set_first(None)
        elif nit == self._trial + TRIAL_STEPS and gained > self._to_be_gained and not within_tol:
            self.drop()
        elif nit == self._trial + TRIAL_STEPS or (nit >= self._trial and within_tol):
            self._inverse_hessian.set_first(self._first)
            self._trial = 2 * nit

    def _is_due(self, nit: int, value: float) -> bool:
        passes = self._objective.nfev - self._nfev
        steps = nit - self._nit
        spent = passes * self._objective.losses.cost
        if self._first_to_come:
            return spent + ADVANCE * self._objective.losses.cost >= self._cost
        if self.is_newton:
            # A search of many points tells that the last one is of a place too far away.
            return spent >= self._cost or passes > 2 * steps
        return spent >= self._cost and steps >= BLOCKS_STEPS and value < BLOCKS_SHARE * self._value

    def _next(self, value: float, nit: int, theta: Doubles) -> Preconditioner | None:
        curvature = self._curvature
        self._nfev, self._nit, self._value = self._objective.nfev, nit, value
        first_to_come, self._first_to_come = self._first_to_come, False
        if self.is_newton:
            return curvature.whole(theta)
        if first_to_come:
            self._cost = curvature.cost_blocks() if curvature.use_blocks else math.inf
            return curvature.shared(theta)
        self._cost = BLOCKS_COSTS * curvature.cost_blocks()
        return curvature.blocks(theta)
