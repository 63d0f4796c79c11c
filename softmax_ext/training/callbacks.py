"""Callbacks: what they are told, and how one of them ends a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..model import SoftmaxModel
from .history import History


class TrainingEvent(NamedTuple):
    """What a callback is told, at the end of a minibatch or of an epoch."""

    #: The model, with the weights after the last step. Not to be changed during the call.
    model: SoftmaxModel
    #: The finished epochs; at an epoch's end the last row is that epoch's.
    history: History
    #: The epoch, counted from 1.
    epoch: int
    #: How many epochs there will be.
    epochs: int
    #: Minibatches done in this epoch.
    batch: int
    #: How many minibatches the epoch has.
    batches: int
    #: Mean training loss over the epoch so far, in nats.
    loss: float
    #: Share of the rows that were predicted right, likewise.
    accuracy: float
    #: Seconds the epoch has taken so far.
    seconds: float
    #: Rows trained on per second of it.
    examples_per_second: float


class StopTraining(Exception):  # noqa: N818  (a request, as StopIteration is)
    """Raised by a callback: `Trainer.fit` ends here and returns the history."""


Listener = Callable[[TrainingEvent], object]


def listeners(callbacks: Sequence[Any]) -> tuple[list[Listener], list[Listener]]:
    """Return what is to be called at the end of each minibatch, and of each epoch."""
    on_batch_end = []
    on_epoch_end = []
    for callback in callbacks:
        methods = hasattr(callback, "on_batch_end"), hasattr(callback, "on_epoch_end")
        if methods[0]:
            on_batch_end.append(callback.on_batch_end)
        if methods[1]:
            on_epoch_end.append(callback.on_epoch_end)
        elif not methods[0] and callable(callback):
            on_epoch_end.append(callback)
        elif not methods[0]:
            raise TypeError(
                f"callbacks: {callback!r:.80} came, a callable or an object with on_batch_end or "
                "on_epoch_end was wanted"
            )
    return on_batch_end, on_epoch_end
