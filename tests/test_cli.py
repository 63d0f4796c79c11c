"""The command line: what it prints, writes, refuses and survives."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import softmax_ext as sx
from softmax_ext import cli, datasets
from softmax_ext.cli import bench, progress, report, sources, use
from softmax_ext.model import SoftmaxModel
from softmax_ext.training import History, HistoryRow

TWO = ("train", "--data", "two-by-two")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Each test runs in a folder of its own; the number of threads is put back."""
    monkeypatch.chdir(tmp_path)
    threads = sx.get_num_threads()
    yield
    sx.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: status, standard output, standard error."""

    def run_main(*words):
        capsys.readouterr()
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_main


@pytest.fixture
def without_pictures(monkeypatch):
    """Reports without pictures, which take a second each to draw."""
    monkeypatch.setattr(report, "_draw", lambda training: {})


def command(*words):
    return [sys.executable, "-m", "softmax_ext", *map(str, words)]


def without(*modules):
    """A command line in whose process these modules are not installed."""
    blocked = "".join(f"sys.modules[{name!r}] = None;" for name in modules)
    code = f"import sys; {blocked} from softmax_ext.cli import main; sys.exit(main())"

    def words(*arguments):
        return [sys.executable, "-c", code, *map(str, arguments)]

    return words


def execute(words, **options):
    return subprocess.run(
        words, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )


def last_line(text):
    assert text.endswith("\n")
    return text.splitlines()[-1]


def assert_one_line(err, name, *parts):
    """A failure is told in a single line, by the command, with these words."""
    assert err.startswith(f"softmax-ext {name}: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in parts:
        assert part in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the cats, chickens and dogs, and the report of its training."""
    folder = tmp_path_factory.mktemp("trained")
    model, out = folder / "model.npz", io.StringIO()
    with contextlib.redirect_stdout(out):
        words = ("--epochs", 3, "--model-out", model, "--report", folder / "report")
        assert cli.main([*TWO, *map(str, words)]) == 0
    return model, folder / "report", out.getvalue()


# ------------------------------------------------------------------------------------- train


def test_train_ends_with_the_test_accuracy_of_the_model_it_wrote(trained):
    path, _, out = trained
    test = datasets.make_two_by_two(600, seed=1)
    accuracy = SoftmaxModel.load(path).accuracy(test.images, test.labels)
    assert last_line(out) == f"test accuracy {accuracy:.4f}"
    assert re.fullmatch(r"test accuracy 0\.9\d{3}", last_line(out))


def test_train_says_where_model_and_report_lie_and_how_well_it_went(trained):
    path, folder, out = trained
    *_, heading, train, test, model_line, report_line, _ = out.splitlines()
    assert heading.split() == ["examples", "loss", "(nats)", "accuracy"]
    assert model_line == f"model     {path}"
    assert report_line == f"report    {folder / 'report.md'}"
    model = SoftmaxModel.load(path)
    for line, name, data in (
        (train, "train", datasets.make_two_by_two(3000, seed=0)),
        (test, "test", datasets.make_two_by_two(600, seed=1)),
    ):
        loss = model.loss(data.images, data.labels)
        accuracy = model.accuracy(data.images, data.labels)
        assert line.split() == [name, str(len(data.labels)), f"{loss:.4f}", f"{accuracy:.4f}"]


def test_train_is_the_trainer(trained):
    path, _, _ = trained
    data = datasets.make_two_by_two(3000, seed=0)
    model = SoftmaxModel.zeros(4, 3, classes=data.class_names, x_scale=1 / 255)
    sx.Trainer(epochs=3, average=True).fit(model, data.images, data.labels)
    loaded = SoftmaxModel.load(path)
    np.testing.assert_array_equal(loaded.W, model.W)
    np.testing.assert_array_equal(loaded.b, model.b)
    assert loaded.classes.tolist() == ["cat", "chicken", "dog"]
    assert loaded.x_scale == 1 / 255


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_model_on_standard_output_has_it_for_itself(quiet, tmp_path):
    words = ["train", "--data", "two-by-two", "--epochs", "1", *quiet, "--model-out", "/dev/stdout"]
    for name, stdout in (("redirected", None), ("piped", subprocess.PIPE)):
        with open(tmp_path / name, "wb") as file:
            done = subprocess.run(
                command(*words), stdout=stdout or file, stderr=subprocess.PIPE, check=True,
                cwd=tmp_path,
            )  # fmt: skip
            if stdout is not None:
                file.write(done.stdout)
        assert SoftmaxModel.load(tmp_path / name).W.shape == (4, 3)
        assert b"test accuracy" in done.stderr


def test_a_model_may_have_the_longest_name_there_is(run, without_pictures):
    name = "ä" * 125 + "n.npz"
    code, _, err = run("train", "--data", "two-by-two", "--epochs", "1", "--model-out", name)
    assert (code, err) == (0, "")
    assert os.listdir() == [name]


def test_train_hands_every_setting_on(run, without_pictures):
    words = ("--epochs", 2, "--batch-size", 100, "--learning-rate", 0.5, "--momentum", 0.9)
    words += (
        "--weight-decay",
        0.01,
        "--seed",
        7,
        "--dtype",
        "float64",
        "--x-scale",
        "1/128",
        "--no-average",
    )
    status, _, _ = run(*TWO, *words, "--report", "report", "--threads", 1)
    assert status == 0
    data = datasets.make_two_by_two(3000, seed=0)
    model = SoftmaxModel.zeros(4, 3, dtype=np.float64, x_scale=1 / 128)
    sx.Trainer(
        epochs=2, batch_size=100, learning_rate=0.5, momentum=0.9, weight_decay=0.01, seed=7
    ).fit(model, data.images, data.labels)
    np.testing.assert_array_equal(SoftmaxModel.load("model.npz").W, model.W)
    settings = dict(re.findall(r"^\| ([a-z ]+) \| (.+) \|$", read("report/report.md"), flags=re.M))
    wanted = {"epochs": "2", "batch size": "100", "learning rate": "0.5", "momentum": "0.9"}
    wanted |= {"weight decay": "0.01", "seed": "7", "dtype": "float64", "x scale": "0.0078125"}
    wanted |= {
        "average": "False",
        "threads": "1",
        "data": "two-by-two",
        "solver": "sgd",
        "model": "model.npz",
    }
    assert settings.items() >= wanted.items()


def test_train_prints_a_line_for_each_epoch_as_the_history_has_it(run, without_pictures):
    _, out, err = run(*TWO, "--epochs", 3, "--report", "report")
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    with open("report/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(lines) == len(rows) == 3
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        assert line == (
            f"epoch {number}/3: loss {float(row['train_loss']):.4f},"
            f" accuracy {float(row['train_accuracy']):.4f};"
            f" test loss {float(row['validation_loss']):.4f},"
            f" test accuracy {float(row['validation_accuracy']):.4f};"
            f" {float(row['examples_per_second']):.0f} examples/s"
        )
    assert err == ""  # no terminal, no bar


def test_train_quietly_prints_the_accuracy_only(run, without_pictures):
    status, out, err = run(*TWO, "--epochs", 1, "--quiet", "--report", "report")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"test accuracy 0\.\d{4}\n", out)
    assert os.path.exists("report/report.md")


def test_train_makes_the_folders_it_writes_to(run, without_pictures):
    status, _, _ = run(*TWO, "--epochs", 1, "--model-out", "a/b/m.npz", "--report", "c/d")
    assert status == 0
    assert os.path.exists("a/b/m.npz")
    assert os.path.exists("c/d/report.md")


def test_train_on_own_files_holds_a_tenth_out(run, rng):
    X = rng.normal(size=(200, 5))
    np.save("X.npy", X)
    np.save("y.npy", np.where(X[:, 0] > 0, "yes", "no"))
    words = ("--data", "X.npy", "--labels", "y.npy", "--epochs", 50, "--batch-size", 10)
    status, out, _ = run("train", *words)
    assert status == 0
    assert "180 examples to train on, 20 to test, 5 float64, 2 classes" in out
    assert float(last_line(out).split()[-1]) > 0.8
    model = SoftmaxModel.load("model.npz")
    assert model.classes.tolist() == ["no", "yes"]
    assert model.x_scale == 1.0
    # Features that are no image: a report without pictures of images.
    status, _, _ = run("train", *words, "--epochs", 1, "--report", "report")
    assert status == 0
    assert {path.name for path in Path("report").iterdir()} == {
        *("report.md", "history.csv", "curves.png", "confusion.png")
    }


@pytest.mark.parametrize("solver", [("--batch-size", 4, "--epochs", 30), ("--solver", "lbfgs")])
@pytest.mark.parametrize(
    "labels", [np.array([1, 2, 3, 4], np.int64), np.array([False, True]), np.array(["0", "1"])]
)
def test_train_keeps_the_type_of_labels(run, labels, solver):
    y = labels[np.arange(60) % len(labels)]
    X = (y[:, np.newaxis] == labels) * 1.0
    np.savez("data.npz", X=X, y=y)
    assert run("train", "--data", "data.npz", *solver)[0] == 0
    model = SoftmaxModel.load("model.npz")
    assert model.classes.dtype == labels.dtype
    assert model.accuracy(X, y) == 1.0
    np.testing.assert_array_equal(model.predict(X), y, strict=True)
    assert last_line(run("evaluate", "model.npz", "--data", "data.npz")[1]) == "accuracy 1.0000"
    np.save("X.npy", X)
    found = json.loads(run("predict", "model.npz", "X.npy", "--format", "json")[1])
    assert [each["label"] for each in found] == y.tolist()


def test_train_with_the_reference_gives_the_same_accuracy(run):
    _, out, _ = run(*TWO, "--epochs", 2, "--quiet")
    status, out_of_reference, _ = run(*TWO, "--epochs", 2, "--quiet", "--kernels", "reference")
    assert status == 0
    assert out_of_reference[:-2] == out[:-2]  # to three decimals
    _, out, _ = run(*TWO, "--epochs", 1, "--kernels", "reference")
    assert "kernels: reference (plain NumPy)" in out


@pytest.mark.parametrize("isa", sx.available_isas())
def test_train_with_a_named_instruction_set(run, isa):
    status, out, _ = run(*TWO, "--epochs", 1, "--kernels", isa, "--threads", 3)
    assert status == 0
    assert f"kernels: compiled, {isa}; threads: 3" in out


def test_train_on_fashion_mnist(run):
    if None in datasets.find_fashion_mnist().values():
        pytest.skip("Fashion-MNIST is not on this machine")
    status, out, _ = run("train", "--epochs", 1, "--no-download")
    assert status == 0
    assert "Fashion-MNIST: 60000 examples to train on, 10000 to test, 28 x 28 uint8" in out
    assert 0.75 < float(last_line(out).split()[-1]) < 0.85


def test_train_that_diverges_writes_no_model(run):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, _, err = run(*TWO, "--epochs", 2, "--learning-rate", "1e39", "--quiet")
    assert status == 1
    assert "Traceback" not in err
    warning, error = err.splitlines()
    assert warning.startswith("softmax-ext: warning: loss is nan")
    assert error.startswith("softmax-ext train: error: ")
    assert "lower --learning-rate" in error
    assert not os.path.exists("model.npz")


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("command", [("train",), ("train", "--solver", "lbfgs"), ("evaluate",)])
def test_data_that_is_not_finite_is_named(run, trained, command, part):
    data = {f"{x}_{of}": np.ones((9, 4)) if x == "x" else np.arange(9) % 3
            for x in "xy" for of in ("train", "test")}  # fmt: skip
    data[f"x_{part}"][5, 2] = np.nan
    np.savez("data.npz", **data)
    model = (trained[0],) if command == ("evaluate",) else ()
    status, _, err = run(*command, *model, "--data", "data.npz")
    assert status == 1
    assert f"error: data.npz, the {part} part: X: NaN or infinity came in row 5" in err
    assert len(err.splitlines()) == 1


# ------------------------------------------------------------------------------------- lbfgs


def test_lbfgs_is_fit_lbfgs(run, without_pictures):
    words = ("--solver", "lbfgs", "--C", 0.5, "--tol", "1e-3", "--max-iter", 60)
    status, out, err = run(*TWO, *words, "--dtype", "float64", "--report", "report")
    assert (status, err) == (0, "")
    data = datasets.make_two_by_two(3000, seed=0)
    model = SoftmaxModel.zeros(4, 3, dtype=np.float64, classes=data.class_names, x_scale=1 / 255)
    result = sx.fit_lbfgs(model, data.images, data.labels, C=0.5, tol=1e-3, max_iter=60)
    assert result.success
    np.testing.assert_array_equal(SoftmaxModel.load("model.npz").W, model.W)
    assert f"after {result.nit} iterations: {result.message}\n" in out
    settings = dict(
        re.findall(r"^\| ([A-Za-z ]+) \| (.+) \|$", read("report/report.md"), flags=re.M)
    )
    wanted = {"solver": "lbfgs", "C": "0.5", "tol": "0.001", "max iter": "60"}
    assert settings.items() >= wanted.items()
    assert "epochs" not in settings
    assert settings["outcome"] == f"{result.message}; {result.nfev} passes over the data"


def test_lbfgs_records_each_iteration(run, without_pictures):
    """The last of them is of the model that was written; the loss is without the penalty."""
    status, out, _ = run(*TWO, "--solver", "lbfgs", "--C", 100, "--report", "report")
    assert status == 0
    with open("report/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    model = SoftmaxModel.load("model.npz")
    for seed, n, loss in ((0, 3000, "train_loss"), (1, 600, "validation_loss")):
        data = datasets.make_two_by_two(n, seed=seed)
        right = model.loss(data.images, data.labels)
        assert float(rows[-1][loss]) == pytest.approx(right, rel=1e-5)
    tenth = re.search(r"^iteration 10: (.*)$", out, flags=re.M).group(1)
    assert tenth.startswith(f"loss {float(rows[9]['train_loss']):.4f}, gradient ")
    table = table_under(read("report/report.md"), "## Iterations")
    assert table[-1][:3] == [str(len(rows)), f"{float(rows[-1]['train_loss']):.4f}", "-"]
    assert f"after {len(rows)} iterations" in read("report/report.md")


def test_lbfgs_that_does_not_converge_says_so(run):
    status, out, err = run(*TWO, "--solver", "lbfgs", "--max-iter", 2)
    assert status == 0
    assert err.startswith("softmax-ext train: warning: not converged: max_iter iterations")
    assert err.count("\n") == 1
    assert re.fullmatch(r"test accuracy 0\.\d{4}", last_line(out))


def test_lbfgs_that_is_there_already_makes_a_report(run):
    np.savez("data.npz", X=np.zeros((40, 2)), y=np.arange(40) % 2)
    words = ("--solver", "lbfgs", "--tol", 1, "--report", "report")
    status, out, _ = run("train", "--data", "data.npz", *words)
    assert status == 0
    assert "after 0 iterations: the gradient is within tol" in out
    assert "after 0 iterations" in read("report/report.md")


@pytest.mark.parametrize(
    ("words", "option", "solver"),
    [
        (("--solver", "lbfgs", "--epochs", 3), "--epochs", "sgd"),
        (("--solver", "lbfgs", "--no-average"), "--average", "sgd"),
        (("--solver", "lbfgs", "--resume"), "--resume", "sgd"),
        (("--C", 2), "--C", "lbfgs"),
        (("--max-iter", 2), "--max-iter", "lbfgs"),
        (("--standardize",), "--standardize", "lbfgs"),
    ],
)
def test_options_of_the_other_solver_are_refused(run, words, option, solver):
    status, _, err = run(*TWO, *words)
    assert status == 2
    assert last_line(err).endswith(f"{option}: goes with --solver {solver} only")


# ------------------------------------------------------------------------------------ report


def read(path):
    return Path(path).read_text(encoding="utf-8")


def table_under(text, heading):
    """The cells of the first table after a heading, without its head."""
    after = text[text.index(heading) :]
    rows = re.search(r"((?:^\|.*\|\n)+)", after, flags=re.M).group(1).splitlines()
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_report_shows_every_picture_it_comes_with(trained):
    _, folder, _ = trained
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", read(folder / "report.md"))
    written = {path.name for path in folder.glob("*.png")}
    assert len(shown) == len(set(shown))
    names = {"curves.png", "weights.png", "confusion.png", "mistakes.png", "samples.png"}
    assert set(shown) == written == names
    for name in names:
        header = (folder / name).read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", header[16:])
        assert width > 200
        assert height > 100


def test_report_tells_the_results(trained):
    path, folder, out = trained
    text = read(folder / "report.md")
    assert text.startswith("# Softmax regression on two-by-two\n")
    assert f"**{last_line(out).capitalize()}** after 3 epochs" in text
    test = datasets.make_two_by_two(600, seed=1)
    model = SoftmaxModel.load(path)
    loss, accuracy = (f(test.images, test.labels) for f in (model.loss, model.accuracy))
    assert table_under(text, "## Results")[1] == ["test", "600", f"{loss:.4f}", f"{accuracy:.4f}"]
    predicted = model.predict(test.images)
    labels = np.array(test.class_names)[test.labels]
    for name, n, recall, precision in table_under(text, "## Where it errs"):
        right = np.sum((labels == name) & (predicted == name))
        assert int(n) == np.sum(labels == name)
        assert recall == f"{right / np.sum(labels == name):.1%}"
        assert precision == f"{right / np.sum(predicted == name):.1%}"
    confusions = table_under(text, "The commonest mistakes")
    for true, taken, count in confusions:
        assert int(count) == np.sum((labels == true) & (predicted == taken))
    counts = [int(count) for *_, count in confusions]
    pairs = np.unique(
        [f"{a} {b}" for a, b in zip(labels, predicted, strict=True) if a != b], return_counts=True
    )[1]
    assert counts == sorted(pairs.tolist(), reverse=True)[:5]
    assert f"| softmax_ext | {sx.__version__} |" in text
    assert f"| NumPy | {np.__version__} |" in text


def test_report_has_the_last_epochs_in_a_table_and_all_in_the_csv(trained):
    _, folder, _ = trained
    rows = table_under(read(folder / "report.md"), "## Epochs")
    with open(folder / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[1] for row in rows] == [f"{float(row['train_loss']):.4f}" for row in history]
    assert [row[4] for row in rows] == [
        f"{float(row['validation_accuracy']):.4f}" for row in history
    ]


def training(history, names=("a|b", "c")):
    part = sources.Part(np.zeros((2, 3)), np.array([0, 1]))
    score = report.Score(2, 0.5, 0.5)
    return report.Training(
        model=SoftmaxModel.zeros(3, 2),
        source=sources.Source("mine", part, part, names, None),
        test=part,
        history=history,
        train_score=score,
        test_score=score,
        predicted=np.array([0, 0]),
        settings={},
    )


def test_report_of_many_epochs_and_odd_names():
    history = History([HistoryRow(k, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0) for k in range(1, 41)])
    assert report.write_report("folder", training(history)) is None
    text = read("folder/report.md")
    rows = table_under(text, "## Epochs")
    assert [int(row[0]) for row in rows] == list(range(11, 41))
    assert "The last 30 epochs" in text
    # A bar in a name would begin another cell.
    classes = table_under(text, "## Where it errs")
    assert classes == [["a\\|b", "1", "100.0%", "50.0%"], ["c", "1", "0.0%", "-"]]


@pytest.mark.parametrize(
    ("name", "markdown"),
    [
        ("$x^2$", r"\$x\^2\$"),
        (r"\alpha", r"\\alpha"),
        ("_a_ snake_case a_", r"\_a\_ snake_case a\_"),
        ("a*b* `c` ~~d~~", r"a\*b\* \`c\` \~\~d\~\~"),
        ("<b> &lt; [a](b) #", r"\<b\> \&lt; \[a\](b) \#"),
        ("two\nlines", "two lines"),
        ("caf\udce9 日本", "caf\udce9 日本"),
    ],
)
def test_report_shows_names_as_they_are(without_pictures, name, markdown):
    """In CommonMark a backslash before a sign takes its meaning from it."""
    history = History([HistoryRow(1, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0)])
    told = training(history, (name, "other"))
    told = told._replace(source=told.source._replace(name=name), settings={"data": name})
    report.write_report("folder", told)
    text = Path("folder/report.md").read_bytes().decode("utf-8", "surrogateescape")
    assert text.startswith(f"# Softmax regression on {markdown}\n")
    assert table_under(text, "## Where it errs")[0][0] == markdown
    assert table_under(text, "The commonest mistakes") == [["other", markdown, "1"]]
    assert table_under(text, "## Settings") == [["data", markdown]]


def test_without_matplotlib_train_works_and_says_what_is_missing(tmp_path):
    words = (*TWO, "--epochs", 1, "--report", "report")
    done = execute(without("matplotlib")(*words), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"test accuracy 0\.\d{4}", last_line(done.stdout))
    assert "no pictures: pictures need matplotlib" in done.stdout
    assert 'pip install "softmax-ext[cli]"' in done.stdout
    text = read("report/report.md")
    assert 'pip install "softmax-ext[cli]"' in text
    assert "![" not in text
    assert {path.name for path in Path("report").iterdir()} == {"report.md", "history.csv"}


# --------------------------------------------------------------------- a terminal, and Ctrl-C


def on_terminal(words, folder):
    """Run with a terminal of 120 columns for all three streams: status and what it showed."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's end of file on a terminal
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return process.returncode, shown.decode()


def as_left_by_carriage_returns(line):
    """A line as a terminal shows it: what follows a carriage return covers what was there."""
    left = ""
    for piece in line.split("\r"):
        left = piece + left[len(piece) :]
    return left.rstrip()


def test_terminal_gets_a_bar_with_loss_accuracy_and_speed(tmp_path):
    pytest.importorskip("tqdm")
    status, shown = on_terminal(command(*TWO, "--epochs", 2, "--batch-size", 1), tmp_path)
    assert status == 0
    bars = re.findall(
        r"epoch [12]/2 +\d+%\|.*?\| [\d:]+<[\d:?]+, "
        r"loss \d\.\d{4}, accuracy \d\.\d{4}, \d+ examples/s",
        shown,
    )
    assert bars
    assert any(" 100%|" in bar for bar in bars)
    # What is left in the end are the lines of a log; no bar, and no rest of one.
    left = [as_left_by_carriage_returns(line) for line in shown.split("\r\n")]
    assert not any("%|" in line for line in left)
    assert sum(bool(re.fullmatch(r"epoch [12]/2: .* examples/s", line)) for line in left) == 2
    assert re.fullmatch(r"test accuracy 0\.\d{4}", left[-2])


def test_terminal_gets_the_iteration_of_lbfgs(tmp_path):
    pytest.importorskip("tqdm")
    status, shown = on_terminal(command(*TWO, "--solver", "lbfgs", "--C", 100), tmp_path)
    assert status == 0
    assert re.search(
        r"iteration \d+ [\d:]+, loss \d\.\d{4}, gradient \d\.\de-\d\d,"
        r" test accuracy \d\.\d{4}, \d+ examples/s",
        shown,
    )
    left = [as_left_by_carriage_returns(line) for line in shown.split("\r\n")]
    lines = [line for line in left if line.startswith("iteration ")]
    assert [line.split(":")[0] for line in lines] == ["iteration 10"]
    assert re.fullmatch(r"test accuracy 0\.\d{4}", left[-2])


def test_terminal_without_tqdm_gets_lines(tmp_path):
    status, shown = on_terminal(without("tqdm")(*TWO, "--epochs", 2), tmp_path)
    assert status == 0
    assert "%|" not in shown
    assert len(re.findall(r"^epoch [12]/2: loss", shown, flags=re.M)) == 2


def test_terminal_gets_no_bar_of_a_quiet_training(tmp_path):
    status, shown = on_terminal(command(*TWO, "--epochs", 1, "--quiet"), tmp_path)
    assert status == 0
    assert re.fullmatch(r"test accuracy 0\.\d{4}\r\n", shown)


@pytest.fixture
def press_ctrl_c_at(monkeypatch):
    """Presses Ctrl-C once, at the end of an epoch."""

    def arm(epoch):
        epochs = [epoch]
        on_epoch_end = progress.Lines.on_epoch_end

        def listener(self, event):
            on_epoch_end(self, event)
            if event.epoch in epochs:
                epochs.clear()
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(progress.Lines, "on_epoch_end", listener)

    return arm


def test_interrupted_training_says_how_to_go_on_and_ends_bitwise_the_same(
    run, press_ctrl_c_at, without_pictures
):
    words = (*TWO, "--epochs", 6, "--momentum", 0.9, "--seed", 3)
    assert run(*words, "--model-out", "whole.npz")[0] == 0
    press_ctrl_c_at(3)
    status, _, err = run(*words, "--model-out", "parted name.npz")
    assert status == 130
    assert err.count("\n") == 1
    assert "parted name.checkpoint.npz" in err
    assert not os.path.exists("parted name.npz")

    program, *again = shlex.split(err.split("go on with: ")[1])
    assert program == "softmax-ext"
    status, out, _ = run(*again, "--report", "report")
    assert status == 0
    assert [line[:9] for line in out.splitlines() if line.startswith("epoch")] == [
        *("epoch 4/6", "epoch 5/6", "epoch 6/6")
    ]
    assert Path("parted name.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not os.path.exists("parted name.checkpoint.npz")
    # The history is that of the whole training.
    assert len(read("report/history.csv").splitlines()) == 7


@pytest.mark.parametrize("resume", [["--resume", "run.npz"], ["--resume=run.npz"], ["--resume"]])
def test_resumed_and_interrupted_again_the_advice_is_to_resume_once(
    run, press_ctrl_c_at, checkpoint, resume
):
    press_ctrl_c_at(4)
    status, _, err = run(*TWO, *resume, "--epochs", 9, "--checkpoint", checkpoint)
    assert status == 130
    assert err.endswith(
        "go on with: softmax-ext train --data two-by-two --epochs 9 --checkpoint run.npz"
        " --resume run.npz\n"
    )


def test_ctrl_c_from_outside_ends_with_130_and_one_line(tmp_path):
    words = command(*TWO, "--epochs", 10**6, "--checkpoint", "run.npz")
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err.endswith("--checkpoint run.npz --resume run.npz\n")
    assert os.path.exists("run.npz")


def test_ctrl_c_elsewhere_ends_with_130_too(run, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "load_source", press)
    assert run(*TWO) == (130, "", "softmax-ext train: interrupted\n")


@pytest.fixture
def checkpoint(run):
    """A kept checkpoint, after 2 epochs of 2, with the weights of the last step."""
    words = ("--epochs", 2, "--seed", 5, "--no-average", "--checkpoint", "run.npz")
    assert run(*TWO, *words)[0] == 0
    assert os.path.exists("run.npz")
    return "run.npz"


def test_resume_takes_the_settings_from_the_checkpoint_and_may_train_longer(run, checkpoint):
    status, _, _ = run(*TWO, "--resume", checkpoint, "--epochs", 4, "--model-out", "longer.npz")
    assert status == 0
    assert os.path.exists(checkpoint)  # named, so kept
    run(*TWO, "--epochs", 4, "--seed", 5, "--no-average", "--model-out", "whole.npz")
    assert Path("longer.npz").read_bytes() == Path("whole.npz").read_bytes()


def test_resume_for_fewer_epochs_than_were_trained_says_so(run, checkpoint):
    status, _, err = run(*TWO, "--resume", checkpoint, "--epochs", 1)
    assert status == 1
    assert_one_line(err, "train", "epochs: 1 came, at least 2 was wanted: run.npz is of epoch 2")


def test_resume_without_a_name_is_from_the_named_checkpoint(run, checkpoint):
    status, out, _ = run(*TWO, "--checkpoint", checkpoint, "--resume", "--epochs", 3)
    assert status == 0
    assert "epoch 3/3" in out
    assert "epoch 2/3" not in out


def test_only_the_checkpoint_that_nobody_named_is_removed(run):
    beside = "model.checkpoint.npz"
    assert run(*TWO, "--epochs", 1, "--checkpoint", beside)[0] == 0
    assert os.path.exists(beside)
    # That of another run is none of this one's business.
    assert run(*TWO, "--epochs", 1, "--checkpoint", "other.npz")[0] == 0
    assert os.path.exists(beside)
    assert run(*TWO, "--epochs", 2, "--resume")[0] == 0
    assert not os.path.exists(beside)


@pytest.mark.parametrize(
    ("option", "value", "was"),
    [
        ("--batch-size", "100", "256"),
        ("--momentum", "0.5", "0.0"),
        ("--weight-decay", "0.5", "0.0"),
        ("--seed", "6", "5"),
        ("--dtype", "float64", "float32"),
        ("--x-scale", "1", str(1 / 255)),
    ],
)
def test_resume_refuses_other_settings(run, checkpoint, option, value, was):
    status, _, err = run(*TWO, "--resume", checkpoint, option, value)
    assert status == 1
    assert_one_line(err, "train", option, checkpoint, was)
    status, _, _ = run(*TWO, "--resume", checkpoint, option, was)
    assert status == 0


def test_resume_refuses_to_average_what_was_not_to_be(run, checkpoint):
    status, _, err = run(*TWO, "--resume", checkpoint, "--average")
    assert status == 1
    assert_one_line(err, "train", "--average", checkpoint)
    assert run(*TWO, "--resume", checkpoint, "--no-average")[0] == 0


def test_resume_refuses_other_data(run, checkpoint):
    np.savez("other.npz", X=np.zeros((3000, 4), np.uint8), y=np.arange(3000) % 3)
    status, _, err = run("train", "--data", "other.npz", "--resume", checkpoint, "--epochs", 3)
    assert status == 1
    assert_one_line(err, "train", "checkpoint")


def test_resume_refuses_what_is_no_checkpoint(run, trained):
    status, _, err = run(*TWO, "--resume")
    assert status == 1
    assert_one_line(err, "train", "model.checkpoint.npz: no such checkpoint; start anew")
    status, _, err = run(*TWO, "--resume", trained[0])
    assert status == 1
    assert_one_line(err, "train", str(trained[0]))


def test_a_checkpoint_left_behind_is_not_passed_over_in_silence(run, checkpoint):
    os.rename(checkpoint, "model.checkpoint.npz")
    status, _, err = run(*TWO, "--epochs", 1)
    assert status == 0
    assert err.startswith("softmax-ext train: warning: model.checkpoint.npz, of a run that did")
    assert "--resume" in err


# ---------------------------------------------------------------------------------- evaluate


def test_evaluate_prints_recall_precision_and_accuracy(run, trained):
    path, _, trained_out = trained
    status, out, err = run("evaluate", path, "--data", "two-by-two")
    assert (status, err) == (0, "")
    assert last_line(out) == last_line(trained_out).removeprefix("test ")
    test = datasets.make_two_by_two(600, seed=1)
    labels = np.array(test.class_names)[test.labels]
    predicted = SoftmaxModel.load(path).predict(test.images)
    rows = [line.split() for line in out.splitlines()[2:5]]
    for name, n, recall, precision in rows:
        right = np.sum((labels == name) & (predicted == name))
        assert int(n) == np.sum(labels == name)
        assert recall == f"{right / np.sum(labels == name):.4f}"
        assert precision == f"{right / np.sum(predicted == name):.4f}"


def test_evaluate_as_json_and_of_the_training_part(run, trained):
    path, _, _ = trained
    status, out, _ = run(
        *("evaluate", path, "--data", "two-by-two", "--part", "train", "--format", "json")
    )
    assert status == 0
    found = json.loads(out)
    data = datasets.make_two_by_two(3000, seed=0)
    model = SoftmaxModel.load(path)
    assert found["n_examples"] == 3000
    assert found["accuracy"] == model.accuracy(data.images, data.labels)
    assert found["loss"] == model.loss(data.images, data.labels)
    confusion = np.array(found["confusion"])
    assert confusion.sum() == 3000
    assert np.trace(confusion) / 3000 == found["accuracy"]
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(data.labels))
    assert found["classes"]["dog"]["recall"] == confusion[2, 2] / confusion[2].sum()


def test_evaluate_json_has_null_where_there_is_no_number(run):
    SoftmaxModel(np.eye(2), None).save("m.npz")
    np.savez("data.npz", X=[[1.0, 0.0]], y=[0])
    status, out, _ = run("evaluate", "m.npz", "--data", "data.npz", "--format", "json")
    assert status == 0
    found = json.loads(out, parse_constant=pytest.fail)
    assert found["classes"]["1"] == {"examples": 0, "recall": None, "precision": None}
    _, out, _ = run("evaluate", "m.npz", "--data", "data.npz")
    assert out.splitlines()[3].split() == ["1", "0", "-", "-"]


def test_evaluate_matches_classes_by_name(run):
    SoftmaxModel(np.eye(2), None, classes=["dog", "cat"]).save("m.npz")
    np.savez("data.npz", X=np.eye(2), y=["dog", "cat"])  # cat is class 0 here
    _, out, _ = run("evaluate", "m.npz", "--data", "data.npz")
    assert last_line(out) == "accuracy 1.0000"


# ----------------------------------------------------------------------------------- predict


@pytest.fixture
def images():
    images = datasets.make_two_by_two(5, seed=9).images
    np.save("images.npy", images)
    return images


def test_predict_writes_csv(run, trained, images):
    status, out, err = run("predict", trained[0], "images.npy")
    assert (status, err) == (0, "")
    header, *rows = csv.reader(out.splitlines())
    assert header == ["input", "row", "label", "probability", "P(cat)", "P(chicken)", "P(dog)"]
    model = SoftmaxModel.load(trained[0])
    probabilities = model.predict_proba(images)
    assert [row[2] for row in rows] == model.predict(images).tolist()
    for number, (row, p) in enumerate(zip(rows, probabilities, strict=True)):
        assert row[:2] == ["images.npy", str(number)]
        np.testing.assert_allclose(np.array(row[4:], float), p, rtol=1e-5)
        assert row[3] == max(row[4:], key=float)


def test_predict_writes_json(run, trained, images):
    status, out, _ = run("predict", trained[0], "images.npy", "images.npy", "--format", "json")
    assert status == 0
    found = json.loads(out)
    model = SoftmaxModel.load(trained[0])
    assert [each["label"] for each in found] == model.predict(images).tolist() * 2
    assert [each["row"] for each in found] == [0, 1, 2, 3, 4] * 2
    p = model.predict_proba(images)
    assert found[4]["probabilities"] == dict(
        zip(model.classes.tolist(), p[4].tolist(), strict=True)
    )


def test_predict_json_of_nothing_and_of_nan(run, trained):
    np.save("none.npy", np.zeros((0, 4)))
    np.save("nan.npy", np.full((1, 4), np.nan))
    assert json.loads(run("predict", trained[0], "none.npy", "--format", "json")[1]) == []
    _, out, _ = run("predict", trained[0], "nan.npy", "--format", "json")
    (found,) = json.loads(out, parse_constant=pytest.fail)
    assert found["probabilities"] == {"cat": None, "chicken": None, "dog": None}


def test_predict_goes_through_more_rows_than_a_block(run, trained, monkeypatch):
    monkeypatch.setattr(use, "_BLOCK", 7)
    X = datasets.make_two_by_two(20).images
    np.save("many.npy", X)
    _, out, _ = run("predict", trained[0], "many.npy")
    _, *rows = csv.reader(out.splitlines())
    assert [int(row[1]) for row in rows] == list(range(20))
    assert [row[2] for row in rows] == SoftmaxModel.load(trained[0]).predict(X).tolist()


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 4), (1, 2, 2)])
def test_predict_takes_a_single_example(run, trained, images, shape):
    np.save("one.npy", images[3].reshape(shape))
    _, out, _ = run("predict", trained[0], "one.npy")
    _, *rows = csv.reader(out.splitlines())
    assert [row[2] for row in rows] == [SoftmaxModel.load(trained[0]).predict(images)[3]]


@pytest.mark.parametrize("name", ["some-ubyte", "any.png"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_predict_takes_idx_files(run, trained, images, name, pack):
    Path(name).write_bytes(pack(struct.pack(">I3I", 0x0803, 5, 2, 2) + images.tobytes()))
    _, out, _ = run("predict", trained[0], name)
    _, *rows = csv.reader(out.splitlines())
    assert [row[2] for row in rows] == SoftmaxModel.load(trained[0]).predict(images).tolist()


def test_predict_takes_pictures_and_scales_and_inverts_them(run, trained):
    Image = pytest.importorskip("PIL.Image")
    dog = np.array([[200, 55], [55, 200]], np.uint8)
    Image.fromarray(dog).save("dog.png")
    Image.fromarray(np.kron(255 - dog, np.ones((8, 8), np.uint8))).save("large.png")
    model = SoftmaxModel.load(trained[0])

    def probabilities(*words):
        status, out, _ = run("predict", trained[0], *words, "--format", "json")
        assert status == 0
        return list(json.loads(out)[0]["probabilities"].values())

    np.testing.assert_array_equal(probabilities("dog.png"), model.predict_proba(dog[None])[0])
    large = probabilities("large.png", "--resize", "--invert")
    np.testing.assert_allclose(large, model.predict_proba(dog[None])[0], atol=0.1)
    assert np.argmax(large) == 2
    status, _, err = run("predict", trained[0], "large.png")
    assert status == 1
    assert_one_line(
        err, "predict", "large.png: 16 x 16 pixels came, 4 (2 x 2) were wanted", "--resize"
    )


def test_predict_of_pictures_without_pillow_says_what_to_install(trained, tmp_path):
    (tmp_path / "dog.png").write_bytes(b"")
    done = execute(without("PIL")("predict", trained[0], "dog.png"), cwd=tmp_path)
    assert done.returncode == 1
    assert_one_line(done.stderr, "predict", 'pip install "softmax-ext[cli]"')


def test_predict_replaces_the_file_only_when_all_is_written(run, trained, images, monkeypatch):
    Path("labels.csv").write_text("before")
    status, out, _ = run("predict", trained[0], "images.npy", "--out", "labels.csv")
    assert (status, out) == (0, "")
    whole = read("labels.csv")
    assert len(whole.splitlines()) == 6

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(SoftmaxModel, "predict_proba", fail)
    status, _, err = run("predict", trained[0], "images.npy", "--out", "labels.csv")
    assert status == 1
    assert_one_line(err, "predict", "the disk is full")
    assert read("labels.csv") == whole
    assert sorted(os.listdir()) == ["images.npy", "labels.csv"]


def test_predict_looks_at_every_input_before_it_writes(run, trained, images):
    status, out, err = run("predict", trained[0], "images.npy", "nowhere.npy")
    assert (status, out) == (1, "")
    assert_one_line(err, "predict", "nowhere.npy: no such file")


# -------------------------------------------------------------------------- data, bench, info


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """A machine without Fashion-MNIST, and without a network."""

    asked_for = []

    def no_network(url):
        asked_for.append(url)
        raise OSError("no network")

    monkeypatch.setattr(datasets.fashion_mnist, "_SYSTEM_FOLDER", str(tmp_path / "system"))
    monkeypatch.setattr(datasets.fashion_mnist, "_open_url", no_network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SOFTMAX_EXT_DATA", raising=False)
    return asked_for


def test_data_find_lists_the_files(run, nothing_here, tmp_path):
    status, out, err = run("data")
    assert status == 1
    assert [line.split()[1:] for line in out.splitlines()] == [["not", "found"]] * 4
    assert_one_line(err, "data", "softmax-ext data download")
    for name in datasets.find_fashion_mnist():
        (tmp_path / name).write_bytes(b"")
    status, out, _ = run("data", "find", "--root", tmp_path)
    assert status == 0
    assert f"{tmp_path}/t10k-labels-idx1-ubyte\n" in out


@pytest.mark.parametrize("action", ["download", "verify", "describe"])
def test_data_without_data_or_network_fails_in_one_line(run, nothing_here, action):
    status, _, err = run("data", action)
    assert status == 1
    assert_one_line(err, "data", "train-images-idx3-ubyte")
    assert bool(nothing_here) == (action == "download")


@pytest.mark.parametrize("action", ["verify", "describe"])
def test_data_refuses_damaged_files(run, nothing_here, tmp_path, action):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes(100))
    status, _, err = run("data", action, "--root", tmp_path)
    assert status == 1
    assert_one_line(err, "data", str(tmp_path))


def test_data_verifies_and_describes_what_is_there(run):
    if None in datasets.find_fashion_mnist().values():
        pytest.skip("Fashion-MNIST is not on this machine")
    status, out, _ = run("data", "verify")
    assert status == 0
    assert "each file has the published SHA-256" in out
    status, out, _ = run("data", "describe")
    assert status == 0
    assert "ankle boot" in out
    assert "(60000, 28, 28)" in out


def test_train_without_data_or_network_fails_in_one_line(run, nothing_here):
    for words, downloads in ((["--no-download"], False), ([], True)):
        status, _, err = run("train", *words)
        assert status == 1
        assert_one_line(err, "train", "train-images-idx3-ubyte")
        assert bool(nothing_here) == downloads


def test_bench_prints_a_line_for_each_case(run, monkeypatch):
    called = []

    def call(kernels):
        called.append(kernels)
        return kernels.softmax(np.zeros((2, 2), np.float32))

    case = bench.Case("softmax", "tiny", call, flops=0, read=16, written=16)
    monkeypatch.setattr(bench, "cases", lambda: [case])
    status, out, _ = run("bench", "--kernels", "baseline")
    assert status == 0
    first, heading, row = out.splitlines()
    assert "compiled, baseline" in first
    assert heading.split() == ["kernel", "size", "ours", "NumPy", "ratio", "ceiling"]
    assert re.fullmatch(r"softmax +tiny +[\d.]+ +[\d.]+ +[\d.]+x +\d+%", row)
    assert {getattr(kernels, "isa", "NumPy") for kernels in called} == {"baseline", "NumPy"}


def test_bench_cases_run_on_both_sides_alike():
    for case in bench.cases():
        if "vocab" in case.size or "50000" in case.size:
            continue  # the same functions on more numbers
        ours, numpy = case.call(sx.kernels), case.call(sx.reference)
        if isinstance(ours, np.ndarray):
            np.testing.assert_allclose(ours, numpy, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_allclose(ours[0], numpy[0], rtol=1e-5)


def test_best_time_is_the_shortest_of_several_calls(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    calls = []
    assert bench.best_time(lambda: calls.append(1), seconds=1.0) == 2.0
    assert len(calls) == 4  # one does not count


def test_info_tells_versions_and_the_instruction_set(run):
    status, out, _ = run("info")
    assert status == 0
    found = dict(re.findall(r"^(\S+(?: \S+)*) {2,}(.+)$", out, flags=re.M))
    assert found["softmax_ext"] == sx.__version__
    assert sx.kernels.isa in out
    assert found.keys() >= {"matplotlib", "tqdm", "Fashion-MNIST"}


# --------------------------------------------------------------------- refusals, and the rest


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "COMMAND"),
        (["tran"], "tran"),
        (["train", "--epochs", "0"], "--epochs: 0 came, a whole number of at least 1"),
        (["train", "--epochs", "ten"], "--epochs: ten came, a whole number"),
        (["train", "--batch-size", "-1"], "--batch-size"),
        (["train", "--seed", "-1"], "--seed: -1 came, a whole number of at least 0"),
        (["train", "--learning-rate", "nan"], "--learning-rate: nan came, a number"),
        (["train", "--learning-rate", "-1"], "--learning-rate: -1 came, a number of at least 0"),
        (["train", "--momentum", "inf"], "--momentum"),
        (["train", "--x-scale", "1/0"], "--x-scale: 1/0 came, a number"),
        (["train", "--dtype", "float16"], "--dtype"),
        (["train", "--solver", "magic"], "--solver"),
        (["train", "--threads", "0"], "--threads"),
        (["train", "--kernels", "sse9"], "--kernels: "),
        (["train", "--checkpoint", "a.npz", "--model-out", "./a.npz"], "both are a.npz"),
        (["train", "surplus"], "surplus"),
        (["evaluate"], "MODEL"),
        (["evaluate", "m.npz", "--part", "all"], "--part"),
        (["predict", "m.npz"], "INPUT"),
        (["predict", "m.npz", "x.npy", "--format", "xml"], "--format"),
        (["data", "destroy"], "destroy"),
    ],
)
def test_bad_command_line_has_status_2_and_writes_nothing(run, words, part):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: softmax-ext")
    assert part in err.splitlines()[-1]
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "--data", "nowhere"], "nowhere: neither a file"),
        ([*TWO, "--model-out", "folder"], "folder: a folder; name a file in it"),
        ([*TWO, "--model-out", "text/m.npz"], "text"),
        ([*TWO, "--report", "text"], "text: File exists"),
        ([*TWO, "--model-out", "/proc/m.npz"], "/proc: nothing can be written there ("),
        ([*TWO, "--report", "/proc"], "/proc: nothing can be written there ("),
        (["evaluate", "nowhere.npz"], "nowhere.npz: no such file; name a model"),
        (["evaluate", "text"], "text: not an .npz file"),
        (["evaluate", "m.npz", "--data", "two-by-two"], "its 3 classes (cat, chicken, dog)"),
        (["predict", "m.npz", "nowhere.png"], "nowhere.png: no such file"),
        (["predict", "m.npz", "folder"], "folder: no such file"),
        (["predict", "m.npz", "wide.npy"], "wide.npy: shape (2, 5) came, examples of 4 numbers"),
        (["predict", "m.npz", "words.npy"], "words.npy: <U1 came, numbers"),
        (["predict", "m.npz", "text"], "text"),
        (["predict", "m.npz", "right.npy", "--out", "folder/a/b"], "folder/a/b"),
    ],
)
def test_failure_has_status_1_and_is_told_in_one_line(run, words, part):
    SoftmaxModel.zeros(4, 2).save("m.npz")
    os.mkdir("folder")
    Path("text").write_text("text")
    np.save("wide.npy", np.zeros((2, 5)))
    np.save("right.npy", np.zeros((2, 4)))
    np.save("words.npy", np.array([["a"] * 4]))
    before = sorted(os.listdir())
    status, out, err = run(*words)
    assert (status, out) == (1, "")
    assert_one_line(err, words[0], part)
    assert sorted(os.listdir()) == before
    assert os.listdir("folder") == []


@pytest.mark.parametrize("words", [["--debug", *TWO], [*TWO, "--debug"]])
def test_debug_shows_the_failure_itself(run, words, monkeypatch):
    def fail(*_, **__):
        raise ValueError("two\nlines")

    monkeypatch.setattr(sources, "load_source", fail)
    assert run(*TWO) == (1, "", "softmax-ext train: error: two lines\n")
    with pytest.raises(ValueError, match="two\nlines"):
        run(*words)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("surprise"), "ZeroDivisionError: surprise (--debug shows where)"),
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 1 TiB"), "not enough memory: Unable to allocate 1 TiB"),
        (OSError(28, "No space left on device", "x"), "x: No space left on device"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_failures_of_other_kinds_are_one_line_too(run, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(sources, "load_source", fail)
    assert run(*TWO) == (1, "", f"softmax-ext train: error: {message}\n")


@pytest.mark.parametrize("name", ["", "train", "evaluate", "predict", "data", "bench", "info"])
def test_help_comes_with_examples_that_parse(run, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run(*([name] if name else []), "--help")
    assert (status, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    if not name:
        assert all(command in out for command in ("train", "evaluate", "predict", "info"))
    examples = re.findall(rf"^  softmax-ext ({name or '[a-z]+'})( .*)?$", out, flags=re.M)
    assert examples
    for command, example in examples:
        words = shlex.split(example.split(">")[0])
        assert cli.make_parser().parse_args([command, *words]).command == command


def test_version(run):
    assert run("--version") == (0, f"softmax-ext {sx.__version__}\n", "")


def test_python_m_runs_it(tmp_path):
    done = execute(command("--version"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"softmax-ext {sx.__version__}\n")
    done = execute(command("train", "--data", "nowhere"), cwd=tmp_path)
    assert done.returncode == 1
    assert_one_line(done.stderr, "train", "nowhere")
    done = execute(command("train", "--debug", "--data", "nowhere"), cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


ODD_CLASSES = ["caf\udce9", "日本", "$x_1^2$"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_that_standard_output_cannot_encode_do_not_end_a_run(encoding, monkeypatch):
    """Bytes that are not UTF-8 come out as they went in."""
    name = "d\udce9.npz"
    X = np.eye(3)[np.arange(60) % 3]
    np.savez(name, X=X, y=np.array(ODD_CLASSES)[np.arange(60) % 3])
    np.save("X.npy", np.eye(3))

    def out_of(*words):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main([str(word) for word in words]) == 0
        return stream.buffer.getvalue()

    model = "m\udce9.npz"
    words = ("--epochs", 40, "--batch-size", 6, "--model-out", model)
    out = out_of("train", "--data", name, *words)
    assert b"d\xe9.npz: 54 examples" in out
    assert b"m\xe9.npz" in out
    assert SoftmaxModel.load(model).classes.tolist() == sorted(ODD_CLASSES)

    japanese = "日本".encode(encoding, "backslashreplace")
    for out in (out_of("evaluate", model, "--data", name), out_of("predict", model, "X.npy")):
        assert b"caf\xe9" in out
        assert japanese in out
    found = json.loads(out_of("predict", model, "X.npy", "--format", "json").decode(encoding))
    assert [each["label"] for each in found] == ODD_CLASSES
    found = json.loads(out_of("evaluate", model, "--data", name, "--format", "json"))
    assert list(found["classes"]) == sorted(ODD_CLASSES)

    out_of("predict", model, "X.npy", "--out", "out.csv")
    rows = csv.reader(Path("out.csv").read_bytes().decode("utf-8", "surrogateescape").splitlines())
    assert [row[2] for row in rows][1:] == ODD_CLASSES


def test_bool_labels_with_names(run):
    y = np.arange(40) % 2 == 0
    X = np.column_stack([y, ~y])[:, np.newaxis] * 1.0  # images: their labels are in the report
    np.savez("data.npz", X=X, y=y, class_names=["ill", "healthy"])
    assert run("train", "--data", "data.npz", "--batch-size", 4, "--report", "report")[0] == 0
    assert last_line(run("evaluate", "model.npz", "--data", "data.npz")[1]) == "accuracy 1.0000"


def test_json_has_text_as_it_is_where_it_can(run):
    SoftmaxModel(np.eye(2), None, classes=["日本", "é"]).save("m.npz")
    np.save("X.npy", np.eye(2))
    assert '"label": "日本"' in run("predict", "m.npz", "X.npy", "--format", "json")[1]


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("SOFTMAX_EXT_ISA", "sse9", "baseline"),
        ("SOFTMAX_EXT_NUM_THREADS", "none", "a whole number of at least 1"),
    ],
)
def test_a_bad_variable_of_the_environment_is_one_line(name, value, wanted, tmp_path):
    script = tmp_path / "softmax-ext"  # as pip makes it
    script.write_text("import sys\nfrom softmax_ext.cli import main\nsys.exit(main())\n")
    environment = {**os.environ, name: value}
    for words in (command("--version"), [sys.executable, str(script), "info"]):
        done = execute(words, env=environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"softmax-ext: error: environment variable {name}: ")
        assert done.stderr.count("\n") == 1
        assert value in done.stderr
        assert wanted in done.stderr


@pytest.fixture(params=["buffered", "unbuffered"])
def environment(request):
    """What Python holds back, it writes at exit, and that can fail as well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return environment | ({"PYTHONUNBUFFERED": "1"} if request.param == "unbuffered" else {})


def test_a_reader_that_goes_away_is_no_trouble(trained, tmp_path, environment):
    np.save("many.npy", np.zeros((20000, 4), np.uint8))
    with subprocess.Popen(
        command("predict", trained[0], "many.npy"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, "")


def run_to(file, environment):
    words = command(*TWO, "--epochs", 1, "--quiet")
    return subprocess.run(words, stdout=file, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_reader_that_was_never_there_is_no_trouble(environment):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as nobody:
        done = run_to(nobody, environment)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_a_failure(environment):
    with open("/dev/full", "w") as full:
        done = run_to(full, environment)
    assert done.returncode == 1
    assert_one_line(done.stderr, "train", "No space left on device")


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, softmax_ext.cli\n"
        "heavy = ('matplotlib', 'tqdm', 'PIL', 'softmax_ext.plots', 'softmax_ext.reference')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = execute([sys.executable, "-c", code])
    assert done.stdout.strip() == "[]", done.stderr
