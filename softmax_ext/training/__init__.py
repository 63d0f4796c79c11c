"""Minibatch stochastic gradient descent: `Trainer`, its `History`, and its checkpoints.

The trainer is thin: it draws the permutation, has the kernels compute each minibatch's loss and
gradient, steps, and records. Epochs are counted from 1 everywhere: in the history, in events, and
where a learning-rate schedule is called.

`trainer` is what users see, over `settings`; `loop` runs one fit on `data`, moving the state in
`run` by the steps of `sgd`; `checkpoint` is that state in a file.
"""

from .callbacks import StopTraining, TrainingEvent
from .history import History, HistoryRow
from .interrupt import TrainingInterrupted
from .trainer import Trainer

__all__ = [
    "History",
    "HistoryRow",
    "StopTraining",
    "Trainer",
    "TrainingEvent",
    "TrainingInterrupted",
]
