"""The objective of rows in the chunks of Dask collections."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import Csr
from ..datasets._parts import Piece, take_rows
from ..datasets.blocks import checksum
from ..solvers.arrays import CALL_COST
from ..solvers.blocks import NOTHING_COUNTS
from ..solvers.objective import Doubles, Evaluation
from ..solvers.pieces import (
    Moments,
    PieceMaker,
    Sum,
    is_finite,
    moments_of,
)
from ..solvers.reservoir import (
    SampleOfPieces,
    bytes_of_row,
    priorities,
    sample_rows,
    stacked,
)
from ._chunks import Chunks, Engine


class DaskObjective:
    """The losses of the rows in chunks: a task for each one in each evaluation.

    Keeps the protocol `solvers.objective.Objective`.
    """

    def __init__(self, chunks: Chunks, make: PieceMaker) -> None:
        self._chunks, self._make = chunks, make
        self.kernels = make.kernels
        self._engine = Engine(len(chunks.X))
        self.has_intercept, self.dtype = make.has_intercept, make.dtype
        self.shape = (make.n_features + make.has_intercept, make.n_classes)
        self.is_sparse = chunks.is_sparse
        self._seen: _Seen | None = None

    @property
    def n_rows(self) -> int:
        """Rows, those without weight among them."""
        return self._surveyed().n_rows

    @property
    def cost(self) -> float:
        """How long an evaluation takes, in multiplications, on one worker."""
        return 2 * self._surveyed().n_values * self.shape[1] + CALL_COST * len(self._chunks.X)

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point; see the protocol."""
        return self.values_and_gradients([theta])[0]

    def values_and_gradients(self, thetas: Sequence[Doubles]) -> list[Evaluation]:
        """Evaluate at several points in one pass over the chunks."""
        is_first = self._seen is None
        sums, seen = self._chunks.reduced(
            self._engine, _evaluate, _add_evaluations, self._make,
            [np.asarray(theta) for theta in thetas], is_first,
        )  # fmt: skip
        results = [total.evaluation() for total in sums]
        if is_first:
            if results[0].total_weight == 0:
                raise ValueError(NOTHING_COUNTS)
            self._seen = seen
        return results

    def hessian_product(self, theta: Doubles, V: Doubles) -> Doubles:
        """Return the Hessian at a point times a direction; see the protocol."""
        result: Doubles = self._chunks.reduced(
            self._engine, _hessian_product, _add_arrays, self._make, (theta, V)
        )
        return result

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        moments, x_scale = self._moments(None), self._make.x_scale
        return moments.mean * x_scale, moments.deviations() * abs(x_scale)

    def sample(self, n: int, *, by_length: bool) -> SampleOfPieces:
        """Draw n rows by their weight, of those that were drawn first; see the protocol."""
        seen = self._surveyed()
        rows, weight = self._chunks.reduced(self._engine, _take, _add_rows, self._make, seen.least)
        is_all = len(weight) == seen.n_rows
        return SampleOfPieces(
            self._make, rows, weight / weight.sum(), n, by_length,
            self._moments, is_all,
        )  # fmt: skip

    def description(self) -> str:
        """Return what a resumed fit recognises the data by."""
        seen = self._surveyed()
        return f"{seen.n_rows} rows in {len(self._chunks.X)} chunks, labels {seen.digest:08x}"

    def in_float64(self) -> DaskObjective:
        """Return the same sum, computed in float64."""
        wide = copy.copy(self)
        wide.dtype = np.dtype(np.float64)
        wide._make = self._make._replace(dtype=wide.dtype)
        return wide

    def _surveyed(self) -> _Seen:
        """What the first evaluation found; of a fit that was resumed, a pass finds it now."""
        if self._seen is None:
            self.value_and_gradient(np.zeros(self.shape))
        assert self._seen is not None
        return self._seen

    def _moments(self, features: NDArray[np.intp] | None) -> Moments:
        """Return the moments of all rows."""
        result: Moments = self._chunks.reduced(
            self._engine, _moments, _add_moments, self._make, features
        )
        return result


class _Seen:
    """What the first evaluation finds of chunks beside loss and gradient."""

    def __init__(self, piece: Any, labels: Any) -> None:
        self.n_rows = int(piece.n_rows)
        self.n_values = int(piece._values.size)
        self.digest = checksum(labels)
        #: The highest priorities of rows, the last one that of a row which is not drawn.
        self.highest = _priorities(piece, self.digest)
        self.n = sample_rows(bytes_of_row(piece.X)) if self.n_rows else 0
        self._cut()

    @property
    def least(self) -> float:
        """The priority that a row must have more of to be drawn."""
        return float(self.highest.min()) if len(self.highest) > self.n else 0.0

    def _cut(self) -> None:
        if len(self.highest) > self.n + 1:
            self.highest = -np.partition(-self.highest, self.n)[: self.n + 1]

    def add(self, other: _Seen) -> None:
        self.digest = (self.digest * 31 + other.digest) % (1 << 32)
        self.n_rows += other.n_rows
        self.n_values += other.n_values
        self.n = max(self.n, other.n)
        self.highest = np.concatenate([self.highest, other.highest])
        self._cut()


def _priorities(piece: Any, digest: int) -> Doubles:
    """The rows' priorities, the same in every pass; other ones in another chunk."""
    random = np.random.Generator(np.random.PCG64([piece.n_rows, digest]))
    return priorities(piece.masses(), random)


def _evaluate(
    piece: Piece, make: PieceMaker, thetas: list[Doubles], is_first: bool
) -> tuple[list[Sum], _Seen | None]:
    objective = make.objective(piece)
    sums = [Sum(objective.shape) for _ in thetas]
    if objective.n_rows:
        parts = objective.values_and_gradients(thetas)
        if is_first and not all(map(is_finite, parts)):
            objective.refuse_not_finite()
        for total, part in zip(sums, parts, strict=True):
            total.add(part)
    return sums, _Seen(objective, piece.y) if is_first else None


def _add_evaluations(parts: list[tuple[list[Sum], _Seen | None]]) -> Any:
    sums, seen = copy.deepcopy(parts[0])
    for other_sums, other in parts[1:]:
        for total, part in zip(sums, other_sums, strict=True):
            total.add(part)
        if seen is not None and other is not None:
            seen.add(other)
    return sums, seen


def _hessian_product(piece: Piece, make: PieceMaker, vectors: tuple[Doubles, Doubles]) -> Doubles:
    objective = make.objective(piece)
    total: Doubles = np.zeros(objective.shape)
    if objective.n_rows:
        total += objective.hessian_product(*vectors)
    return total


def _add_arrays(parts: list[Doubles]) -> Doubles:
    total: Doubles = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _moments(piece: Piece, make: PieceMaker, features: Any) -> Moments:
    return moments_of(make.objective(piece), features)


def _add_moments(parts: list[Moments]) -> Moments:
    total = copy.deepcopy(parts[0])
    for part in parts[1:]:
        total.add(part)
    return total


def _take(piece: Piece, make: PieceMaker, least: float) -> tuple[Any, Doubles]:
    """The rows of a chunk that are drawn, and the weight that each stands for."""
    objective = make.objective(piece)
    chosen = np.flatnonzero(_priorities(objective, checksum(piece.y)) > least)
    weight = np.maximum(objective.masses()[chosen], least)
    return take_rows(objective.X, chosen), weight


def _add_rows(parts: list[tuple[Any, Doubles]]) -> tuple[Any, Doubles]:
    some = [part for part in parts if len(part[1])] or parts[:1]
    rows = stacked([rows for rows, _ in some])
    if isinstance(rows, Csr):
        rows = Csr(*rows)
    return rows, np.concatenate([weight for _, weight in some])
