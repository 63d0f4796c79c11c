"""Preconditioners: inverse Hessians, estimated from a sample of the rows.

The Hessian of softmax regression is ``sum_i s_i K_i (x) x_i x_i^T`` with ``K_i = diag(p_i) -
p_i p_i^T`` for the row's probabilities, and l2 on its diagonal. A step uses an approximation of
its inverse that is cheap to apply:

* `shared`: the mean of K_i taken for a multiple of the identity, one Cholesky factor (D, D). At
  equal probabilities this is exact, and a scaled form of Böhning's bound [1]_.
* `blocks`: the classes rotated to the eigenvectors of the mean of K_i, then one factor (D, D) for
  each of the rotated classes, with the rows weighted by their own K_i. The rotation matters: two
  classes that are easily confused are stiff where they move apart and soft where they move
  together, and neither's own entry of K_i tells that.
* `whole`: the same with the products of different rotated classes, where the matrix of all is
  small: Newton's method.
* `diagonal`: the variances of the features, where there are too many for products.

References
----------
.. [1] D. Böhning, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44 (1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..model import kernels_or_default
from .objective import Doubles, Floats, Objective
from .products import FactoredInverse, Product, combination

#: Maps a gradient (D or D + 1, C) to an inverse Hessian times it.
Preconditioner: TypeAlias = Callable[[Doubles], Doubles]

# Rows of the sample for each feature: with fewer, the error of the second moments costs more steps
# than the rows save. Of so many candidates for each row the probabilities choose one; of fewer
# where the Hessian is made whole, in which a row's weight tells less.
ROWS_PER_FEATURE = 5
CANDIDATES, CANDIDATES_OF_WHOLE = 5, 3
# Rows of the sample at least; and where no products of features are made of them, for which 1000
# tell a variance to within 5 %.
LEAST_ROWS = 1000
# With more classes the sample would have too few rows for each of their blocks.
MOST_BLOCKS = 32
# Bytes that the factors of all blocks may take, if they are float32, and candidates'
# probabilities: what a fit takes beside its data stays below 64 MiB.
MOST_BYTES = 32 << 20
# With more features no matrix (D, D) is made: its factor takes 1.4 D^3 multiplications, 1e10 here.
MOST_FEATURES = 2048
# With more parameters no matrix of all of them: a row of the sample costs in proportion to their
# square.
MOST_WHOLE = 256
# That matrix's sample may cost so many evaluations, and has so many rows at most for each feature:
# then a step of Newton's method leaves a tenth of what there was to be gained, and more rows gain
# less than they cost.
EVALUATIONS, ROWS_OF_WHOLE = 4, 100
# Multiplications that take as long as NumPy takes to be called for a matrix, however small.
CALLS = 1e6
# Added to each element of a matrix's diagonal, as a share of it: the first is well above the
# rounding of the matrix's sums, the others are for where that is not enough.
JITTERS = {np.dtype(np.float32): (1e-6, 1e-3), np.dtype(np.float64): (1e-10, 1e-6, 1e-3)}
# The largest penalty on the diagonal: its inverse is still a number.
LARGEST = 1e300
# A rotated class's weight of a row, as a share of the mean, below which it is rounding.
LEAST_WEIGHT = 1e-9
# What a row's size is at least, as a share of the mean. Smaller ones would be drawn so rarely that
# the few of them would have to stand for all the others, and a single row could make the matrix.
LEAST_SIZE = 0.02
# Rows of a matrix whose factor is inverted by one call to NumPy.
SMALL_MATRIX = 64


class Curvature:
    """Makes preconditioners of a sample of an objective's rows.

    Parameters
    ----------
    objective : Objective
        Of the rows' losses.
    l2 : float
        Penalty of their mean.
    rows_per_feature : int, optional
        Rows of a matrix at least, for each feature.
    """

    def __init__(
        self, objective: Objective, l2: float, rows_per_feature: int = ROWS_PER_FEATURE
    ) -> None:
        self.l2 = l2
        self.dtype, self.intercept = objective.dtype, objective.has_intercept
        #: Multiplies two matrices, by the kernels.
        self.product: Product = kernels_or_default(getattr(objective, "kernels", None)).linear
        N, (n_parameters, self.C) = objective.n_rows, objective.shape
        self.D = n_parameters - self.intercept
        self.has_moments = self.D <= MOST_FEATURES
        self.use_whole = 0 < (self.C - 1) * n_parameters <= MOST_WHOLE
        self.use_blocks = (
            self.has_moments
            and self.C <= MOST_BLOCKS
            and self.C * (self.D + 1) ** 2 * 4 <= MOST_BYTES
        )
        n_rows = LEAST_ROWS
        if self.has_moments:
            per_feature = max(rows_per_feature, self.C // 2 if self.use_blocks else 0)
            n_rows = max(per_feature * self.D, 4 * self.C, LEAST_ROWS)
        if self.use_whole:
            # A row of it costs (C - 1) D / 4 times what one costs in an evaluation.
            affordable = EVALUATIONS * 4 * N // max(1, (self.C - 1) * self.D)
            n_rows = max(n_rows, min(affordable, ROWS_OF_WHOLE * n_parameters))
        #: Rows that go into a matrix, chosen from those of the sample.
        self.n_rows = min(N, n_rows)
        most = max(self.n_rows, MOST_BYTES // (8 * self.C))
        per_row = CANDIDATES_OF_WHOLE if self.use_whole else CANDIDATES if self.has_moments else 1
        n_candidates = min(N, per_row * self.n_rows, most)
        by_length = self.has_moments and self.n_rows < N
        self.sample = objective.sample(n_candidates, by_length=by_length)
        # A feature may be in any unit, and in one as small as its own its penalty may be infinite.
        self.scale = np.maximum(self.sample.scale, math.sqrt(l2 / LARGEST))

    # What they cost, in multiplications -----------------------------------------------------

    # 1.4 D^3 are a Cholesky factor and its inverse. Each number of the sample takes some 8
    # multiplications' time to be gathered and weighted, each preconditioner some 8 calls to NumPy.

    def cost_shared(self) -> float:
        # In float32, BLAS makes two multiplications in the time of one of the kernels.
        part = self.dtype.itemsize / 8
        products = part * (self.n_rows * self.D**2 / 2 + 1.4 * self.D**3)
        return float(products + 8 * self.n_rows * self.D + 8 * CALLS)

    def cost_blocks(self) -> float:
        return self.C * self.cost_shared()

    def cost_whole(self) -> float:
        pairs = self.C * (self.C - 1) / 2
        size = (self.C - 1) * (self.D + 1)
        products = pairs * self.n_rows * self.D**2 + 1.4 * size**3
        return float(products + 8 * pairs * self.n_rows * self.D + (pairs + 8) * CALLS)

    # Rows of the sample ---------------------------------------------------------------------

    def choose(self, P: Floats) -> tuple[NDArray[np.intp], Doubles]:
        """Draw rows by the size of their K_i; return their numbers, and what multiplies each."""
        size = self.sample.factors * (1 - np.einsum("ij,ij->i", P, P, dtype=np.float64))
        size = np.maximum(size, 0) * (1 + self.sample.lengths)
        n = self.n_rows
        if n >= len(size):
            return np.arange(len(size)), self.sample.factors
        size += LEAST_SIZE * size.mean() + np.finfo(float).tiny
        expected = size * (n / size.sum())
        drawn = np.searchsorted(np.cumsum(expected), np.arange(n) + 0.5)
        drawn = np.minimum(drawn, len(size) - 1)
        chosen, times = np.unique(drawn, return_counts=True)
        return chosen, self.sample.factors[chosen] * times / expected[chosen]

    def standardised(self, chosen: NDArray[np.intp]) -> Iterator[tuple[slice, Floats]]:
        """Yield chunks of rows, centred and scaled, with a column for the intercept."""
        width = self.D + self.intercept
        sample = self.sample
        for part, x in sample.rows(chosen):
            a = np.empty((len(x), width), self.dtype)
            centred = x - sample.mean
            centred /= self.scale
            a[:, : self.D] = centred
            a[:, self.D :] = 1
            # Nothing is kept while the next rows are gathered.
            del x, centred
            yield part, a
            del a

    # Preconditioners ----------------------------------------------------------------------------

    def shared(self, theta: Doubles) -> Preconditioner | None:
        """One matrix for all classes; None if there is no positive one, as below."""
        (inverse,) = self._inverses(*self._of_all_classes(theta))
        return None if inverse is None else self._with_features_standardised(inverse)

    def _of_all_classes(self, theta: Doubles) -> tuple[NDArray[np.intp], Doubles]:
        """Choose rows at a point; return them and their weights (n, 1) in what classes share."""
        P = self.sample.probabilities(theta)
        chosen, factors = self.choose(P)
        p = P[chosen]
        # The mean of the C - 1 eigenvalues of K_i that are not 0.
        size = factors * (1 - np.einsum("ij,ij->i", p, p)) / max(1, self.C - 1)
        return chosen, np.maximum(size, 0)[:, None]

    def second_moments(self, theta: Doubles) -> tuple[Floats, float]:
        """Return the matrix that `shared` factorises, without l2, and the sum of its weights.

        It is of the rows centred by `sample.mean` and divided by `scale`.
        """
        chosen, weights = self._of_all_classes(theta)
        return self.moments(chosen, weights, self.dtype)[0], float(weights.sum())

    def blocks(self, theta: Doubles) -> Preconditioner | None:
        """A matrix for each rotated class."""
        P = self.sample.probabilities(theta)
        chosen, factors = self.choose(P)
        p = P[chosen].astype(np.float64)
        rotation = np.linalg.eigh(mean_K(p, factors))[1]
        weights = factors[:, None] * (p @ rotation**2 - (p @ rotation) ** 2)[:, 1:]
        weights = np.maximum(weights, LEAST_WEIGHT * weights.mean())
        inverses = [inverse for inverse in self._inverses(chosen, weights) if inverse is not None]
        if len(inverses) < self.C - 1:
            return None

        def apply(rotated: Doubles) -> None:
            for row, inverse in zip(rotated, inverses, strict=True):
                row[:] = inverse(row[:, None])[:, 0]

        return self._with_classes_rotated(rotation, apply)

    def whole(self, theta: Doubles) -> Preconditioner | None:
        """One matrix of all parameters."""
        P = self.sample.probabilities(theta)
        chosen, factors = self.choose(P)
        p = P[chosen].astype(np.float64)
        rotation = np.linalg.eigh(mean_K(p, factors))[1]
        axes = rotation[:, 1:].T
        means = p @ axes.T
        n, width = len(axes), self.D + self.intercept
        matrix = np.zeros((n, width, n, width))
        for part, a in self.standardised(chosen):
            wide = a.astype(np.float64)
            for i in range(n):
                for j in range(i + 1):
                    weights = p[part] @ (axes[i] * axes[j]) - means[part, i] * means[part, j]
                    weights *= factors[part]
                    matrix[i, :, j] += (wide * weights[:, None]).T @ wide
        for i in range(n):
            for j in range(i):
                matrix[j, :, i] = matrix[i, :, j]
        ridges = [self.ridge(factors @ (p @ axis**2 - (p @ axis) ** 2)) for axis in axes]
        inverse = self.inverse(matrix.reshape(n * width, -1), np.concatenate(ridges))
        if inverse is None:
            return None

        def apply(rotated: Doubles) -> None:
            rotated[:] = inverse(rotated.reshape(-1, 1)).reshape(rotated.shape)

        return self._with_classes_rotated(rotation, apply)

    def diagonal(self) -> Preconditioner:
        """Centre and scale the features, and no more."""
        inverse = np.ones((self.D + self.intercept, 1))
        inverse[: self.D, 0] += self.l2 * self.C / self.scale**2
        inverse = self.C / inverse
        return self._with_features_standardised(lambda g: g * inverse)

    # Products -----------------------------------------------------------------------------------

    def _with_classes_rotated(
        self, rotation: Doubles, apply: Callable[[Doubles], None]
    ) -> Preconditioner:
        """Wrap what changes gradients (C - 1, D or D + 1) of the rotated classes in place.

        Along the first eigenvector all classes move together, which changes no probability: a
        gradient there is rounding, and nothing of it is passed on.
        """

        def wrapped(g: Doubles) -> Doubles:
            rotated = np.ascontiguousarray(self.product(g, rotation).T)
            rotated[0] = 0
            apply(rotated[1:])
            result: Doubles = self.product(rotated.T, rotation.T)
            return result

        return self._with_features_standardised(wrapped)

    def _with_features_standardised(self, apply: Preconditioner) -> Preconditioner:
        """Wrap what takes gradients of centred and scaled features."""
        D = self.D
        s = self.scale[:, None]
        mean = self.sample.mean[:, None]

        def wrapped(gradient: Doubles) -> Doubles:
            g = gradient.copy()
            # Beside a scale near the least number a step may be infinite: the search refuses it.
            with np.errstate(all="ignore"):
                if self.intercept:
                    g[:D] -= mean * g[D]
                g[:D] /= s
                z = apply(g)
                z[:D] /= s
                if self.intercept:
                    z[D] -= combination(self.sample.mean, z[:D])
            return z

        return wrapped

    def _inverses(self, chosen: NDArray[np.intp], weights: Doubles) -> list[FactoredInverse | None]:
        """Return the inverse of ``sum_i w_i a_i a_i^T`` plus l2 for each column w of weights.

        a_i are the standardised rows.
        """
        matrices = self.moments(chosen, weights, self.dtype)
        return [
            self.inverse(M, self.ridge(weight))
            for M, weight in zip(matrices, weights.sum(axis=0), strict=True)
        ]

    def inverse(self, M: Floats, ridge: Doubles) -> FactoredInverse | None:
        """Return the inverse of M, which is overwritten, plus the ridge; None if not positive."""
        factor = inverse_factor(M, ridge)
        return None if factor is None else FactoredInverse(factor, self.product)

    def moments(self, chosen: NDArray[np.intp], weights: Doubles, dtype: np.dtype[Any]) -> Floats:
        """Return ``sum_i w_i a_i a_i^T`` for each column w of weights."""
        width = self.D + self.intercept
        roots = np.sqrt(weights).astype(dtype)
        matrices = np.zeros((weights.shape[1], width, width), dtype)
        for part, a in self.standardised(chosen):
            _add_moments(matrices, a.astype(dtype, copy=False), roots[part])
            del a
        return matrices

    def ridge(self, weight: float) -> Doubles:
        """The penalty's part of the diagonal, given the sum of the rows' weights.

        The rows outside the sample add the part of a feature that changes in none within: as it is
        scaled by its deviation in all rows, that is their weight.
        """
        ridge = np.zeros(self.D + self.intercept)
        with np.errstate(under="ignore"):
            ridge[: self.D] = self.l2 / self.scale / self.scale
        ridge[: self.D] += weight * self.sample.unseen
        return ridge


def mean_K(p: Doubles, factors: Doubles) -> Doubles:
    """Return the sum of the rows' K_i, each times its factor."""
    weighted = factors[:, None] * p
    K: Doubles = np.diag(weighted.sum(axis=0)) - weighted.T @ p
    return K


def _add_moments(matrices: Floats, a: Floats, roots: Floats) -> None:
    """Add those of some rows, times the squares of a column of roots each."""
    for M, root in zip(matrices, roots.T, strict=True):
        weighted = a * root[:, None]
        M += weighted.T @ weighted


def inverse_factor(M: Floats, ridge: Doubles) -> Floats | None:
    """Overwrite M by L^-1 for ``L L^T = M`` plus the ridge; None if M is not positive.

    M is brought to a diagonal of ones first, so that what is added to it for rounding's sake is
    little beside each element, however far apart they are.
    """
    wide: Doubles = M.astype(np.float64)
    n = len(wide)
    diagonal = wide.diagonal() + ridge
    if not (diagonal > 0).all():
        return None
    wide.flat[:: n + 1] = diagonal
    root = np.sqrt(diagonal)
    wide /= root
    wide /= root[:, None]
    for jitter in JITTERS[M.dtype]:
        wide.flat[:: n + 1] = 1 + jitter
        try:
            M[:] = _inverse_cholesky(wide) / root
        except np.linalg.LinAlgError:
            continue
        return M
    return None


def _inverse_cholesky(M: Doubles) -> Doubles:
    """Return L^-1 for ``L L^T = M``, by halves.

    Nearly all of it is products of matrices, and no call is so long that Ctrl-C would wait for it.
    """
    n = len(M)
    if n <= SMALL_MATRIX:
        inverse: Doubles = np.tril(np.linalg.inv(np.linalg.cholesky(M)))
        return inverse
    h = n // 2
    result = np.zeros_like(M)
    result[:h, :h] = first = _inverse_cholesky(M[:h, :h])
    below = M[h:, :h] @ first.T
    result[h:, h:] = second = _inverse_cholesky(M[h:, h:] - below @ below.T)
    result[h:, :h] = -second @ (below @ first)
    return result
