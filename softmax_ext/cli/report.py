"""The report folder of a training: ``report.md`` with its pictures, and ``history.csv``."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import _files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model import SoftmaxModel
    from ..training import History
    from .sources import Part, Source

__all__ = ["Score", "Training", "class_scores", "write_report"]

_DOTS_PER_INCH = 120
_MOST_ROWS = 30  # of the table of epochs; the rest is in history.csv
_MOST_CLASSES = 25  # whose weights are shown
_MOST_CONFUSIONS = 5
_N_SAMPLES, _N_MISTAKES = 20, 24


class Score(NamedTuple):
    """How a model does on some examples."""

    n_examples: int
    #: Mean, in nats.
    loss: float
    accuracy: float


class Training(NamedTuple):
    """A finished training: all that a report tells of."""

    model: SoftmaxModel
    source: Source
    #: The test part; its classes are the model's.
    test: Part
    history: History
    train_score: Score
    test_score: Score
    #: Class index predicted for each test example.
    predicted: NDArray[np.intp]
    #: What was set, by name.
    settings: Mapping[str, object]
    #: What a row of the history is: an epoch, or an iteration of a solver.
    unit: str = "epoch"


def class_scores(counts: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision of each class, from `softmax_ext.plots.confusion_counts`.

    NaN for the recall of a class without examples, and the precision of one never predicted.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext.cli.report import class_scores
    >>> recall, precision = class_scores(np.array([[1, 1], [0, 2]]))
    >>> recall.tolist(), precision.round(2).tolist()
    ([0.5, 1.0], [1.0, 0.67])
    """
    right = np.diagonal(counts).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return right / counts.sum(axis=1), right / counts.sum(axis=0)


def write_report(folder: str, training: Training) -> str | None:
    """Write ``report.md``, ``history.csv`` and the pictures into a folder.

    Parameters
    ----------
    folder : str
        Made if it is not there. Files of an earlier report are replaced.
    training : Training
        What it tells of.

    Returns
    -------
    str or None
        Why there are no pictures, where matplotlib is missing.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    training.history.to_csv(os.path.join(folder, "history.csv"))
    why_no_pictures = None
    try:
        pictures = _draw(training)
    except ImportError as error:
        pictures, why_no_pictures = {}, str(error)
    for name, figure in pictures.items():
        path = os.path.join(folder, f"{name}.png")
        with _files.writing(path) as picture:
            figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight")
    with _files.writing_text(os.path.join(folder, "report.md")) as file:
        file.write(_text(training, set(pictures), why_no_pictures))
    return why_no_pictures


def _draw(training: Training) -> dict[str, Figure]:
    """The pictures that this data allows, by name."""
    from .. import plots

    names, test = training.source.class_names, training.test
    curves = plots.plot_history(training.history)
    for axes in curves.axes:
        axes.set_xlabel(training.unit)
    pictures = {
        "curves": curves,
        "confusion": plots.plot_confusion(test.y, training.predicted, names),
    }
    if test.X.ndim == 3:  # images
        X, y = training.source.train
        shown = [names[label] for label in y[:_N_SAMPLES]]
        pictures["samples"] = plots.show_images(X[:_N_SAMPLES], 2, _N_SAMPLES // 2, shown)
        pictures["weights"] = plots.plot_weights(
            training.model.W[:, :_MOST_CLASSES], test.X.shape[1:], names[:_MOST_CLASSES]
        )
        pictures["mistakes"] = plots.show_mistakes(
            test.X, test.y, training.predicted, names, n=_N_MISTAKES
        )
    return pictures


def _text(training: Training, pictures: set[str], why_no_pictures: str | None) -> str:
    """The report itself."""
    history, score = training.history, training.test_score
    lines = [
        f"# Softmax regression on {_as_it_is(training.source.name)}",
        "",
        f"**Test accuracy {score.accuracy:.4f}** after {_plural(len(history), training.unit)},"
        f" which took {history.seconds.sum():.1f} s without the tests in between.",
        "",
    ]
    if why_no_pictures:
        lines += [f"No pictures: {why_no_pictures}", ""]

    def picture(name: str, what: str) -> None:
        if name in pictures:
            lines.extend([f"![{what}]({name}.png)", ""])

    lines += ["## Results", ""]
    lines += _table(
        ("", "examples", "loss (nats)", "accuracy"),
        [
            ("train", *_score_cells(training.train_score)),
            ("test", *_score_cells(score)),
        ],
    )
    lines += [f"## {training.unit.capitalize()}s", ""]
    picture("curves", f"Loss and accuracy over the {training.unit}s")
    lines += _epochs(history, training.unit)
    if "weights" in pictures:
        lines += ["## What it learnt", ""]
        lines += ["A bright pixel speaks for the class where it is red, against it where blue.", ""]
        picture("weights", "The weights of each class as an image")
    lines += ["## Where it errs", ""]
    lines += _errors(training)
    picture("confusion", "Confusion matrix of the test examples")
    picture("mistakes", "Test images labelled wrong, the true label over the predicted one")
    if "samples" in pictures:
        lines += ["## The data", ""]
        picture("samples", "The first images to train on, with their labels")
    lines += ["## Settings", ""]
    lines += _table(("setting", "value"), training.settings.items())
    lines += ["## Versions", ""]
    lines += _table(("", "version"), _versions().items())
    return "\n".join(lines)


_WHEN = {
    "epoch": "Training figures are means over the epoch, while the weights change; test figures,"
    " validation in the picture, are of its end.",
    "iteration": "Figures are of the weights at its end; the loss is without the penalty.",
}


def _epochs(history: History, unit: str) -> list[str]:
    """The table of epochs, or of a solver's iterations."""
    rows = [
        (
            row.epoch,
            f"{row.train_loss:.4f}",
            "-" if np.isnan(row.train_accuracy) else f"{row.train_accuracy:.4f}",
            f"{row.validation_loss:.4f}",
            f"{row.validation_accuracy:.4f}",
            f"{row.seconds:.2f}",
            f"{row.examples_per_second:.0f}",
        )
        for row in list(history)[-_MOST_ROWS:]
    ]
    which = "All" if len(rows) == len(history) else f"The last {len(rows)}"
    return [
        f"{which} {unit}s; the same in [history.csv](history.csv). {_WHEN[unit]}",
        "",
        *_table(
            (
                unit,
                "train loss",
                "train accuracy",
                "test loss",
                "test accuracy",
                "seconds",
                "examples/s",
            ),
            rows,
        ),
    ]


def _errors(training: Training) -> list[str]:
    """Recall and precision of each class, and the commonest confusions."""
    from ..plots import confusion_counts

    names = training.source.class_names
    counts = confusion_counts(training.test.y, training.predicted, len(names))
    recall, precision = class_scores(counts)
    lines = _table(
        ("class", "test examples", "recall", "precision"),
        [
            (name, n, _share(r), _share(p))
            for name, n, r, p in zip(names, counts.sum(axis=1), recall, precision, strict=True)
        ],
    )
    wrong = counts - np.diag(np.diagonal(counts))
    commonest = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    confusions = [
        (names[true], names[predicted], wrong[true, predicted])
        for true, predicted in zip(*np.unravel_index(commonest, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]
    if confusions:
        lines += ["The commonest mistakes:", ""]
        lines += _table(("class", "taken for", "times"), confusions)
    return lines


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    import softmax_ext

    versions = {
        "softmax_ext": softmax_ext.__version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "NumPy": np.__version__,
    }
    try:
        versions["matplotlib"] = version("matplotlib")
    except PackageNotFoundError:
        versions["matplotlib"] = "not installed"
    versions["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return versions


def _table(heading: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table and an empty line; the first column goes left, the others right."""
    head = [_as_it_is(value) for value in heading]
    marks = [":---", *["---:"] * (len(head) - 1)]
    body = [[_as_it_is(value) for value in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *body)] + [""]


#: What begins markup, formulas among it; an underscore does at the end of a word only.
_MARKUP = re.compile(r"[\\`*\[\]<>|$^~&#]|(?<![^\W_])_|_(?![^\W_])")


def _as_it_is(value: object) -> str:
    """A text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).splitlines()))


def _score_cells(score: Score) -> tuple[object, ...]:
    return score.n_examples, f"{score.loss:.4f}", f"{score.accuracy:.4f}"


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1%}"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
