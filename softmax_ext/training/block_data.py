"""The data of a training in blocks: minibatches of one piece after the other."""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import Any

import numpy as np

from ..arguments import refuse_beside
from ..datasets._parts import Piece
from ..datasets.blocks import Blocks
from ..model import SoftmaxModel
from .data import Minibatches, TrainingData
from .run import Run


class BlockData:
    """What `TrainingData` is for arrays, for `Blocks`.

    A minibatch has rows of one piece; the last one of each piece has what is left of it.
    """

    def __init__(
        self,
        model: SoftmaxModel,
        blocks: Blocks,
        y: Any,
        *,
        batch_size: int,
        kernels: Any,
        sample_weight: Any = None,
        label_smoothing: float = 0.0,
    ) -> None:
        refuse_beside(blocks, y=y, sample_weight=sample_weight)
        D = model.W.shape[0]
        if blocks.n_features != D:
            raise ValueError(
                f"X: pieces of width {blocks.n_features} came, {D}, as W has rows, was wanted"
            )
        self._model, self._blocks, self._batch_size = model, blocks, batch_size
        self._options = {
            "batch_size": batch_size, "kernels": kernels, "label_smoothing": label_smoothing
        }  # fmt: skip
        self._lengths = blocks.lengths
        self.n_rows = sum(self._lengths)
        self.n_batches = sum(self._batches_of(n) for n in self._lengths)

    def _batches_of(self, n: int) -> int:
        return -(-n // self._batch_size)

    def _prepare(self, piece: Piece) -> TrainingData:
        if piece.y is None:
            raise ValueError("y: none came, labels or probabilities were wanted")
        return TrainingData(
            self._model, piece.X, piece.y, sample_weight=piece.sample_weight, **self._options
        )

    def minibatches(self, run: Run, batch_size: int, shuffle: bool) -> Minibatches:
        """Yield what is left of the running epoch: the piece, and which of its rows.

        The order of the pieces, if they can be read in any, and that of the rows in each one are
        drawn anew in each epoch.
        """
        generator = run.generator()
        order = np.arange(len(self._lengths))
        seed = 0
        if shuffle:
            if self._blocks.can_seek:
                order = generator.permutation(order)
            seed = int(generator.integers(1 << 62))
        run.keep(generator)
        # Whole pieces that were done before are not read again, where that can be.
        done, skipped = run.batch, 0
        while skipped < len(order) and done >= self._batches_of(self._lengths[order[skipped]]):
            done -= self._batches_of(self._lengths[order[skipped]])
            skipped += 1
        wanted = order[skipped:].tolist() if self._blocks.can_seek else None
        with contextlib.closing(self._blocks.pieces(self._prepare, order=wanted)) as pieces:
            for k, n, piece in pieces:
                piece.naming = partial(self._blocks.naming, k)
                if wanted is None and k < skipped:
                    continue
                rows = np.arange(n)
                if shuffle:
                    rows = np.random.default_rng([seed, k]).permutation(n)
                for start in range(done * batch_size, n, batch_size):
                    yield piece, rows[start : start + batch_size]
                done = 0

    def score(self, model: SoftmaxModel) -> tuple[float, float]:
        """Return the mean loss and the accuracy of a model."""
        loss = weight = 0.0
        n_correct = n_counted = 0
        with contextlib.closing(self._blocks.pieces(self._prepare)) as pieces:
            for k, _, piece in pieces:
                piece.naming = partial(self._blocks.naming, k)
                result = piece.problem.evaluate(model.W, model.b, reduction="sum")
                piece.check_loss(float(result.loss))
                loss += float(result.loss)
                weight += result.total_weight
                n_correct += result.n_correct
                n_counted += piece.n_counted()
        return (
            loss / weight if weight else math.nan,
            n_correct / n_counted if n_counted else math.nan,
        )

    def description(self) -> str:
        """Return what a resumed run recognises its data by."""
        return self._blocks.description()
