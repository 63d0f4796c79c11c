"""A quadratic model of the loss from the features' second moments, for many rows of few features.

The classes are rotated to the eigenvectors of the mean of K_i = diag(p_i) - p_i p_i^T, and each
rotated class has its own weighted second moments of the features, from a sample of the rows: see
`curvature`. What the last steps show of the Hessian corrects it [1]_. The model and the penalty
together are minimised by coordinate descent: feature by feature, all classes at once.

References
----------
.. [1] R. Byrd, J. Nocedal, R. Schnabel, "Representations of quasi-Newton matrices and their use in
   limited memory methods", Math. Program. 63 (1994), section 3.2.
"""

from __future__ import annotations

import numpy as np

from .. import _descent
from .curvature import MOST_BYTES, Curvature, mean_K
from .objective import Doubles, Floats
from .penalised import Penalised
from .products import inner
from .standard import Standard

# Moments are of float32, as reading them is what a sweep costs, but for so few of them.
SMALL = 1 << 16
# Rows of the sample for each feature: coordinate descent trusts its model more than a line search
# does that only takes directions from it.
ROWS_PER_FEATURE = 10
# Pairs of a step and the gradient's change that correct the model.
MEMORY = 8
# Sweeps go on until one gains so little beside the first, or so many have been made.
SHARE, MOST_SWEEPS = 0.1, 30
# Passes over the classes of a feature in a sweep.
ROUNDS = 3
# A rotated class's weight of a row, as a share of the mean, below which it is rounding.
LEAST_WEIGHT = 1e-9
# The product of a step and the gradient's change, as a share of their lengths', that is rounding.
LEAST_PRODUCT = 1e-10


class Moments:
    """The model: `renew` it, `propose` a point, `add` what the step there showed.

    Parameters
    ----------
    objective : Penalised
        Evaluated at least once.
    """

    def __init__(self, objective: Penalised) -> None:
        self._objective = objective
        self.curvature = Curvature(
            objective.losses, objective.l2 / objective.total_weight, ROWS_PER_FEATURE
        )
        sample = self.curvature.sample
        self.standard = Standard(sample.mean, self.curvature.scale, objective.losses.has_intercept)
        # Steps, changes of the gradient, and the model's Hessian times the steps.
        self._pairs: list[tuple[Doubles, Doubles, Doubles]] = []
        #: What the model is made of, once it is: axes (C, R) and moments (R or 1, w, w).
        self.axes = np.zeros((objective.losses.shape[1], 0))
        n_numbers = self.axes.shape[0] * (self.curvature.D + 1) ** 2
        is_small = objective.dtype == np.float64 and n_numbers <= SMALL
        self._dtype = np.dtype(np.float64 if is_small else np.float32)
        self.moments: Floats = np.zeros((1, 0, 0), self._dtype)

    def renew(self, theta: Doubles) -> None:
        """Make the model anew at a point."""
        curvature, C = self.curvature, self._objective.losses.shape[1]
        P = curvature.sample.probabilities(theta)
        chosen, factors = curvature.choose(P)
        p = P[chosen].astype(np.float64)
        values, axes = np.linalg.eigh(mean_K(p, factors))
        self.axes = np.ascontiguousarray(axes[:, 1:])
        width = len(theta)
        self.factors = np.ones(C - 1)
        if curvature.has_moments and C * width**2 * 4 <= MOST_BYTES:
            weights = factors[:, None] * (p @ self.axes**2 - (p @ self.axes) ** 2)
            weights = np.maximum(weights, LEAST_WEIGHT * weights.mean())
        else:
            size = factors * (1 - np.einsum("ij,ij->i", p, p)) / max(1, C - 1)
            weights = np.maximum(size, LEAST_WEIGHT * size.mean())[:, None]
            self.factors = np.maximum(values[1:], LEAST_WEIGHT * values[-1]) / max(
                values[1:].mean(), np.finfo(float).tiny
            )
        # The old ones go before the new ones are made.
        self.moments = np.zeros((1, width, 0), self._dtype)
        if curvature.has_moments:
            self.moments = curvature.moments(chosen, weights, self._dtype)
            unseen = np.append(curvature.sample.unseen, np.zeros(width - curvature.D, bool))
            for M, weight in zip(self.moments, weights.sum(axis=0), strict=True):
                M.flat[:: width + 1] += weight * unseen
            diagonals = self.moments.diagonal(axis1=1, axis2=2).astype(np.float64)
        else:
            # The features are taken for independent.
            diagonals = np.full((1, width), weights.sum())
        scaled = self.factors[:, None] * diagonals
        self._blocks = np.einsum("cr,rj,er->jce", self.axes, scaled, self.axes)
        self._pairs = [(s, y, self.times(s)) for s, y, _ in self._pairs]

    def times(self, v: Doubles) -> Doubles:
        """Return the model's Hessian, without corrections, times a standardised direction."""
        result: Doubles
        if not self.curvature.has_moments:
            result = np.einsum("jce,je->jc", self._blocks, v)
            return result
        rotated = ((v @ self.axes) * self.factors).astype(self._dtype)
        if len(self.moments) == 1:
            found = self.curvature.product(self.moments[0], rotated)
        else:
            columns = rotated.T[:, :, None]
            found = np.hstack(list(map(self.curvature.product, self.moments, columns)))
        result = found @ self.axes.T
        return result

    def add(self, step: Doubles, change: Doubles) -> None:
        """Remember a step and the change of the smooth part's gradient without the L2 penalty."""
        standard = self.standard
        # The parameters of a step are linear in it, as there is nothing added.
        s, y = standard.parameters(step), standard.gradient(change)
        product = inner(s, y)
        if product > LEAST_PRODUCT * float(np.linalg.norm(s) * np.linalg.norm(y)):
            self._pairs = [*self._pairs[-MEMORY + 1 :], (s, y, self.times(s))]

    def forget(self) -> bool:
        """Forget all pairs; return whether there were any."""
        had_pairs = bool(self._pairs)
        self._pairs.clear()
        return had_pairs

    def _corrections(self, shape: tuple[int, int]) -> tuple[Doubles, Doubles]:
        """Return Y and T (D, C, 2 m): the Hessian is the model's less T Y^T."""
        if not self._pairs:
            return np.zeros((*shape, 0)), np.zeros((*shape, 0))
        S, changes, BS = (np.stack(vectors, -1) for vectors in zip(*self._pairs, strict=True))
        SBS = np.einsum("jcm,jcn->mn", S, BS)
        SY = np.einsum("jcm,jcn->mn", S, changes)
        L = np.tril(SY, -1)
        middle = np.block([[SBS, L], [L.T, -np.diag(np.diag(SY))]])
        Y = np.ascontiguousarray(np.concatenate([BS, changes], -1))
        try:
            T = np.ascontiguousarray(Y @ np.linalg.inv(middle))
        except np.linalg.LinAlgError:
            self._pairs.clear()
            return np.zeros((*shape, 0)), np.zeros((*shape, 0))
        return Y, T

    def propose(self, theta: Doubles, gradient: Doubles) -> Doubles:
        """Return a point where the model and the penalty are less than at theta.

        The gradient is that of the smooth part; its L2 penalty is taken exactly.
        """
        objective, standard = self._objective, self.standard
        T_weight = objective.total_weight
        sparse = objective.sparse
        assert sparse is not None
        l1 = standard.strengths(sparse.strength / T_weight)
        l2 = standard.strengths(objective.l2 / T_weight)
        l2[: len(standard.scale)] /= standard.scale
        start = standard.parameters(theta)
        X = start.copy()
        # The sweeps add the L2 penalty's gradient at X themselves.
        G = standard.gradient(gradient) - l2[:, None] * start
        Y, T = self._corrections(theta.shape)
        blocks = self._blocks - np.einsum("jcm,jem->jce", T, Y)
        blocks = (blocks + blocks.transpose(0, 2, 1)) / 2
        if sparse.is_grouped:
            bound = np.maximum(np.linalg.eigvalsh(blocks)[:, -1], np.finfo(float).tiny)
        else:
            bound = np.zeros(len(theta))
        width, C = theta.shape
        H = np.zeros((self.axes.shape[1], width if self.curvature.has_moments else 0), self._dtype)
        v = np.zeros(Y.shape[2])
        work = np.zeros((4, C))
        first = 0.0
        for i in range(MOST_SWEEPS):
            gained = _descent.sweep_moments(
                self.moments, self.factors, self.axes, np.ascontiguousarray(blocks), bound, G,
                X, H, Y, T, v, l1, l2, sparse.is_grouped, ROUNDS, work,
            )  # fmt: skip
            first = first if i else gained
            if gained <= SHARE * first:
                break
        result = standard.back(X)
        # Exactly where it was, where nothing moved.
        same = start == X
        D = len(standard.scale)
        result[:D][same[:D]] = theta[:D][same[:D]]
        return result

    def diagonal(self) -> Doubles:
        """Return the diagonal of the model's Hessian, of all parameters."""
        found: Doubles = np.einsum("jcc->jc", self._blocks).copy()
        return found
