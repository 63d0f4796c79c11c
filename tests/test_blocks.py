"""Blocks: where pieces come from, what is refused, and that every user of X takes them."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import (
    Blocks,
    DataFormatError,
    ModelFormatError,
    SoftmaxModel,
    Trainer,
    fit_lbfgs,
    reference,
)
from softmax_ext.problem import Problem
from softmax_ext.solvers import minimize, minimize_many, objective_of
from softmax_ext.solvers.arrays import WIDEST, ArrayObjective
from softmax_ext.solvers.blocks import blocks_objective
from softmax_ext.training.data import training_data

N, D, C = 1200, 12, 4
CUTS = [0, 300, 301, 900, 900, N]


def problem(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)).astype(dtype)
    y = (X @ rng.normal(size=(D, C)) + 2 * rng.gumbel(size=(N, C))).argmax(1)
    return X, y


def cut(array):
    return [array[i:j] for i, j in itertools.pairwise(CUTS)]


def fitted(data, y=None, **options):
    model = SoftmaxModel.zeros(D, C)
    result = fit_lbfgs(model, data, y, tol=1e-6, **options)
    assert result.success
    return model, result


@pytest.fixture
def no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# Where pieces come from ---------------------------------------------------------------------------


def sources(folder):
    """The same rows in the same pieces, from everywhere they may come from."""
    X, y = problem()
    weight = np.linspace(0.5, 2, N)
    parts = list(zip(cut(X), cut(y), cut(weight), strict=True))
    yield "arrays", Blocks(cut(X), cut(y), sample_weight=cut(weight))
    yield "labels of all", Blocks(cut(X), y, sample_weight=weight)
    yield "tuples", Blocks(parts)
    yield "callable", Blocks(lambda: iter(parts))
    paths = []
    for k, (x, labels, w) in enumerate(parts):
        for name, array in (("X", x), ("y", labels), ("w", w)):
            np.save(folder / f"{name}-{k}.npy", array)
        paths.append(folder / f"X-{k}.npy")
    np.save(folder / "labels.npy", y)
    pattern = str(folder / "X-*.npy")
    yield "files", Blocks(pattern, str(folder / "y-*.npy"), sample_weight=weight)
    yield "mapped", Blocks(paths, folder / "labels.npy", sample_weight=weight, memory_map=True)
    np.save(folder / "F.npy", np.asfortranarray(X[:300]))
    yield (
        "by columns",
        Blocks([folder / "F.npy", *paths[1:]], y, sample_weight=weight, read_ahead=False),
    )
    yield "images", Blocks([x.reshape(-1, 3, 4) for x in cut(X)], y, sample_weight=weight)


def test_sources_agree(tmp_path, no_thread_left):
    X, y = problem()
    for name, blocks in sources(tmp_path):
        for _ in range(2):
            pieces = list(blocks)
            assert [piece.X.shape for piece in pieces] == [(300, D), (1, D), (599, D), (300, D)], (
                name
            )
            np.testing.assert_array_equal(np.concatenate([piece.X for piece in pieces]), X)
            np.testing.assert_array_equal(np.concatenate([piece.y for piece in pieces]), y)
            weights = np.concatenate([piece.sample_weight for piece in pieces])
            np.testing.assert_array_equal(weights, np.linspace(0.5, 2, N))
        assert (blocks.n_rows, blocks.n_pieces, blocks.n_features) == (N, 4, D), name
        assert blocks.dtype == np.float32, name
        np.testing.assert_array_equal(blocks.classes(), np.arange(C))


def test_large_files_and_arrays_are_cut(tmp_path):
    X, y = problem()
    np.save(tmp_path / "X.npy", X)
    for source in (X, tmp_path / "X.npy"):
        blocks = Blocks(source, y, part_bytes=130 * X[0].nbytes)
        assert blocks.lengths == [128] * 9 + [48]
        np.testing.assert_array_equal(np.concatenate([piece.X for piece in blocks]), X)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("form", ["lists", "fixed", "columns"])
def test_parquet_and_tables(tmp_path, dtype, form):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    X, y = problem()
    X = (40 * X + 128).astype(np.uint8) if dtype == "uint8" else X.astype(dtype)
    names = np.array(["cat", "chicken", "dog", "owl"])[y]
    values = pa.array(X.ravel())
    if form == "columns":
        features = [f"x{j}" for j in range(D)]
        table = pa.table({name: X[:, j].copy() for j, name in enumerate(features)})
    else:
        features = "x"
        lists = (
            pa.FixedSizeListArray.from_arrays(values, D)
            if form == "fixed"
            else pa.ListArray.from_arrays(np.arange(0, N * D + 1, D, np.int32), values)
        )
        table = pa.table({"x": lists})
    table = table.append_column("label", pa.array(names)).append_column("w", pa.array(y + 1.0))
    options = {"features": features, "label": "label", "weight": "w"}
    for k in range(2):
        pq.write_table(table.slice(600 * k, 600), tmp_path / f"{k}.parquet", row_group_size=250)
    files = Blocks.from_parquet(tmp_path, **options, part_bytes=100 * X[0].nbytes)
    assert files.n_pieces > 6  # row groups are cut
    for blocks in (files, Blocks.from_arrow(table, **options)):
        assert blocks.dtype == dtype
        np.testing.assert_array_equal(np.concatenate([piece.X for piece in blocks]), X)
        np.testing.assert_array_equal(np.concatenate([piece.y for piece in blocks]), names)
        assert blocks.classes().tolist() == ["cat", "chicken", "dog", "owl"]
    if form == "fixed":
        (piece,) = Blocks.from_arrow(table, **options)
        assert np.shares_memory(piece.X, np.asarray(table["x"].chunk(0).values))
    # In any order: a part in the middle of a row group is read by itself.
    order = [4, 1, 2]
    read = [piece.X for _, _, piece in files.pieces(order=order)]
    start = np.cumsum([0, *files.lengths])
    for k, x in zip(order, read, strict=True):
        np.testing.assert_array_equal(x, X[start[k] : start[k + 1]])


def test_polars_frames():
    pl = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    X, y = problem()
    frame = pl.DataFrame({"x": X, "y": y})
    assert frame["x"].dtype == pl.Array(pl.Float32, D)
    blocks = Blocks.from_arrow(frame, features="x", label="y")
    np.testing.assert_array_equal(np.concatenate([piece.X for piece in blocks]), X)
    model, _ = fitted(blocks)
    assert model.accuracy(blocks) == model.accuracy(X, y)


# Who takes them -----------------------------------------------------------------------------------


def test_fit_does_what_it_does_with_an_array(tmp_path, no_thread_left):
    X, y = problem()
    weight = np.linspace(0.5, 2, N)
    whole, result = fitted(X, y, sample_weight=weight)
    bits = set()
    for name, blocks in sources(tmp_path):
        model, found = fitted(blocks)
        assert found.fun == pytest.approx(result.fun, rel=1e-6), name
        np.testing.assert_allclose(model.W, whole.W, atol=2e-4)
        bits.add(model.W.tobytes())
        assert model.loss(blocks) == pytest.approx(model.loss(X, y, sample_weight=weight), 1e-6)
        assert model.accuracy(blocks) == model.accuracy(X, y)
        np.testing.assert_array_equal(model.predict(blocks), model.predict(X))
        np.testing.assert_array_equal(model.predict_proba(blocks), model.predict_proba(X))
    assert len(bits) == 1


def test_labels_of_any_kind_and_ignored_rows():
    X, y = problem()
    names = np.array(["a", "b", "c", "d"])
    model = SoftmaxModel.zeros(D, C, classes=names)
    fit_lbfgs(model, Blocks(cut(X), cut(names[y])), tol=1e-6)
    whole, _ = fitted(X, y)
    np.testing.assert_allclose(model.W, whole.W, atol=1e-4)
    ignored = y.copy()
    ignored[::3] = -100
    blocks = Blocks(cut(X), ignored)
    model, _ = fitted(blocks)
    whole, _ = fitted(X, ignored)
    np.testing.assert_allclose(model.W, whole.W, atol=1e-4)
    assert model.loss(blocks) == pytest.approx(model.loss(X, ignored), rel=1e-6)
    soft = np.eye(C)[y] * 0.9 + 0.025
    assert model.loss(Blocks(cut(X), cut(soft))) == pytest.approx(model.loss(X, soft), rel=1e-6)


def test_sparse_pieces():
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    X = sparse.csr_array(sparse.random(N, 90, 0.05, random_state=rng))
    y = (X @ rng.normal(size=(90, C)) + 0.1 * rng.gumbel(size=(N, C))).argmax(1)
    whole = minimize(X, y, np.zeros((90, C)), np.zeros(C), l2=1e-3, tol=1e-7, max_iter=500)
    for blocks in (Blocks([X[i:j] for i, j in itertools.pairwise(CUTS)], y),
                   Blocks(X, y, part_bytes=5000)):  # fmt: skip
        assert blocks.is_sparse
        assert blocks.n_pieces > 3
        found = minimize(
            blocks, None, np.zeros((90, C)), np.zeros(C), l2=1e-3, tol=1e-7, max_iter=500
        )
        assert found.fun == pytest.approx(whole.fun, rel=1e-7)  # what tol promises


def test_standardize_and_hessian_products(rng):
    from softmax_ext.solvers.arrays import ArrayObjective
    from softmax_ext.solvers.blocks import blocks_objective

    X, y = problem(dtype=np.float64)
    X = X * np.geomspace(1e-3, 1e3, D) + np.linspace(0, 1e4, D)
    X[:, 0] = 7
    whole, result = fitted(X, y, standardize=True)
    _, found = fitted(Blocks(cut(X), y), standardize=True)
    assert found.fun == pytest.approx(result.fun, rel=1e-8)
    W, b = rng.normal(size=(D, C)) / 1e4, np.zeros(C)
    options = {"x_scale": 0.5, "label_smoothing": 0.1, "kernels": None}
    blocks = blocks_objective(Blocks(cut(X), y), W, b, classes=None, **options)
    import softmax_ext

    whole = ArrayObjective(
        X, y, sample_weight=None, n_classes=C, has_intercept=True, dtype=np.dtype(float),
        **{**options, "kernels": softmax_ext.kernels},
    )  # fmt: skip
    theta, V = np.vstack([W, b]), rng.normal(size=(D + 1, C))
    np.testing.assert_allclose(
        blocks.hessian_product(theta, V), whole.hessian_product(theta, V), rtol=1e-10, atol=1e-8
    )
    for ours, theirs in zip(blocks.moments(), whole.moments(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_sample_is_of_all_rows_by_weight():
    """Sums over the sample are those over all rows, whatever the weights are."""
    from softmax_ext.solvers.reservoir import Reservoir

    rng = np.random.default_rng(1)
    n = 40_000
    X = rng.normal(size=(n, 3)) + 1
    weight = rng.exponential(size=n) ** 4
    weight[rng.random(n) < 0.3] = 0
    found = []
    for cuts in ([0, n], [0, 10, 25_000, n]):
        reservoir = Reservoir(2000)
        for i, j in itertools.pairwise(cuts):
            reservoir.add(X[i:j], weight[i:j])
        rows, stands_for = reservoir.drawn()
        assert len(rows) == 2000
        found.append((rows, stands_for))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    total = weight.sum()
    assert found[0][1].sum() == pytest.approx(total, rel=0.05)
    np.testing.assert_allclose(found[0][1] @ found[0][0] / total, weight @ X / total, atol=0.1)


def test_arrays_in_memory_are_evaluated_whole(monkeypatch):
    """However they are cut, if the kernels take them as they are; with the same bits."""
    X, y = problem()
    weight = np.linspace(0, 1, N)
    theta = np.random.default_rng(0).normal(size=(D + 1, C))
    rows = []
    plain = ArrayObjective.value_and_gradient

    def watched(self, theta):
        rows.append(self.n_rows)
        return plain(self, theta)

    monkeypatch.setattr(ArrayObjective, "value_and_gradient", watched)

    def evaluated(*data, **options):
        rows.clear()
        model = SoftmaxModel.zeros(D, C)
        found = objective_of(model, Blocks(*data, **options)).value_and_gradient(theta)
        return found.value, found.gradient.tobytes()

    whole = evaluated([X], [y], sample_weight=[weight])
    assert rows == [N]
    few = {"part_bytes": 64 * X[0].nbytes}
    assert evaluated([X], [y], sample_weight=[weight], **few) == whole
    assert rows == [N]
    evaluated([X[:700], X[700:]], y, **few)
    assert rows == [700, N - 700]
    for array in (X.astype(np.int32), X.astype(">f4")):
        evaluated([array], [y], **few)
        assert len(rows) > 10
    with pytest.raises(IndexError, match="piece 1: y: label 9 at row 5"):
        evaluated([X[:700], X[700:]], np.where(np.arange(N) == 705, 9, y), **few)


def test_a_feature_the_sample_never_sees_change(monkeypatch):
    from softmax_ext.solvers import blocks as module
    from softmax_ext.solvers.blocks import blocks_objective

    X, y = problem(dtype=np.float64)
    X[:, 3] = 0
    X[700, 3] = 5
    monkeypatch.setattr(module, "sample_rows", lambda row_bytes: 50)
    objective = blocks_objective(
        Blocks(cut(X), y), np.zeros((D, C)), np.zeros(C), classes=None, x_scale=1.0,
        label_smoothing=0.0, kernels=None,
    )  # fmt: skip
    objective.value_and_gradient(np.zeros((D + 1, C)))
    sample = objective.sample(30, by_length=True)
    assert sample.unseen[3]
    assert sample.scale[3] == pytest.approx(X[:, 3].std())
    assert sample.mean[3] == pytest.approx(X[:, 3].mean())


def test_fits_together_share_readings_and_do_what_they_do_alone(no_thread_left):
    X, y = problem()
    readings = []

    def pieces():
        readings.append(True)
        yield from zip(cut(X), cut(y), strict=True)

    start = np.zeros((D, C), np.float32), np.zeros(C, np.float32)
    penalties = [10.0, 1.0, 1e-3, 0.0]
    options = {"tol": 1e-6, "max_iter": 300, "x_scale": 0.5}
    alone = [minimize(Blocks(pieces), None, *start, l2=l2, **options) for l2 in penalties]
    readings.clear()
    together = minimize_many(Blocks(pieces), *start, penalties, **options)
    assert len(readings) <= 2 * max(result.nfev for result in alone) + 3
    assert len(readings) < sum(result.nfev for result in alone)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.W, other.W)
        assert (one.fun, one.nfev, one.status) == (other.fun, other.nfev, other.status)
    bad = y.copy()
    bad[950] = 9
    with pytest.raises(IndexError, match="piece 3: y: label 9 at row 50"):
        minimize_many(Blocks(cut(X), bad), *start, penalties)
    with pytest.raises(ValueError, match="l2: -1"):
        minimize_many(Blocks(cut(X), y), *start, [1.0, -1])
    with pytest.raises(TypeError, match="X: ndarray came"):
        minimize_many(X, *start, penalties)


@pytest.mark.parametrize("own", [sx.kernels, reference])
@pytest.mark.parametrize("b", [None, np.zeros(C)])
def test_points_side_by_side_are_evaluated_as_alone(own, b):
    """More of them than one product takes; each with a gradient that stays."""
    X, y = problem(dtype=np.float64)
    rng = np.random.default_rng(0)
    objective = blocks_objective(
        Blocks(cut(X), y), np.zeros((D, C)), b, classes=None, x_scale=0.5, label_smoothing=0.1,
        kernels=own,
    )  # fmt: skip
    thetas = [rng.normal(size=objective.shape) for _ in range(2 * WIDEST // C + 3)]
    together = objective.values_and_gradients(thetas)
    assert len(together) == len(thetas)
    for theta, found in zip(thetas, together, strict=True):
        alone = objective.value_and_gradient(theta)
        assert found.value == pytest.approx(alone.value, rel=1e-12)
        assert found.total_weight == alone.total_weight
        np.testing.assert_allclose(found.gradient, alone.gradient, rtol=1e-9, atol=1e-9)


# The trainer --------------------------------------------------------------------------------------


def test_trainer_goes_through_pieces_in_a_drawn_order(no_thread_left, monkeypatch):
    X, y = problem()
    blocks = Blocks(cut(X), y)
    seen = []
    for seed in (0, 0, 1):
        model = SoftmaxModel.zeros(D, C)
        trainer = Trainer(epochs=3, batch_size=64, seed=seed)
        history = trainer.fit(model, blocks, validation_data=blocks)
        seen.append(model.W.tobytes())
        assert history.train_accuracy[-1] > 0.4
        assert history.validation_loss[-1] == pytest.approx(model.loss(X, y), rel=1e-6)
        assert history.validation_accuracy[-1] == model.accuracy(X, y)
    assert seen[0] == seen[1] != seen[2]

    def unwanted(*args, **options):
        raise AssertionError("a score needs no gradient")

    data = training_data(model, blocks, None, batch_size=64, kernels=sx.kernels)
    monkeypatch.setattr(Problem, "value_and_gradient", unwanted)
    loss, accuracy = data.score(model)
    monkeypatch.undo()
    assert (loss, accuracy) == (pytest.approx(model.loss(X, y), rel=1e-6), model.accuracy(X, y))
    # Without shuffling, one piece of whole minibatches at a time is the array as it comes.
    whole, pieces = SoftmaxModel.zeros(D, C), SoftmaxModel.zeros(D, C)
    options = {"epochs": 2, "batch_size": 64, "shuffle": False}
    Trainer(**options).fit(whole, X, y)
    Trainer(**options).fit(pieces, Blocks([X[:640], X[640:]], y))
    np.testing.assert_array_equal(pieces.W, whole.W)


@pytest.mark.parametrize("kind", ["list", "callable"])
def test_trainer_resumes_in_the_middle_of_a_piece(tmp_path, kind):
    X, y = problem()

    def data():
        parts = list(zip(cut(X), cut(y), strict=True))
        return Blocks(parts if kind == "list" else lambda: iter(parts))

    whole = SoftmaxModel.zeros(D, C)
    options = {"epochs": 2, "batch_size": 100, "momentum": 0.9}
    Trainer(**options).fit(whole, data())
    for stop in (1, 4, 9, 20):
        path = tmp_path / f"{kind}-{stop}.npz"
        model = SoftmaxModel.zeros(D, C)
        count = iter(range(stop))

        class Stop:
            def on_batch_end(self, event, count=count):
                from softmax_ext import StopTraining

                if next(count, None) is None:
                    raise StopTraining

        Trainer(**options, checkpoint=path, callbacks=[Stop()]).fit(model, data())
        trainer = Trainer.resume(path)
        trainer.fit(trainer.model, data())
        np.testing.assert_array_equal(trainer.model.W, whole.W)
    with pytest.raises(ValueError, match="which the checkpoint's run was trained on"):
        Trainer.resume(path).fit(SoftmaxModel.zeros(D, C), Blocks(X, y))


# What is refused ----------------------------------------------------------------------------------


def refusals():
    X, y = problem()
    bad_labels = y.copy()
    bad_labels[950] = 9
    with_nan = X.copy()
    with_nan[950, 3] = np.nan
    once = iter([(X, y)])
    two = [(X[:9], y[:9]), (X[9:], y[9:])]
    # Of the first one only the first piece is looked at.
    pieces, shorter = iter([two, two, [(X, y)]]), iter([two, two, two[:1]])
    four, i = cut(X), {"y": y}
    wide = [*four[:2], np.zeros((599, D + 1), np.float32), *four[3:]]
    double = [*four[:2], four[2].astype(float), *four[3:]]
    yield "width", lambda: Blocks(wide, **i), ValueError, "piece 2: X: float32 of width 13 came"
    yield "dtype", lambda: Blocks(double, **i), ValueError, "piece 2: X: float64 of width 12 came"
    yield "labels", lambda: Blocks(cut(X), bad_labels), IndexError, "piece 3: y: label 9 at row 50"
    yield "nan", lambda: Blocks(cut(with_nan), y), ValueError, "piece 3: X: NaN or infinite"
    yield "nothing", lambda: Blocks([X[:0]], [y[:0]]), ValueError, "source: no rows came"
    yield "none", lambda: Blocks(lambda: iter([])), ValueError, "source: no rows came"
    yield "generator", lambda: Blocks(x for x in [X]), TypeError, "generator came, which can be"
    yield "once", lambda: Blocks(lambda: once), TypeError, "the same iterator came again"
    yield "changed", lambda: Blocks(lambda: next(pieces)), ValueError, "piece 0: other rows"
    yield "shorter", lambda: Blocks(lambda: next(shorter)), ValueError, "source: 1 pieces came, 2"
    yield "no labels", lambda: Blocks(cut(X)), ValueError, "piece 0: y: none came"
    yield "some rows", lambda: Blocks(cut(X), cut(y[:-1])), ValueError, "y: shape (299,) came in"
    yield "count", lambda: Blocks(cut(X), [y, y]), ValueError, "y: 2 pieces came, 5"
    yield "sum", lambda: Blocks(cut(X), y[1:]), ValueError, "y: shape (1199,) came, 1200 rows"
    yield "strings", lambda: Blocks([X.astype(str)], y), ValueError, "piece 0: X: <U32 of shape"
    yield "model", lambda: Blocks([X[:, 1:]], y), ValueError, "X: pieces of width 11 came, 12"
    yield (
        "weights",
        lambda: Blocks([X], [y], sample_weight=-y),
        ValueError,
        "piece 0: sample_weight",
    )
    yield "no weight", lambda: Blocks([X], [y], sample_weight=0 * y), ValueError, "no row that"
    yield "ignored", lambda: Blocks([X], [0 * y - 100]), ValueError, "no row that counts"
    yield "not tuples", lambda: Blocks(lambda: iter([X])), TypeError, "ndarray came for piece 0"


@pytest.mark.parametrize("case", list(refusals()), ids=lambda case: case[0])
def test_refusals(case, no_thread_left):
    """One sentence that says which piece, and a model as it was."""
    _, make, kind, words = case
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(kind) as caught:
        fit_lbfgs(model, make())
    assert words in str(caught.value)
    assert not model.W.any()


def test_trainer_leaves_the_model_as_it_was():
    X, y = problem()
    y[950] = 9
    model = SoftmaxModel.zeros(D, C)
    with pytest.raises(IndexError, match="piece 3: y: label 9 at row 50"):
        Trainer(epochs=1, shuffle=False).fit(model, Blocks(cut(X), y))
    assert not model.W.any()


def test_files_that_changed_or_are_none(tmp_path):
    X, y = problem()
    path = tmp_path / "X.npy"
    np.save(path, X)
    blocks = Blocks(path, y)
    np.save(path, X[:-1])
    with pytest.raises(DataFormatError, match=r"piece 0 \(.*X\.npy\): the file has changed"):
        list(blocks)
    path.write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataFormatError, match="not a sound .npy file"):
        Blocks(path, y)
    with pytest.raises(FileNotFoundError, match="no file is named like"):
        Blocks(str(tmp_path / "nothing-*.npy"))
    with pytest.raises(FileNotFoundError, match="nothing.npy: no such file"):
        Blocks([tmp_path / "nothing.npy"])


def test_parquet_that_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    for column, words in (
        (pa.array([[1.0, 2], [3.0, 4], None, [5.0, 6]]), "a null came at row 0"),
        (pa.array([[1.0, 2], [3.0, 4], [None, 6], [5.0, 6]]), "a null came at row 0"),
        (pa.array([[1.0, 2], [3.0, 4], [5.0], [5.0, 6]]), "a list of 2 came at row 1"),
        (pa.array(["a", "b", "c", "d"]), "string came, lists of numbers were wanted"),
    ):
        pq.write_table(pa.table({"x": column}), path, row_group_size=2)
        group = 0 if "string" in words else 1
        with pytest.raises(DataFormatError) as caught:
            list(Blocks.from_parquet(path, features="x"))
        assert f"piece {group} ({path}, row group {group}): column 'x': {words}" in str(
            caught.value
        )
    with pytest.raises(KeyError, match="no column 'z' among 'x'"):
        Blocks.from_parquet(path, features="x", label="z")
    with pytest.raises(FileNotFoundError, match="no such Parquet file"):
        Blocks.from_parquet(tmp_path / "*.pq", features="x")
    path.write_bytes(b"nonsense")
    with pytest.raises(DataFormatError, match="not a sound Parquet file"):
        Blocks.from_parquet(path, features="x")


def test_row_groups_that_a_fit_refuses(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    X, y = problem()
    path = tmp_path / "x.parquet"

    def write(X, y):
        columns = {"x": pa.array(list(X)), "y": pa.array(y)}
        pq.write_table(pa.table(columns), path, row_group_size=150)
        return Blocks.from_parquet(path, features="x", label="y")

    def with_one(array, value):
        array = array.copy()
        array[1060] = value
        return array

    null = y.tolist()
    null[1060] = None
    group = f"piece 7 ({path}, row group 7): "
    for data, kind, words in (
        ((with_one(X, np.nan), y), ValueError, group + "X: NaN or infini"),
        ((X, with_one(y, 9)), IndexError, group + "y: label 9 at row 10 is outside"),
        ((X, null), DataFormatError, group + "column 'y': a null came at row 10"),
    ):
        blocks = write(*data)
        for fit in (fit_lbfgs, Trainer(epochs=1, shuffle=False).fit):
            model = SoftmaxModel.zeros(D, C)
            with pytest.raises(kind) as caught:
                fit(model, blocks)
            assert words in str(caught.value)
            assert "\n" not in str(caught.value)
            assert not model.W.any()
    blocks = write(X, y)
    fit_lbfgs(SoftmaxModel.zeros(D, C), blocks, max_iter=1)
    write(X[:-1], y[:-1])
    with pytest.raises(DataFormatError, match=r"piece . \(.*x\.parquet, row group"):
        fit_lbfgs(SoftmaxModel.zeros(D, C), blocks)


@pytest.mark.parametrize(
    ("absent", "line", "words"),
    [
        ("pyarrow", "sx.Blocks.from_parquet('x', features='y')", "softmax-ext[parquet]"),
        ("dask", "import softmax_ext.dask", "softmax-ext[dask]"),
        ("distributed", "import softmax_ext.dask", "softmax-ext[dask]"),
    ],
)
def test_what_is_not_installed_is_told(absent, line, words):
    code = f"import sys; sys.modules[{absent!r}] = None; import softmax_ext as sx; {line}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"pip install '{words}'" in last


# The reading thread -------------------------------------------------------------------------------


def test_reading_ahead_is_bounded_and_ends(no_thread_left):
    X, y = problem()
    begun, closed = [], []

    def pieces():
        try:
            for k in range(20):
                begun.append(k)
                yield X, y
        finally:
            closed.append(True)

    blocks = Blocks(pieces)
    reading = blocks.pieces()
    next(reading)
    time.sleep(0.05)
    assert len(begun) <= 3
    reading.close()
    assert closed == [True]

    def failing():
        yield X, y
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Blocks(failing))


def test_a_reader_that_is_behind_has_a_processor_for_itself():
    X, y = problem()
    read, is_late = threading.Event(), True

    def pieces():
        for k in range(4):
            if is_late:
                read.wait(10)  # until the caller is at the piece before, or waits for the first
                time.sleep(0.05)
                read.clear()
            yield X[k * 100 : k * 100 + 100], y[k * 100 : k * 100 + 100]

    for is_late in (True, False):
        seen = []
        blocks = Blocks(pieces)
        with sx.num_threads(5), contextlib.closing(blocks.pieces()) as items:
            read.set()
            for _ in items:
                seen.append(sx.get_num_threads())
                read.set()
                time.sleep(0 if is_late else 0.05)
            assert sx.get_num_threads() == 5
        assert seen == [4] * 4 if is_late else seen[1:] == [5] * 3
    with sx.num_threads(1), contextlib.closing(Blocks(pieces).pieces()) as items:
        assert {sx.get_num_threads() for _ in items} == {1}


def test_ctrl_c_leaves_no_thread(tmp_path):
    """In the middle of a fit whose reading takes its time."""
    script = """
import os, signal, threading, time
import numpy as np
import softmax_ext as sx
X, y = np.eye(4)[np.arange(400) % 4], np.arange(400) % 3
def pieces():
    for k in range(40):
        time.sleep(0.02)
        if k == 10:
            os.kill(os.getpid(), signal.SIGINT)
        yield X, y
try:
    sx.fit_lbfgs(sx.SoftmaxModel.zeros(4, 3), sx.Blocks(pieces))
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "interrupted 1\n"


# Checkpoints --------------------------------------------------------------------------------------


def test_fit_resumes_to_the_same_bits(tmp_path):
    X, y = problem()
    data = {"blocks": lambda: (Blocks(cut(X), y), None), "arrays": lambda: (X, y)}
    for kind, make in data.items():
        whole, _ = fitted(*make())
        path = tmp_path / kind
        model, result = fitted(*make(), checkpoint=path)
        np.testing.assert_array_equal(model.W, whole.W)
        content = path.read_bytes()
        start = SoftmaxModel(np.ones((D, C), np.float32), np.zeros(C, np.float32))
        for size in (len(content), len(content) - 1, len(content) * 2 // 3, len(content) // 4):
            path.write_bytes(content[:size])
            again = fit_lbfgs(start, *make(), tol=1e-6, checkpoint=path)
            np.testing.assert_array_equal(start.W, whole.W)
            assert again.nfev == result.nfev
            assert path.read_bytes() == content
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    path.write_bytes(damaged)
    again, _ = fitted(*make(), checkpoint=path)
    np.testing.assert_array_equal(again.W, whole.W)


def test_passes_of_the_file_are_not_made_again(tmp_path):
    X, y = problem()
    passes = []

    def pieces():
        passes.append(True)
        yield from zip(cut(X), cut(y), strict=True)

    _, result = fitted(Blocks(pieces), checkpoint=tmp_path / "c")
    first = len(passes)
    assert first >= result.nfev
    passes.clear()
    fitted(Blocks(pieces), checkpoint=tmp_path / "c")
    assert len(passes) <= 2  # to know the data again, and draw the sample


def test_checkpoints_of_other_fits_are_refused(tmp_path):
    X, y = problem()
    path = tmp_path / "c"
    fitted(Blocks(cut(X), y), checkpoint=path)
    for words, data, options in (
        ("with l2 1.0, this one has 0.5", Blocks(cut(X), y), {"C": 2.0}),
        ("with data ", Blocks(cut(X), (y + 1) % C), {}),
        ("with standardize False", Blocks(cut(X), y), {"standardize": True}),
    ):
        with pytest.raises(ValueError, match=words):
            fitted(data, checkpoint=path, **options)
    for content in (b"", b"nonsense", path.read_bytes()[:30], path.read_bytes()[:200] + b"x" * 999):
        path.write_bytes(content)
        with pytest.raises(ModelFormatError):
            fitted(Blocks(cut(X), y), checkpoint=path)


def test_killed_fit_resumes(tmp_path):
    """By a signal that cannot be caught, at any moment."""
    script = """
import sys
import numpy as np
import softmax_ext as sx
rng = np.random.default_rng(0)
X = rng.normal(size=(4000, 30)).astype(np.float32)
y = (X @ rng.normal(size=(30, 5)) + rng.gumbel(size=(4000, 5))).argmax(1)
model = sx.SoftmaxModel.zeros(30, 5)
print("ready", flush=True)
result = sx.fit_lbfgs(model, sx.Blocks(np.array_split(X, 120), y), tol=1e-9, C=1e3,
                      checkpoint=sys.argv[1] if len(sys.argv) > 1 else None)
print(model.W.tobytes().hex(), result.nfev)
"""
    whole = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    path = str(tmp_path / "c")
    killed = 0
    for delay in (0.03, 0.08, 0.1, None):
        process = subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        if delay is not None:
            time.sleep(delay)
            killed += process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
    assert killed
    assert "ready\n" + out == whole.stdout


# The command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_command_line_takes_pieces(tmp_path, monkeypatch, capsys, form, solver):
    from softmax_ext import cli

    monkeypatch.chdir(tmp_path)
    X, y = problem()
    names = np.array(["ant", "bee", "cat", "dog"])[y]
    if form == "npy":
        for k, (x, labels) in enumerate(zip(cut(X), cut(names), strict=True)):
            np.save(f"part-{k}.npy", x)
            np.save(f"labels-{k}.npy", labels)
        words = ["--data", "part-*.npy", "--labels", "labels-*.npy"]
    else:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        table = pa.table({"x": list(X), "kind": names})
        pq.write_table(table, "set.parquet", row_group_size=500)
        words = ["--data", "set.parquet", "--labels", "kind"]
    words = ["train", *words, "--solver", solver, "--model-out", "m.npz", "--report", "report"]
    words += ["--epochs", "3"] if solver == "sgd" else ["--checkpoint", "fit"]
    for _ in range(2):
        assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "1080 examples to train on, 120 to test, 12 float32, 4 classes" in out
    model = SoftmaxModel.load("m.npz")
    assert model.classes.tolist() == ["ant", "bee", "cat", "dog"]
    assert model.accuracy(X, names) > 0.5
    assert os.path.exists("report/report.md")
    assert os.path.exists("fit") == (solver == "lbfgs")
    assert cli.main(["evaluate", "m.npz", *words[1:5]]) == 0
    assert f"accuracy {model.accuracy(X, names):.4f}" in capsys.readouterr().out


def test_command_line_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    from softmax_ext import cli

    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"a": [1.0], "b": [2.0]}), "x.parquet")
    np.save("part-0.npy", np.zeros((4, 2)))
    for words, said in (
        (["x.parquet"], "no column 'label' among a, b; name that of the labels: --labels COLUMN"),
        (["none.parquet"], "none.parquet: no such Parquet file"),
        (["part-*.npy"], "part-*.npy: holds examples only; name the files of labels: --labels"),
        (["none-*.npy", "--labels", "none-*.npy"], "no file is named like none-*.npy"),
    ):
        assert cli.main(["train", "--data", *words]) == 1
        assert said in capsys.readouterr().err


def test_memory_of_pieces_is_used_again_once_they_are_gone(tmp_path):
    X, y = problem()
    np.save(tmp_path / "X.npy", X)
    blocks = Blocks(tmp_path / "X.npy", y, part_bytes=64 * X[0].nbytes, read_ahead=False)
    kept = list(blocks)
    np.testing.assert_array_equal(np.concatenate([piece.X for piece in kept]), X)
    places = set()
    for piece in blocks:
        places.add(piece.X.__array_interface__["data"][0])
    assert len(places) < len(kept) // 2
