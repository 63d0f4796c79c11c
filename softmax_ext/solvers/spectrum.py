"""The curvature at a point, decomposed once, as a preconditioner for any penalty.

With ``sum_i w_i (x_i - m)(x_i - m)^T = Q L Q^T`` for the rows' weights in the mean Hessian, the
inverse for a penalty l2 is ``Q (L + l2)^-1 Q^T``: two products, whatever l2 is.

What an eigenvector q has in common with the classes is little: along it a class that is never in
doubt has a curvature far below the mean one. So, where classes are few, each eigenvalue is replaced
by the matrix (C, C) that the Hessian has there, ``sum_i f_i (q^T (x_i - m))^2 K_i`` with the rows'
shares f: its diagonal in the eigenvectors of another matrix, as George et al. [1]_ have it for
networks.

References
----------
.. [1] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent, "Fast approximate natural
   gradient descent in a Kronecker-factored eigenbasis", NeurIPS 31 (2018).
"""

from __future__ import annotations

import numpy as np

from .curvature import CALLS, Curvature, Preconditioner
from .objective import Doubles, Floats
from .products import combination

# What rounding hides of an eigenvalue, as a share of the largest; and of a square along an
# eigenvector, whose terms are all positive.
FLOORS = {np.dtype(np.float32): 1e-7, np.dtype(np.float64): 1e-12}
LEAST_SQUARE = 1e-9
# Multiplications of a decomposition, over D^3: those that it does, at the speed at which it does.
DECOMPOSITION = 12
# With more classes the matrices between them take as long as many passes, and much memory.
MOST_CLASSES = 32
# Elements of the products of two probabilities that are made at a time: 4 MiB of float32.
PIECE_ELEMENTS = 1 << 20


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
        self._curvature = curvature
        D, scale = curvature.D, curvature.scale
        moments, weight = curvature.second_moments(theta)
        M = moments.astype(np.float64)
        #: What features are centred by.
        self.mean: Doubles = curvature.sample.mean
        A = M[:D, :D]
        if curvature.intercept:
            # Features centred by these weights have nothing to do with the intercept.
            # 0 where every row is sure of its class: then nothing is known of the intercept.
            self._weight = float(M[D, D]) or 1.0
            mean = M[:D, D] / self._weight
            A = A - self._weight * np.outer(mean, mean)
            self.mean = curvature.sample.mean + mean * scale
        A.flat[:: D + 1] += weight * curvature.sample.unseen
        eigenvalues, vectors = np.linalg.eigh(A * scale * scale[:, None])
        self._eigenvalues = np.maximum(eigenvalues, FLOORS[curvature.dtype] * eigenvalues[-1])
        self.vectors: Floats = np.ascontiguousarray(vectors.astype(curvature.dtype))

    @staticmethod
    def cost(curvature: Curvature) -> float:
        """Return how long making one takes, in multiplications."""
        return curvature.cost_shared() + DECOMPOSITION * float(curvature.D) ** 3

    def preconditioner(self, l2: float, classes: BetweenClasses | None = None) -> Preconditioner:
        """Return the inverse for a penalty of the mean loss, by the eigenvalues or by `classes`."""
        Q, mean, product = self.vectors, self.mean, self._curvature.product
        D, has_intercept = self._curvature.D, self._curvature.intercept
        inverse = 1 / (self._eigenvalues + l2)[:, None]
        if classes is not None:
            matrices, of_intercept = classes.inverses(l2)

        def scaled(along: Doubles) -> Doubles:
            result: Doubles = (
                along * inverse if classes is None else np.einsum("jab,jb->ja", matrices, along)
            )
            return result

        def apply(gradient: Doubles) -> Doubles:
            g = gradient[:D] - np.outer(mean, gradient[D]) if has_intercept else gradient
            along = scaled(product(Q.T, g.astype(Q.dtype)))
            step: Doubles = product(Q, along.astype(Q.dtype)).astype(np.float64)
            if not has_intercept:
                return step
            of_weight = (
                gradient[D] / self._weight if classes is None else of_intercept @ gradient[D]
            )
            return np.vstack([step, of_weight - combination(mean, step)])

        return apply


class BetweenClasses:
    """What the Hessian at a point has between the classes, along each eigenvector.

    Parameters
    ----------
    curvature : Curvature
        Of the rows that the eigenvectors are of.
    spectrum : Spectrum
        The eigenvectors, of whatever point.
    theta : ndarray, shape (D or D + 1, C)
        The point.
    """

    def __init__(self, curvature: Curvature, spectrum: Spectrum, theta: Doubles) -> None:
        D, C, dtype, vectors = curvature.D, curvature.C, curvature.dtype, spectrum.vectors
        P = curvature.sample.probabilities(theta)
        chosen, factors = curvature.choose(P)
        p, f = P[chosen].astype(dtype), factors[:, None].astype(dtype)
        # Sums of f p_a p_b z^2 and of f p_a p_b, of positive terms: a class that is hardly ever in
        # doubt keeps its digits.
        along, whole = np.zeros((D, C * C)), np.zeros(C * C)
        offset = (curvature.sample.mean - spectrum.mean).astype(dtype)
        scale = curvature.scale.astype(dtype)
        step = max(1, PIECE_ELEMENTS // max(C * C, D))
        for part, a in curvature.standardised(chosen):
            for i in range(0, len(a), step):
                x = a[i : i + step, :D] * scale + offset
                rows = slice(part.start + i, part.start + i + len(x))
                squares = np.square(x @ vectors)
                pairs = ((f[rows] * p[rows])[:, :, None] * p[rows, None]).reshape(-1, C * C)
                along += squares.T @ pairs
                whole += pairs.sum(axis=0, dtype=np.float64)
        # The part of the features that change in no row of the sample.
        unseen = np.square(vectors.T * (curvature.scale * curvature.sample.unseen)).sum(axis=1)
        along += np.outer(unseen, whole)
        self._along, self._whole = (_of_pairs(m.reshape(-1, C, C)) for m in (along, whole))

    @staticmethod
    def is_wanted(curvature: Curvature) -> bool:
        """Whether classes are so few that this takes little beside the eigenvectors."""
        return curvature.C <= MOST_CLASSES

    @staticmethod
    def cost(curvature: Curvature) -> float:
        """Return how long making one takes, in multiplications."""
        part = curvature.dtype.itemsize / 8
        n, D, C = curvature.n_rows, curvature.D, curvature.C
        # Some 1000 multiplications' time for each number to be gathered, scaled and squared.
        return part * n * D * (D + C**2) + 1000 * n * (D + C**2) + 8 * CALLS

    def inverses(self, l2: float) -> tuple[Doubles, Doubles]:
        """Return the inverses (D, C, C) for a penalty, and that of the intercepts (C, C)."""
        return _inverses(self._along, l2), _inverses(self._whole, 0.0)[0]


def _of_pairs(products: Doubles) -> Doubles:
    """Return the sums of K_i (n, C, C), given those of p_a p_b: a row of K_i adds up to 0."""
    C = products.shape[1]
    diagonal = np.arange(C)
    products[:, diagonal, diagonal] = 0
    result: Doubles = -products
    result[:, diagonal, diagonal] = products.sum(axis=2)
    return result


def _inverses(matrices: Doubles, l2: float) -> Doubles:
    """Return the inverses of matrices plus l2, where classes do not all move together.

    What does that changes no probability: there the inverse is that of the mean eigenvalue.
    """
    C = matrices.shape[1]
    mean = np.trace(matrices, axis1=1, axis2=2) / (C - 1)
    ridge = l2 + LEAST_SQUARE * (float(mean.max()) or 1.0)
    together = (mean + ridge)[:, None, None] / C
    result: Doubles = np.linalg.inv(matrices + ridge * np.eye(C) + together)
    return result
