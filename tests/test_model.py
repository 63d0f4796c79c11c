"""SoftmaxModel: prediction, labels, and the model file against every kind of damage."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import re
import stat
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softmax_ext as sx
from softmax_ext import reference
from softmax_ext.model import SoftmaxModel

CLASSES = ["cat", "chicken", "dog"]


def make_model(**options):
    rng = np.random.default_rng(1)
    W = rng.normal(size=(4, 3)).astype(np.float32)
    b = rng.normal(size=3).astype(np.float32)
    return SoftmaxModel(W, b, **{"kernels": reference, **options})


def make_rows(n=7, dtype=np.float32):
    return np.random.default_rng(2).normal(size=(n, 4)).astype(dtype)


class Recorder:
    """The reference kernels; remembers the X of each call."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        def call(X, *args, **kwargs):
            self.seen.append(X)
            return getattr(reference, name)(X, *args, **kwargs)

        return call


# Making one -------------------------------------------------------------------------------------


def test_the_model_owns_its_weights():
    W, b = np.ones((4, 3), np.float32), np.ones(3, np.float32)
    model = SoftmaxModel(W, b)
    model.W += 1
    model.b += 1
    assert (W == 1).all()
    assert (b == 1).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_of_the_weights_is_kept(order):
    W = np.asarray(np.ones((4, 3)), order=order)
    assert SoftmaxModel(W, None).W.flags[f"{order}_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("W_dtype", "b_dtype", "wanted"),
    [
        ("f4", "f4", "f4"),
        ("f4", "f8", "f8"),
        ("f8", "f4", "f8"),
        (">f4", ">f4", "f4"),
        ("i8", "f4", "f8"),
        ("?", "f4", "f8"),
        ("f4", None, "f4"),
    ],
)
def test_dtype_of_the_weights(W_dtype, b_dtype, wanted):
    b = None if b_dtype is None else np.ones(3, b_dtype)
    model = SoftmaxModel(np.ones((4, 3), W_dtype), b)
    assert model.W.dtype == np.dtype(wanted)
    assert model.W.dtype.isnative
    assert model.b is None or model.b.dtype == np.dtype(wanted)


def test_zeros():
    model = SoftmaxModel.zeros(4, 3, dtype=np.float64, classes=CLASSES, x_scale=0.5)
    assert model.W.shape == (4, 3)
    assert model.b.shape == (3,)
    assert model.W.dtype == model.b.dtype == np.float64
    assert not model.W.any()
    assert model.x_scale == 0.5
    assert model.classes.tolist() == CLASSES
    assert repr(model) == "SoftmaxModel(4 features, 3 classes, float64)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(3), None), ValueError, r"W: shape \(3,\) came, \(D, C\)"),
        ((np.ones((3, 0)), None), ValueError, r"W: shape \(3, 0\) came, .* at least 1"),
        ((np.ones((4, 3)), np.ones(4)), ValueError, r"b: shape \(4,\) came, \(3,\)"),
        ((np.ones((4, 3), np.float16), None), TypeError, "W: dtype float16 came, float32"),
        ((np.ma.ones((4, 3)), None), TypeError, "W: a masked array came"),
        ((np.ones((4, 3), complex), None), TypeError, "W: dtype complex128"),
        ((np.ones((4, 3)), np.ones(3, object)), TypeError, "b: dtype object"),
        ((np.ones((4, 3)), None, CLASSES[:2]), ValueError, r"classes: shape \(2,\) came, \(3,\)"),
        ((np.ones((4, 3)), None, ["a", "b", "a"]), ValueError, "'a' came more than once"),
        ((np.ones((4, 3)), None, [1, 2, 1]), ValueError, "1 came more than once"),
        ((np.ones((4, 3)), None, ["a", "b", 3]), TypeError, "all numbers or all strings"),
        ((np.ones((4, 3)), None, [b"a", b"b", b"c"]), TypeError, "all numbers or all strings"),
        ((np.ones((4, 3)), None, ["a", None, "b"]), TypeError, "all numbers or all strings"),
        ((np.ones((4, 2)), None, [1j, 2j]), TypeError, "all numbers or all strings"),
        ((np.ones((4, 2)), None, [0.0, np.nan]), ValueError, "nan or infinite"),
        ((np.ones((4, 3)), None, None, np.inf), ValueError, "x_scale: inf came, a finite"),
    ],
)
def test_what_is_no_model_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        SoftmaxModel(*arguments)


# Prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_methods_are_the_kernels(kernels, dtype):
    model = make_model(x_scale=0.5, kernels=kernels)
    X, y = make_rows(dtype=dtype), np.array([0, 1, 2, 2, 1, 0, 0])
    args = X, model.W, model.b
    weight = np.arange(7.0)
    assert np.array_equal(model.logits(X), kernels.linear(*args, x_scale=0.5))
    assert np.array_equal(model.predict_proba(X), kernels.predict_proba(*args, x_scale=0.5))
    assert np.array_equal(model.predict(X), kernels.predict(*args, x_scale=0.5))
    assert model.loss(X, y) == kernels.linear_cross_entropy(*args, y, x_scale=0.5)
    assert model.loss(X, y, sample_weight=weight) == kernels.linear_cross_entropy(
        *args, y, x_scale=0.5, sample_weight=weight
    )
    assert model.accuracy(X, y) == np.mean(model.predict(X) == y)


def test_default_kernels_are_looked_up_when_called(monkeypatch):
    model = make_model(kernels=None)
    recorder = Recorder()
    monkeypatch.setattr(sx, "kernels", recorder)
    model.predict(make_rows())
    assert len(recorder.seen) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_contiguous_images_are_not_copied(dtype):
    recorder = Recorder()
    model = make_model(kernels=recorder)
    images = np.arange(24, dtype=dtype).reshape(6, 2, 2)
    expected = make_model().predict_proba(images.reshape(6, 4))
    assert np.array_equal(model.predict_proba(images), expected)
    assert np.shares_memory(recorder.seen[0], images)
    assert np.array_equal(model.predict_proba(images[:, ::-1, ::-1]), expected_of_turned(images))


def expected_of_turned(images):
    return make_model().predict_proba(images.reshape(-1, 4)[:, ::-1])


def test_no_rows(kernels):
    model = make_model(kernels=kernels)
    assert model.predict(np.zeros((0, 2, 2))).shape == (0,)
    assert model.predict_proba(np.zeros((0, 4))).shape == (0, 3)
    assert np.isnan(model.accuracy(np.zeros((0, 4)), []))
    assert np.isnan(make_model(classes=CLASSES, kernels=kernels).accuracy(np.zeros((0, 4)), []))
    assert np.isnan(make_model(classes=CLASSES, kernels=kernels).loss(np.zeros((0, 4)), []))


@pytest.mark.parametrize(
    "X", [np.zeros(4), np.zeros((7, 5)), np.zeros((7, 2, 3)), np.float32(1)], ids=np.shape
)
def test_x_of_another_shape_is_refused(X):
    with pytest.raises(ValueError, match=r"X: shape .* came, \(N, 4\)"):
        make_model().predict(X)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(make_rows(), mask=False)
    with pytest.raises(TypeError, match="filled"):
        make_model().predict(masked)
    with pytest.raises(TypeError, match="filled"):
        make_model().accuracy(make_rows(), np.ma.masked_array(np.zeros(7, int), mask=False))


# Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes",
    [
        ["dog", "cat", "chicken"],
        [30, -1, 7],
        [0.5, -2.5, 3.0],
        np.array(["dog", "cat", "chicken"], object),
        np.array([3, 1, 2], ">i2"),
    ],
    ids=["strings", "integers", "floats", "objects", "big-endian"],
)
def test_class_labels_in_and_out(classes):
    plain, named = make_model(), make_model(classes=classes)
    X = make_rows()
    indices = plain.predict(X)
    labels = named.predict(X)
    assert labels.tolist() == [named.classes.tolist()[i] for i in indices]
    for y in (labels, labels.tolist(), labels.astype(object)):
        assert named.accuracy(X, y) == 1.0
        assert named.loss(X, y) == plain.loss(X, indices)
    wrong = np.roll(named.classes, 1)[indices]
    assert named.accuracy(X, wrong) == 0.0


@pytest.mark.skipif(np.__version__ < "2", reason="NumPy 1 has no StringDType")
def test_numpy_2_strings():
    strings = np.array(CLASSES, np.dtypes.StringDType())
    model = make_model(classes=strings)
    assert model.classes.tolist() == CLASSES
    assert model.accuracy(make_rows(3), model.predict(make_rows(3)).astype(strings.dtype)) == 1


def test_integers_are_indices_where_classes_are_strings():
    X, y = make_rows(), np.array([0, 1, 2, 2, 1, 0, 0], np.uint8)
    assert make_model(classes=CLASSES).accuracy(X, y) == make_model().accuracy(X, y)
    assert make_model(classes=CLASSES).loss(X, y) == make_model().loss(X, y)


@pytest.mark.parametrize("classes", [None, CLASSES, [0, 1, 2], [0.0, 1.0, 2.0]])
@pytest.mark.parametrize("dtype", [bool, object])
@pytest.mark.parametrize("y", [[0, 1, 1], [True, False, False]])
def test_bools_are_0_and_1_and_objects_what_they_are(classes, dtype, y):
    """The weights prefer class 1."""
    model = SoftmaxModel([[0.0, 1.0, -1.0]], None, classes)
    labels, right = np.array(y, dtype), [int(label) for label in y]
    X = np.ones((3, 1))
    assert model.accuracy(X, labels) == sum(right) / 3
    assert model.loss(X, labels) == reference.linear_cross_entropy(X, model.W, None, right)
    for fit in (sx.Trainer(epochs=1).fit, sx.fit_lbfgs):
        fitted = [SoftmaxModel.zeros(1, 3, classes=classes) for _ in range(2)]
        fit(fitted[0], X, labels)
        fit(fitted[1], X, np.array(right))
        np.testing.assert_array_equal(fitted[0].W, fitted[1].W)


def test_bool_classes_are_given_back_as_bools(tmp_path):
    model = SoftmaxModel([[-1.0, 1.0]], None, [True, False])
    model.save(tmp_path / "model.npz")
    loaded = SoftmaxModel.load(tmp_path / "model.npz")
    for each in (model, loaded):
        predicted = each.predict([[1.0], [-1.0]])
        assert predicted.dtype == bool
        assert predicted.tolist() == [False, True]
        for y in (predicted, predicted.astype(object), predicted.astype(int)):
            assert each.accuracy([[1.0], [-1.0]], y) == 1.0


@pytest.mark.parametrize(
    ("classes", "y", "message"),
    [
        (CLASSES, ["cat", "dog", "cow"], "label 'cow' at row 2 is not one of the classes"),
        (CLASSES, [1.0, 2.0, 0.0], "label 1.0 at row 0 is not one of the classes"),
        ([1, 2, 3], [1, 4, 2], "label 4 at row 1 is not one of the classes"),
        ([1, 2, 3], [1.0, 2.5, 2.0], "label 2.5 at row 1 is not one of the classes"),
        ([1, 2, 3], [1.0, 2.0, np.nan], "label nan at row 2 is not one of the classes"),
        ([1, 2, 3], ["1", "2", "3"], "label '1' at row 0 is not one of the classes"),
    ],
)
def test_an_unknown_label_is_named(classes, y, message):
    model = make_model(classes=classes)
    with pytest.raises(ValueError, match=message):
        model.accuracy(make_rows(3), y)
    with pytest.raises(ValueError, match=message):
        model.loss(make_rows(3), y)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1], ValueError, r"y: int64 of shape \(2,\) came, labels \(3,\)"),
        ([[0], [1], [2]], ValueError, r"y: int64 of shape \(3, 1\) came, labels \(3,\)"),
        (np.eye(3, dtype=int), ValueError, "int64 .* or floating probabilities"),
        (np.ones((3, 2)), ValueError, r"y: shape \(3, 2\) came, \(3, 3\)"),
        ([0.0, 1.0, 2.0], TypeError, "y: dtype float64 came, integer labels"),
        (["a", "b", "c"], TypeError, "y: dtype <U1 came, integer labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, error, message):
    for call in (make_model().accuracy, make_model().loss):
        with pytest.raises(error, match=message):
            call(make_rows(3), y)


@pytest.mark.parametrize("y", [[b"a", b"b"], [None, None], [1j, 2j]])
def test_labels_that_are_neither_numbers_nor_strings_are_refused(y):
    with pytest.raises(TypeError, match="came, class labels, numbers or strings, were wanted"):
        make_model(classes=[0, 1, 2]).accuracy(make_rows(2), y)


def test_ignored_labels_do_not_count():
    model, X = make_model(), make_rows(3)
    y = model.predict(X)
    y[0] = (y[0] + 1) % 3
    assert model.accuracy(X, y) == 2 / 3
    y[0] = -100
    assert model.accuracy(X, y) == 1.0
    assert np.isnan(model.accuracy(X, np.full(3, -100)))


def test_probabilities_as_labels():
    model, X = make_model(), make_rows()
    soft = np.full((7, 3), 0.25)
    soft[np.arange(7), model.predict(X)] = 0.5
    assert model.accuracy(X, soft) == 1.0
    assert model.loss(X, soft) == reference.linear_cross_entropy(X, model.W, model.b, soft)


# The file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "classes",
    [None, CLASSES, ["Ä", "犬", "🐈"], [3, 1, 2], [0.5, 1.5, -2.0], np.array([1, 2, 3], ">u2")],
    ids=["none", "strings", "unicode", "integers", "floats", "big-endian"],
)
def test_saved_is_loaded(tmp_path, dtype, order, bias, classes):
    rng = np.random.default_rng(3)
    W = np.asarray(rng.normal(size=(4, 3)).astype(dtype), order=order)
    model = SoftmaxModel(W, rng.normal(size=3).astype(dtype) if bias else None, classes, 1 / 255)
    model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]

    loaded = SoftmaxModel.load(tmp_path / "model", kernels=reference)
    assert_same_model(loaded, model)
    assert loaded.W.flags[f"{order}_CONTIGUOUS"]
    assert loaded.W.flags.writeable
    assert loaded.kernels is reference


def assert_same_model(a, b):
    assert a.W.tobytes() == b.W.tobytes()
    assert a.W.dtype == b.W.dtype
    assert (a.b is None) == (b.b is None)
    assert a.b is None or a.b.tobytes() == b.b.tobytes()
    assert (a.classes is None) == (b.classes is None)
    assert a.classes is None or a.classes.tolist() == b.classes.tolist()
    assert a.classes is None or a.classes.dtype == b.classes.dtype
    assert a.x_scale == b.x_scale


def test_the_file_is_a_plain_npz(tmp_path):
    model = make_model(classes=CLASSES, x_scale=0.5)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert set(file) == {"format", "format_version", "W", "b", "classes", "x_scale", "sha256"}
        assert file["format"] == "softmax_ext model"
        assert file["format_version"] == 1
        assert np.array_equal(file["W"], model.W)
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_the_same_model_is_the_same_file(tmp_path):
    make_model().save(tmp_path / "a")
    make_model().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_has_ordinary_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        make_model().save(tmp_path / "model.npz")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat(tmp_path / "model.npz").st_mode) == 0o640


def test_saving_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link.npz", tmp_path / "folder" / "model.npz"
    link.symlink_to(target)
    make_model().save(link)
    assert link.is_symlink()
    assert_same_model(SoftmaxModel.load(target), make_model())


@pytest.mark.parametrize("name", ["W", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_not_saved(tmp_path, name, value):
    model = make_model()
    getattr(model, name).flat[1] = value
    with pytest.raises(ValueError, match="nan or infinite"):
        model.save(tmp_path / "model.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "model.npz"
    make_model().save(path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "open":
        monkeypatch.setattr(np.lib.format, "write_array", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        make_model(x_scale=2.0).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.npz"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.npz"
    make_model().save(path)
    before = path.read_bytes()
    program = """
        import errno, resource, sys
        import numpy as np
        from softmax_ext.model import SoftmaxModel

        # A write beyond this size fails half-way, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            SoftmaxModel(np.ones((100, 100)), None).save(sys.argv[1])
        except OSError as error:
            sys.exit(0 if error.errno == errno.EFBIG else 2)
        sys.exit(3)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), path], check=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.npz"]


def test_the_order_of_an_atomic_write(tmp_path, monkeypatch):
    """Edge case 145: the content is on the disk before the name, and then the name is."""
    log = []
    fsync, replace = os.fsync, os.replace

    def log_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        log.append("fsync folder" if is_folder else f"fsync {os.fstat(descriptor).st_size}")
        fsync(descriptor)

    def log_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        log.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(os, "replace", log_replace)
    make_model().save(tmp_path / "model.npz")
    size = os.stat(tmp_path / "model.npz").st_size
    assert log == [f"fsync {size}", "replace", "fsync folder"]


def test_a_name_of_bytes_is_told_as_text(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"")
    with pytest.raises(sx.ModelFormatError, match=f"^{path}: not an"):
        SoftmaxModel.load(os.fsencode(path))


def test_missing_files_and_folders_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        SoftmaxModel.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        SoftmaxModel.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        make_model().save(tmp_path / "none" / "model.npz")


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(sx.ModelFormatError, match="not a regular file"):
        SoftmaxModel.load(tmp_path / "fifo")


# Damaged and hostile files ----------------------------------------------------------------------


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version=(1, 0))
    return file.getvalue()


def npy_header(descr, shape, fortran_order=False):
    header = {"descr": descr, "fortran_order": fortran_order, "shape": shape}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def entries_of(**changes):
    """Return the entries of a good model file, as bytes, with changes; None leaves one out."""
    entries = {
        "format": npy("softmax_ext model"),
        "format_version": npy(1),
        "W": npy(np.ones((4, 3), np.float32)),
        "x_scale": npy(1.0),
        **changes,
    }
    return {name: data for name, data in entries.items() if data is not None}


def zipped(entries, compression=zipfile.ZIP_STORED):
    """Return a file with the right digest, so that it is refused for its content or not at all."""
    entries = list(entries.items() if isinstance(entries, dict) else entries)
    digest = hashlib.sha256(b"".join(f"{name}\n".encode() + data for name, data in entries))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in [*entries, ("sha256", npy(digest.hexdigest()))]:
            if f"{name}.npy" in archive.namelist():
                with pytest.warns(UserWarning, match="Duplicate"):
                    archive.writestr(f"{name}.npy", data)
            else:
                archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def load_bytes(folder, data):
    path = folder / "model.npz"
    path.write_bytes(data)
    return SoftmaxModel.load(path)


def assert_refused(folder, data, message, peak_bytes=None):
    """Refused, with the file's name and the reason, and without using much memory."""
    path = folder / "model.npz"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(sx.ModelFormatError) as caught:
            SoftmaxModel.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    name, _, reason = str(caught.value).partition(": ")
    assert name == str(path)
    assert re.search(message, reason), reason
    # Imports and zipfile's own structures are the constant.
    assert peak < 3 * len(data) + 4_000_000 if peak_bytes is None else peak < peak_bytes


def test_a_file_made_elsewhere_is_read(tmp_path):
    """What follows are changes of this one, so it must be sound itself."""
    model = load_bytes(tmp_path, zipped(entries_of()))
    assert model.W.tolist() == np.ones((4, 3)).tolist()
    big = load_bytes(tmp_path, zipped(entries_of(W=npy(np.full((4, 3), 2.0, ">f8")))))
    assert big.W.tolist() == np.full((4, 3), 2.0).tolist()
    assert big.W.dtype == np.float64


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_138_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.empty((4, 3), object)
    objects[...] = Bomb()
    file = io.BytesIO()
    np.lib.format.write_array(file, objects, version=(1, 0), allow_pickle=True)
    assert_refused(tmp_path, zipped(entries_of(W=file.getvalue())), "header that is not understood")
    assert_refused(tmp_path, pickle.dumps(Bomb()), "not an .npz file")
    assert not (tmp_path / "executed").exists()


def test_139_compressed_entries_are_refused(tmp_path):
    bomb = npy_header("<f4", (1 << 20, 3)) + bytes(3 << 22)
    data = zipped(entries_of(W=bomb), zipfile.ZIP_DEFLATED)
    assert len(data) < 1 << 15
    assert_refused(tmp_path, data, "compressed")


@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("<f4", (1 << 36, 1)),
        ("<f4", (1 << 31, 1 << 31)),
        ("<f4", (1 << 59, 1 << 59)),
        ("<f4", (4, 4)),
        ("<f4", (4, 2)),
        ("<f4", (-4, -3)),
        ("<f4", (True, 12)),
        ("<f8", (4, 3)),
        ("<f3", (4, 3)),
        ("<U0", (1 << 40, 3)),
        ("<U999999999", (4, 3)),
        ("|V4", (4, 3)),
        ("<c8", (4, 3)),
        ("<i4", (4, 3)),
        ([("a", "<f4")], (4, 3)),
        (("<f4", (3,)), (4,)),
    ],
    ids=str,
)
def test_140_headers_are_held_against_the_size(tmp_path, descr, shape):
    entry = npy_header(descr, shape) + bytes(48)
    assert_refused(tmp_path, zipped(entries_of(W=entry)), r"W\.npy")


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x93NUMPY\1",
        b"\x93NUMPY\1\0\xff\xff{",
        b"\x93NUMPY\3\0\x10\0\0\0" + bytes(64),
        npy(np.ones((4, 3), np.float32))[:-1],
        npy(np.ones((4, 3), np.float32)) + b"\0",
        npy_header("<U0", (1 << 40, 3)),
        npy_header("<f4", (4, 3)).replace(b"(4, 3)", b"(4**1)") + bytes(48),
        npy_header("<f4", (4, 3)).replace(b"False", b"print") + bytes(48),
        b"\x93NUMPY\1\0\x00\x20" + b"(" * 0x2000 + bytes(48),
    ],
)
def test_140_broken_entries(tmp_path, entry):
    assert_refused(tmp_path, zipped(entries_of(classes=entry)), r"classes\.npy|zero")


def test_141_truncations_are_refused(tmp_path):
    data = zipped(entries_of())
    for size in [*range(0, len(data) - 100, 5), *range(len(data) - 100, len(data))]:
        (tmp_path / "model.npz").write_bytes(data[:size])
        with pytest.raises(sx.ModelFormatError):
            SoftmaxModel.load(tmp_path / "model.npz")


def saved_bytes(folder):
    model = make_model(classes=CLASSES)
    model.save(folder / "model.npz")
    return model, (folder / "model.npz").read_bytes()


def assert_refused_or_same(folder, model, data):
    try:
        loaded = load_bytes(folder, data)
    except sx.ModelFormatError:
        return
    assert_same_model(loaded, model)


def test_142_a_flipped_bit_in_every_byte(tmp_path):
    model, data = saved_bytes(tmp_path)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert_refused_or_same(tmp_path, model, damaged)


@settings(max_examples=200)
@given(data=st.data())
def test_142_random_damage(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    model, sound = saved_bytes(folder)
    damaged = bytearray(sound)
    places = st.integers(0, len(sound) - 1)
    for position in data.draw(st.lists(places, max_size=4), label="positions"):
        damaged[position] ^= data.draw(st.integers(1, 255), label="flipped bits")
    cut, end = sorted(data.draw(st.tuples(places, places), label="cut"))
    how = data.draw(st.sampled_from(["as it is", "cut out", "doubled", "zeroed"]))
    if how == "cut out":
        del damaged[cut:end]
    elif how == "doubled":
        damaged[cut:cut] = damaged[cut:end]
    elif how == "zeroed":
        damaged[cut:end] = bytes(end - cut)
    assert_refused_or_same(folder, model, damaged)


def test_142_a_wrong_digest_is_refused(tmp_path):
    sound = zipped(entries_of())
    other = zipped(entries_of(x_scale=npy(2.0)))
    with (
        zipfile.ZipFile(io.BytesIO(sound)) as archive,
        zipfile.ZipFile(io.BytesIO(other)) as donor,
    ):
        entries = {name: archive.read(name) for name in archive.namelist()}
        entries["sha256.npy"] = donor.read("sha256.npy")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    assert_refused(tmp_path, file.getvalue(), "does not match its SHA-256")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W": npy(np.full((4, 3), np.nan, np.float32))}, "nan or infinite"),
        ({"b": npy(np.array([1, 2, np.inf], np.float32))}, "nan or infinite"),
        ({"W": npy(np.ones(3, np.float32))}, r"W: shape \(3,\)"),
        ({"W": npy(np.ones((3, 0), np.float32))}, r"W: shape \(3, 0\)"),
        ({"W": npy(np.ones((4, 3), np.float16))}, "W: dtype float16"),
        ({"b": npy(np.ones(4, np.float32))}, r"b: shape \(4,\)"),
        ({"x_scale": npy([1.0])}, r"x_scale: shape \(1,\)"),
        ({"x_scale": npy(np.nan)}, "x_scale: nan"),
        ({"x_scale": npy(1)}, "x_scale.npy has the dtype '<i8'"),
        ({"classes": npy(["a", "b"])}, r"classes: shape \(2,\)"),
        ({"classes": npy(["a", "b", "a"])}, "'a' came more than once"),
        ({"classes": npy([0.0, 1.0, np.nan])}, "nan or infinite"),
        ({"classes": npy_header("<U1", (3,)) + b"\xff" * 12}, "not text"),
        ({"classes": npy_header("|b1", (3,)) + b"\0\1\2"}, "neither true nor false"),
        (
            {"format_version": npy(2), "new": npy(1)},
            "format version 2; this release reads version 1",
        ),
        ({"format_version": npy([1, 1])}, "not a softmax_ext model file"),
        ({"format": npy("a sandwich")}, "a a sandwich file, not a softmax_ext model file"),
        ({"format": npy("x" * 10_000)}, "x{80} file"),
        ({"format": npy(["softmax_ext model"])}, "not a softmax_ext model file"),
        ({"format": None}, "not a softmax_ext model file"),
        ({"format_version": None}, "not a softmax_ext model file"),
        ({"W": None}, "the entry 'W' is missing"),
        ({"x_scale": None}, "the entry 'x_scale' is missing"),
        ({"V": npy(1.0)}, "unknown entry 'V.npy'"),
        ({"../W": npy(1.0)}, "unknown entry '../W.npy'"),  # edge case 144
        ({"/etc/W": npy(1.0)}, "unknown entry '/etc/W.npy'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_143_144_what_does_not_belong_is_refused(tmp_path, changes, message):
    assert_refused(tmp_path, zipped(entries_of(**changes)), message)


def test_143_an_npz_of_somebody_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", W=np.ones((4, 3)), b=np.ones(3))
    with pytest.raises(sx.ModelFormatError):
        SoftmaxModel.load(tmp_path / "other.npz")


def test_143_entries_twice_are_refused(tmp_path):
    entries = [*entries_of().items(), ("W", npy(np.zeros((4, 3), np.float32)))]
    assert_refused(tmp_path, zipped(entries), "two entries of the same name")


def test_143_overlapping_entries_are_refused(tmp_path):
    """Many names for one stretch of the file would need more memory than it has bytes."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("b.npy", npy(np.ones(1000, np.float32)))
    local = inner.getvalue()[: archive.start_dir]
    W = npy_header("<f4", (2, 1000)) + local.ljust(8000, b"\0")
    entries = entries_of(W=W)
    digest = hashlib.sha256(
        b"".join(f"{name}\n".encode() + data for name, data in entries.items())
        + b"b\n" + local[-(4000 + 128) :]
    )  # fmt: skip
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        for name, data in {**entries, "sha256": npy(digest.hexdigest())}.items():
            archive.writestr(f"{name}.npy", data)
    # A record for the b inside W, and one more entry in the record at the end.
    record = bytearray(inner.getvalue()[len(local) : -22])
    record[42:46] = struct.pack("<L", outer.getvalue().index(local))
    end = list(struct.unpack("<4s4H2LH", outer.getvalue()[-22:]))
    end[3:6] = end[3] + 1, end[4] + 1, end[5] + len(record)
    data = outer.getvalue()[:-22] + record + struct.pack("<4s4H2LH", *end)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.getinfo("b.npy").file_size == 4128
    assert_refused(tmp_path, data, "the entries are larger than the file")


def test_143_sizes_beyond_the_file_are_refused(tmp_path):
    data = bytearray(zipped(entries_of()))
    start = data.index(b"PK\1\2")
    data[start + 20 : start + 28] = struct.pack("<2L", 1 << 31, 1 << 31)
    assert_refused(tmp_path, data, "format.npy' does not lie within the file")


@pytest.mark.parametrize("zip64", [False, True])
def test_143_a_huge_table_of_contents_is_refused(tmp_path, zip64):
    """zipfile makes an object of every 46 bytes of it."""
    n = 30_000
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", *([0] * 16))
    directory = record * n
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    # The Zip64 record has the last word.
    count, size = (0, 0) if zip64 else (n, len(directory))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, 0, 0)
    data = directory + (end64 + locator if zip64 else b"") + end
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.infolist()) == n
    assert_refused(tmp_path, data, "table of contents", peak_bytes=2_000_000)


def test_143_encrypted_entries_are_refused(tmp_path):
    data = bytearray(zipped(entries_of()))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert_refused(tmp_path, data, "not a sound .npz file")
