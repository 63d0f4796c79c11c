"""The objective's curvature, estimated from a sample of the rows: preconditioners of `solvers`.

The Hessian of softmax regression is ``sum_i s_i K_i (x) x_i x_i^T`` with ``K_i = diag(p_i) -
p_i p_i^T`` for the row's probabilities, and l2 on its diagonal. A step uses an approximation of
its inverse that is cheap to apply:

* `shared`: the mean of K_i taken for a multiple of the identity, one Cholesky factor (D, D). At
  equal probabilities this is exact, and a scaled form of Böhning's bound [1]_.
* `blocks`: the classes turned to the axes in which the mean of K_i is diagonal, then one factor
  (D, D) for each of the turned classes, with the rows weighted by their own K_i. Turning matters:
  two classes that are easily confused have a soft direction, in which both move together.
* `whole`: the same with the products of different turned classes, where the matrix of all is small:
  Newton's method.
* `diagonal`: for many features: their variances.
* `scales`: with an L1 penalty, the second moments of the features by themselves.

References
----------
.. [1] D. Böhning, "Multinomial logistic regression algorithm", Ann. Inst. Statist. Math. 44 (1992).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Floats: TypeAlias = NDArray[np.floating[Any]]
_Vector: TypeAlias = NDArray[np.float64]
#: Maps a gradient (D or D + 1, C) to the inverse Hessian times it.
Preconditioner: TypeAlias = Callable[[_Vector], _Vector]

# Rows of the sample for each feature, and rows looked at to choose each of them.
ROWS_PER_FEATURE = 5
CANDIDATES = 5
# With more classes the sample would have too few rows for each block.
MOST_BLOCKS = 32
# Rows are gathered so many at a time, of many features fewer, and entries of a sparse X.
CHUNK, CHUNK_ELEMENTS = 1024, 1 << 20
ENTRIES = 1 << 18
# Where the matrix of all parameters is small, its sample may cost so many evaluations.
EVALUATIONS = 8
# Random combinations of the features that tell how long a row is.
PROJECTIONS = 4
# Bytes that the factors of all blocks may take, and candidates' probabilities.
MOST_BYTES = 32 << 20
# With more features no matrix (D, D) is made.
MOST_FEATURES = 2048
# With more parameters no matrix of all of them.
MOST_WHOLE = 256
# Rows of the sample at least, where there are matrices.
LEAST_ROWS = 1000
# Multiplications that take as long as NumPy takes to be called for a matrix, however small.
CALLS = 1e6
# Added to each element of a matrix's diagonal, as a share of it: the first is well above the
# rounding of the matrix's sums, the others are for where that is not enough.
JITTERS = {np.dtype(np.float32): (1e-6, 1e-3), np.dtype(np.float64): (1e-10, 1e-6, 1e-3)}
# The largest penalty on the diagonal: its inverse is still a number.
LARGEST = 1e300
# A feature whose deviation is a smaller share of its largest element does not change.
FLAT = 1e-14


class Curvature:
    """Makes preconditioners for an objective.

    Parameters
    ----------
    X, x_scale
        As of the kernels.
    factors : ndarray, shape (N,)
        Relative weights of the rows' losses.
    l2 : float
        Penalty of the mean loss.
    n_classes, intercept, dtype
        Of the parameters; moments and factors are kept in this dtype.
    predict_proba : callable
        The probabilities of some rows of X at a point.
    linear : callable
        All rows of X times a matrix, plus a row.
    """

    def __init__(
        self,
        X: Any,
        factors: _Vector,
        x_scale: float,
        l2: float,
        n_classes: int,
        intercept: bool,
        dtype: np.dtype[Any],
        predict_proba: Callable[[Any, _Vector], _Floats],
        linear: Callable[[_Vector, _Vector], _Floats],
    ) -> None:
        self.X, self.x_scale, self.l2 = X, x_scale, l2
        self.intercept, self.dtype = intercept, dtype
        self._predict_proba = predict_proba
        N, self.D = X.shape
        self.C = n_classes
        self.sparse = hasattr(X, "indptr")
        self.has_moments = self.D <= MOST_FEATURES
        self.use_whole = (n_classes - 1) * (self.D + intercept) <= MOST_WHOLE
        self.use_blocks = (
            self.has_moments
            and n_classes <= MOST_BLOCKS
            and n_classes * (self.D + 1) ** 2 * 4 <= MOST_BYTES
        )
        self.n_rows = N
        per_feature = max(ROWS_PER_FEATURE, n_classes // 2 if self.use_blocks else 0)
        wanted = max(per_feature * self.D, 4 * n_classes, LEAST_ROWS) if self.has_moments else 1000
        if self.use_whole:
            # A row of it costs (C - 1) D / 4 times what one costs in an evaluation.
            wanted = max(wanted, EVALUATIONS * 4 * N // max(1, (n_classes - 1) * self.D))
        candidates = CANDIDATES if self.has_moments else 1
        most = max(min(N, wanted), MOST_BYTES // (8 * n_classes))
        self.n_rows = min(N, wanted, most)
        n = min(N, candidates * self.n_rows, most)
        share = factors / factors.sum()
        self._rows, self._factors = _sample(share, share, n)
        self._measure(share)
        # The squared length of each row, relative to their mean: a long one counts more.
        self._lengths: _Floats = np.ones(len(self._rows))
        if self.n_rows < np.count_nonzero(share) and self.has_moments:
            lengths = self._all_lengths(share, linear)
            self._rows, self._factors = _sample(share, share * (1 + lengths), n)
            self._lengths = lengths[self._rows]
            self._measure(share)

    # What it costs, in multiplications --------------------------------------------------------

    def cost_shared(self) -> float:
        # Of float32 half of what there are: there BLAS goes at twice the kernels' speed.
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

    # The sample ---------------------------------------------------------------------------------

    def _chunks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, Any]]:
        step = min(CHUNK, CHUNK_ELEMENTS // max(1, self.D) + 1)
        for i in range(0, len(rows), step):
            part = slice(i, min(i + step, len(rows)))
            yield part, self._dense(rows[part]) if self.sparse else self.X[rows[part]]

    def _dense(self, rows: NDArray[np.intp]) -> _Floats:
        """Return some rows of a CSR matrix."""
        X = self.X
        begin = np.asarray(X.indptr)[rows].astype(np.intp)
        lengths = np.asarray(X.indptr)[rows + 1].astype(np.intp) - begin
        ends = np.cumsum(lengths)
        entries = np.arange(ends[-1]) + np.repeat(begin - ends + lengths, lengths)
        result = np.zeros((len(rows), self.D), self.dtype)
        places = np.repeat(np.arange(len(rows)), lengths), X.indices[entries]
        np.add.at(result, places, X.data[entries].astype(self.dtype))
        return result

    def _measure(self, share: _Vector) -> None:
        """Find the features' means and deviations, to centre and scale by.

        Those of a sparse X from all rows, and of features that do not change in a dense sample.
        """
        if self.sparse:
            mean, largest, squares = self._moments_of_sparse(share)
        else:
            mean, largest, squares = _moments(
                lambda: ((x, self._factors[part]) for part, x in self._chunks(self._rows)), self.D
            )
        self.unseen = squares <= FLAT**2
        if not self.sparse and self.unseen.any() and len(self._rows) < self.X.shape[0]:
            X, unseen = self.X, np.flatnonzero(self.unseen)
            starts = range(0, len(X), CHUNK)
            mean[unseen], largest[unseen], squares[unseen] = _moments(
                lambda: ((X[i : i + CHUNK, unseen], share[i : i + CHUNK]) for i in starts),
                len(unseen),
            )
        if not self.intercept:
            squares += (mean / largest) ** 2
            mean[:] = 0
        deviation = np.where(squares > FLAT**2, np.sqrt(squares), 1)
        self.mean = mean * self.x_scale
        self.scale = largest * deviation * (abs(self.x_scale) or 1.0)

    def _moments_of_sparse(self, share: _Vector) -> tuple[_Vector, _Vector, _Vector]:
        """Do what `_moments` does."""
        X, D = self.X, self.D
        inner = np.searchsorted(X.indptr, np.arange(ENTRIES, len(X.indices), ENTRIES))
        bounds = [0, *inner, X.shape[0]]
        blocks = [slice(i, j) for i, j in itertools.pairwise(bounds) if i < j]

        def entries(rows: slice) -> tuple[_Vector, Any, _Vector]:
            begin = X.indptr[rows.start : rows.stop + 1]
            part = slice(begin[0], begin[-1])
            weights = np.repeat(share[rows], np.diff(begin).astype(np.intp))
            return X.data[part].astype(np.float64), X.indices[part], weights

        mean, largest, present, squares = np.zeros((4, D))
        for rows in blocks:
            x, columns, weights = entries(rows)
            mean += np.bincount(columns, weights * x, D)
            present += np.bincount(columns, weights, D)
            np.maximum.at(largest, columns, np.abs(x))
        largest[largest == 0] = 1
        for rows in blocks:
            x, columns, weights = entries(rows)
            deviations = (x - mean[columns]) / largest[columns]
            squares += np.bincount(columns, weights * deviations**2, D)
        return mean, largest, squares + np.maximum(1 - present, 0) * (mean / largest) ** 2

    def _all_lengths(
        self, share: _Vector, linear: Callable[[_Vector, _Vector], _Floats]
    ) -> _Floats:
        """Estimate each standardised row's squared length, as a share of their mean.

        Random combinations of the features have it as their variance.
        """
        signs = np.random.Generator(np.random.PCG64(1)).choice((-1.0, 1.0), (self.D, PROJECTIONS))
        factors = signs / self.scale[:, None]
        with np.errstate(all="ignore"):
            lengths = np.square(linear(factors, -(self.mean @ factors))).sum(axis=1)
            lengths /= share @ lengths
        return lengths if np.isfinite(lengths).all() else np.ones_like(lengths)

    def _probabilities(self, theta: _Vector) -> _Floats:
        result = np.empty((len(self._rows), self.C), self.dtype)
        for part, x in self._chunks(self._rows):
            result[part] = self._predict_proba(x, theta)
        return result

    def _choose(self, P: _Floats) -> tuple[NDArray[np.intp], _Vector]:
        """Draw rows by the size of their K_i; return their numbers, and what multiplies each."""
        size = self._factors * (1 - np.einsum("ij,ij->i", P, P, dtype=np.float64))
        size = np.maximum(size, 0) * (1 + self._lengths)
        n = self.n_rows
        if n >= len(size):
            return np.arange(len(size)), self._factors
        size += 0.02 * size.mean() + np.finfo(float).tiny
        expected = size * (n / size.sum())
        drawn = np.searchsorted(np.cumsum(expected), np.arange(n) + 0.5)
        drawn = np.minimum(drawn, len(size) - 1)
        chosen, times = np.unique(drawn, return_counts=True)
        return chosen, self._factors[chosen] * times / expected[chosen]

    def _standardised(self, chosen: NDArray[np.intp]) -> Iterator[tuple[slice, _Floats]]:
        """Yield chunks of rows, centred and scaled, with a column for the intercept."""
        width = self.D + self.intercept
        for part, x in self._chunks(self._rows[chosen]):
            a = np.empty((len(x), width), self.dtype)
            a[:, : self.D] = (x * self.x_scale - self.mean) / self.scale
            a[:, self.D :] = 1
            yield part, a

    # Preconditioners ----------------------------------------------------------------------------

    def shared(self, theta: _Vector) -> Preconditioner | None:
        P = self._probabilities(theta)
        chosen, factors = self._choose(P)
        p = P[chosen]
        # The mean of the C - 1 eigenvalues of K_i that are not 0.
        size = factors * (1 - np.einsum("ij,ij->i", p, p)) / max(1, self.C - 1)
        (factor,) = self._factorised(chosen, np.maximum(size, 0)[:, None])
        if factor is None:
            return None
        return self._in_standard_form(lambda g: factor.T @ (factor @ g))

    def blocks(self, theta: _Vector) -> Preconditioner | None:
        P = self._probabilities(theta)
        chosen, factors = self._choose(P)
        p = P[chosen].astype(np.float64)
        turn = np.linalg.eigh(_mean_K(p, factors))[1]
        weights = factors[:, None] * (p @ turn**2 - (p @ turn) ** 2)[:, 1:]
        weights = np.maximum(weights, 1e-9 * weights.mean())
        inverses = [f for f in self._factorised(chosen, weights) if f is not None]
        if len(inverses) < self.C - 1:
            return None

        def apply(turned: _Vector) -> None:
            for row, factor in zip(turned, inverses, strict=True):
                row[:] = factor.T @ (factor @ row.astype(factor.dtype))

        return self._in_turned_form(turn, apply)

    def whole(self, theta: _Vector) -> Preconditioner | None:
        P = self._probabilities(theta)
        chosen, factors = self._choose(P)
        p = P[chosen].astype(np.float64)
        turn = np.linalg.eigh(_mean_K(p, factors))[1]
        axes = turn[:, 1:].T
        means = p @ axes.T
        n, width = len(axes), self.D + self.intercept
        matrix = np.zeros((n, width, n, width))
        for part, a in self._standardised(chosen):
            wide = a.astype(np.float64)
            for i in range(n):
                for j in range(i + 1):
                    weights = p[part] @ (axes[i] * axes[j]) - means[part, i] * means[part, j]
                    weights *= factors[part]
                    matrix[i, :, j] += (wide * weights[:, None]).T @ wide
        for i in range(n):
            for j in range(i):
                matrix[j, :, i] = matrix[i, :, j]
        ridges = [self._ridge(factors @ (p @ axis**2 - (p @ axis) ** 2)) for axis in axes]
        factor = _inverse_factor(matrix.reshape(n * width, -1), np.concatenate(ridges))
        if factor is None:
            return None

        def apply(turned: _Vector) -> None:
            turned[:] = (factor.T @ (factor @ turned.ravel())).reshape(turned.shape)

        return self._in_turned_form(turn, apply)

    def diagonal(self) -> Preconditioner:
        """Centre and scale the features, and no more."""
        inverse = np.ones((self.D + self.intercept, 1))
        inverse[: self.D, 0] += self.l2 * self.C / self.scale**2
        inverse = self.C / inverse
        return self._in_standard_form(lambda g: g * inverse)

    def scales(self) -> Preconditioner:
        """Scale the features, and keep them and the signs of a gradient apart."""
        inverse = np.ones((self.D + self.intercept, 1))
        inverse[: self.D, 0] = self.scale**2 + self.mean**2 + self.l2 * self.C
        inverse = self.C / inverse
        return lambda gradient: gradient * inverse

    def _in_turned_form(self, turn: _Vector, apply: Callable[[_Vector], None]) -> Preconditioner:
        """Wrap what takes gradients (C - 1, D) of the turned classes but the first, in place.

        Along the first axis all classes move together: nothing but rounding is to follow there.
        """

        def wrapped(g: _Vector) -> _Vector:
            turned = np.ascontiguousarray((g @ turn).T)
            turned[0] = 0
            apply(turned[1:])
            result: _Vector = turned.T @ turn.T
            return result

        return self._in_standard_form(wrapped)

    def _in_standard_form(self, apply: Preconditioner) -> Preconditioner:
        """Wrap what takes gradients of centred and scaled features."""
        D = self.D
        s = self.scale[:, None]
        mean = self.mean[:, None]

        def wrapped(gradient: _Vector) -> _Vector:
            g = gradient.copy()
            if self.intercept:
                g[:D] -= mean * g[D]
            g[:D] /= s
            z = apply(g)
            z[:D] /= s
            if self.intercept:
                z[D] -= self.mean @ z[:D]
            return z

        return wrapped

    def _factorised(self, chosen: NDArray[np.intp], weights: _Vector) -> list[_Floats | None]:
        """Return L^-1 for each column w of weights: ``L L^T = sum_i w_i a_i a_i^T`` plus l2.

        a_i are the standardised rows.
        """
        width = self.D + self.intercept
        roots = np.sqrt(weights).astype(self.dtype)
        matrices = np.zeros((weights.shape[1], width, width), self.dtype)
        for part, a in self._standardised(chosen):
            for M, root in zip(matrices, roots.T, strict=True):
                weighted = a * root[part, None]
                M += weighted.T @ weighted
        return [
            _inverse_factor(M, self._ridge(weight))
            for M, weight in zip(matrices, weights.sum(axis=0), strict=True)
        ]

    def _ridge(self, weight: float) -> _Vector:
        """The penalty's part of the diagonal, given the sum of the rows' weights.

        A feature that changes in no row of the sample has no part in what it gives, but in rows
        outside it: by what it is scaled by, that is the weight.
        """
        ridge = np.zeros(self.D + self.intercept)
        with np.errstate(over="ignore", under="ignore"):
            ridge[: self.D] = np.minimum(self.l2 / self.scale / self.scale, LARGEST)
        ridge[: self.D] += weight * self.unseen
        return ridge


def _moments(
    parts: Callable[[], Iterator[tuple[Any, _Vector]]], n_features: int
) -> tuple[_Vector, _Vector, _Vector]:
    """Return means, sizes, and variances as shares of the sizes squared, of weighted rows.

    Sizes are those of the largest element: deviations of a feature far from 0, or squares of
    1e160, would have nothing left to tell.
    """
    mean, largest, squares = np.zeros((3, n_features))
    for x, weights in parts():
        mean += weights @ x.astype(np.float64)
        np.maximum(largest, np.abs(x, dtype=np.float64).max(axis=0), out=largest)
    largest[largest == 0] = 1
    for x, weights in parts():
        squares += weights @ ((x - mean) / largest) ** 2
    return mean, largest, squares


def _sample(share: _Vector, size: _Vector, n: int) -> tuple[NDArray[np.intp], _Vector]:
    """Draw n rows in proportion to their size; return which, and the share each stands for.

    One is drawn in each of n equal parts of the whole: no rhythm of the labels can fool it.
    """
    rows = np.flatnonzero(share)
    if len(rows) <= n:
        return rows, share[rows]
    place = np.random.Generator(np.random.PCG64(0)).random(n)
    ends = np.cumsum(size)
    drawn = np.searchsorted(ends, (np.arange(n) + place) * (ends[-1] / n), side="right")
    rows, times = np.unique(np.minimum(drawn, rows[-1]), return_counts=True)
    factors = share[rows] / size[rows] * times
    return rows, factors / factors.sum()


def _mean_K(p: _Vector, factors: _Vector) -> _Vector:
    weighted = factors[:, None] * p
    K: _Vector = np.diag(weighted.sum(axis=0)) - weighted.T @ p
    return K


def _inverse_factor(M: _Floats, ridge: _Vector) -> _Floats | None:
    """Overwrite M by L^-1 for ``L L^T = M`` plus the ridge; None if M is not positive.

    M is brought to a diagonal of ones first, so that what is added to it for rounding's sake is
    little beside each element, however far apart they are.
    """
    wide: _Vector = M.astype(np.float64)
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


def _inverse_cholesky(M: _Vector) -> _Vector:
    """Return L^-1 for ``L L^T = M``, by halves.

    Nearly all of it is products of matrices, and no call is so long that Ctrl-C would wait for it.
    """
    n = len(M)
    if n <= 64:
        inverse: _Vector = np.tril(np.linalg.inv(np.linalg.cholesky(M)))
        return inverse
    h = n // 2
    result = np.zeros_like(M)
    result[:h, :h] = first = _inverse_cholesky(M[:h, :h])
    below = M[h:, :h] @ first.T
    result[h:, h:] = second = _inverse_cholesky(M[h:, h:] - below @ below.T)
    result[h:, :h] = -second @ (below @ first)
    return result
