"""A training that goes on where a checkpoint was written."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..arguments import integer_between
from ..errors import ModelFormatError
from ..model import SoftmaxModel
from . import checkpoint as checkpoint_file
from .settings import check_learning_rate

if TYPE_CHECKING:
    from .trainer import Trainer


def resumed(
    make: Callable[..., Trainer],
    path: str | os.PathLike[str],
    *,
    epochs: int | None,
    learning_rate: float | Callable[[int], float] | None,
    callbacks: Sequence[Any],
    checkpoint: str | os.PathLike[str] | None,
    kernels: Any,
) -> Trainer:
    """Do what `Trainer.resume` does, which documents it, with a class or what makes its like."""
    entries = checkpoint_file.read(path)
    model = SoftmaxModel._from_arrays(entries, path, kernels)
    try:
        settings = checkpoint_file.settings_in(entries)
        had_schedule = math.isnan(settings["learning_rate"])
        if had_schedule:
            settings["learning_rate"] = 0.0
        trainer = make(**settings, callbacks=callbacks, kernels=kernels)
        run = trainer._new_run(model)
        checkpoint_file.restore(run, entries)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelFormatError(f"{os.fspath(path)}: {error}") from error
    if learning_rate is not None:
        trainer.learning_rate = check_learning_rate(learning_rate)
    elif had_schedule:
        raise ValueError(
            f"learning_rate: the run in {os.fspath(path)} had a schedule, which is not in the "
            "file; hand it over again"
        )
    if epochs is not None:
        trainer.epochs = integer_between("epochs", epochs, 0)
        begun = run.epoch + (run.batch > 0)
        if begun > trainer.epochs:
            raise ValueError(
                f"epochs: {epochs} came, at least {begun} was wanted: {os.fspath(path)} is of "
                f"epoch {begun}"
            )
    trainer.checkpoint = os.fspath(path if checkpoint is None else checkpoint)
    if checkpoint is None:
        run.saved = (run.epoch, run.batch)
    trainer._take_up(run)
    return trainer
