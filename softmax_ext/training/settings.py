"""The settings of a training, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..arguments import finite_from_0, integer_between, number_between
from .callbacks import listeners


class Settings:
    """What `Trainer` was made with, which documents it."""

    def __init__(
        self,
        *,
        epochs: int = 10,
        batch_size: int = 256,
        learning_rate: float | Callable[[int], float] = 0.1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        shuffle: bool = True,
        seed: int | None = 0,
        callbacks: Sequence[Any] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        kernels: Any = None,
        average: bool = False,
        label_smoothing: float = 0.0,
        decay_bias: bool = True,
    ) -> None:
        self.epochs = integer_between("epochs", epochs, 0)
        self.batch_size = integer_between("batch_size", batch_size, 1)
        self.learning_rate = check_learning_rate(learning_rate)
        self.momentum = finite_from_0("momentum", momentum)
        self.weight_decay = finite_from_0("weight_decay", weight_decay)
        self.shuffle = bool(shuffle)
        self.seed = None if seed is None else integer_between("seed", seed, 0)
        self.callbacks = tuple(callbacks)
        listeners(self.callbacks)  # refuses what cannot be called
        self.checkpoint = None if checkpoint is None else os.fspath(checkpoint)
        self.kernels = kernels
        self.average = bool(average)
        self.label_smoothing = number_between("label_smoothing", label_smoothing, 0, 1)
        self.decay_bias = bool(decay_bias)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        if callable(self.learning_rate):
            return finite_from_0(f"learning_rate({epoch})", self.learning_rate(epoch))
        return self.learning_rate


def check_learning_rate(value: Any) -> float | Callable[[int], float]:
    return value if callable(value) else finite_from_0("learning_rate", value)
