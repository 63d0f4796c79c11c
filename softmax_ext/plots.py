"""Pictures of data, training and results.

They need matplotlib, which is imported by the first function called. Every function returns a
`matplotlib.figure.Figure` that belongs to no window: it shows itself as the last line of a
notebook's cell, ``figure.savefig("picture.png")`` writes it, and nothing has to be closed. To draw
into a figure of your own (of pyplot, say, for ``plt.show()``) pass it as ``figure``.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_labels, integer_between
from .model import indices_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

    from .model import SoftmaxModel

__all__ = [
    "confusion_counts",
    "plot_confusion",
    "plot_history",
    "plot_weights",
    "show_images",
    "show_mistakes",
]

# Okabe and Ito's blue and vermilion: told apart with every kind of colour vision, and in grey.
_TRAIN_COLOUR = "#0072B2"
_VALIDATION_COLOUR = "#D55E00"

_CELL = 1.25  # inches a small image is wide
_HEADING = 0.3  # inches the heading of a whole figure is high
_COLOUR_BAR = 0.6  # inches a colour bar with its label is high
_TITLE_LINE = 0.155  # inches a line of a small image's title is high
_TITLE_WIDTH = 16  # characters of a title that fit above a small image
_TITLE_SIZE = 9  # points
# With more classes than these, the names beside a confusion matrix, and the numbers in its cells,
# would be too small to read.
_MOST_NAMED = 60
_MOST_NUMBERED = 25
#: Names are drawn as they are: neither matplotlib nor TeX takes $, _ or a backslash for a formula.
_AS_IT_IS: dict[str, Any] = {"parse_math": False, "usetex": False}


@functools.cache
def _figure_class() -> type[Figure]:
    """matplotlib's Figure, able to show itself in a notebook that does not use pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'pictures need matplotlib, which is not installed: pip install "softmax-ext[cli]"'
        ) from error

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            import io

            png = io.BytesIO()
            self.savefig(png, format="png", bbox_inches="tight")
            return png.getvalue()

    return NotebookFigure


def _prepare(figure: Any, width: float, height: float) -> Any:
    """The caller's figure, or a new one of this size in inches."""
    new = _figure_class()  # also for a caller's figure: one place says what is missing
    # "compressed": images keep their shape, and stay close together.
    return new(figsize=(width, height), layout="compressed") if figure is None else figure


def show_images(
    images: ArrayLike,
    rows: int,
    cols: int,
    titles: Sequence[object] | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Show small images in a grid.

    Parameters
    ----------
    images : array_like, shape (n, height, width), or (n, height, width, 3 or 4) for colour
        Of any real dtype. The first ``rows * cols`` are shown; with fewer the rest of the grid
        stays empty. uint8 goes from 0, black, to 255, white; other gray images share one scale
        from the smallest number shown to the largest.
    rows, cols : int
        Of the grid, at least 1.
    titles : sequence, optional
        What stands above each image, converted by ``str``; at least as many as images shown.
    figure : matplotlib Figure or SubFigure, optional
        To draw into; by default a new one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If ``images`` has another shape or none in it, ``rows`` or ``cols`` is less than 1, or
        there are too few titles.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from softmax_ext import datasets, plots
    >>> animals = datasets.make_two_by_two(6)
    >>> names = [animals.class_names[label] for label in animals.labels]
    >>> figure = plots.show_images(animals.images, 2, 3, titles=names)
    >>> len(figure.axes)
    6
    """
    rows, cols = integer_between("rows", rows, 1), integer_between("cols", cols, 1)
    array = _check_images(images)[: rows * cols]
    if not len(array):
        raise ValueError("images: none came, at least 1 was wanted")
    if titles is not None and len(titles) < len(array):
        raise ValueError(
            f"titles: {len(titles)} came, {len(array)} were wanted, one for each image"
        )

    texts = ["" if titles is None else _wrapped(title) for title in titles or [""] * len(array)]
    lines = max(text.count("\n") + 1 if text else 0 for text in texts[: len(array)])
    fig: Figure = _prepare(figure, cols * _CELL, rows * _cell_height(array, lines))
    low, high = _grey_scale(array)
    for place, axes in enumerate(_grid(fig, rows, cols)):
        axes.set_axis_off()
        if place < len(array):
            axes.imshow(array[place], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(texts[place], fontsize=_TITLE_SIZE, pad=3, **_AS_IT_IS)
    return fig


class EpochColumns(Protocol):
    """What is drawn of a training: a column for each quantity, as `History` has them."""

    epoch: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    train_accuracy: NDArray[np.float64]
    validation_loss: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]


def plot_history(history: EpochColumns, *, figure: FigureBase | None = None) -> Figure:
    """Plot loss and accuracy over the epochs, for training and, if measured, validation.

    Parameters
    ----------
    history : History
        As `Trainer.fit` returns it.
    figure : matplotlib Figure or SubFigure, optional
        To draw into; by default a new one.

    Returns
    -------
    matplotlib.figure.Figure
        Two axes: the loss in nats, the accuracy in per cent.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import softmax_ext as sx
    >>> animals = sx.datasets.make_two_by_two(300)
    >>> X = animals.images.reshape(300, 4)
    >>> model = sx.SoftmaxModel.zeros(4, 3, x_scale=1 / 255)
    >>> history = sx.Trainer(epochs=3).fit(model, X, animals.labels)
    >>> figure = sx.plots.plot_history(history)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss (nats)', 'accuracy (%)']
    """
    fig: Figure = _prepare(figure, 8.0, 3.2)
    from matplotlib.ticker import MaxNLocator

    loss, accuracy = fig.subplots(1, 2)
    epochs = np.asarray(history.epoch, dtype=np.int64)
    for axes, quantity, factor in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
        for part, colour, marker in (
            ("train", _TRAIN_COLOUR, "o"),
            ("validation", _VALIDATION_COLOUR, "s"),
        ):
            # An epoch without validation has None, which becomes NaN and is not drawn.
            values = np.asarray(getattr(history, f"{part}_{quantity}"), dtype=np.float64) * factor
            if np.isfinite(values).any():
                axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=part)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    loss.set_ylabel("loss (nats)")
    loss.set_title("Cross-entropy loss")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_title("Accuracy")
    return fig


def plot_weights(
    model_or_W: SoftmaxModel | ArrayLike,
    shape: tuple[int, int] = (28, 28),
    class_names: Sequence[object] | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Show the weights of each class as an image.

    Red pixels speak for the class when they are bright, blue ones against it; white ones do not
    matter. All classes share one scale, symmetric about 0.

    Parameters
    ----------
    model_or_W : SoftmaxModel or array_like, shape (D, C)
        The model, or its weights.
    shape : (int, int), default (28, 28)
        Height and width of an image; their product is D.
    class_names : sequence, optional
        C names; by default the model's classes, or 0 to C - 1.
    figure : matplotlib Figure or SubFigure, optional
        To draw into; by default a new one.

    Returns
    -------
    matplotlib.figure.Figure
        One axes per class, and that of the colour bar as the last.

    Raises
    ------
    ValueError
        If W is not of two dimensions, ``shape`` does not fit D, or there are not C names.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_ext import plots
    >>> figure = plots.plot_weights(np.eye(4)[:, :3], (2, 2), ["cat", "chicken", "dog"])
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['cat', 'chicken', 'dog']
    """
    if class_names is None:
        class_names = getattr(model_or_W, "classes", None)
    W = np.asarray(getattr(model_or_W, "W", model_or_W))
    if W.ndim != 2 or 0 in W.shape:
        raise ValueError(f"W: shape {W.shape} came, (D, C) was wanted")
    height, width = shape
    if height * width != W.shape[0]:
        raise ValueError(
            f"shape: {shape} of {height * width} pixels came, one of {W.shape[0]}, as W has rows, "
            "was wanted"
        )
    names = _check_names(class_names, W.shape[1])

    images = W.T.reshape(-1, height, width)
    cols = min(len(names), 5)
    rows = math.ceil(len(names) / cols)
    sides = max(cols * _CELL, 3.5), rows * _cell_height(images, 1) + _HEADING + _COLOUR_BAR
    fig: Figure = _prepare(figure, *sides)
    finite = np.abs(images[np.isfinite(images)])
    largest = float(finite.max(initial=0.0)) or 1.0  # weights that are all 0 are white
    grid = _grid(fig, rows, cols)
    for place, axes in enumerate(grid):
        axes.set_axis_off()
        if place < len(names):
            image = axes.imshow(
                images[place],
                cmap="RdBu_r",
                vmin=-largest,
                vmax=largest,
                interpolation="nearest",
            )
            axes.set_title(_wrapped(names[place]), fontsize=_TITLE_SIZE, pad=3, **_AS_IT_IS)
    from matplotlib.ticker import MaxNLocator

    fig.colorbar(
        image,
        ax=grid,
        ticks=MaxNLocator(4),  # whose numbers have room below the narrowest bar
        label="weight (nats per unit of input)",
        orientation="horizontal",
        fraction=0.14 / sides[1],
        aspect=40,
    )
    fig.suptitle("Weights of each class", fontsize=11)
    return fig


def confusion_counts(true: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.intp]:
    """Count how often each class was taken for each.

    Parameters
    ----------
    true, predicted : array_like of int, shape (n,)
        Class indices from 0 to ``n_classes - 1``.
    n_classes : int
        How many there are, C.

    Returns
    -------
    ndarray of intp, shape (C, C)
        Row: true class, column: predicted class.

    Raises
    ------
    TypeError
        If the indices are not integers.
    ValueError
        If the shapes differ, or an index is outside [0, C).

    Examples
    --------
    >>> from softmax_ext.plots import confusion_counts
    >>> confusion_counts([0, 0, 1, 1], [0, 1, 1, 1], 2)
    array([[1, 1],
           [0, 2]])
    """
    rows = _check_indices("true", true, n_classes)
    columns = _check_indices("predicted", predicted, n_classes)
    _check_same_length(("true", rows), ("predicted", columns))
    counts = np.bincount(rows * n_classes + columns, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def plot_confusion(
    true: ArrayLike,
    predicted: ArrayLike,
    class_names: Sequence[object] | None = None,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Plot the confusion matrix: which class was taken for which, and how often.

    Each cell holds its count and, below, the share of its row in per cent; on the diagonal that
    is the class's recall. The shares are the colours. With more than 25 classes there is no
    room for numbers, with more than 60 none for names.

    Parameters
    ----------
    true, predicted : array_like, shape (n,)
        Labels that are among the names; integers are class indices where the names are strings.
    class_names : sequence, optional
        C names, or a model's classes; by default the strings there are, sorted, or 0 to the
        largest index.
    figure : matplotlib Figure or SubFigure, optional
        To draw into; by default a new one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError
        If the labels are neither numbers nor strings.
    ValueError
        If there are none, the shapes differ, or a label has no name.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from softmax_ext import plots
    >>> figure = plots.plot_confusion([0, 0, 1], [0, 1, 1], ["cat", "dog"])
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['1\\n50%', '1\\n50%', '0', '1\\n100%']
    """
    true, predicted, names = _as_indices(true, predicted, class_names)
    n_classes = len(names)
    counts = confusion_counts(true, predicted, n_classes)
    if not counts.any():
        raise ValueError("true: no examples came, at least 1 was wanted")
    # A class without examples has a row of zeros, not of 0 / 0.
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    numbered, named = n_classes <= _MOST_NUMBERED, n_classes <= _MOST_NAMED
    side = min(max(2.2, n_classes * (0.52 if numbered else 0.2)), 13.0)
    fig: Figure = _prepare(figure, side + 2.2, side + 1.4)
    axes = fig.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if named:
        ticks, texts = range(n_classes), [_drawable(name) for name in names]
        slanted: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(ticks, texts, **slanted, **_AS_IT_IS)
        axes.set_yticks(ticks, texts, **_AS_IT_IS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = np.trace(counts) / counts.sum()
    axes.set_title(f"{counts.sum()} examples, {accuracy:.2%} right")
    fig.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
    if numbered:
        _number_cells(axes, counts, shares)
    return fig


def _number_cells(axes: Axes, counts: NDArray[Any], shares: NDArray[Any]) -> None:
    """Write counts and shares into the cells of a confusion matrix."""
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{count}\n{_percentage(share)}" if count else "0",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if share > 55 else "black" if count else "0.5",
        )


def _percentage(share: float) -> str:
    """A whole number; 0% and 100% are said only of what is exactly that."""
    if 0 < share < 1:
        return "<1%"
    if 99 < share < 100:
        return ">99%"
    return f"{share:.0f}%"


def show_mistakes(
    images: ArrayLike,
    true: ArrayLike,
    predicted: ArrayLike,
    class_names: Sequence[object] | None = None,
    n: int = 16,
    *,
    figure: FigureBase | None = None,
) -> Figure:
    """Show images that were labelled wrong, the true label over the predicted one.

    Parameters
    ----------
    images : array_like, shape (N, height, width) or (N, height, width, 3 or 4)
    true, predicted : array_like, shape (N,)
        Labels that are among the names; integers are class indices where the names are strings.
    class_names : sequence, optional
        C names, or a model's classes; by default the strings there are, sorted, or 0 to the
        largest index.
    n : int, default 16
        How many at most, taken in order.
    figure : matplotlib Figure or SubFigure, optional
        To draw into; by default a new one.

    Returns
    -------
    matplotlib.figure.Figure
        One axes per image shown; a sentence where there is no mistake.

    Raises
    ------
    TypeError
        If the labels are neither numbers nor strings.
    ValueError
        If the lengths differ, a label has no name, or ``n`` is less than 1.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from softmax_ext import datasets, plots
    >>> animals = datasets.make_two_by_two(30)
    >>> all_cats = [0] * 30
    >>> figure = plots.show_mistakes(
    ...     animals.images, animals.labels, all_cats, animals.class_names, n=4
    ... )
    >>> len(figure.axes)
    4
    """
    n = integer_between("n", n, 1)
    array = _check_images(images)
    true, predicted, names = _as_indices(true, predicted, class_names)
    _check_same_length(("images", array), ("true", true), ("predicted", predicted))

    wrong = np.flatnonzero(true != predicted)
    shown = wrong[:n]
    fig: Figure
    if not len(shown):
        fig = _prepare(figure, 4.0, 1.0)
        fig.text(0.5, 0.5, f"no mistake among {len(true)} images", ha="center", va="center")
        return fig
    titles = [f"{names[true[i]]}\n{names[predicted[i]]}" for i in shown]
    cols = min(len(shown), 8)
    rows = math.ceil(len(shown) / cols)
    fig = _prepare(figure, max(cols * _CELL, 4.5), rows * _cell_height(array, 2) + _HEADING)
    show_images(array[shown], rows, cols, titles, figure=fig)
    heading = f"Mistakes ({len(shown)} of {len(wrong)}): true label over predicted"
    fig.suptitle(heading, fontsize=11)
    return fig


def _cell_height(images: NDArray[Any], lines: int) -> float:
    """Inches that an image with so many lines of title needs."""
    title = lines * _TITLE_LINE + 0.04 if lines else 0.0
    return float(_CELL * images.shape[1] / images.shape[2] + title)


def _grid(figure: Any, rows: int, cols: int) -> list[Axes]:
    """The axes of a grid, row by row."""
    return list(figure.subplots(rows, cols, squeeze=False).flat)


def _grey_scale(array: NDArray[Any]) -> tuple[float, float]:
    """The numbers drawn black and white."""
    if array.dtype == np.uint8:
        return 0.0, 255.0
    finite = array[np.isfinite(array)]
    if not finite.size:
        return 0.0, 1.0
    return float(finite.min()), float(finite.max())


def _drawable(name: object) -> str:
    """A name without the stand-ins for bytes that are not UTF-8, which have no glyphs."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def _wrapped(title: object) -> str:
    """A title in lines short enough to stand above a small image."""
    lines = (textwrap.wrap(line, _TITLE_WIDTH) for line in _drawable(title).split("\n"))
    return "\n".join("\n".join(pieces) for pieces in lines)


def _check_images(images: ArrayLike) -> NDArray[Any]:
    """Images as an array (n, height, width) or (n, height, width, 3 or 4)."""
    array = np.asarray(images)
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (3, 4)):
        return array
    raise ValueError(
        f"images: shape {array.shape} came, (n, height, width), or (n, height, width, 3) for"
        " colour, was wanted; reshape flat images first"
    )


def _as_indices(
    true: ArrayLike, predicted: ArrayLike, class_names: Sequence[object] | None
) -> tuple[NDArray[np.intp], NDArray[np.intp], list[str]]:
    """True and predicted labels as class indices, and a name for each class."""
    true, predicted = (as_labels(np.asarray(labels)) for labels in (true, predicted))
    names = _names_in(true, predicted) if class_names is None else [str(n) for n in class_names]
    classes = np.array(names) if class_names is None else as_labels(np.asarray(class_names))
    if classes.dtype.kind not in "biuf":  # whatever it is, its names stand for it
        classes = np.array(names)
    return _look_up("true", true, classes), _look_up("predicted", predicted, classes), names


def _names_in(*arrays: NDArray[Any]) -> list[str]:
    """A name for each class: the strings there are, or the numbers up to the largest."""
    strings = [array.ravel() for array in arrays if array.dtype.kind == "U"]
    if strings:
        return [str(name) for name in np.unique(np.concatenate(strings))]
    integers = [array for array in arrays if array.dtype.kind in "biu" and array.size]
    return [str(k) for k in range(max((int(array.max()) for array in integers), default=-1) + 1)]


def _look_up(name: str, labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Class indices of labels that are among the classes, or indices already."""
    if labels.ndim == 1 and (labels.dtype.kind == "U" or classes.dtype.kind != "U"):
        labels = indices_of(name, labels, classes)
    return _check_indices(name, labels, len(classes))


def _check_indices(name: str, indices: ArrayLike, n_classes: int) -> NDArray[np.intp]:
    """Class indices as a vector of intp."""
    array = np.asarray(indices)
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {array.shape} came, (n,) was wanted")
    if array.size and array.dtype.kind not in "biu":
        raise TypeError(f"{name}: dtype {array.dtype} came, class indices or names were wanted")
    outside = np.flatnonzero((array < 0) | (array >= n_classes))
    if len(outside):
        at = outside[0]
        raise ValueError(f"{name}: class {array[at]} at row {at} is outside [0, {n_classes})")
    return array.astype(np.intp)


def _check_same_length(*named: tuple[str, NDArray[Any]]) -> None:
    """ValueError unless the arrays have as many rows."""
    first_name, first = named[0]
    for name, array in named[1:]:
        if len(array) != len(first):
            raise ValueError(
                f"{name}: {len(array)} came, {len(first)} were wanted, as many as {first_name} has"
            )


def _check_names(names: Sequence[object] | None, n_classes: int) -> list[str]:
    """One name for each class."""
    if names is None:
        return [str(k) for k in range(n_classes)]
    if len(names) != n_classes:
        raise ValueError(
            f"class_names: {len(names)} came, {n_classes} were wanted, one for each class"
        )
    return [str(name) for name in names]
