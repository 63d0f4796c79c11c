"""A sample of rows that come once, piece by piece, and how the rest of the rows is told of it.

Rows are drawn by priority sampling [1]_: a row of weight w gets the priority w / u with a random u
in (0, 1], and those of the highest priorities are kept. One of them stands for ``max(w, p)``, where
p is the highest priority that was not kept: sums over the sample are then those over all rows, in
expectation, whatever the weights are.

References
----------
.. [1] N. Duffield, C. Lund, M. Thorup, "Priority sampling for estimation of arbitrary subset sums",
   J. ACM 54 (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array, Csr
from ..datasets._parts import Piece, take_rows
from .arrays import ArrayObjective
from .objective import Doubles
from .pieces import Moments, PieceMaker
from .sample import FLAT, ArraySample

#: Bytes of X that a sample may have, and rows that it has at least, and at most.
SAMPLE_BYTES, LEAST_ROWS, MOST_ROWS = 32 << 20, 1000, 1 << 17


def sample_rows(row_bytes: float) -> int:
    """Return how many rows a sample may have."""
    return max(LEAST_ROWS, min(MOST_ROWS, int(SAMPLE_BYTES / max(1.0, row_bytes))))


def bytes_of_row(X: Array | Csr) -> float:
    """Return how many bytes a row of X has; of CSR, on average."""
    arrays = (X.data, X.indices) if isinstance(X, Csr) else (X,)
    result: float = sum(array.nbytes for array in arrays) / max(1, X.shape[0])
    return result


class Reservoir:
    """Keeps rows of the highest priorities, of all that it was shown.

    The same rows in the same order give the same sample, however they are cut into pieces.

    Parameters
    ----------
    n : int
        Rows to keep at most.
    n_rows : int, optional
        How many will be shown, if that is known and none has a weight above 1: those of which so
        few can be kept are then not even copied.
    """

    def __init__(self, n: int, n_rows: int | None = None) -> None:
        self.n = n
        self._random = np.random.Generator(np.random.PCG64(0))
        self._priorities: list[Doubles] = []
        self._weights: list[Doubles] = []
        self._rows: list[Array | Csr] = []
        self._size = 0
        # No row of less can be in the sample: later the priority of the (n + 1)th. Of n_rows,
        # so many have more than this that n of them are missed once in a great many data sets.
        self._least = 0.0
        if n_rows is not None and n_rows > n:
            self._least = n_rows / (n + 4 * math.sqrt(n))

    def add(self, X: Array | Csr, weight: Doubles) -> None:
        """Show it some rows."""
        priority = priorities(weight, self._random)
        chosen = np.flatnonzero(priority > self._least)
        if not len(chosen):
            return
        self._priorities.append(priority[chosen])
        self._weights.append(weight[chosen])
        self._rows.append(take_rows(X, chosen))
        self._size += len(chosen)
        if self._size > 2 * self.n:
            self._prune()

    def _prune(self) -> None:
        """Let go what cannot be in the sample, but for the row that tells what others stand for."""
        priority = np.concatenate(self._priorities)
        weight, rows = np.concatenate(self._weights), stacked(self._rows)
        if len(priority) > self.n + 1:
            self._least = float(np.partition(priority, -self.n - 1)[-self.n - 1])
            kept = np.flatnonzero(priority >= self._least)
            priority, weight, rows = priority[kept], weight[kept], take_rows(rows, kept)
        self._priorities, self._weights, self._rows = [priority], [weight], [rows]
        self._size = len(priority)

    def drawn(self) -> tuple[Array | Csr, Doubles]:
        """Return the sample's rows, and the weight that each stands for."""
        self._prune()
        rows, weight = self._rows[0], self._weights[0]
        kept = np.flatnonzero(self._priorities[0] > self._least)
        if len(kept) < len(weight):
            rows, weight = take_rows(rows, kept), weight[kept]
        return rows, np.maximum(weight, self._least)

    @property
    def has_all(self) -> bool:
        """Whether all rows that count are in the sample."""
        return not self._least


def priorities(weight: Doubles, random: np.random.Generator) -> Doubles:
    """Draw the rows' priorities; 0 for those that do not count."""
    result: Doubles = weight / (1 - random.random(len(weight)))
    return result


class SampleOfPieces(ArraySample):
    """A sample drawn from rows that were drawn from all: the protocol `Sample`.

    Parameters
    ----------
    make : PieceMaker
        Makes an objective of the rows.
    rows : ndarray or Csr
        Those that were drawn first.
    share : ndarray (n,)
        What each of them stands for, of sum 1.
    n, by_length
        As of `ArraySample`.
    moments : callable
        Returns the moments of all rows: of every feature, or of those given.
    is_all : bool
        Whether the rows are all that there are.
    """

    def __init__(
        self,
        make: PieceMaker,
        rows: Array | Csr,
        share: Doubles,
        n: int,
        by_length: bool,
        moments: Callable[[NDArray[np.intp] | None], Moments],
        is_all: bool,
    ) -> None:
        self._moments = None if is_all else moments
        self._made_of = make._replace(classes=None), rows
        super().__init__(self._make_objective(), share, n, by_length)
        self._moments = None  # so that a sample may be sent elsewhere without the data

    def _make_objective(self) -> ArrayObjective:
        """Make an objective that knows the rows, but not their labels."""
        make, rows = self._made_of
        return make.objective(Piece(rows, np.zeros(rows.shape[0], np.uint8), None))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_objective"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._objective = self._make_objective()

    def _measure(self, share: Doubles) -> None:
        """Find the features' means and deviations, like those of rows in memory."""
        super()._measure(share)
        moments = self._moments
        if moments is None:
            return
        X, features = self._X, None
        if not isinstance(X, Csr):
            # Of the features that change in none of the rows that were drawn first.
            unseen = np.flatnonzero(self.unseen)
            features = unseen[(X[:, unseen] == X[0, unseen]).all(axis=0)]
            if not len(features):
                return
        mean, largest, variance = moments(features).of_sizes()
        flat = variance <= FLAT**2
        if not self._objective.has_intercept:
            variance += (mean / largest) ** 2
            mean[:] = 0
        scale = largest * np.where(variance > FLAT**2, np.sqrt(variance), 1)
        x_scale = self._objective.x_scale
        at: Any = slice(None) if features is None else features
        self.mean[at] = mean * x_scale
        self.scale[at] = scale * (abs(x_scale) or 1.0)
        if features is None:
            self.unseen = flat


def stacked(rows: list[Array | Csr]) -> Array | Csr:
    """Return rows below each other."""
    if len(rows) == 1:
        return rows[0]
    sparse = [part for part in rows if isinstance(part, Csr)]
    if not sparse:
        return np.concatenate([part for part in rows if not isinstance(part, Csr)])
    ends = np.cumsum([0, *(len(part.indices) for part in sparse)])
    indptr = [part.indptr[:-1] + end for part, end in zip(sparse, ends, strict=False)]
    return Csr(
        np.concatenate([part.data for part in sparse]),
        np.concatenate([part.indices for part in sparse]),
        np.concatenate([*indptr, ends[-1:]]),
        (sum(part.shape[0] for part in sparse), sparse[0].shape[1]),
    )
