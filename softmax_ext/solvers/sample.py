"""A sample of rows in memory, and the scales of their features: the protocol `Sample` for arrays.

The rows stay where they are, and are gathered by pieces each time they are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array, Csr, widened
from .objective import Doubles, Floats

# Rows are gathered so many at a time, of many features fewer, so that a piece of float64 is 8 MiB;
# and for moments 2 MiB, some of which stays in the cache from one operation to the next.
PIECE_ROWS, PIECE_ELEMENTS, MOMENTS_ELEMENTS = 4096, 1 << 20, 1 << 18
# The sample that only tells the scales for lengths is this part of the other.
FIRST_PART = 4
# Entries of a sparse X looked at together: the indices, weights and products of them are 8 MiB.
PIECE_ENTRIES = 1 << 18
# Random combinations of the features that tell how long a row is, to within a factor of two or so.
PROJECTIONS = 4
# A feature whose deviation is a smaller share of its largest element does not change: what there
# is of it is the rounding of float64, added up.
FLAT = 1e-14


class Rows(Protocol):
    """What a sample asks of the objective that has the rows, an `arrays.ArrayObjective`."""

    @property
    def X(self) -> Array | Csr:
        """All rows."""

    @property
    def n_features(self) -> int:
        """Columns of X."""

    @property
    def shape(self) -> tuple[int, int]:
        """Of the parameters."""

    @property
    def has_intercept(self) -> bool:
        """Whether the parameters have intercepts."""

    @property
    def x_scale(self) -> float:
        """What multiplies X."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is computed in."""

    def probabilities(self, x: Any, theta: Doubles) -> Floats:
        """Return the probabilities of the classes of rows like those of X."""

    def projections(self, W: Doubles, b: Doubles) -> Floats:
        """Return the products of all rows with W, plus b."""


class ArraySample:
    """Rows of an array or of CSR, drawn in proportion to their weight.

    Keeps the protocol `objective.Sample`, which says what the attributes are.

    Parameters
    ----------
    objective : Rows
        Whose rows they are.
    share : ndarray, shape (N,)
        The rows' weights, divided by their sum.
    n : int
        Rows to draw.
    by_length : bool
        Whether to draw long rows more often.
    """

    def __init__(self, objective: Rows, share: Doubles, n: int, by_length: bool) -> None:
        self._objective = objective
        self._X = objective.X
        self._D = objective.n_features
        self._rows, self.factors = draw(share, share, n // FIRST_PART if by_length else n)
        self._measure(share)
        self.lengths: Floats = np.ones(len(self._rows))
        if by_length:
            # The scales that lengths are in come from this first sample, which a second replaces.
            lengths = self._all_lengths(share)
            self._rows, self.factors = draw(share, share * (1 + lengths), n)
            self.lengths = lengths[self._rows]
            self._measure(share)

    def rows(self, chosen: NDArray[np.intp]) -> Iterator[tuple[slice, Floats]]:
        """Yield some of its rows by pieces; see the protocol."""
        for part, x in self._pieces(self._rows[chosen]):
            yield part, widened(x) * self._objective.x_scale

    def probabilities(self, theta: Doubles) -> Floats:
        """Return the probabilities of its rows' classes; see the protocol."""
        objective = self._objective
        result = np.empty((len(self._rows), objective.shape[1]), objective.dtype)
        for part, x in self._pieces(self._rows):
            result[part] = objective.probabilities(x, theta)
        return result

    def _pieces(
        self, rows: NDArray[np.intp], elements: int = PIECE_ELEMENTS
    ) -> Iterator[tuple[slice, Array]]:
        """Gather rows of X, as they are stored, about so many elements at a time."""
        step = min(PIECE_ROWS, elements // max(1, self._D) + 1)
        for i in range(0, len(rows), step):
            part = slice(i, min(i + step, len(rows)))
            X = self._X
            yield part, self._dense(X, rows[part]) if isinstance(X, Csr) else X[rows[part]]

    def _dense(self, X: Csr, rows: NDArray[np.intp]) -> Floats:
        """Return some rows of a CSR matrix."""
        begin = X.indptr[rows].astype(np.intp)
        lengths = X.indptr[rows + 1].astype(np.intp) - begin
        ends = np.cumsum(lengths)
        entries = np.arange(ends[-1]) + np.repeat(begin - ends + lengths, lengths)
        dtype = self._objective.dtype
        result = np.zeros((len(rows), self._D), dtype)
        places = np.repeat(np.arange(len(rows)), lengths), X.indices[entries]
        # Entries of the same place are added up.
        np.add.at(result, places, X.data[entries].astype(dtype))
        return result

    def _measure(self, share: Doubles) -> None:
        """Find the features' means and deviations.

        Those of a sparse X from all rows, as a sample would miss many a feature; and of a dense X
        from all rows for the features that do not change within the sample.
        """
        X = self._X
        if isinstance(X, Csr):
            mean, largest, squares = sparse_moments(X, share)
        else:
            mean, largest, squares = dense_moments(
                lambda: (
                    (x, self.factors[part])
                    for part, x in self._pieces(self._rows, MOMENTS_ELEMENTS)
                ),
                self._D,
            )
        self.unseen = squares <= FLAT**2
        if not isinstance(X, Csr) and self.unseen.any() and len(self._rows) < len(X):
            unseen, step = np.flatnonzero(self.unseen), PIECE_ROWS
            mean[unseen], largest[unseen], squares[unseen] = dense_moments(
                lambda: (
                    (X[i : i + step, unseen], share[i : i + step]) for i in range(0, len(X), step)
                ),
                len(unseen),
            )
        if not self._objective.has_intercept:
            # Nothing makes up for a mean: deviations are those from 0.
            squares += (mean / largest) ** 2
            mean[:] = 0
        deviation = np.where(squares > FLAT**2, np.sqrt(squares), 1)
        x_scale = self._objective.x_scale
        self.mean = mean * x_scale
        self.scale = largest * deviation * (abs(x_scale) or 1.0)

    def _all_lengths(self, share: Doubles) -> Floats:
        """Estimate each standardised row's squared length, as a share of their mean.

        Combinations of the features with random signs have it as their variance.
        """
        signs = np.random.Generator(np.random.PCG64(1)).choice((-1.0, 1.0), (self._D, PROJECTIONS))
        factors = signs / self.scale[:, None]
        with np.errstate(all="ignore"):
            projections = self._objective.projections(factors, -(self.mean @ factors))
            lengths: Floats = np.square(projections).sum(axis=1)
            lengths /= share @ lengths
        return lengths if np.isfinite(lengths).all() else np.ones_like(lengths)


def moments(X: Array | Csr, share: Doubles) -> tuple[Doubles, Doubles]:
    """Return the means and deviations of the features; 0 for one that never changes."""
    if isinstance(X, Csr):
        mean, largest, squares = sparse_moments(X, share)
    else:
        step = min(PIECE_ROWS, PIECE_ELEMENTS // max(1, X.shape[1]) + 1)
        pieces = [slice(i, i + step) for i in range(0, len(X), step)]
        mean, largest, squares = dense_moments(
            lambda: ((X[part], share[part]) for part in pieces), X.shape[1]
        )
    return mean, np.where(squares > FLAT**2, largest * np.sqrt(squares), 0)


def dense_moments(
    pieces: Callable[[], Iterator[tuple[Any, Doubles]]], n_features: int
) -> tuple[Doubles, Doubles, Doubles]:
    """Return means, sizes, and variances as shares of the sizes squared, of weighted rows.

    Sizes are those of the largest element: beside a mean of 1e8 the deviations would be lost in
    rounding, and squares of 1e160 are infinite. The mean's own rounding is what deviations from it
    add up to, and is taken away from both: a feature that does not change has none.
    """
    mean, largest, rounding, squares = np.zeros((4, n_features))
    for x, weights in pieces():
        mean += weights @ x.astype(np.float64)
        np.maximum(largest, np.abs(x, dtype=np.float64).max(axis=0), out=largest)
    largest[largest == 0] = 1
    for x, weights in pieces():
        deviations = np.subtract(x, mean, dtype=np.float64)
        deviations /= largest
        rounding += weights @ deviations
        squares += weights @ np.square(deviations, out=deviations)
    return mean + rounding * largest, largest, np.maximum(squares - rounding**2, 0)


def sparse_moments(X: Csr, share: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Return what `dense_moments` does, of all rows."""
    D = X.shape[1]
    inner = np.searchsorted(X.indptr, np.arange(PIECE_ENTRIES, len(X.indices), PIECE_ENTRIES))
    bounds = [0, *inner, X.shape[0]]
    pieces = [slice(i, j) for i, j in itertools.pairwise(bounds) if i < j]

    def entries(rows: slice) -> tuple[Doubles, Array, Doubles]:
        begin = X.indptr[rows.start : rows.stop + 1]
        part = slice(begin[0], begin[-1])
        weights = np.repeat(share[rows], np.diff(begin).astype(np.intp))
        return X.data[part].astype(np.float64), X.indices[part], weights

    mean, largest, present, rounding, squares = np.zeros((5, D))
    for rows in pieces:
        x, columns, weights = entries(rows)
        mean += np.bincount(columns, weights * x, D)
        present += np.bincount(columns, weights, D)
        np.maximum.at(largest, columns, np.abs(x))
    largest[largest == 0] = 1
    for rows in pieces:
        x, columns, weights = entries(rows)
        deviations = (x - mean[columns]) / largest[columns]
        rounding += np.bincount(columns, weights * deviations, D)
        squares += np.bincount(columns, weights * deviations**2, D)
    # The rows without an entry there are as far from the mean as 0 is.
    absent = 1 - present
    absent[absent < len(share) * np.finfo(float).eps] = 0
    rounding -= absent * (mean / largest)
    squares += absent * (mean / largest) ** 2
    return mean + rounding * largest, largest, np.maximum(squares - rounding**2, 0)


def draw(share: Doubles, size: Doubles, n: int) -> tuple[NDArray[np.intp], Doubles]:
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
