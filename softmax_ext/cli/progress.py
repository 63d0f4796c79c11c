"""How the command line tells of a training as it goes on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training import HistoryRow, TrainingEvent

__all__ = ["Lines", "ProgressBar", "make_progress"]


_EACH = 10  # iterations between two lines


class Lines:
    """A line for each epoch, or some of a solver's iterations, on standard output."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_epoch_end(self, event: TrainingEvent) -> None:
        row = event.history[-1]
        print(
            f"epoch {row.epoch}/{event.epochs}: loss {row.train_loss:.4f},"
            f" accuracy {row.train_accuracy:.4f}; test loss {row.validation_loss:.4f},"
            f" test accuracy {row.validation_accuracy:.4f};"
            f" {row.examples_per_second:.0f} examples/s",
            flush=True,
        )

    def on_iteration(self, row: HistoryRow, grad_norm: float) -> None:
        """Told of each iteration of a solver, whose number the row has for an epoch."""
        if row.epoch % _EACH == 0:
            print(
                f"iteration {row.epoch}: loss {row.train_loss:.4f}, gradient {grad_norm:.1e};"
                f" test loss {row.validation_loss:.4f},"
                f" test accuracy {row.validation_accuracy:.4f};"
                f" {row.examples_per_second:.0f} examples/s",
                flush=True,
            )


class ProgressBar(Lines):
    """The same, and a bar of the whole training on standard error.

    Parameters
    ----------
    tqdm : class
        `tqdm.tqdm`.
    """

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_batch_end(self, event: TrainingEvent) -> None:
        done = (event.epoch - 1) * event.batches + event.batch
        epoch = f"epoch {event.epoch}/{event.epochs}"
        if self._bar is None:
            self._bar = self._tqdm(
                desc=epoch,
                total=event.epochs * event.batches,
                initial=done - 1,  # not 0 in a resumed run
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
        self._bar.set_description_str(epoch, refresh=False)
        self._bar.set_postfix_str(
            f"loss {event.loss:.4f}, accuracy {event.accuracy:.4f},"
            f" {event.examples_per_second:.0f} examples/s",
            refresh=False,
        )
        self._bar.update(done - self._bar.n)

    def on_iteration(self, row: HistoryRow, grad_norm: float) -> None:
        if self._bar is None:
            self._bar = self._tqdm(  # nobody knows how many there will be
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
                bar_format="{desc} {elapsed}{postfix}",
            )
        self._bar.set_description_str(f"iteration {row.epoch}", refresh=False)
        self._bar.set_postfix_str(
            f"loss {row.train_loss:.4f}, gradient {grad_norm:.1e},"
            f" test accuracy {row.validation_accuracy:.4f},"
            f" {row.examples_per_second:.0f} examples/s",
            refresh=row.epoch == 1,
        )
        self._bar.update()
        with self._room():
            super().on_iteration(row, grad_norm)

    def on_epoch_end(self, event: TrainingEvent) -> None:
        with self._room():
            super().on_epoch_end(event)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """For a line, which goes where the bar was."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.refresh()


def make_progress() -> Lines:
    """A bar if standard error is a terminal and tqdm is installed, otherwise lines alone."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            return Lines()
        return ProgressBar(tqdm)
    return Lines()
