"""Linear probes: the protocol, and the command that carries it out."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import cli, linear_probe

N, D, C = 900, 12, 12


def make_data(dtype=np.float32, names=None):
    rng = np.random.default_rng(0)
    y = rng.integers(0, C, N)
    X = (rng.normal(size=(C, D))[y] + 1.6 * rng.normal(size=(N, D))) * 10.0 ** np.arange(-6, 6)
    return X.astype(dtype), y if names is None else names[y]


def test_the_protocol():
    """Standardise, sweep, choose, refit on all, test: each as said, by other means."""
    names = np.array([*"abcdefghijkl"])
    X, y = make_data(np.float64, names)
    parts = [slice(0, 500), slice(500, 700), slice(700, N)]
    train, validation, test = ((X[part], y[part]) for part in parts)
    Cs = np.logspace(-4, 2, 7)
    for scoring in ("accuracy", "loss"):
        found = sx.probe(
            *train, validation_data=validation, test_data=test, Cs=Cs, scoring=scoring, tol=1e-7
        )
        scores = []
        for c in Cs:
            model = sx.SoftmaxModel.zeros(D, C, dtype=np.float64, classes=names)
            sx.fit_lbfgs(model, *train, C=c, standardize=True, tol=1e-7)
            scores.append(getattr(model, scoring)(*validation))
        np.testing.assert_allclose(found.path.scores, scores, atol=1e-4)
        assert Cs[np.argmax(scores) if scoring == "accuracy" else np.argmin(scores)] == found.C
        model = sx.SoftmaxModel.zeros(D, C, dtype=np.float64, classes=names)
        sx.fit_lbfgs(model, X[:700], y[:700], C=found.C, standardize=True, tol=1e-7)
        np.testing.assert_allclose(found.model.predict_proba(X), model.predict_proba(X), atol=1e-4)
        assert found.test.n_rows == 200
        assert found.test.accuracy == model.accuracy(*test)
        assert found.test.loss == pytest.approx(model.loss(*test), rel=1e-4)
        ranks = np.argsort(-model.logits(test[0]), axis=1)[:, :5]
        assert found.test.top_5 == np.mean((names[ranks] == test[1][:, None]).any(axis=1))
        assert found.test.accuracy < found.test.top_5 < 1


def test_a_tenth_is_held_out_to_choose_by():
    X, y = make_data()
    seen = []

    def scoring(model, X, y):
        seen.append((X.copy(), y.copy()))
        return model.accuracy(X, y)

    found = sx.probe(X, y, Cs=[0.01, 0.1], scoring=scoring)
    held, labels = seen[0]
    assert held.shape == (90, D)
    rows = {row.tobytes(): label for row, label in zip(X, y, strict=True)}
    assert [rows[row.tobytes()] for row in held] == labels.tolist()
    kept = np.array([row.tobytes() not in {h.tobytes() for h in held} for row in X])
    model = sx.SoftmaxModel.zeros(D, C)
    path = sx.fit_path(model, X[kept], y[kept], [0.01, 0.1], standardize=True)
    np.testing.assert_allclose(found.path.fun, path.fun, rtol=1e-4)
    assert found.test is None
    assert len(linear_probe.GRID) == 45


def test_bisection_finds_what_all_values_find():
    X, y = make_data()
    Cs = np.logspace(-6, 6, 97)
    for scoring in ("accuracy", "loss"):
        whole = sx.probe(X, y, Cs=Cs, scoring=scoring).path
        seen = []
        found = sx.probe(
            X, y, search="bisection", scoring=scoring, test_data=(X, y),
            callback=lambda result: seen.append(result.C),  # noqa: B023
        )  # fmt: skip
        path = found.path
        # Seven powers of 100, then two at distances of 8, 4, 2 and 1.
        np.testing.assert_allclose(sorted(seen[:7]), 10.0 ** np.arange(-6, 7, 2))
        assert len(seen) == len(path.Cs) <= 15
        assert (np.diff(path.Cs) > 0).all()
        assert path.W.shape == (len(path.Cs), D, C)
        np.testing.assert_array_equal(path.n_nonzero, np.count_nonzero(path.W, axis=(1, 2)))
        sign = -1 if scoring == "loss" else 1
        assert path.best == np.argmax(sign * path.scores)
        at = np.searchsorted(Cs, path.Cs * (1 - 1e-9))
        np.testing.assert_allclose(path.fun, whole.fun[at], rtol=1e-3)
        if scoring == "loss":  # which rises and falls; accuracies go up and down
            np.testing.assert_allclose(found.C, Cs[whole.best])
            around = [whole.best - 1, whole.best + 1]
            assert set(np.round(np.log10(Cs[around]) * 8)) <= set(np.round(np.log10(path.Cs) * 8))
        assert found.fit.success
    assert path.nfev > 0 < path.seconds
    few = sx.probe(X, y, search="bisection", Cs=[0.1, 1.0])
    assert few.path.Cs.tolist() == [0.1, 1.0]


@pytest.mark.parametrize("given", [False, True])
def test_sparse_features_stay_sparse(given):
    """As dense ones do."""
    sparse = pytest.importorskip("scipy.sparse")
    X, y = make_data(np.float64)
    X[np.abs(X) < np.median(np.abs(X), axis=0)] = 0
    parts = {}
    if given:
        parts["validation_data"] = (X[500:700], y[500:700])
    parts["test_data"] = (X[700:], y[700:])
    options = {"Cs": [1e-3, 1e-2, 0.1], "tol": 1e-7, "scoring": "loss"}
    dense = sx.probe(X[:500], y[:500], **parts, **options)
    parts = {name: (sparse.csr_array(rows), labels) for name, (rows, labels) in parts.items()}
    found = sx.probe(sparse.csr_array(X[:500]), y[:500], **parts, **options)
    np.testing.assert_allclose(found.path.fun, dense.path.fun, rtol=1e-6)
    np.testing.assert_allclose(found.path.scores, dense.path.scores, atol=1e-5)
    assert found.C == dense.C
    assert found.test == pytest.approx(dense.test, abs=1e-5)


def test_halves_are_fitted_as_they_are():
    X, y = make_data()
    X = np.clip(X, -1e4, 1e4).astype(np.float16)
    wide, found = (
        sx.probe(x, y, Cs=[0.01, 1.0], test_data=(x, y)) for x in (X.astype(np.float32), X)
    )
    assert found.model.W.dtype == np.float32
    np.testing.assert_allclose(found.path.fun, wide.path.fun, rtol=1e-4)
    assert found.test.accuracy == pytest.approx(wide.test.accuracy, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.zeros(3)}, r"y: shape \(3,\) came, \(900,\) was wanted"),
        ({"y": np.zeros(N)}, "y: 1 classes came, at least 2"),
        ({"X": np.zeros(N)}, r"X: shape \(900,\) came, \(N, D\) was wanted"),
        (
            {"test_data": (np.zeros((5, 3)), np.zeros(5))},
            r"test_data: shape \(5, 3\) came, \(N, 12",
        ),
        ({"search": "halving"}, "search: 'halving' came, 'path' or 'bisection'"),
        ({"test_data": (np.zeros((1, D)), [77])}, "label 77 at row 0 is not one of the classes"),
    ],
)
def test_arguments_are_refused(arguments, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        sx.probe(**{"X": X, "y": y, "Cs": [0.1], **arguments})


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run_main(*words):
        capsys.readouterr()
        try:
            status = cli.main(["probe", *map(str, words)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_main


FEW = ("--C", "0.0001", "0.001", "1", "100")


def test_two_files_give_a_model_and_its_picture(run):
    pytest.importorskip("matplotlib")
    X, y = make_data()
    np.save("X.npy", X)
    np.save("y.npy", y)
    status, out, err = run("--data", "X.npy", "--labels", "y.npy", *FEW, "--report", "report")
    assert (status, err) == (0, "")
    found = sx.probe(X, y, Cs=[0.0001, 0.001, 1, 100])
    model = sx.SoftmaxModel.load("probe.npz")
    np.testing.assert_array_equal(model.W, found.model.W)
    assert out.count("validation accuracy") == 6
    assert f"chosen    C {found.C:.4g}, validation accuracy" in out
    assert out.splitlines()[-1] == f"validation accuracy {found.path.scores[found.path.best]:.4f}"
    with open("report/probe.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"
    with open("report/probe.csv") as file:
        rows = [line.split(",") for line in file.read().splitlines()]
    assert rows[0] == ["C", "validation", "objective", "iterations", "converged"]
    assert [float(row[0]) for row in rows[1:]] == [0.0001, 0.001, 1, 100]
    assert {row[-1] for row in rows[1:]} == {"True"}


def test_parts_in_files_of_their_own(run):
    names = np.array([*"abcdefghijkl"])
    X, y = make_data(names=names)
    words = []
    for part, rows in (
        ("data", slice(500)),
        ("validation", slice(500, 700)),
        ("test", slice(700, N)),
    ):
        np.save(f"{part}.npy", X[rows])
        np.save(f"{part}-y.npy", y[rows])
        words += [f"--{part}", f"{part}.npy"]
        words += ["--labels" if part == "data" else f"--{part}-labels", f"{part}-y.npy"]
    status, out, _ = run(*words, *FEW, "--scoring", "loss", "--no-standardize", "--quiet")
    assert status == 0
    found = sx.probe(
        X[:500], y[:500], validation_data=(X[500:700], y[500:700]), test_data=(X[700:], y[700:]),
        Cs=[0.0001, 0.001, 1, 100], scoring="loss", standardize=False,
    )  # fmt: skip
    assert out == f"test accuracy {found.test.accuracy:.4f}\n"
    np.savez("all.npz", X=X[:700], y=y[:700], X_test=X[700:], y_test=y[700:])
    status, out, _ = run("--data", "all.npz", "--search", "bisection")
    assert status == 0
    path = sx.probe(X[:700], y[:700], search="bisection").path
    assert f"path      {len(path.Cs)} values, {path.nfev} passes" in out
    status, out, _ = run("--data", "all.npz", *FEW)
    assert status == 0
    assert "test      200 rows, log-loss " in out
    assert sx.SoftmaxModel.load("probe.npz").classes.tolist() == names.tolist()


def test_parquet_files(run):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = np.array([*"abcdefghijkl"])
    X, y = make_data(names=names)
    columns = {f"f{k}": column for k, column in enumerate(X.T)} | {"kind": y}
    for name, rows in (("train", slice(700)), ("test", slice(700, N))):
        table = pyarrow.table({key: values[rows] for key, values in columns.items()})
        parquet.write_table(table, f"{name}.parquet", row_group_size=300)
    words = ("--data", "train.parquet", "--labels", "kind")
    words += ("--test", "test.parquet", "--test-labels", "kind")
    status, out, _ = run(*words, *FEW, "--quiet")
    assert status == 0
    found = sx.probe(X[:700], y[:700], test_data=(X[700:], y[700:]), Cs=[0.0001, 0.001, 1, 100])
    assert out == f"test accuracy {found.test.accuracy:.4f}\n"


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (("--data", "none.npy"), "none.npy: neither a file, nor a folder", 1),
        (("--data", "X.npy"), "name the file of labels: --labels FILE", 1),
        (("--data", "fashion-mnist"), "an .npy, .npz or Parquet file was wanted", 1),
        (("--data", "X.npy", "--labels", "X.npy"), "labels of shape (900, 12) came", 1),
        (("--data", "X.npy", "--labels", "y.npy", "--test-labels", "y.npy"), "--test only", 2),
        (("--data", "X.npy", "--labels", "y.npy", "--C", "-1"), "a number above 0 was wanted", 2),
        (("--data", "X.npy", "--labels", "y.npy", "--model-out", "X.npy/m"), "X.npy", 1),
    ],
)
def test_errors_are_one_line(run, words, message, status):
    X, y = make_data()
    np.save("X.npy", X)
    np.save("y.npy", y)
    found, out, err = run(*words)
    assert (found, out) == (status, "")
    assert message in err.splitlines()[-1]
    assert status == 2 or len(err.splitlines()) == 1


def test_fits_that_are_not_converged_and_values_at_the_end_are_told(run):
    X, y = make_data()
    np.savez("all.npz", X=X, y=y)
    status, out, err = run("--data", "all.npz", "--C", "1e-6", "1e-5", "--max-iter", 1)
    assert status == 0
    assert "fits not converged; see --max-iter and --tol" in err
    assert "; not converged)" in out
    assert "the best is at the end of the values of C" in err


def test_a_model_on_standard_output_has_it_for_itself(tmp_path):
    X, y = make_data()
    np.savez(tmp_path / "all.npz", X=X, y=y)
    words = ["probe", "--data", "all.npz", *FEW, "--model-out", "/dev/stdout"]
    done = subprocess.run(
        [sys.executable, "-m", "softmax_ext", *words], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    (tmp_path / "m.npz").write_bytes(done.stdout)
    assert sx.SoftmaxModel.load(tmp_path / "m.npz").W.shape == (D, C)
