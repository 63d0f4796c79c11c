"""The curvature at a point, decomposed once, as a preconditioner for any penalty.

With ``sum_i w_i (x_i - m)(x_i - m)^T = Q L Q^T`` for the rows' weights in the mean Hessian, the
inverse for a penalty l2 is ``Q (L + l2)^-1 Q^T``: two products, whatever l2 is.
"""

from __future__ import annotations

import numpy as np

from .curvature import Curvature, Preconditioner
from .objective import Doubles
from .products import combination

# What rounding hides of an eigenvalue, as a share of the largest.
FLOORS = {np.dtype(np.float32): 1e-7, np.dtype(np.float64): 1e-12}
# Multiplications of a decomposition, over D^3: those that it does, at the speed at which it does.
DECOMPOSITION = 12


class Spectrum:
    """Eigenvectors of the curvature that all classes share, at a point.

    Parameters
    ----------
    curvature : Curvature
        Of an objective's rows, of at most `curvature.MOST_FEATURES` features.
    theta : ndarray, shape (D or D + 1, C)
        The point.
    """

    def __init__(self, curvature: Curvature, theta: Doubles) -> None:
        D, scale = curvature.D, curvature.scale
        moments, weight = curvature.second_moments(theta)
        M = moments.astype(np.float64)
        self._mean: Doubles | None = None
        A = M[:D, :D]
        if curvature.intercept:
            # Features centred by these weights have nothing to do with the intercept.
            # 0 where every row is sure of its class: then nothing is known of the intercept.
            self._weight = float(M[D, D]) or 1.0
            mean = M[:D, D] / self._weight
            A = A - self._weight * np.outer(mean, mean)
            self._mean = curvature.sample.mean + mean * scale
        A.flat[:: D + 1] += weight * curvature.sample.unseen
        eigenvalues, vectors = np.linalg.eigh(A * scale * scale[:, None])
        self._eigenvalues = np.maximum(eigenvalues, FLOORS[curvature.dtype] * eigenvalues[-1])
        self._vectors = np.ascontiguousarray(vectors.astype(curvature.dtype))
        self._product = curvature.product

    @staticmethod
    def cost(curvature: Curvature) -> float:
        """Return how long making one takes, in multiplications."""
        return curvature.cost_shared() + DECOMPOSITION * float(curvature.D) ** 3

    def preconditioner(self, l2: float) -> Preconditioner:
        """Return the inverse for a penalty of the mean loss."""
        Q, D, product = self._vectors, len(self._vectors), self._product
        inverse = 1 / (self._eigenvalues + l2)[:, None]

        def apply(gradient: Doubles) -> Doubles:
            g = (
                gradient[:D]
                if self._mean is None
                else gradient[:D] - np.outer(self._mean, gradient[D])
            )
            along = product(Q.T, g.astype(Q.dtype)) * inverse
            step: Doubles = product(Q, along.astype(Q.dtype)).astype(np.float64)
            if self._mean is None:
                return step
            found: Doubles = np.vstack(
                [step, gradient[D] / self._weight - combination(self._mean, step)]
            )
            return found

        return apply
