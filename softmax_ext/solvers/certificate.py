"""The duality gap: how far a point can be from the optimum at most.

What is asked of the data is loss and gradient, as of any solver, and nothing of its rows: see "How
far from the optimum" in docs/math.md for the derivation. In short, the residuals P - Y at a point
are made a feasible point of the dual problem, in two steps that keep each row a distribution:

* With intercepts, each class's probabilities have to add up to what its targets do. The share by
  which a class has too much is taken from each row, and given to the classes that have too little.
* The rows are mixed with their targets until no part of the gradient is larger than the penalty
  allows; with an L2 penalty, as far as that makes the dual value larger.

The entropies of such rows are bounded by convexity, given those of P, which value and gradient
tell: to within rounding the gap is never less than the distance to the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from .objective import Doubles, split
from .penalties import SparsePenalty
from .products import inner

#: Returns the mean loss at a point, and its gradient.
Evaluate: TypeAlias = Callable[[Doubles], tuple[float, Doubles]]

# Halvings of the interval of the mixture that is looked for.
HALVINGS = 60
# A logit beside which those of 0 have probabilities of 0, also in float32.
CERTAIN = 1e4


class Certificate:
    """Bounds the least value of an objective from below.

    All is divided by the sum of the weights of the rows, as in `penalised.Penalised`.

    Parameters
    ----------
    penalty : SparsePenalty
        In which the part with the corners is.
    targets : ndarray (D + 1, C), or None
        ``sum_i s_i (x_i, 1) q_i^T / sum_i s_i``, with the targets q; None if there are no
        intercepts. See `sums_of_targets`.
    """

    def __init__(self, penalty: SparsePenalty, targets: Doubles | None) -> None:
        self._penalty, self._targets = penalty, targets

    def bound(
        self, theta: Doubles, loss: float, gradient: Doubles, strength: float, l2: float
    ) -> float:
        """Return a lower bound of the penalised objective's least value.

        Parameters
        ----------
        theta : ndarray (D, C) or (D + 1, C)
            A point.
        loss, gradient
            The mean loss there and its gradient, without penalties.
        strength, l2
            Of the penalties of the mean.
        """
        # The rows' entropies: a loss and its conjugate add up to the product of their arguments.
        entropy = loss - inner(gradient, theta)
        G, _ = split(gradient, self._targets is not None)
        if self._targets is not None:
            G, cost = _balanced(gradient, self._targets)
            entropy -= cost
        entropy = max(entropy, 0.0)
        sizes = self._penalty.sizes(G)
        if not l2:
            largest = float(sizes.max(initial=0))
            share = 1.0 if largest <= strength else strength / largest
            return share * entropy
        sizes = sizes[sizes > strength]
        share = _best_share(entropy, sizes, strength, l2)
        beyond = np.maximum(share * sizes - strength, 0)
        return share * entropy - float(beyond @ beyond) / (2 * l2)


def _balanced(gradient: Doubles, targets: Doubles) -> tuple[Doubles, float]:
    """Return the gradient of W when each class has what its targets add up to.

    And by how much the entropy may be less at most: x log x grows by no more than the step below 1.
    """
    has, wanted = gradient[-1] + targets[-1], targets[-1]
    excess, missing = np.maximum(has - wanted, 0), np.maximum(wanted - has, 0)
    moved = float(excess.sum())
    if moved == 0 or not missing.any():
        return gradient[:-1], 0.0
    share = excess / np.where(excess > 0, has, 1)
    sums = gradient[:-1] + targets[:-1]
    balanced = sums - sums * share + np.outer(sums @ share, missing / missing.sum())
    logs = np.log(np.maximum(1 / np.where(excess > 0, has, 1), 1))
    return balanced - targets[:-1], moved + float(excess @ logs)


def _best_share(entropy: float, sizes: Doubles, strength: float, l2: float) -> float:
    """Return how much of the residuals to take: the concave dual value is largest there."""

    def slope(share: float) -> float:
        return entropy - float(sizes @ np.maximum(share * sizes - strength, 0)) / l2

    if slope(1.0) >= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


def sums_of_targets(evaluate: Evaluate, shape: tuple[int, int]) -> Doubles:
    """Return ``sum_i s_i (x_i, 1) q_i^T / sum_i s_i`` by two evaluations.

    With all probability on one class the gradient of every other one is minus its sum; and with all
    on another, that of the first.
    """
    result = np.zeros(shape)
    if shape[1] == 1:
        return result
    theta = np.zeros(shape)
    for certain in (0, 1):
        theta[-1] = 0
        theta[-1, certain] = CERTAIN
        gradient = evaluate(theta)[1]
        others = np.arange(shape[1]) != certain
        result[:, others] = -gradient[:, others]
    return result


def gradient_at_zero(evaluate: Evaluate, shape: tuple[int, int], has_intercept: bool) -> Doubles:
    """Return the gradient of the weights where they are 0, with the best intercepts."""
    if not has_intercept:
        return evaluate(np.zeros(shape))[1]
    targets = sums_of_targets(evaluate, shape)
    if shape[1] == 1:
        return targets[:-1]
    shares = targets[-1] / targets[-1].sum()
    return np.outer(targets[:-1].sum(axis=1), shares) - targets[:-1]
