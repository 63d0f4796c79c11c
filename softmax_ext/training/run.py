"""Where a training stands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model import SoftmaxModel
from ..results import LinearCrossEntropyResult
from .history import History
from .sgd import SGD, parameters_of

if TYPE_CHECKING:
    from .block_data import BlockData
    from .data import TrainingData


class Run:
    """Where a training stands: all that a checkpoint holds beside the settings."""

    def __init__(self, model: SoftmaxModel, sgd: SGD) -> None:
        self.model = model
        self.sgd = sgd
        self.history = History()
        self.data_description = ""
        # Finished epochs; the generator's state before the running epoch's order was drawn, and
        # after it.
        self.epoch = 0
        self.generator_state: Any = None
        self._next_generator_state: Any = None
        # The running epoch: minibatches done, and the sums over them.
        self.batch = 0
        self.loss_sum = 0.0
        self.weight_sum = 0.0
        self.n_correct = 0
        self.n_counted = 0
        self.seconds = 0.0
        # Not in the file: which step the file holds, as (epoch, batch), and whether the user has
        # been warned.
        self.saved: tuple[int, int] | None = None
        self.warned = False

    def draw_order(self, n_rows: int, shuffle: bool) -> NDArray[np.intp]:
        """Return the order of the running epoch, the same each time."""
        generator = self.generator()
        order = generator.permutation(n_rows) if shuffle else np.arange(n_rows)
        self.keep(generator)
        return order

    def generator(self) -> np.random.Generator:
        """Return the generator as it was when the running epoch began."""
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = self.generator_state
        return generator

    def keep(self, generator: np.random.Generator) -> None:
        """Let the next epoch go on from a generator that has drawn this one's order."""
        self._next_generator_state = generator.bit_generator.state

    def count(self, result: LinearCrossEntropyResult, n_counted: int) -> None:
        """Add a minibatch to the sums."""
        # A minibatch without a label that counts has the mean loss nan.
        if result.total_weight:
            self.loss_sum += float(result.loss) * result.total_weight
            self.weight_sum += result.total_weight
        self.n_correct += result.n_correct
        self.n_counted += n_counted
        self.batch += 1

    def loss(self) -> float:
        return self.loss_sum / self.weight_sum if self.weight_sum else math.nan

    def accuracy(self) -> float:
        return self.n_correct / self.n_counted if self.n_counted else math.nan

    def start_next_epoch(self) -> None:
        self.epoch += 1
        self.generator_state = self._next_generator_state
        self.sgd.sums = None
        self.batch = self.n_correct = self.n_counted = 0
        self.loss_sum = self.weight_sum = self.seconds = 0.0

    def check_data(self, data: TrainingData | BlockData) -> None:
        """Refuse other data than the checkpoint's; a run without a checkpoint takes any."""
        if self.data_description and self.data_description != data.description():
            raise ValueError(
                f"X, y, sample_weight: {data.description()} came, {self.data_description}, which "
                "the checkpoint's run was trained on, was wanted"
            )

    def move_to(self, model: SoftmaxModel) -> None:
        """Go on with another model of the same shape, giving it the weights."""
        old, new = parameters_of(self.model), parameters_of(model)
        alike = [p.shape for p in old] == [p.shape for p in new] and (
            self.model.W.dtype == model.W.dtype
            and self.model.x_scale == model.x_scale
            and np.array_equal(self.model.classes, model.classes)  # type: ignore[arg-type]
        )
        if not alike:
            raise ValueError(
                f"model: {model!r} came, one like the checkpoint's {self.model!r} was wanted"
            )
        for source, target in zip(old, new, strict=True):
            target[...] = source
        self.model = model
        self.sgd.parameters = new
