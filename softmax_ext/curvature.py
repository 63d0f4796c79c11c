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
# Rows are gathered so many at a time.
CHUNK = 1024
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
# Added to a matrix's diagonal, relative to its mean; more where it is not enough.
JITTERS = (1e-6, 1e-3)


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
        per_feature = max(ROWS_PER_FEATURE, n_classes // 2 if self.use_blocks else 0)
        wanted = max(per_feature * self.D, 4 * n_classes, LEAST_ROWS) if self.has_moments else 1000
        self.n_rows = min(N, wanted)
        candidates = CANDIDATES if self.has_moments else 1
        n = min(N, candidates * self.n_rows, max(self.n_rows, MOST_BYTES // (8 * n_classes)))
        # One row somewhere in each of n equal parts: no rhythm of the labels can fool it.
        place = np.random.Generator(np.random.PCG64(0)).random(n)
        rows = np.minimum(((np.arange(n) + place) * (N / n)).astype(np.intp), N - 1)
        self._rows = np.arange(N) if n == N else rows
        self._factors = factors[self._rows]
        self._factors /= self._factors.sum()
        self._measure(factors / factors.sum())

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
        for i in range(0, len(rows), CHUNK):
            part = slice(i, min(i + CHUNK, len(rows)))
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

    def _measure(self, all_factors: _Vector) -> None:
        """Find the features' means and deviations, to centre and scale by."""
        total, squares = np.zeros(self.D), np.zeros(self.D)
        if self.sparse:
            X = self.X
            weights = np.repeat(all_factors, np.diff(X.indptr)) * X.data
            total = np.bincount(X.indices, weights, self.D)
            weights *= X.data
            squares = np.bincount(X.indices, weights, self.D)
        else:
            for part, x in self._chunks(self._rows):
                wide = x.astype(np.float64)
                total += self._factors[part] @ wide
                squares += self._factors[part] @ (wide * wide)
        mean, squares = total * self.x_scale, squares * self.x_scale**2
        self.mean = mean if self.intercept else np.zeros(self.D)
        variance = squares - self.mean**2
        # A constant feature keeps rounding as its variance; it has none.
        flat = variance <= 1e-12 * squares
        self.scale = np.sqrt(np.where(flat, 1.0, variance))

    def _probabilities(self, theta: _Vector) -> _Floats:
        result = np.empty((len(self._rows), self.C), self.dtype)
        for part, x in self._chunks(self._rows):
            result[part] = self._predict_proba(x, theta)
        return result

    def _choose(self, P: _Floats) -> tuple[NDArray[np.intp], _Vector]:
        """Draw rows by the size of their K_i; return their numbers, and what multiplies each."""
        size = self._factors * (1 - np.einsum("ij,ij->i", P, P, dtype=np.float64))
        size = np.maximum(size, 0)
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
        mean = (self.mean / self.scale).astype(self.dtype)
        factor = self.x_scale / self.scale
        for part, x in self._chunks(self._rows[chosen]):
            a = np.empty((len(x), width), self.dtype)
            np.multiply(x, factor, out=a[:, : self.D], casting="unsafe")
            a[:, : self.D] -= mean
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
        factor = _inverse_factor(matrix.reshape(n * width, -1), np.tile(self._ridge(), n))
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

        Along the first axis all classes move together. There is no curvature but the penalty's, and
        without one nothing but rounding to follow.
        """
        ridge = self._ridge()
        of_first = np.divide(1, ridge, out=np.zeros_like(ridge), where=ridge > 0)

        def wrapped(g: _Vector) -> _Vector:
            turned = np.ascontiguousarray((g @ turn).T)
            turned[0] *= of_first
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
        return [_inverse_factor(M, self._ridge()) for M in matrices]

    def _ridge(self) -> _Vector:
        """The penalty's part of the diagonal."""
        ridge = np.zeros(self.D + self.intercept)
        ridge[: self.D] = self.l2 / self.scale**2
        return ridge


def _mean_K(p: _Vector, factors: _Vector) -> _Vector:
    weighted = factors[:, None] * p
    K: _Vector = np.diag(weighted.sum(axis=0)) - weighted.T @ p
    return K


def _inverse_factor(M: _Floats, ridge: _Vector) -> _Floats | None:
    """Overwrite M by L^-1 for ``L L^T = M`` plus the ridge; None if M is not positive."""
    wide: _Vector = M.astype(np.float64)
    n = len(wide)
    wide.flat[:: n + 1] += ridge
    for jitter in JITTERS:
        wide.flat[:: n + 1] += jitter * np.trace(wide) / n
        try:
            L = np.linalg.cholesky(wide)
        except np.linalg.LinAlgError:
            continue
        M[:] = _inverse_of_lower(L.astype(np.float64, copy=False))
        return M
    return None


def _inverse_of_lower(L: _Vector) -> _Vector:
    """Invert a lower triangle by halves: nearly all of it is products of matrices."""
    n = len(L)
    if n <= 64:
        inverse: _Vector = np.tril(np.linalg.inv(L))
        return inverse
    h = n // 2
    result = np.zeros_like(L)
    result[:h, :h] = _inverse_of_lower(L[:h, :h])
    result[h:, h:] = _inverse_of_lower(L[h:, h:])
    result[h:, :h] = -result[h:, h:] @ (L[h:, :h] @ result[:h, :h])
    return result
