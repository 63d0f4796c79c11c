"""What an L1 penalty asks of the solver: its subgradient, and steps that stay in an orthant.

The penalty is smooth as long as no weight changes its sign. So steps do not cross 0 but stop
there [1]_, and a weight at 0 moves only if the gradient is larger than the penalty.

References
----------
.. [1] G. Andrew, J. Gao, "Scalable training of L1-regularized log-linear models", ICML 2007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .objective import Doubles
    from .penalised import Penalised

# Of the decrease that the slope promises, the share that a step has to keep: Andrew & Gao's.
SUFFICIENT = 1e-4
# Each half as long as the one before, so that the last, 1e-12 of the first, is lost in rounding.
MOST_STEPS = 40


def subgradient(theta: Doubles, gradient: Doubles, strength: float, n_features: int) -> Doubles:
    """Return the subgradient of least norm, given the gradient of the smooth part.

    0 for a weight at 0 that the gradient cannot move; the intercepts below are not penalised.
    """
    W, g = theta[:n_features], gradient[:n_features]
    result: Doubles = gradient.copy()
    result[:n_features] = np.where(
        W == 0, np.sign(g) * np.maximum(np.abs(g) - strength, 0), g + strength * np.sign(W)
    )
    return result


def search(
    objective: Penalised,
    theta: Doubles,
    value: float,
    subgradient: Doubles,
    direction: Doubles,
    t: float,
) -> tuple[Doubles, float, Doubles] | None:
    """Do what `lbfgs.search` does along the direction's projection onto an orthant."""
    D = objective.n_features
    direction = np.where(direction * subgradient < 0, direction, 0)
    orthant = np.where(theta == 0, -np.sign(subgradient), np.sign(theta))[:D]
    noise = np.finfo(objective.dtype).eps * abs(value)
    for _ in range(MOST_STEPS):
        new = objective.representable(theta + t * direction)
        new[:D][new[:D] * orthant < 0] = 0
        if np.array_equal(new, theta):
            return None
        new_value, new_gradient = objective.value_and_gradient(new)
        if new_value <= value + SUFFICIENT * np.vdot(subgradient, new - theta) + noise:
            return new, new_value, new_gradient
        t /= 2
    return None
