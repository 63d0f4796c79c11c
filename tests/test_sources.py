"""What --data may name, and what is refused."""

from __future__ import annotations

import io
import itertools
import os
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from softmax_ext import datasets
from softmax_ext.cli.sources import Part, Source, load_source, open_array
from softmax_ext.errors import DataFormatError


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_idx(path, array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    with open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def test_two_by_two_trains_and_tests_on_different_images():
    source = load_source("two-by-two")
    assert source.class_names == ("cat", "chicken", "dog")
    assert source.classes.tolist() == ["cat", "chicken", "dog"]
    np.testing.assert_array_equal(source.train.X, datasets.make_two_by_two(3000, seed=0).images)
    np.testing.assert_array_equal(source.test.y, datasets.make_two_by_two(600, seed=1).labels)
    assert source.with_test() is source


def test_fashion_mnist_is_looked_for_in_root(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"nonsense")
    with pytest.raises(DataFormatError, match="train-images"):
        load_source("fashion-mnist", root=str(tmp_path), download=False)


@pytest.mark.parametrize("names", ["train_images train_labels", "x_train y_train", "X y"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_one_part(names, save, rng):
    images, labels = names.split()
    X = rng.integers(256, size=(10, 3, 2), dtype=np.uint8)
    y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    save("data.npz", **{images: X, labels: y})
    source = load_source("data.npz")
    np.testing.assert_array_equal(source.train.X, X)
    np.testing.assert_array_equal(source.train.y, y)
    assert source.test is None
    assert source.class_names == ("0", "1", "2")
    assert source.classes is None


@pytest.mark.parametrize(
    "names",
    [
        "train_images train_labels test_images test_labels",
        "x_train y_train x_test y_test",
        "X y X_test y_test",
    ],
)
def test_npz_of_two_parts_with_class_names(names):
    arrays = (np.zeros((3, 2)), np.array([0, 1, 1]), np.ones((2, 2)), np.array([2, 0]))
    named = dict(zip(names.split(), arrays, strict=True))
    np.savez("data.npz", **named, class_names=["a", "b", "c"])
    source = load_source("data.npz")
    np.testing.assert_array_equal(source.test.X, np.ones((2, 2)))
    np.testing.assert_array_equal(source.test.y, [2, 0])
    assert source.class_names == ("a", "b", "c")
    assert source.classes.tolist() == ["a", "b", "c"]


def test_npy_and_labels_are_mapped_not_read():
    np.save("X.npy", np.arange(8.0).reshape(4, 2))
    np.save("y.npy", np.array(["dog", "cat", "dog", "cat"]))
    source = load_source("X.npy", labels="y.npy")
    assert isinstance(source.train.X, np.memmap)
    np.testing.assert_array_equal(source.train.y, [1, 0, 1, 0])
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([7, 3, 3, 9], np.uint8), np.array([3, 7, 9], np.uint8)),
        (np.array([-1, 1, 1, -1], np.int64), np.array([-1, 1], np.int64)),
        (np.array([True, False, False, True]), np.array([False, True])),
        (np.array(["2", "1", "0", "0"]), np.array(["0", "1", "2"])),
        (np.array([b"cat", b"\xe9", b"cat", b"cat"]), np.array(["cat", "\udce9"])),
        (np.array([2, 1, 0, 0]), None),
    ],
)
def test_labels_keep_their_type(labels, classes):
    np.save("X.npy", np.zeros((4, 2)))
    np.save("y.npy", labels)
    np.savez("data.npz", X=np.zeros((4, 2)), y=labels)
    for source in (load_source("X.npy", labels="y.npy"), load_source("data.npz")):
        np.testing.assert_array_equal(source.train.y, np.unique(labels, return_inverse=True)[1])
        if classes is None:
            assert source.classes is None
        else:
            np.testing.assert_array_equal(source.classes, classes, strict=True)
        names = np.arange(3) if classes is None else classes
        assert source.class_names == tuple(map(str, names.tolist()))


def test_names_that_are_bytes_become_text():
    np.savez("data.npz", X=np.zeros((2, 2)), y=[1, 0], class_names=[b"caf\xc3\xa9", b"caf\xe9"])
    assert load_source("data.npz").class_names == ("café", "caf\udce9")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_folder_of_idx_files(packed, dotted, tmp_path, rng):
    import gzip

    X, y = rng.integers(256, size=(6, 2, 2)), np.array([0, 1, 0, 1, 0, 1])
    for name, array in (
        ("train-images-idx3-ubyte", X),
        ("train-labels-idx1-ubyte", y),
        ("t10k-images-idx3-ubyte", X[:2]),
        ("t10k-labels-idx1-ubyte", y[:2]),
    ):
        if dotted:
            os.mkdir(name)  # as Kaggle's copy has it
            name = name.replace("-idx", ".idx")
        write_idx(name, array)
        if packed:
            data = gzip.compress((tmp_path / name).read_bytes())
            (tmp_path / f"{name}.gz").write_bytes(data)
            (tmp_path / name).unlink()
    source = load_source(str(tmp_path))
    np.testing.assert_array_equal(source.train.X, X)
    np.testing.assert_array_equal(source.test.y, y[:2])


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_other_names(packed, tmp_path, rng):
    import gzip

    X, y = rng.integers(256, size=(6, 2, 2)), np.array([3, 5, 3, 5, 3, 5])
    for name, array in (("examples", X), ("labels.bin", y)):
        write_idx(name, array)
        if packed:
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    source = load_source("examples", labels="labels.bin")
    np.testing.assert_array_equal(source.train.X, X)
    assert source.classes.tolist() == [3, 5]
    with pytest.raises(ValueError, match="examples holds examples only; name the file of labels"):
        load_source("examples")


def test_with_test_holds_out_a_tenth_and_always_the_same():
    X = np.arange(50)[:, np.newaxis]
    source = Source("mine", Part(X, np.arange(50) % 3), None, ("0", "1", "2"), None)
    divided = source.with_test()
    assert len(divided.test.y) == 5
    both = np.concatenate([divided.train.X, divided.test.X])
    np.testing.assert_array_equal(np.sort(both, axis=0), X)
    for part in (divided.train, divided.test):
        np.testing.assert_array_equal(part.y, part.X[:, 0] % 3)
    # Not the first or the last ones, which may all be of one class.
    assert np.diff(divided.test.X[:, 0]).max() > 1
    np.testing.assert_array_equal(source.with_test().test.X, divided.test.X)


def test_with_test_needs_two_examples():
    source = Source("mine", Part(np.zeros((1, 2)), np.zeros(1, int)), None, ("0",), None)
    with pytest.raises(ValueError, match="mine: 1 examples came, at least 2"):
        source.with_test()


def test_indices_for_a_model_go_by_name_before_position():
    part = Part(np.zeros((3, 1)), np.array([0, 1, 1]))
    source = Source("mine", part, None, ("cat", "dog"), None)
    model = ("dog", "chicken", "cat")
    np.testing.assert_array_equal(source.indices_for(part, model), [2, 0, 0])
    np.testing.assert_array_equal(source.indices_for(part, ("0", "1")), [0, 1, 1])
    with pytest.raises(ValueError, match=r"mine: its 2 classes \(cat, dog\) are not the model's 3"):
        source.indices_for(part, ("0", "1", "2"))
    # Half of them are the model's, so the others are not its names in another language.
    with pytest.raises(ValueError, match=r"2 classes \(cat, dog\) are not the model's 2"):
        source.indices_for(part, ("dog", "cow"))


def save_npz(**arrays):
    np.savez("data.npz", **arrays)
    return "data.npz"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": [1.0]}, "data.npz: Z came, train_images and train_labels"),
        ({"X": np.zeros((3, 2))}, "data.npz: X came,"),
        ({"X": np.zeros((3, 2)), "y": [0, 1]}, r"labels of shape \(2,\) came, \(3,\) was wanted"),
        ({"X": np.zeros(3), "y": [0, 1, 2]}, r"examples of float64 \(3,\) came, numbers"),
        ({"X": [["a"], ["b"]], "y": [0, 1]}, r"examples of <U1"),
        ({"X": np.zeros((2, 2)), "y": [0.5, 1]}, "labels of float64 came, integers, bools or"),
        (
            {"X": np.eye(2), "y": [0, 1], "X_test": np.eye(2), "y_test": ["0", "1"]},
            "labels of int64 and <U1 came,",
        ),
        (
            {"X": np.eye(2), "y": [0, -1], "X_test": np.eye(2), "y_test": np.uint64([0, 1])},
            "labels of int64 and uint64 came,",
        ),
        ({"X": np.zeros((0, 2)), "y": np.zeros(0, int)}, "holds no examples"),
        (
            {"X": np.zeros((2, 2)), "y": [0, 2], "class_names": ["a", "b"]},
            "labels came beside class_names, 0 to 1",
        ),
        (
            {"X": np.zeros((2, 2)), "y": [0, -1], "class_names": ["a", "b"]},
            "labels came beside class_names, 0 to 1",
        ),
        (
            {"X": np.zeros((1, 2)), "y": [0], "X_test": np.zeros((1, 3)), "y_test": [0]},
            r"examples of shape \(3,\) to test came, \(2,\), as to train",
        ),
    ],
)
def test_npz_that_does_not_fit_is_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        load_source(save_npz(**arrays))


def npy_header(text):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, text)
    return header.getvalue()


def test_npz_that_claims_more_than_it_holds_is_refused():
    header = npy_header({"descr": "<f8", "fortran_order": False, "shape": (1 << 35, 2)})
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("X.npy", header + bytes(100))
        archive.writestr(
            "y.npy", npy_header({"descr": "<i8", "fortran_order": False, "shape": (0,)})
        )
    with pytest.raises(DataFormatError, match="does not fit into"):
        load_source("data.npz")


def test_npz_entry_larger_than_the_file_can_unpack_to_is_refused():
    n = 1 << 35
    header = npy_header({"descr": "<f8", "fortran_order": False, "shape": (n,)})
    with zipfile.ZipFile("data.npz", "w") as archive:
        archive.writestr("X.npy", header + bytes(100))
        archive.getinfo("X.npy").file_size = len(header) + 8 * n  # a lie in the directory
    with pytest.raises(DataFormatError, match=r"X\.npy cannot be that large"):
        load_source("data.npz")


def test_npz_with_pickles_is_refused_and_runs_nothing():
    class Trap:
        def __reduce__(self):
            return os.mkdir, ("sprung",)

    np.savez("data.npz", X=np.array([Trap()], dtype=object), y=[0])
    with pytest.raises(DataFormatError, match=r"data\.npz: not a sound"):
        load_source("data.npz")
    np.save("X.npy", np.array([Trap()], dtype=object))
    np.save("y.npy", [0])
    with pytest.raises(DataFormatError, match=r"X\.npy: not a sound"):
        load_source("X.npy", labels="y.npy")
    assert not os.path.exists("sprung")


@pytest.mark.parametrize("kept", [0, 3, 50, 200, -1])
def test_damaged_files_are_refused(kept, tmp_path):
    save_npz(X=np.zeros((10, 10)), y=np.zeros(10, int))
    np.save("X.npy", np.zeros((10, 10)))
    np.save("y.npy", np.zeros(10, int))
    for name in ("data.npz", "X.npy"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:kept])
    with pytest.raises(DataFormatError, match=r"data\.npz: not a sound \.npz file"):
        load_source("data.npz")
    with pytest.raises(DataFormatError, match=r"X\.npy: not a sound \.npy file"):
        load_source("X.npy", labels="y.npy")


def test_any_damaged_header_is_refused(tmp_path):
    """Whatever byte is changed: DataFormatError, or an array of as many bytes as there are."""
    y = np.arange(20) % 2
    np.save("y.npy", y)
    data = (tmp_path / "y.npy").read_bytes()
    n_header = len(data) - y.nbytes
    n_refused = 0
    for place, value in itertools.product(range(n_header), b"\x00 '(-08\\L{\xff"):
        (tmp_path / "damaged.npy").write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
        try:
            array = open_array("damaged.npy")
        except DataFormatError:
            n_refused += 1
        else:
            assert array.tobytes() == y.tobytes()
    assert n_refused > 9 * n_header


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_of_an_npz_is_refused(save, tmp_path):
    """Whatever byte is changed, unless nobody looks at it: the date of an entry, say."""
    y = np.arange(20) % 2
    save("data.npz", X=y[:, None], y=y)
    data = (tmp_path / "data.npz").read_bytes()
    n_refused = 0
    for place, flipped in itertools.product(range(len(data)), (0x01, 0x80, 0x5A)):
        damaged = bytearray(data)
        damaged[place] ^= flipped
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            source = load_source("damaged.npz")
        except DataFormatError:
            n_refused += 1
        else:
            assert source.train.y.tolist() == y.tolist()
            assert source.train.X.tolist() == y[:, None].tolist()
    assert n_refused > len(data)


def test_npy_with_more_than_its_header_says_is_refused(tmp_path):
    np.save("X.npy", np.zeros((10, 2)))
    with open("X.npy", "ab") as file:
        file.write(bytes(16))
    with pytest.raises(DataFormatError, match=r"X\.npy: not a sound .*does not fit into 304 bytes"):
        open_array("X.npy")


def test_damaged_compressed_content_is_refused(tmp_path, rng):
    np.savez_compressed("data.npz", X=rng.random((50, 20)), y=np.zeros(50, int))
    data = bytearray((tmp_path / "data.npz").read_bytes())
    data[2000:2100] = bytes(100)
    (tmp_path / "data.npz").write_bytes(data)
    with pytest.raises(DataFormatError, match=r"data\.npz: not a sound \.npz file"):
        load_source("data.npz")


@pytest.mark.parametrize(
    ("data", "labels", "error", "message"),
    [
        ("nowhere", None, FileNotFoundError, "nowhere: neither a file, nor a folder, nor"),
        ("nowhere.npz", None, FileNotFoundError, "nowhere.npz: neither a file"),
        (
            "text.txt",
            None,
            ValueError,
            "text.txt: an unknown format came, an .npz, an .npy, an IDX file or a",
        ),
        (
            "X.npy",
            "text.txt",
            ValueError,
            "text.txt: an unknown format came, an .npy or IDX file of labels",
        ),
        ("X.npy", None, ValueError, "X.npy holds examples only; name the file of labels"),
        ("X.npy", "nowhere.npy", FileNotFoundError, "nowhere.npy"),
        ("two-by-two", "y.npy", ValueError, "--labels goes with an .npy or IDX file"),
        (".", None, FileNotFoundError, r"\.: has no train-images-idx3-ubyte"),
    ],
)
def test_names_of_nothing_are_refused(data, labels, error, message, tmp_path):
    (tmp_path / "text.txt").write_text("text")
    np.save("X.npy", np.zeros((2, 2)))
    with pytest.raises(error, match=message):
        load_source(data, labels=labels)


def test_a_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo("fifo.npz")
    os.mkfifo("fifo.npy")
    np.save("X.npy", np.zeros((2, 2)))
    for words in ("'fifo.npz'", "'fifo.npy', labels='X.npy'", "'X.npy', labels='fifo.npy'"):
        # In a process of its own, which can be stopped should it wait.
        code = f"from softmax_ext.cli.sources import load_source; load_source({words})"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert "FileNotFoundError: fifo.np" in done.stderr
