"""The objective of rows that are read piece by piece."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets._parts import Piece
from ..datasets.blocks import Blocks, compute_dtype
from ..model import SoftmaxModel
from .arrays import CALL_COST, ArrayObjective
from .objective import Doubles, Evaluation
from .pieces import (
    Moments,
    PieceMaker,
    Sum,
    is_finite,
    moments_of,
)
from .reservoir import Reservoir, SampleOfPieces, bytes_of_row, sample_rows


class BlocksObjective:
    """The losses of the rows of `Blocks`: one reading in each evaluation.

    Keeps the protocol `objective.Objective`. Of the rows no more than the pieces at hand and a
    sample are in memory; the sample is drawn in the first reading.
    """

    def __init__(self, blocks: Blocks, make: PieceMaker) -> None:
        self._blocks = blocks.merged()
        self._make = make
        self.kernels = make.kernels
        self.has_intercept, self.dtype = make.has_intercept, make.dtype
        self.shape = (make.n_features + make.has_intercept, make.n_classes)
        self.is_sparse = blocks.is_sparse
        self._survey: _Survey | None = None
        # Objectives of pieces that are in memory anyhow; None: not known, or to be made anew.
        self._kept: list[ArrayObjective] | None = None

    @property
    def n_rows(self) -> int:
        """Rows, those without weight among them."""
        return self._blocks.n_rows

    @property
    def cost(self) -> float:
        """How long an evaluation takes, in multiplications, beside the reading."""
        n = self._surveyed().n_values
        return 2 * n * self.shape[1] + CALL_COST * self._blocks.n_pieces

    def value_and_gradient(self, theta: Doubles) -> Evaluation:
        """Evaluate at a point; see the protocol."""
        return self.values_and_gradients([theta])[0]

    def values_and_gradients(self, thetas: Sequence[Doubles]) -> list[Evaluation]:
        """Evaluate at several points in one reading."""
        sums = [Sum(self.shape) for _ in thetas]
        survey = None
        if self._survey is None:
            survey = self._new_survey(with_moments=self.is_sparse)
        for k, piece in self._pieces():
            parts = piece.values_and_gradients(thetas)
            if survey is not None:
                survey.add(piece)
                if not all(map(is_finite, parts)):
                    self._blocks.naming(k, ArrayObjective.refuse_not_finite, piece)
            for total, part in zip(sums, parts, strict=True):
                total.add(part)
        if survey is not None:
            if sums[0].total_weight == 0:
                raise ValueError(NOTHING_COUNTS)
            self._survey = survey
        return [total.evaluation() for total in sums]

    def hessian_product(self, theta: Doubles, V: Doubles) -> Doubles:
        """Return the Hessian at a point times a direction; see the protocol."""
        total = np.zeros(self.shape)
        for _, piece in self._pieces():
            total += piece.hessian_product(theta, V)
        return total

    def moments(self) -> tuple[Doubles, Doubles]:
        """Return the features' means and deviations; see the protocol."""
        if self._survey is None:
            self._survey = self._first_reading(with_moments=True)
        moments, x_scale = self._moments(None), self._make.x_scale
        return moments.mean * x_scale, moments.deviations() * abs(x_scale)

    def sample(self, n: int, *, by_length: bool) -> SampleOfPieces:
        """Draw n rows by their weight, of those that were drawn first; see the protocol."""
        reservoir = self._surveyed().reservoir
        rows, weight = reservoir.drawn()
        return SampleOfPieces(
            self._make, rows, weight / weight.sum(), n, by_length, self._moments,
            reservoir.has_all,
        )  # fmt: skip

    def in_float64(self) -> BlocksObjective:
        """Return the same sum, computed in float64."""
        wide = copy.copy(self)
        wide.dtype = np.dtype(np.float64)
        wide._make = self._make._replace(dtype=wide.dtype)
        if self._kept is not None:
            wide._kept = sharing_buffers([piece.in_float64() for piece in self._kept])
        return wide

    def description(self) -> str:
        """Return what a resumed fit recognises the data by; takes a reading, if there was none."""
        self._surveyed()
        return self._blocks.description()

    def _pieces(self) -> Iterator[tuple[int, ArrayObjective]]:
        """Read the pieces, as objectives, which last until the next one."""
        if self._kept is not None:
            yield from enumerate(map(copy.copy, self._kept))
            return
        kept: list[ArrayObjective] | None = [] if self._blocks.is_in_memory else None
        with contextlib.closing(self._blocks.pieces(self._read)) as pieces:
            for k, _, (piece, is_view) in pieces:
                yield k, piece
                kept = [*kept, piece] if kept is not None and is_view else None
        if kept is not None:
            self._kept = sharing_buffers(kept)

    def _read(self, piece: Piece) -> tuple[ArrayObjective, bool]:
        """A piece's objective, and whether it is of the very array that came."""
        objective = self._make.objective(piece)
        values = piece.X.data if self.is_sparse else piece.X
        return objective, np.may_share_memory(objective._values, values)

    def _surveyed(self) -> _Survey:
        """What the first reading found; if it was not for an evaluation, it is made now."""
        if self._survey is None:
            self._survey = self._first_reading(self.is_sparse)
        return self._survey

    def _first_reading(self, with_moments: bool) -> _Survey:
        survey = self._new_survey(with_moments)
        for _, piece in self._pieces():
            survey.add(piece)
        return survey

    def _new_survey(self, with_moments: bool) -> _Survey:
        # A callable's rows are counted in the first pass, and so not known before.
        n_rows = self._blocks.n_rows if self._blocks.can_seek else None
        return _Survey(self.shape[0] - self.has_intercept, with_moments, n_rows)

    def _moments(self, features: NDArray[np.intp] | None) -> Moments:
        """Return the moments of all rows, of every feature or of some."""
        found = self._surveyed().moments
        if features is None and found is not None:
            return found
        total = Moments(self.shape[0] - self.has_intercept if features is None else len(features))
        for _, piece in self._pieces():
            total.add(moments_of(piece, features))
        return total


NOTHING_COUNTS = (
    "y, sample_weight: no row that counts came, at least one label that does, of a weight above 0, "
    "was wanted"
)


class _Survey:
    """What the first reading finds beside loss and gradient."""

    def __init__(self, n_features: int, with_moments: bool, n_rows: int | None) -> None:
        self._n_rows = n_rows
        self.reservoir: Reservoir
        self.n_values = 0
        #: None: not looked for.
        self.moments = Moments(n_features) if with_moments else None

    def add(self, piece: ArrayObjective) -> None:
        if not self.n_values:
            n = sample_rows(bytes_of_row(piece.X))
            # Weights that are not 1 may be anything.
            is_even = piece.sample_weight is None
            self.reservoir = Reservoir(n, self._n_rows if is_even else None)
        self.reservoir.add(piece.X, piece.masses())
        if self.moments is not None:
            self.moments.add(moments_of(piece))
        self.n_values += piece._values.size


def sharing_buffers(pieces: list[ArrayObjective]) -> list[ArrayObjective]:
    """Let objectives that are asked one after the other have one gradient between them."""
    for piece in pieces[1:]:
        piece._theta, piece._gradient = pieces[0]._theta, pieces[0]._gradient
    return pieces


def blocks_objective(
    blocks: Blocks,
    W: NDArray[Any],
    b: NDArray[Any] | None,
    *,
    classes: NDArray[Any] | None,
    x_scale: float,
    label_smoothing: float,
    kernels: Any,
) -> BlocksObjective:
    """Return the objective of blocks for parameters like W and b."""
    D, C = W.shape
    if blocks.n_features != D:
        raise ValueError(
            f"X: pieces of width {blocks.n_features} came, {D}, as W has rows, was wanted"
        )
    dtype = compute_dtype(blocks.dtype, W.dtype if b is None else np.result_type(W, b))
    make = PieceMaker(D, C, b is not None, dtype, x_scale, label_smoothing, classes, kernels)
    return BlocksObjective(blocks, make)


def objective_of(model: SoftmaxModel, blocks: Blocks) -> BlocksObjective:
    """Return the objective of blocks for a model's parameters, to build one of several on.

    Parameters
    ----------
    model : SoftmaxModel
        Whose parameters, classes and `x_scale` it is for; not changed.
    blocks : Blocks
        The rows.

    Raises
    ------
    ValueError
        If the blocks are not as wide as the model.

    Examples
    --------
    >>> import numpy as np
    >>> import softmax_ext as sx
    >>> from softmax_ext.solvers import objective_of
    >>> data = sx.Blocks([np.eye(2), np.eye(2)], [0, 1, 1, 0])
    >>> losses = objective_of(sx.SoftmaxModel.zeros(2, 2, dtype=np.float64), data)
    >>> round(losses.value_and_gradient(np.zeros(losses.shape)).value, 4)
    2.7726
    """
    return blocks_objective(
        blocks, model.W, model.b, classes=model.classes, x_scale=model.x_scale,
        label_smoothing=0.0, kernels=model.kernels,
    )  # fmt: skip
