"""What the pictures show: numbers, pixels, labels, and that nothing overlaps."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import datasets, plots
from softmax_ext.training import History, HistoryRow

pytest.importorskip("matplotlib")
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

FASHION = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
NAN = float("nan")


@pytest.fixture
def history():
    return History(
        [
            HistoryRow(1, 0.9, 0.6, 0.8, 0.7, 1.0, 100.0),
            HistoryRow(2, 0.5, 0.8, 0.6, 0.75, 1.0, 100.0),
            HistoryRow(3, 0.4, 0.9, 0.7, 0.72, 1.0, 100.0),
        ]
    )


def image_of(axes):
    (image,) = axes.images
    return np.asarray(image.get_array())


def titles_of(figure):
    return [axes.get_title() for axes in figure.axes]


def rendered(figure):
    """The figure as pixels, and a function from axes fractions to their colour."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())

    def colour(axes, x, y):
        column, row = axes.transAxes.transform((x, y))
        return pixels[pixels.shape[0] - 1 - round(row), round(column), :3]

    return pixels, colour


def texts_of(figure):
    """Every text that is drawn, with its box in pixels."""
    FigureCanvasAgg(figure).draw()
    boxes = []
    for axes in figure.axes:
        drawn = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        if axes.axison:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
                drawn += [label for place, label in places if low <= place <= high]
        boxes += [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_text()]
    heading = getattr(figure, "_suptitle", None)
    if heading is not None:
        boxes.append((heading.get_text(), heading.get_window_extent()))
    return boxes


def contrast(*colours):
    """The contrast of two colours as the W3C's guidelines for accessibility define it."""
    linear = [((np.array(colour) + 0.055) / 1.055) ** 2.4 for colour in colours]
    dark, light = sorted(np.dot(colour, [0.2126, 0.7152, 0.0722]) for colour in linear)
    return (light + 0.05) / (dark + 0.05)


def assert_readable(figure):
    """No text runs out of the figure or into another one."""
    boxes = texts_of(figure)
    assert boxes
    for text, box in boxes:
        assert figure.bbox.x0 - 1 <= box.x0, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), (text, other)


# ------------------------------------------------------------------------------- show_images


def test_show_images_shows_each_image_under_its_title(rng):
    images = rng.integers(256, size=(7, 5, 4), dtype=np.uint8)
    figure = plots.show_images(images, 2, 3, titles="abcdefg")
    assert titles_of(figure) == list("abcdef")
    for axes, image in zip(figure.axes, images[:6], strict=True):
        np.testing.assert_array_equal(image_of(axes), image)
    assert_readable(figure)


def test_show_images_draws_bytes_from_black_to_white():
    figure = plots.show_images(np.array([[[0, 255], [100, 100]]], np.uint8), 1, 1)
    _, colour = rendered(figure)
    assert colour(figure.axes[0], 0.25, 0.75).tolist() == [0, 0, 0]
    assert colour(figure.axes[0], 0.75, 0.75).tolist() == [255, 255, 255]
    # An image of few greys is not stretched.
    figure = plots.show_images(np.array([[[100, 101], [102, 103]]], np.uint8), 1, 1)
    _, colour = rendered(figure)
    for x, y in ((0.25, 0.25), (0.75, 0.75)):
        np.testing.assert_allclose(colour(figure.axes[0], x, y), 101, atol=2)


def test_show_images_gives_floats_one_scale():
    figure = plots.show_images(np.array([[[-1.0, 0.0]], [[2.0, np.nan]]]), 1, 2)
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(-1.0, 2.0)] * 2


def test_show_images_leaves_the_rest_of_the_grid_empty(rng):
    figure = plots.show_images(rng.random((4, 3, 3)), 2, 3)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 0, 0]
    assert not any(axes.axison for axes in figure.axes)


def test_show_images_keeps_colours():
    images = np.zeros((1, 2, 2, 3), np.uint8)
    images[0, 0, 0] = (255, 0, 0)
    figure = plots.show_images(images, 1, 1)
    _, colour = rendered(figure)
    assert colour(figure.axes[0], 0.25, 0.75).tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("images", "rows", "cols", "titles", "message"),
    [
        (np.zeros((3, 784)), 1, 3, None, r"images: shape \(3, 784\) came, \(n, height, width\)"),
        (np.zeros((3, 2, 2, 2)), 1, 3, None, r"images: shape \(3, 2, 2, 2\)"),
        (np.zeros((0, 2, 2)), 1, 3, None, "images: none"),
        (np.zeros((3, 2, 2)), 0, 3, None, "rows: 0 came, an integer from 1"),
        (np.zeros((3, 2, 2)), 1, -1, None, "cols: -1 came, an integer from 1"),
        (np.zeros((3, 2, 2)), 1, 3, ["a", "b"], "titles: 2 came, 3 were wanted"),
    ],
)
def test_show_images_refuses(images, rows, cols, titles, message):
    with pytest.raises(ValueError, match=message):
        plots.show_images(images, rows, cols, titles)


# ------------------------------------------------------------------------------ plot_history


def test_plot_history_draws_loss_in_nats_and_accuracy_in_per_cent(history):
    loss, accuracy = plots.plot_history(history).axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss (nats)")
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy (%)")
    for axes, columns in (
        (loss, {"train": [0.9, 0.5, 0.4], "validation": [0.8, 0.6, 0.7]}),
        (accuracy, {"train": [60, 80, 90], "validation": [70, 75, 72]}),
    ):
        assert axes.get_yscale() == "linear"
        lines = {line.get_label(): line for line in axes.lines}
        assert lines.keys() == columns.keys()
        for name, values in columns.items():
            np.testing.assert_array_equal(lines[name].get_xdata(), [1, 2, 3])
            np.testing.assert_allclose(lines[name].get_ydata(), values)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(columns)


def test_plot_history_has_whole_epochs_on_its_axis(history):
    for n in (1, 2, 3):
        figure = plots.plot_history(history[:n])
        FigureCanvasAgg(figure).draw()
        low, high = figure.axes[0].get_xlim()
        ticks = [t for t in figure.axes[0].get_xticks() if low <= t <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)
    assert_readable(figure)


def test_plot_history_tells_lines_apart_without_colour(history):
    train, validation = plots.plot_history(history).axes[0].lines
    greys = [
        np.dot(to_rgb(line.get_color()), [0.299, 0.587, 0.114]) for line in (train, validation)
    ]
    assert abs(greys[0] - greys[1]) > 0.1
    assert train.get_marker() != validation.get_marker()


def test_plot_history_without_validation_has_one_line():
    history = History([HistoryRow(1, 0.9, 0.6, NAN, NAN, 1.0, 100.0)])
    figure = plots.plot_history(history)
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [["train"]] * 2


def test_plot_history_without_epochs_has_no_line():
    assert [len(axes.lines) for axes in plots.plot_history(History()).axes] == [0, 0]


# ------------------------------------------------------------------------------ plot_weights


def test_plot_weights_shows_each_column_on_one_symmetric_scale(rng):
    W = rng.normal(size=(784, 10))
    figure = plots.plot_weights(W, class_names=FASHION)
    *classes, bar = figure.axes
    assert titles_of(figure)[:10] == list(FASHION)
    largest = np.abs(W).max()
    for k, axes in enumerate(classes):
        np.testing.assert_array_equal(image_of(axes), W[:, k].reshape(28, 28))
        assert axes.images[0].get_clim() == (-largest, largest)
    assert bar.get_xlabel() == "weight (nats per unit of input)"
    assert_readable(figure)


def test_plot_weights_paints_for_red_and_against_blue():
    W = np.array([[1.0], [-1.0], [0.0], [0.0]])
    figure = plots.plot_weights(W, (2, 2))
    _, colour = rendered(figure)
    red, blue, white = (
        colour(figure.axes[0], x, y) for x, y in ((0.2, 0.8), (0.8, 0.8), (0.2, 0.2))
    )
    assert int(red[0]) - int(red[2]) > 50
    assert int(blue[2]) - int(blue[0]) > 50
    assert white.min() > 240


def test_plot_weights_takes_a_model_and_its_classes():
    model = sx.SoftmaxModel(np.eye(4)[:, :3], None, classes=["cat", "chicken", "dog"])
    figure = plots.plot_weights(model, (2, 2))
    assert titles_of(figure)[:3] == ["cat", "chicken", "dog"]
    assert_readable(figure)
    unnamed = plots.plot_weights(sx.SoftmaxModel.zeros(6, 2), (2, 3))
    assert titles_of(unnamed)[:2] == ["0", "1"]
    assert image_of(unnamed.axes[0]).shape == (2, 3)


@pytest.mark.parametrize("n_classes", [1, 3, 6])
@pytest.mark.parametrize("largest", [1.1e-4, 0.092, 1.0, 8.3e4])
def test_plot_weights_is_readable(n_classes, largest):
    W = largest * np.linspace(-1, 1, 4 * n_classes).reshape(4, n_classes)
    assert_readable(plots.plot_weights(W, (2, 2), FASHION[:n_classes]))


def test_plot_weights_of_an_untrained_model_are_white():
    figure = plots.plot_weights(np.zeros((4, 2)), (2, 2))
    _, colour = rendered(figure)
    assert colour(figure.axes[0], 0.5, 0.5).min() > 240


@pytest.mark.parametrize(
    ("W", "shape", "names", "message"),
    [
        (np.zeros(4), (2, 2), None, r"W: shape \(4,\) came, \(D, C\)"),
        (np.zeros((4, 0)), (2, 2), None, r"W: shape \(4, 0\)"),
        (np.zeros((4, 2)), (28, 28), None, r"shape: \(28, 28\) of 784 pixels came, one of 4,"),
        (np.zeros((4, 2)), (2, 2), ["a"], "class_names: 1 came, 2 were wanted"),
    ],
)
def test_plot_weights_refuses(W, shape, names, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_weights(W, shape, names)


# ---------------------------------------------------------------------------- plot_confusion


def test_confusion_counts_is_a_count_of_pairs(rng):
    true, predicted = rng.integers(4, size=(2, 200)).astype(np.uint8)
    counts = plots.confusion_counts(true, predicted, 5)
    assert counts.shape == (5, 5)
    for row in range(5):
        for column in range(5):
            wanted = sum((true == row) & (predicted == column))
            assert counts[row, column] == wanted


@pytest.mark.parametrize(
    ("true", "predicted", "error", "message"),
    [
        ([0, 5], [0, 0], ValueError, r"true: class 5 at row 1 is outside \[0, 5\)"),
        ([0, 0], [-1, 0], ValueError, r"predicted: class -1 at row 0 is outside \[0, 5\)"),
        ([0, 0], [0], ValueError, "predicted: 1 came, 2 were wanted, as many as true has"),
        ([[0]], [[0]], ValueError, r"true: shape \(1, 1\) came, \(n,\)"),
        ([0.0], [0], TypeError, "true: dtype float64"),
    ],
)
def test_confusion_counts_refuses(true, predicted, error, message):
    with pytest.raises(error, match=message):
        plots.confusion_counts(true, predicted, 5)


def test_plot_confusion_has_counts_and_recall():
    true = [0] * 4 + [1] * 1000 + [2]
    predicted = [0, 0, 0, 1] + [1] * 999 + [0] + [2]
    axes, bar = plots.plot_confusion(true, predicted, ["cat", "chicken", "dog"]).axes
    cells = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    # Neither is a single mistake in a thousand none, nor are the others all.
    wanted = [["3\n75%", "1\n25%", "0"], ["1\n<1%", "999\n>99%", "0"], ["0", "0", "1\n100%"]]
    assert cells == {place: wanted[place[0]][place[1]] for place in np.ndindex(3, 3)}
    np.testing.assert_allclose(image_of(axes), [[75, 25, 0], [0.1, 99.9, 0], [0, 0, 100]])
    assert axes.images[0].get_clim() == (0, 100)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "chicken", "dog"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "chicken", "dog"]
    assert axes.get_title() == "1005 examples, 99.80% right"
    assert bar.get_ylabel() == "share of the true class (%)"


def test_plot_confusion_has_a_row_for_a_class_without_examples():
    axes = plots.plot_confusion([0, 0], [0, 2], ["a", "b", "c"]).axes[0]
    np.testing.assert_array_equal(image_of(axes), [[50, 0, 50], [0, 0, 0], [0, 0, 0]])


def test_plot_confusion_is_readable(rng):
    """Numbers stand inside their cells, in a colour that differs from what is behind them."""
    true = rng.integers(10, size=60000)
    predicted = np.where(rng.random(60000) < true / 9, true, rng.integers(10, size=60000))
    figure = plots.plot_confusion(true, predicted, FASHION)
    axes = figure.axes[0]
    FigureCanvasAgg(figure).draw()
    width = axes.bbox.width / 10
    for text in axes.texts:
        assert text.get_window_extent().width < width
        assert text.get_window_extent().height < width
        column, row = text.get_position()
        share = image_of(axes)[int(row), int(column)]
        behind = axes.images[0].cmap(share / 100)[:3]
        assert contrast(to_rgb(text.get_color()), behind) > 3
    # Names below the columns lie aslant, side by side.
    for label in axes.get_xticklabels():
        slope = np.deg2rad(label.get_rotation())
        height = label.get_fontsize() * figure.dpi / 72
        assert width * np.sin(slope) > height
    labels = [*axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, axes.title]
    boxes = [text.get_window_extent() for text in labels]
    for box, other in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(other)


def test_plot_confusion_of_many_classes_drops_what_would_be_too_small():
    def drawn(n_classes):
        labels = np.arange(n_classes)
        axes = plots.plot_confusion(labels, labels).axes[0]
        names = [text.get_text() for text in axes.get_yticklabels()]
        return len(axes.texts), names == [str(k) for k in range(n_classes)]

    assert drawn(25) == (625, True)
    assert drawn(26) == (0, True)
    assert drawn(61) == (0, False)
    figure = plots.plot_confusion(np.arange(1000), np.arange(1000))
    assert max(figure.get_size_inches()) < 20


def test_plot_confusion_takes_strings():
    figure = plots.plot_confusion(["dog", "cat"], ["dog", "dog"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_array_equal(image_of(axes), [[0, 100], [0, 100]])
    ordered = plots.plot_confusion(["dog", "cat"], ["dog", "dog"], ["dog", "cat"]).axes[0]
    np.testing.assert_array_equal(image_of(ordered), [[100, 0], [100, 0]])


@pytest.mark.parametrize(
    ("true", "predicted", "classes"),
    [
        ([3, 1, 1], [1, 1, 1], [1, 3, 4]),
        (np.array([3, 1, 1], object), [1, 1, 1], [1, 3, 4]),
        ([2.5, -1.0, -1.0], [-1.0] * 3, [-1.0, 2.5, 3.0]),
        ([False, True, True], [True] * 3, [True, False]),
        ([True, False, False], [False] * 3, ["healthy", "ill"]),
        ([True, False, False], [False] * 3, None),
    ],
)
def test_plot_confusion_takes_the_labels_of_a_model(true, predicted, classes):
    """The class at position 1 is taken for that at position 0 once."""
    axes = plots.plot_confusion(true, predicted, classes).axes[0]
    np.testing.assert_array_equal(image_of(axes)[:2, :2], [[100, 0], [100, 0]])
    names = [0, 1] if classes is None else classes
    assert [text.get_text() for text in axes.get_yticklabels()] == [str(name) for name in names]


@pytest.mark.parametrize(
    ("true", "predicted", "names", "error", "message"),
    [
        ([3], [2], [1, 2], ValueError, "true: label 3 at row 0 is not one of the classes"),
        ([], [], ["a"], ValueError, "true: no examples"),
        ([], [], None, ValueError, "true: no examples"),
        (
            [0, 1],
            [0, 2],
            ["a", "b"],
            ValueError,
            r"predicted: class 2 at row 1 is outside \[0, 2\)",
        ),
        (["a"], ["c"], ["a", "b"], ValueError, "predicted: label 'c' at row 0 is not one of"),
        ([0.5], [0], None, TypeError, "true: dtype float64 came, class indices or names"),
    ],
)
def test_plot_confusion_refuses(true, predicted, names, error, message):
    with pytest.raises(error, match=message):
        plots.plot_confusion(true, predicted, names)


# ----------------------------------------------------------------------------- show_mistakes


def test_show_mistakes_shows_the_first_wrong_ones_true_over_predicted(rng):
    images = rng.integers(256, size=(6, 3, 3), dtype=np.uint8)
    true = np.array([0, 9, 2, 3, 4, 5], np.uint8)
    predicted = np.array([0, 1, 2, 9, 4, 6])
    figure = plots.show_mistakes(images, true, predicted, FASHION, n=2)
    assert titles_of(figure) == ["ankle boot\ntrouser", "dress\nankle boot"]
    np.testing.assert_array_equal(image_of(figure.axes[0]), images[1])
    np.testing.assert_array_equal(image_of(figure.axes[1]), images[3])
    assert [text.get_text() for text in figure.texts] == [
        "Mistakes (2 of 3): true label over predicted"
    ]


def test_show_mistakes_is_readable(rng):
    true = rng.integers(10, size=40)
    predicted = (true + 1) % 10
    figure = plots.show_mistakes(rng.random((40, 28, 28)), true, predicted, FASHION, n=24)
    assert len(figure.axes) == 24
    assert_readable(figure)
    assert_readable(plots.show_mistakes(rng.random((1, 28, 28)), [8], [9], FASHION))


def test_show_mistakes_takes_the_strings_of_a_model():
    animals = datasets.make_two_by_two(20)
    names = np.array(animals.class_names)
    model = sx.SoftmaxModel.zeros(4, 3, classes=animals.class_names)
    predicted = model.predict(animals.images)  # all of them cats
    figure = plots.show_mistakes(animals.images, names[animals.labels], predicted, n=3)
    wrong = names[animals.labels][animals.labels != 0]
    assert titles_of(figure) == [f"{name}\ncat" for name in wrong[:3]]


def test_show_mistakes_without_any_says_so(rng):
    figure = plots.show_mistakes(rng.random((5, 2, 2)), [0] * 5, [0] * 5)
    assert [text.get_text() for text in figure.texts] == ["no mistake among 5 images"]
    assert not figure.axes


@pytest.mark.parametrize(
    ("images", "true", "predicted", "options", "message"),
    [
        (np.zeros((2, 2, 2)), [0], [0], {}, "true: 1 came, 2 were wanted"),
        (np.zeros((1, 2, 2)), [0], [0, 1], {}, "predicted: 2 came, 1 were wanted"),
        (np.zeros((1, 4)), [0], [0], {}, r"images: shape \(1, 4\)"),
        (np.zeros((1, 2, 2)), [0], [3], {"class_names": ["a", "b"]}, "predicted: class 3"),
        (np.zeros((1, 2, 2)), [0], [1], {"n": 0}, "n: 0 came, an integer from 1"),
    ],
)
def test_show_mistakes_refuses(images, true, predicted, options, message):
    with pytest.raises(ValueError, match=message):
        plots.show_mistakes(images, true, predicted, **options)


# ------------------------------------------------------------------------- figures in general


def every_plot(history, **options):
    images = np.zeros((2, 2, 2))
    yield plots.show_images(images, 1, 2, **options)
    yield plots.plot_history(history, **options)
    yield plots.plot_weights(np.eye(4), (2, 2), **options)
    yield plots.plot_confusion([0, 1], [0, 1], **options)
    yield plots.show_mistakes(images, [0, 1], [1, 0], **options)
    yield plots.show_mistakes(images, [0, 1], [0, 1], **options)


ODD_NAMES = ("$5", "a_1 $x^2$", "\\alpha", "100%_", "caf\udce9")


@pytest.mark.parametrize("usetex", [False, True])
def test_names_are_drawn_as_they_are(usetex):
    """Neither as formulas nor, for what is not UTF-8, not at all."""
    shown = [*ODD_NAMES[:-1], "caf\\udce9"]
    images, indices = np.zeros((5, 2, 2)), np.arange(5)
    with rc_context({"text.usetex": usetex}):
        # Numbers are TeX's where that is wanted: only the names are looked at.
        grids = (
            plots.show_images(images, 1, 5, ODD_NAMES),
            plots.plot_weights(np.zeros((4, 5)), (2, 2), ODD_NAMES),
            plots.show_mistakes(images, indices, np.roll(indices, 1), ODD_NAMES),
        )
        confusion = plots.plot_confusion(indices, indices, ODD_NAMES).axes[0]
    assert titles_of(grids[0]) == titles_of(grids[1])[:5] == shown
    assert titles_of(grids[2])[1] == f"{shown[1]}\n{shown[0]}"
    drawn = [axes.title for grid in grids for axes in grid.axes[:5]]
    for labels in (confusion.get_xticklabels(), confusion.get_yticklabels()):
        assert [label.get_text() for label in labels] == shown
        drawn += labels
    assert not any(text.get_parse_math() or text.get_usetex() for text in drawn)


def test_every_function_draws_into_the_figure_it_is_given(history):
    for place in range(6):
        left, right = Figure(layout="constrained").subfigures(1, 2)
        drawn = list(itertools.islice(every_plot(history, figure=right), place, place + 1))
        assert drawn == [right]
        assert right.axes or right.texts
        assert not left.axes


def test_every_figure_shows_itself_in_a_notebook(history):
    for figure in every_plot(history):
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(b"\x89PNG")


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_matplotlib_is_imported_by_the_first_picture_and_pyplot_never():
    done = python(
        "import sys, numpy, softmax_ext.plots as plots\n"
        "print('matplotlib' in sys.modules)\n"
        "plots.show_images(numpy.zeros((1, 2, 2)), 1, 1)._repr_png_()\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)\n"
    )
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


def test_without_matplotlib_the_message_says_what_to_install():
    done = python(
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from softmax_ext import plots\n"
        "print(plots.confusion_counts([0], [0], 1))\n"
        "try:\n"
        "    plots.show_images([[[0]]], 1, 1)\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert 'pip install "softmax-ext[cli]"' in done.stdout, done.stderr
    assert done.stdout.startswith("[[1]]")
