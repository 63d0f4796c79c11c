"""A quadratic model of the loss by the features' columns, where there are more than can be squared.

The Hessian is the true one, sum_i s_i K_i (x) x_i x_i^T, applied to changes of the logits: a step
along one weight reads and changes the rows of its column. Of all weights only a working set is
looked at: those that are not 0, and those at 0 that the gradient would move most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _descent
from .curvature import MOST_BYTES, MOST_FEATURES
from .objective import ColumnObjective, Doubles
from .penalised import Penalised

# Weights that join the working set at a time: as many as there are, and at least so many.
LEAST_JOINING = 512
# What a weight may change a logit by when a step first comes to it: further away the probabilities
# are others, and the model says nothing.
MOST_CHANGE = 20
# Sweeps go on until one gains so little beside the first, or so many have been made.
SHARE, MOST_SWEEPS = 0.01, 60


def suits(objective: Penalised) -> bool:
    """Whether the model can be made, and is the better one."""
    losses = objective.losses
    D, C = objective.n_features, losses.shape[1]
    if not isinstance(losses, ColumnObjective):
        return False
    fits = losses.is_sparse or 3 * 8 * losses.n_rows * C <= MOST_BYTES
    return fits and (D > MOST_FEATURES or losses.n_rows < D)


class ColumnModel:
    """The model, with the methods of `moments.Moments`; nothing has to be renewed.

    Parameters
    ----------
    objective : Penalised
        Of a `ColumnObjective`.
    """

    def __init__(self, objective: Penalised) -> None:
        self._objective = objective
        assert isinstance(objective.losses, ColumnObjective)
        self._losses = objective.losses
        self._masses = self._losses.masses() / objective.total_weight

    def renew(self, theta: Doubles) -> None:
        """Do nothing: the model is made for each step."""

    def add(self, step: Doubles, change: Doubles) -> None:
        """Do nothing: the Hessian is exact."""

    def forget(self) -> bool:
        """Return False: there is nothing to forget."""
        return False

    def propose(self, theta: Doubles, gradient: Doubles) -> Doubles:
        """Return a point where the model and the penalty are less than at theta."""
        objective = self._objective
        D, total = objective.n_features, objective.total_weight
        C = theta.shape[1]
        sparse = objective.sparse
        assert sparse is not None
        active = self._working_set(theta, gradient)
        features = np.flatnonzero(active.any(axis=1))
        values, rows, begins = self._losses.columns(features)
        places = features
        if len(theta) > D:
            N = self._losses.n_rows
            values = np.append(values, np.ones(N, values.dtype))
            rows = np.append(rows, np.arange(N, dtype=np.int32))
            begins = np.append(begins, begins[-1] + N)
            places = np.append(features, D)
        penalised = (places < D).astype(np.float64)
        l1, l2 = penalised * sparse.strength / total, penalised * objective.l2 / total
        P = np.ascontiguousarray(self._losses.all_probabilities(theta).T, np.float64)
        SP = P * self._masses
        Q = np.empty((len(places), C))
        begins = begins.astype(np.int64)
        _descent.column_curvatures(values, rows, begins, SP, P, Q)
        # Where the probabilities are sure of themselves the curvature may all but vanish.
        largest = np.maximum.reduceat(np.append(np.abs(values), 0), begins[:-1])
        pull = np.abs(objective.subgradient(theta, gradient)[places])
        np.maximum(Q, pull * (largest / MOST_CHANGE)[:, None], out=Q)
        X = np.ascontiguousarray(theta[places])
        G = np.ascontiguousarray(gradient[places]) - l2[:, None] * X
        chosen = np.ones((len(places), C), np.uint8)
        chosen[: len(features)] = active[features]
        moved, mean = np.zeros_like(P), np.zeros(P.shape[1])
        work = np.zeros((2, C))
        first = 0.0
        for i in range(MOST_SWEEPS):
            gained = _descent.sweep_columns(
                values, rows, begins, SP, P, G, Q, X, moved, mean, l1, l2, sparse.is_grouped,
                chosen, work,
            )  # fmt: skip
            first = first if i else gained
            if gained <= SHARE * first:
                break
        result: Doubles = theta.copy()
        result[places] = X
        return result

    def _working_set(self, theta: Doubles, gradient: Doubles) -> NDArray[np.bool_]:
        objective = self._objective
        D = objective.n_features
        sparse = objective.sparse
        assert sparse is not None
        strength = sparse.strength / objective.total_weight
        on = sparse.sizes(theta[:D]) > 0
        sizes = np.where(on, 0, sparse.sizes(gradient[:D]))
        joining = max(LEAST_JOINING, int(on.sum()))
        flat = sizes.reshape(-1)
        if joining < len(flat):
            least = np.partition(flat, len(flat) - joining)[len(flat) - joining]
            joins = (sizes > strength) & (sizes >= least)
        else:
            joins = sizes > strength
        return np.broadcast_to(on | joins, (D, theta.shape[1]))
