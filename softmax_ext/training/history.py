"""What a training has measured, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .. import _files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class HistoryRow(NamedTuple):
    """What was measured in one epoch."""

    #: The epoch, counted from 1.
    epoch: int
    #: Mean loss in nats over the epoch's minibatches, each with the weights before its step.
    train_loss: float
    #: Share of the rows that were predicted right, likewise during the epoch.
    train_accuracy: float
    #: Mean loss of the validation data at the end of the epoch; nan without such data.
    validation_loss: float
    #: Accuracy of the validation data, likewise.
    validation_accuracy: float
    #: Wall time of the epoch's minibatches, without the validation.
    seconds: float
    #: Rows trained on per second of it.
    examples_per_second: float


class History(Sequence[HistoryRow]):
    """The rows of a training, one for each epoch: a sequence of `HistoryRow`.

    Each column is also an attribute, an ndarray: ``epoch``, ``train_loss``, ``train_accuracy``,
    ``validation_loss``, ``validation_accuracy``, ``seconds``, ``examples_per_second``.

    Parameters
    ----------
    rows : iterable of HistoryRow, optional
        What it starts with.

    Examples
    --------
    >>> history = History([HistoryRow(1, 0.5, 0.75, float("nan"), float("nan"), 2.0, 500.0)])
    >>> history.train_loss
    array([0.5])
    >>> history[-1].train_accuracy
    0.75
    >>> history
    epoch  train_loss  train_accuracy  seconds  examples_per_second
        1      0.5000          0.7500     2.00                  500
    """

    epoch: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]
    seconds: NDArray[np.float64]
    examples_per_second: NDArray[np.float64]

    def __init__(self, rows: Sequence[HistoryRow] = ()) -> None:
        self._rows = list(rows)

    def append(self, row: HistoryRow) -> None:
        """Add the row of another epoch."""
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> HistoryRow: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> HistoryRow | History:
        return History(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name not in HistoryRow._fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        values = [getattr(row, name) for row in self._rows]
        return np.array(values, np.int64 if name == "epoch" else np.float64)

    def __repr__(self) -> str:
        columns = []
        for name, form in _COLUMN_FORMATS.items():
            if name.startswith("validation") and np.isnan(getattr(self, name)).all():
                continue
            cells = [name, *(format(getattr(row, name), form) for row in self._rows)]
            width = max(map(len, cells))
            columns.append([cell.rjust(width) for cell in cells])
        return "\n".join("  ".join(line) for line in zip(*columns, strict=True))

    def plot(self) -> Figure:
        """Plot loss and accuracy over the epochs; needs matplotlib.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from .. import plots

        return plots.plot_history(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows under a line of column names, as CSV; what was not measured is nan."""
        import csv

        with _files.writing_text(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HistoryRow._fields)
            writer.writerows(self._rows)


_COLUMN_FORMATS = {
    "epoch": "d",
    "train_loss": ".4f",
    "train_accuracy": ".4f",
    "validation_loss": ".4f",
    "validation_accuracy": ".4f",
    "seconds": ".2f",
    "examples_per_second": ".0f",
}
