"""Fits with a penalty that makes weights exactly 0, to a duality gap.

A step minimises a quadratic model of the loss and the penalty together, by coordinate descent; so
it finds which weights are 0. Once these hardly change, Newton's method on the others takes turns
with it. `certificate` bounds the optimum from below, and so tells when the end is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import columns
from .certificate import Certificate, sums_of_targets
from .columns import ColumnModel
from .moments import Moments
from .objective import Doubles
from .penalised import Penalised
from .products import inner
from .result import CERTIFIED, CONVERGED, MAX_ITER, MESSAGES, ROUNDED, STOPPED, FitResult
from .support import SupportNewton

# Of the decrease that a step promises, the share that it has to keep.
SUFFICIENT = 1e-4
# Each trial of a step is half as long as the one before.
MOST_TRIALS, MOST_NEWTON_TRIALS = 30, 6
# Newton's method takes part while no more than this share of the support changes in a step.
SETTLED = 0.1
# The share of the objective that a step promises when float32 does no longer do, and the gap.
NARROW_GAIN, NARROW_GAP = 1e-5, 1e-4
# A rise of the objective by so many roundings is none.
ROUNDINGS = 8
# So many iterations in which neither gap nor objective becomes less are the end.
PATIENCE = 12
# Where all weights are 0 and the model is of a working set, stronger penalties come first, each
# this share of the one before, from the one at which the first weight would move. A step far from
# the optimum promises what the loss does not keep, and with a penalty near that one none goes far.
# Each stage ends at this share of the objective, or after so many steps.
WEAKER, NEAR, MOST_STAGE_STEPS = 0.25, 1e-2, 10
# The least share of the weight that the intercept of a class is set for at first.
LEAST_SHARE = 1e-18
# Iterations after which the model is made anew.
RENEWALS = (0, 3, 8, 20, 50, 120, 300)


def minimize_sparse(
    objective: Penalised,
    start: Doubles,
    *,
    tol: float,
    max_iter: int,
    callback: Callable[[FitResult], object] | None = None,
) -> FitResult:
    """Minimise from a starting point; `fit.minimize` says what the arguments are."""
    return _Fit(objective, start, tol).run(max_iter, callback)


class _Fit:
    """Where a fit stands: a point, value and gradients there, and the best lower bound."""

    def __init__(self, objective: Penalised, start: Doubles, tol: float) -> None:
        self._objective, self._tol = objective, tol
        self._nit = 0
        # The first evaluation checks the data.
        theta = objective.representable(start)
        self._evaluate(theta)
        targets = self._targets()
        assert objective.sparse is not None
        self._certificate = Certificate(objective.sparse, targets)
        if targets is not None and theta.shape[1] > 1 and not theta[:-1].any():
            shares = targets[-1] / targets[-1].sum()
            theta[-1] = np.log(np.maximum(shares, LEAST_SHARE))
            theta = objective.representable(theta)
        self._bound = -math.inf
        self._place(theta, *objective.loss_and_gradient(theta))
        self._model: Moments | ColumnModel
        self._newton: SupportNewton | None = None
        if columns.suits(objective):
            self._model = ColumnModel(objective)
        else:
            self._model = Moments(objective)
            self._newton = SupportNewton(objective, self._model)

    def _approach(self, max_iter: int) -> None:
        """Come near the optimum by stronger penalties, unless there are weights to begin with.

        These steps count as iterations; the callback is not told of them.
        """
        objective = self._objective
        D, total, sparse = objective.n_features, objective.total_weight, objective.sparse
        assert sparse is not None
        if self._theta[:D].any():
            return
        wanted = sparse.strength
        strength = WEAKER * total * float(sparse.sizes(self._loss_gradient[:D]).max(initial=0))
        try:
            while strength > wanted:
                sparse.strength = strength
                self._begin_stage()
                for _ in range(min(MOST_STAGE_STEPS, max_iter - self._nit)):
                    if self._gap <= NEAR * abs(self._value) or not self._step():
                        break
                    self._nit += 1
                strength *= WEAKER
        finally:
            if sparse.strength != wanted:
                sparse.strength = wanted
                self._begin_stage()

    def _begin_stage(self) -> None:
        self._bound = -math.inf
        self._place(self._theta, *self._objective.loss_and_gradient(self._theta))

    def _evaluate(self, theta: Doubles) -> None:
        value, gradient = self._objective.value_and_gradient(theta)
        if not (math.isfinite(value) and np.isfinite(gradient).all()):
            raise ValueError("W: a penalty that overflows came, smaller elements were wanted")

    def _targets(self) -> Doubles | None:
        losses = self._objective.losses
        if not losses.has_intercept:
            return None
        return sums_of_targets(self._objective.loss_and_gradient, losses.shape)

    def _place(self, theta: Doubles, loss: float, gradient: Doubles) -> None:
        """Go to a point, given the mean loss and its gradient there."""
        objective = self._objective
        D, total = objective.n_features, objective.total_weight
        self._theta, self._loss_gradient = theta, gradient
        self._value = loss + objective.penalty(theta)
        self._gradient = gradient.copy()
        self._gradient[:D] += objective.l2 / total * theta[:D]
        assert objective.sparse is not None
        bound = self._certificate.bound(
            theta, loss, gradient, objective.sparse.strength / total, objective.l2 / total
        )
        self._bound = max(self._bound, bound)

    @property
    def _gap(self) -> float:
        return max(self._value - self._bound, 0.0)

    def run(self, max_iter: int, callback: Callable[[FitResult], object] | None) -> FitResult:
        """Step until there is a reason to end."""
        objective = self._objective
        if self._newton is None:
            self._approach(max_iter)
        in_vain, least_gap, least_value = 0, math.inf, math.inf
        while True:
            is_within = self._gap <= self._tol * abs(self._value)
            if is_within and not objective.is_narrow:
                status = CONVERGED
                break
            if is_within or self._gap <= NARROW_GAP * abs(self._value):
                self._widen()
                if self._gap <= self._tol * abs(self._value):
                    continue
            if self._nit == max_iter:
                status = MAX_ITER
                break
            in_vain += 1
            if self._gap < least_gap / 2 or self._value < least_value - self._noise():
                least_gap, least_value, in_vain = self._gap, self._value, 0
            if in_vain > PATIENCE or not self._step():
                if self._widen():
                    in_vain = 0
                    continue
                status = ROUNDED
                break
            self._nit += 1
            if callback is not None:
                try:
                    callback(self._state())
                except StopIteration:
                    status = STOPPED
                    break
        if objective.result_dtype != np.float64:
            self._round()
            if status == CONVERGED and self._gap > self._tol * abs(self._value):
                status = ROUNDED
        result = self._state()
        message = CERTIFIED if status == CONVERGED else MESSAGES[status]
        result.update(success=status == CONVERGED, status=status, message=message)
        return result

    def _noise(self) -> float:
        return ROUNDINGS * float(np.finfo(self._objective.dtype).eps) * abs(self._value)

    def _widen(self) -> bool:
        """Compute in float64 from now on; return whether that is a change."""
        objective = self._objective
        if not objective.is_narrow:
            return False
        objective.widen()
        self._begin_stage()
        self._model.forget()
        return True

    def _step(self) -> bool:
        """Make a step by the model, and one of Newton's method; return whether any was good."""
        if self._nit in RENEWALS:
            self._model.renew(self._theta)
        before = self._theta
        went = self._proximal_step()
        if self._newton is not None and self._is_settled(before):
            went = self._newton_step() or went
        return went

    def _is_settled(self, before: Doubles) -> bool:
        objective = self._objective
        D = objective.n_features
        assert objective.sparse is not None
        had, has = (objective.sparse.sizes(theta[:D]) > 0 for theta in (before, self._theta))
        return int((had != has).sum()) <= SETTLED * int(has.sum()) and self._nit > 0

    def _proximal_step(self) -> bool:
        objective = self._objective
        while True:
            proposal = objective.representable(self._model.propose(self._theta, self._gradient))
            step = proposal - self._theta
            assert objective.sparse is not None
            promised = inner(self._loss_gradient, step) + (
                objective.penalty(proposal) - objective.penalty(self._theta)
            )
            if objective.is_narrow and -promised <= NARROW_GAIN * abs(self._value):
                self._widen()
                continue
            if self._search(step, promised, MOST_TRIALS, crossing=True):
                return True
            if not self._model.forget():
                return False

    def _newton_step(self) -> bool:
        assert self._newton is not None
        direction = self._newton.direction(self._theta, self._gradient)
        if direction is None:
            return False
        objective = self._objective
        subgradient = objective.subgradient(self._theta, self._gradient)
        promised = inner(subgradient, direction)
        return promised < 0 and self._search(
            direction, promised, MOST_NEWTON_TRIALS, crossing=False
        )

    def _search(self, step: Doubles, promised: float, trials: int, *, crossing: bool) -> bool:
        """Go along a step, half as far until the objective is lower; return whether it is."""
        objective = self._objective
        D = objective.n_features
        theta, gradient = self._theta, self._loss_gradient
        t = 1.0
        for _ in range(trials):
            new = objective.representable(theta + t * step)
            if not crossing:
                # A weight that would change its sign stops at 0.
                new[:D][new[:D] * theta[:D] < 0] = 0
            if np.array_equal(new, theta):
                return False
            loss, new_gradient = objective.loss_and_gradient(new)
            value = loss + objective.penalty(new)
            if value <= self._value + SUFFICIENT * t * min(promised, 0) + self._noise():
                self._model.add(new - theta, new_gradient - gradient)
                self._place(new, loss, new_gradient)
                return True
            t /= 2
        return False

    def _round(self) -> None:
        """Go to the nearest point that the result's dtype holds."""
        objective = self._objective
        self._widen()
        theta = objective.representable(self._theta, objective.result_dtype)
        self._place(theta, *objective.loss_and_gradient(theta))

    def _state(self) -> FitResult:
        objective = self._objective
        subgradient = objective.subgradient(self._theta, self._gradient)
        return objective.result(
            self._theta, self._value, grad_norm=float(np.abs(subgradient).max()), gap=self._gap,
            nit=self._nit, nfev=objective.nfev,
        )  # fmt: skip
