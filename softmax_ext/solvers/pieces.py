"""What an objective in pieces is made of: a piece's own objective, and sums over pieces."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array, Csr, as_matrix, as_row_weights, as_target
from ..datasets._parts import Piece
from ..model import as_kernels_like, kernels_or_default, target_of
from .arrays import ArrayObjective
from .objective import Doubles, Evaluation
from .sample import FLAT, PIECE_ELEMENTS, PIECE_ROWS, dense_moments, sparse_moments


class PieceMaker(NamedTuple):
    """Makes objectives of pieces; can be sent to another process.

    The fields are those of `ArrayObjective`, and the classes that labels are of.
    """

    n_features: int
    n_classes: int
    has_intercept: bool
    dtype: np.dtype[Any]
    x_scale: float
    label_smoothing: float
    #: None: labels are indices; as of `SoftmaxModel`.
    classes: NDArray[Any] | None
    #: None: the default ones.
    kernels: Any

    def objective(self, piece: Piece) -> ArrayObjective:
        """Return a piece's objective, its labels and weights checked."""
        X = as_kernels_like(piece.X)
        n, C = X.shape[0], self.n_classes
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"X: shape {X.shape} came, ({n}, {self.n_features}), as W has rows, was wanted"
            )
        if piece.y is None:
            raise ValueError("y: none came, labels or probabilities were wanted")
        y = as_target(target_of(piece.y, n, C, self.classes), (n, C), (n,), "y")
        weight = piece.sample_weight
        objective = ArrayObjective(
            as_matrix(X),
            y,
            sample_weight=None if weight is None else as_row_weights("sample_weight", weight, n),
            n_classes=C,
            has_intercept=self.has_intercept,
            dtype=self.dtype,
            x_scale=self.x_scale,
            label_smoothing=self.label_smoothing,
            kernels=kernels_or_default(self.kernels),
        )
        # A piece alone need not have a row that counts.
        objective._is_checked = True
        return objective


def is_finite(result: Evaluation) -> bool:
    """Whether value and gradient are."""
    return math.isfinite(result.value) and bool(np.isfinite(result.gradient).all())


class Moments:
    """Means and variances of features, of weighted rows that come in pieces.

    Those of two sets of rows give those of both [1]_, without the cancellation that sums of squares
    have. Deviations are kept as shares of the largest element, which is what they are held against.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
       computing sample variances", Stanford University (1979).
    """

    def __init__(self, n_features: int) -> None:
        self.weight = 0.0
        self.mean, self._variance = np.zeros((2, n_features))
        self._largest = np.ones(n_features)

    def add(self, other: Moments) -> None:
        """Add those of other rows."""
        weight = self.weight + other.weight
        if not other.weight:
            return
        if not self.weight:
            self.weight, self.mean = other.weight, other.mean
            self._variance, self._largest = other._variance, other._largest
            return
        largest = np.maximum(self._largest, other._largest)
        a, b = self.weight / weight, other.weight / weight
        apart = (other.mean - self.mean) / largest
        self._variance = (
            a * self._variance * (self._largest / largest) ** 2
            + b * other._variance * (other._largest / largest) ** 2
            + a * b * apart**2
        )
        self.mean = self.mean + b * (other.mean - self.mean)
        self.weight, self._largest = weight, largest

    def of_sizes(self) -> tuple[Doubles, Doubles, Doubles]:
        """Return means, sizes, and variances as shares of the sizes squared."""
        return self.mean.copy(), self._largest.copy(), self._variance.copy()

    def deviations(self) -> Doubles:
        """Return the features' deviations; 0 for one that never changes."""
        changes = self._variance > FLAT**2
        result: Doubles = np.where(changes, self._largest * np.sqrt(self._variance), 0)
        return result


def moments_of(piece: ArrayObjective, features: NDArray[np.intp] | None = None) -> Moments:
    """Return the moments of a piece's features, or of some of a dense one's."""
    X, weight = piece.X, piece.masses()
    D = piece.n_features if features is None else len(features)
    result = Moments(D)
    total = float(weight.sum())
    if not total:
        return result
    share = weight / total
    if isinstance(X, Csr):
        mean, largest, variance = sparse_moments(X, share)
    else:
        step = min(PIECE_ROWS, PIECE_ELEMENTS // max(1, D) + 1)
        mean, largest, variance = dense_moments(
            lambda: (
                (_columns(X[i : i + step], features), share[i : i + step])
                for i in range(0, len(X), step)
            ),
            D,
        )
    result.weight, result.mean = total, mean
    result._largest, result._variance = largest, variance
    return result


def _columns(x: Array, features: NDArray[np.intp] | None) -> Array:
    return x if features is None else x[:, features]


class Sum:
    """The sum of evaluations of pieces, in their order."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.value = self.total_weight = 0.0
        self.gradient = np.zeros(shape)

    def add(self, part: Evaluation | Sum) -> None:
        self.value += part.value
        self.gradient += part.gradient
        self.total_weight += part.total_weight

    def evaluation(self) -> Evaluation:
        return Evaluation(self.value, self.gradient, self.total_weight)
