"""Fashion-MNIST, IDX files whole and hostile, the 2 x 2 images and the minibatches.

Numbers in the names (``test_126_...``) are those of the project's table of edge cases.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import os
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_ext import datasets
from softmax_ext.datasets import (
    describe_fashion_mnist,
    find_fashion_mnist,
    load_fashion_mnist,
    make_two_by_two,
    minibatches,
    read_idx,
)
from softmax_ext.errors import DataFormatError

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_header(code: int, shape: tuple[int, ...]) -> bytes:
    """The header as the format's description gives it."""
    return bytes([0, 0, code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def idx_bytes(array: np.ndarray) -> bytes:
    """A whole IDX file, unpacked."""
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    return idx_header(IDX_CODES[array.dtype.str[1:]], array.shape) + big_endian.tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def flip_bit(content: bytes, bit: int) -> bytes:
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) * 10
RAW = idx_bytes(IMAGES)
PACKED = gzip.compress(RAW, mtime=0)


# --------------------------------------------------------------------------- IDX, whole


@pytest.mark.parametrize("name", ["array.idx", "array.idx.gz", "array.IDX.GZ"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 1, 2, 1, 3)])
@pytest.mark.parametrize("code", IDX_CODES)
def test_every_type_and_rank(tmp_path, code, shape, name):
    rng = np.random.default_rng(1)
    values = rng.integers(-100, 100, shape)
    expected = (values + 100 if code == "u1" else values * 1.25).astype(code)
    content = idx_bytes(expected)
    packed = gzip.compress(content) if name.lower().endswith("gz") else content
    array = read_idx(write(tmp_path / name, packed))
    np.testing.assert_array_equal(array, expected, strict=True)
    assert array.dtype.isnative
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned


def test_special_floats_survive_bit_for_bit(tmp_path):
    bits = np.array([0x7FC00001, 0x7F800001, 0xFF800000, 0x80000000, 1], dtype=np.uint32)
    array = read_idx(write(tmp_path / "x", idx_bytes(bits.view(np.float32))))
    np.testing.assert_array_equal(array.view(np.uint32), bits)


def test_path_may_be_a_string(tmp_path):
    np.testing.assert_array_equal(read_idx(str(write(tmp_path / "x", RAW))), IMAGES)


def test_content_longer_than_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.idx, "_PIECE", 64)
    array = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    for content in (idx_bytes(array), gzip.compress(idx_bytes(array))):
        np.testing.assert_array_equal(read_idx(write(tmp_path / "x", content)), array)


def test_content_much_longer_than_its_packed_form(tmp_path):
    array = np.zeros(5_000_000, np.uint8)
    path = write(tmp_path / "x.gz", gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(path), array)


# ---------------------------------------------------------------- IDX, broken and hostile


def test_126_gzip_cut_anywhere(tmp_path):
    for length in range(len(PACKED)):
        with pytest.raises(DataFormatError):
            read_idx(write(tmp_path / "x.gz", PACKED[:length]))


@pytest.mark.parametrize("position", range(-8, 0))
def test_127_wrong_checksum_or_length(tmp_path, position):
    content = bytearray(PACKED)
    content[position] ^= 0x10
    with pytest.raises(DataFormatError, match="damaged gzip data"):
        read_idx(write(tmp_path / "x.gz", bytes(content)))


@pytest.mark.parametrize("name", ["x.gz", "X.GZ"])
def test_128_named_gz_but_not_gzip(tmp_path, name):
    with pytest.raises(DataFormatError, match=r"named \.gz but not gzip"):
        read_idx(write(tmp_path / name, RAW))


def test_128_gzip_is_known_by_its_magic_whatever_the_name(tmp_path):
    np.testing.assert_array_equal(read_idx(write(tmp_path / "x", PACKED)), IMAGES)


def test_129_junk_behind_the_gzip_data(tmp_path):
    with pytest.raises(DataFormatError, match="data follow the end"):
        read_idx(write(tmp_path / "x.gz", PACKED + b"junk"))


@pytest.mark.parametrize(
    "tail", [b"\0", b"\0" * 512, gzip.compress(b""), PACKED], ids=["0", "0*512", "empty", "twice"]
)
def test_130_zeros_or_a_second_member_behind_the_gzip_data(tmp_path, tail):
    with pytest.raises(DataFormatError, match="data follow the end"):
        read_idx(write(tmp_path / "x.gz", PACKED + tail))


def test_130_junk_that_begins_at_the_edge_of_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.idx, "_PIECE", len(PACKED))
    with pytest.raises(DataFormatError, match="data follow the end"):
        read_idx(write(tmp_path / "x.gz", PACKED + b"\0"))


def test_130_content_split_over_two_members(tmp_path):
    halves = gzip.compress(RAW[:20]) + gzip.compress(RAW[20:])
    with pytest.raises(DataFormatError, match="data follow the end"):
        read_idx(write(tmp_path / "x.gz", halves))


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_130_empty_file(tmp_path, name):
    with pytest.raises(DataFormatError, match="the file is empty"):
        read_idx(write(tmp_path / name, b""))


def test_130_empty_content(tmp_path):
    with pytest.raises(DataFormatError, match="too early"):
        read_idx(write(tmp_path / "x.gz", gzip.compress(b"")))


def peak_of_refusal(path: Path) -> int:
    """Bytes allocated at the worst moment while a file is read and refused."""
    tracemalloc.start()
    try:
        with pytest.raises(DataFormatError):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_131_bomb_behind_a_small_header(tmp_path):
    packer = zlib.compressobj(level=1, wbits=31)
    with open(tmp_path / "x.gz", "wb") as file:
        file.write(packer.compress(idx_header(0x08, (100,))))
        for _ in range(64):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    # Of the 64 MiB, one piece of packed data and its copies may be in memory.
    assert peak_of_refusal(tmp_path / "x.gz") < 4 << 20


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
def test_131_huge_header_over_a_small_payload(tmp_path, pack):
    path = write(tmp_path / "x", pack(idx_header(0x0E, (60000, 1024)) + bytes(1000)))
    assert peak_of_refusal(path) < 4 << 20


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
@pytest.mark.parametrize(
    "magic",
    ["00000a01", "00000001", "0000ff01", "01000801", "00010801", "08010000", "1f8c0801"],
)
def test_132_wrong_magic(tmp_path, magic, pack):
    content = bytes.fromhex(magic) + (3).to_bytes(4, "big") + b"abc"
    with pytest.raises(DataFormatError, match=f"not an IDX file .*0x{magic}"):
        read_idx(write(tmp_path / "x", pack(content)))


@pytest.mark.parametrize("rank", [0, 33, 255])
def test_132_impossible_number_of_dimensions(tmp_path, rank):
    content = bytes([0, 0, 8, rank]) + (1).to_bytes(4, "big") * rank + b"a"
    with pytest.raises(DataFormatError, match=f"{rank} dimensions"):
        read_idx(write(tmp_path / "x", content))


def test_132_most_dimensions(tmp_path):
    array = read_idx(write(tmp_path / "x", idx_header(0x08, (1,) * 32) + b"a"))
    assert array.shape == (1,) * 32


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
@pytest.mark.parametrize(
    "shape",
    [
        (2**32 - 1,) * 3,
        (2**31, 2**31, 4),  # the product is 2**64: in 64 bits 0, just what the file holds
        (2**32 - 1,) * 32,
    ],
    ids=["3 dims", "2**64", "32 dims"],
)
def test_133_overflowing_dimensions(tmp_path, shape, pack):
    with pytest.raises(DataFormatError, match="not possible in a file of"):
        read_idx(write(tmp_path / "x", pack(idx_header(0x08, shape))))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2**32 - 1)])
def test_134_dimension_of_length_0(tmp_path, shape):
    with pytest.raises(DataFormatError, match="a dimension of length 0"):
        read_idx(write(tmp_path / "x", idx_header(0x08, shape)))


def test_135_content_cut_anywhere(tmp_path):
    for length in range(len(RAW)):
        for content in (RAW[:length], gzip.compress(RAW[:length])):
            with pytest.raises(DataFormatError):
                read_idx(write(tmp_path / "x", content))


def test_135_content_too_long(tmp_path):
    with pytest.raises(DataFormatError, match="not possible in a file of"):
        read_idx(write(tmp_path / "x", RAW + b"\0"))
    with pytest.raises(DataFormatError, match="longer than its header says"):
        read_idx(write(tmp_path / "x.gz", gzip.compress(RAW + b"\0")))


def test_136_fifo_does_not_hang(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    caught = []

    def attempt():
        try:
            read_idx(path)
        except OSError as error:
            caught.append(error)

    reader = threading.Thread(target=attempt, daemon=True)
    reader.start()
    reader.join(timeout=30)
    assert not reader.is_alive()
    assert "not a regular file" in str(caught[0])


def test_136_folder_and_device(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_idx(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        read_idx("/dev/zero")


def test_136_symlinks(tmp_path):
    (tmp_path / "good").symlink_to(write(tmp_path / "x", RAW))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    np.testing.assert_array_equal(read_idx(tmp_path / "good"), IMAGES)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "dangling")
    with pytest.raises(OSError, match="symbolic links"):
        read_idx(tmp_path / "loop")


@contextlib.contextmanager
def without_privileges():
    """As an ordinary user, also where the tests are run by root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_136_no_permission(tmp_path):
    path = write(tmp_path / "x", RAW)
    path.chmod(0)
    with without_privileges(), pytest.raises(PermissionError):
        read_idx(path)


@pytest.mark.parametrize("content", [RAW, PACKED], ids=["raw", "gzip"])
@pytest.mark.parametrize("change", [+5, -5])
def test_136_file_that_changes_its_length_while_read(tmp_path, monkeypatch, content, change):
    path = write(tmp_path / "x", content)
    fstat = os.fstat

    def fstat_then_change(descriptor):
        status = fstat(descriptor)
        path.write_bytes((content + bytes(5))[: len(content) + change])
        return status

    monkeypatch.setattr(os, "fstat", fstat_then_change)
    with pytest.raises(DataFormatError):
        read_idx(path)


@pytest.mark.parametrize("path", [3, None, 1.5])
def test_path_of_a_wrong_type(path):
    with pytest.raises(TypeError):
        read_idx(path)


def read_content(content: bytes, name: str = "x") -> np.ndarray:
    """`read_idx` for Hypothesis, whose examples cannot share pytest's folder."""
    with tempfile.TemporaryDirectory() as folder:
        return read_idx(write(Path(folder, name), content))


@given(bit=st.integers(0, 8 * len(PACKED) - 1), name=st.sampled_from(["x", "x.gz"]))
@settings(max_examples=300, deadline=None)
def test_flipped_bit_in_gzip_data_is_noticed_or_harmless(bit, name):
    try:
        array = read_content(flip_bit(PACKED, bit), name)
    except DataFormatError:
        return
    np.testing.assert_array_equal(array, IMAGES, strict=True)


@given(bit=st.integers(0, 8 * 16 - 1))
@settings(deadline=None)
def test_flipped_bit_in_the_header_is_noticed(bit):
    if bit // 8 == 2:
        return  # the type: uint8 may become int8, and only a checksum could tell
    with pytest.raises(DataFormatError):
        read_content(flip_bit(RAW, bit))


@given(
    content=st.one_of(
        st.binary(max_size=64),
        st.builds(
            lambda code, shape, rest: idx_header(code, tuple(shape)) + rest,
            st.sampled_from(sorted(IDX_CODES.values())),
            st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1)), max_size=4),
            st.binary(max_size=40),
        ),
    ),
    pack=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_are_what_their_header_says(content, pack):
    try:
        array = read_content(gzip.compress(content) if pack else content)
    except DataFormatError:
        return
    assert idx_bytes(array) == content


# ------------------------------------------------------------- Fashion-MNIST, in miniature

TINY = {
    "train-images-idx3-ubyte": IMAGES,
    "train-labels-idx1-ubyte": np.array([9, 0], np.uint8),
    "t10k-images-idx3-ubyte": IMAGES[:1] + 1,
    "t10k-labels-idx1-ubyte": np.array([3], np.uint8),
}
PLACES = ("root", "env", "cache", "system")


class Folders:
    """The four places, each an existing empty folder, and a data set of a few bytes."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.env = base / "env"
        self.xdg = base / "xdg"
        self.cache = self.xdg / "softmax_ext" / "fashion-mnist"
        self.system = base / "system"
        for place in PLACES:
            getattr(self, place).mkdir(parents=True)

    def fill(self, place: str, *, packed: bool = True, names=tuple(TINY)) -> None:
        for name in names:
            content = idx_bytes(TINY[name])
            if packed:
                write(getattr(self, place) / (name + ".gz"), gzip.compress(content))
            else:
                write(getattr(self, place) / name, content)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    folders = Folders(tmp_path)
    monkeypatch.setenv("SOFTMAX_EXT_DATA", str(folders.env))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folders.xdg))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.fashion_mnist, "_SYSTEM_FOLDER", str(folders.system))
    monkeypatch.setattr(datasets.fashion_mnist, "_MIRRORS", ())
    monkeypatch.setattr(
        datasets.fashion_mnist,
        "_PARTS",
        tuple(
            datasets.fashion_mnist._Part(
                name, array.shape, hashlib.sha256(idx_bytes(array)).hexdigest()
            )
            for name, array in TINY.items()
        ),
    )
    return folders


def check_tiny(data) -> None:
    for array, expected in zip(data[:4], TINY.values(), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)
        assert array.flags.c_contiguous


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "raw"])
@pytest.mark.parametrize("place", PLACES)
def test_found_in_every_place(folders, place, packed):
    folders.fill(place, packed=packed)
    check_tiny(load_fashion_mnist(folders.root, download=False))


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_order_of_the_places(folders, first):
    for place in PLACES[first:]:
        folders.fill(place)
    expected = getattr(folders, PLACES[first])
    found = find_fashion_mnist(folders.root)
    assert found == {name: str(expected / f"{name}.gz") for name in TINY}
    description = describe_fashion_mnist(folders.root)
    assert all(path in description for path in found.values())


def test_each_file_is_looked_for_by_itself(folders):
    names = tuple(TINY)
    folders.fill("root", names=names[:1])
    folders.fill("env", packed=False, names=names[1:2])
    folders.fill("system", names=names[2:3])
    found = find_fashion_mnist(folders.root)
    assert list(found.values()) == [
        str(folders.root / f"{names[0]}.gz"),
        str(folders.env / names[1]),
        str(folders.system / f"{names[2]}.gz"),
        None,
    ]
    folders.fill("cache", names=names[3:])
    check_tiny(load_fashion_mnist(folders.root, download=False))


def test_plain_file_goes_before_packed(folders):
    folders.fill("root")
    folders.fill("root", packed=False)
    found = find_fashion_mnist(folders.root)
    assert found == {name: str(folders.root / name) for name in TINY}
    used = [line.split()[-1] for line in describe_fashion_mnist(folders.root).splitlines()]
    assert set(found.values()) <= set(used)


def test_root_may_be_left_out_and_may_not_exist(folders):
    folders.fill("system")
    check_tiny(load_fashion_mnist(download=False))
    check_tiny(load_fashion_mnist(folders.root / "missing", download=False))
    check_tiny(load_fashion_mnist(str(folders.root), download=False))


def test_empty_environment_variable_is_no_place(folders, monkeypatch):
    monkeypatch.setenv("SOFTMAX_EXT_DATA", "")
    monkeypatch.chdir(folders.root)
    write(folders.root / "train-images-idx3-ubyte.gz", b"damaged")
    folders.fill("system")
    check_tiny(load_fashion_mnist(download=False))


def test_cache_is_in_the_home_folder_by_default(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache = tmp_path / "home" / ".cache" / "softmax_ext" / "fashion-mnist"
    cache.mkdir(parents=True)
    folders.fill("root")
    for path in folders.root.iterdir():
        path.rename(cache / path.name)
    for value in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        check_tiny(load_fashion_mnist(download=False))


def test_user_without_a_home(folders, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does without one
    with pytest.raises(OSError, match=r"no home folder.*set XDG_CACHE_HOME"):
        load_fashion_mnist()
    folders.fill("root")
    check_tiny(load_fashion_mnist(folders.root))


def test_not_found_names_every_place_and_what_to_do(folders):
    with pytest.raises(FileNotFoundError) as caught:
        load_fashion_mnist(folders.root, download=False)
    message = str(caught.value)
    for place in PLACES:
        assert str(getattr(folders, place)) in message
    assert "train-images-idx3-ubyte" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "SOFTMAX_EXT_DATA" in message
    assert "root=" in message


DAMAGES = {
    "cut": lambda content: gzip.compress(content)[:-3],
    "not gzip": lambda content: content,
    "137 tampered": lambda content: gzip.compress(flip_bit(content, 8 * len(content) - 3)),
    "134 other number": lambda content: gzip.compress(idx_bytes(IMAGES[:1])),
    "134 other image size": lambda content: gzip.compress(idx_bytes(IMAGES.reshape(2, 4, 3))),
    "132 labels for images": lambda content: gzip.compress(idx_bytes(IMAGES[0, 0, :2])),
    "other dtype": lambda content: gzip.compress(idx_bytes(IMAGES.astype(np.int8))),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["root", "env"])
def test_damaged_file_in_an_explicit_place_is_an_error(folders, place, damage):
    folders.fill("system")
    content = DAMAGES[damage](idx_bytes(IMAGES))
    path = write(getattr(folders, place) / "train-images-idx3-ubyte.gz", content)
    for function in (load_fashion_mnist, describe_fashion_mnist):
        with pytest.raises(DataFormatError) as caught:
            function(folders.root, download=True)
        assert str(path) in str(caught.value)


def test_134_wrong_array_is_refused_by_name(folders):
    folders.fill("root")
    for array, found in ((IMAGES[:1], "uint8 (1, 3, 4)"), (IMAGES.view(np.int8), "int8 (2, 3, 4)")):
        write(folders.root / "train-images-idx3-ubyte", idx_bytes(array))
        with pytest.raises(DataFormatError) as caught:
            load_fashion_mnist(folders.root)
        assert f"{found} came, uint8 (2, 3, 4) was wanted" in str(caught.value)


def test_134_label_above_9(folders):
    folders.fill("root")
    labels = idx_bytes(np.array([9, 10], np.uint8))
    write(folders.root / "train-labels-idx1-ubyte.gz", gzip.compress(labels))
    with pytest.raises(DataFormatError, match="SHA-256"):
        load_fashion_mnist(folders.root)


def test_137_any_flipped_bit_in_a_plain_file_is_noticed(folders):
    folders.fill("root", packed=False)
    for bit in range(8 * len(RAW)):
        write(folders.root / "train-images-idx3-ubyte", flip_bit(RAW, bit))
        with pytest.raises(DataFormatError):
            load_fashion_mnist(folders.root)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("function", [load_fashion_mnist, describe_fashion_mnist])
def test_damaged_file_in_the_cache_is_passed_over_with_a_warning(folders, damage, function):
    folders.fill("system")
    content = DAMAGES[damage](idx_bytes(IMAGES))
    path = write(folders.cache / "train-images-idx3-ubyte.gz", content)
    with pytest.warns(UserWarning, match="passed over") as record:
        function(folders.root, download=False)
    (warning,) = record
    assert str(path) in str(warning.message)
    assert warning.filename == __file__


def test_the_names_of_other_mirrors_are_found(folders):
    """Beside folders of the usual names, as one of them has it."""
    folders.fill("root", packed=False)
    for name in TINY:
        (folders.root / name).rename(folders.root / name.replace("-idx", ".idx"))
        (folders.root / name).mkdir()
    check_tiny(load_fashion_mnist(folders.root, download=False))
    found = find_fashion_mnist(folders.root)
    assert found == {name: str(folders.root / name.replace("-idx", ".idx")) for name in TINY}


def test_root_that_is_no_folder(folders):
    folders.fill("system")
    with pytest.raises(NotADirectoryError):
        load_fashion_mnist(write(folders.root / "file", b""), download=False)


def test_136_unreadable_file_in_root_is_an_error(folders):
    folders.fill("system")
    (folders.root / "train-images-idx3-ubyte").mkdir()
    with pytest.raises(IsADirectoryError):
        load_fashion_mnist(folders.root, download=False)


def test_description(folders):
    folders.fill("root")
    description = describe_fashion_mnist(folders.root)
    assert "uint8 (2, 3, 4)" in description
    lines = description.splitlines()
    counts = {tuple(line.split()[:-2]): line.split()[-2:] for line in lines[-10:]}
    assert counts["9", "ankle", "boot"] == ["1", "0"]
    assert counts["0", "t-shirt"] == ["1", "0"]
    assert counts["3", "dress"] == ["0", "1"]
    assert counts["8", "bag"] == ["0", "0"]


# ------------------------------------------------------------------------------- download


class Site:
    """An HTTP server on this machine; ``answers`` maps a path to what the handler does."""

    def __init__(self) -> None:
        self.answers = {}
        self.requests = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests.append(self.path)
                with contextlib.suppress(ConnectionError):  # a client that has heard enough
                    site.answers.get(self.path, Site.missing)(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @staticmethod
    def missing(handler) -> None:
        handler.send_error(404)

    @staticmethod
    def body(content: bytes, *, length: int | None = -1):
        """Answer with ``content``, announcing its length, another or None."""

        def answer(handler):
            handler.send_response(200)
            if length is not None:
                handler.send_header("Content-Length", str(len(content) if length < 0 else length))
            handler.end_headers()
            handler.wfile.write(content)

        return answer

    @staticmethod
    def redirect(target: str):
        def answer(handler):
            handler.send_response(302)
            handler.send_header("Location", target)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer

    def serve_tiny(self, prefix: str = "/", **options) -> None:
        for name, array in TINY.items():
            content = gzip.compress(idx_bytes(array))
            self.answers[f"{prefix}{name}.gz"] = self.body(content, **options)


@pytest.fixture
def site(folders, monkeypatch):
    site = Site()
    monkeypatch.setattr(datasets.fashion_mnist, "_MIRRORS", (site.url + "/",))
    # pytest's standard error is no terminal, but a developer may run with -s.
    monkeypatch.setitem(sys.modules, "tqdm", None)
    yield site
    site.close()


def cached(folders) -> list[str]:
    return sorted(path.name for path in folders.cache.iterdir())


def check_download_fails(folders, reason: str) -> None:
    """The message says why and what to do, and nothing is left behind."""
    with pytest.raises(OSError, match=reason) as caught:
        load_fashion_mnist(folders.root)
    message = str(caught.value)
    assert "cannot download train-images-idx3-ubyte.gz" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "SOFTMAX_EXT_DATA" in message
    assert "root=" in message
    assert cached(folders) == []


def test_download_into_the_cache(folders, site):
    site.serve_tiny()
    folders.cache.rmdir()
    check_tiny(load_fashion_mnist(folders.root))
    assert cached(folders) == sorted(f"{name}.gz" for name in TINY)
    assert len(site.requests) == 4
    check_tiny(load_fashion_mnist(folders.root))
    check_tiny(load_fashion_mnist(folders.root, download=False))
    assert len(site.requests) == 4


def test_describe_downloads_only_when_asked(folders, site):
    site.serve_tiny()
    with pytest.raises(FileNotFoundError):
        describe_fashion_mnist()
    assert site.requests == []
    assert str(folders.cache) in describe_fashion_mnist(download=True)


def test_only_what_is_missing_is_downloaded(folders, site):
    site.serve_tiny()
    folders.fill("system", names=tuple(TINY)[1:])
    check_tiny(load_fashion_mnist())
    assert site.requests == ["/train-images-idx3-ubyte.gz"]


def test_second_mirror_where_the_first_fails(folders, site, monkeypatch):
    site.serve_tiny("/second/")
    monkeypatch.setattr(
        datasets.fashion_mnist, "_MIRRORS", (f"{site.url}/first/", f"{site.url}/second/")
    )
    check_tiny(load_fashion_mnist())


def test_download_follows_a_redirect(folders, site):
    site.serve_tiny("/elsewhere/")
    for name in TINY:
        site.answers[f"/{name}.gz"] = Site.redirect(f"{site.url}/elsewhere/{name}.gz")
    check_tiny(load_fashion_mnist())


def test_download_replaces_a_damaged_file_in_the_cache(folders, site):
    site.serve_tiny()
    damaged = write(folders.cache / "t10k-labels-idx1-ubyte.gz", PACKED)
    with pytest.warns(UserWarning, match="passed over"):
        check_tiny(load_fashion_mnist())
    np.testing.assert_array_equal(read_idx(damaged), TINY["t10k-labels-idx1-ubyte"])


@pytest.mark.parametrize("announced", [True, False])
def test_progress_is_reported(folders, site, monkeypatch, announced):
    monkeypatch.setattr(datasets.fashion_mnist, "_RECEIVED", 10)
    site.serve_tiny(**({} if announced else {"length": None}))
    calls = []
    load_fashion_mnist(progress=lambda *call: calls.append(call))
    for name in TINY:
        size = (folders.cache / f"{name}.gz").stat().st_size
        done = [call[1] for call in calls if call[0] == name]
        assert done == [*range(0, size, 10), size]
        assert {call[2] for call in calls if call[0] == name} == {size if announced else None}


def test_tqdm_shows_the_progress_where_it_is_installed(folders, site, monkeypatch):
    bars = []

    class Bar(contextlib.nullcontext):
        def __init__(self, desc, total, disable, **how):
            super().__init__(self)
            assert disable is None  # which means: only on a terminal
            self.desc, self.total, self.n = desc, total, 0
            bars.append(self)

        def update(self, count):
            self.n += count

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(datasets.fashion_mnist, "_RECEIVED", 10)
    site.serve_tiny()
    load_fashion_mnist()
    assert [bar.desc for bar in bars] == list(TINY)
    assert all(bar.n == bar.total > 0 for bar in bars)


def test_download_of_a_missing_file(folders, site):
    check_download_fails(folders, "404")


def test_download_without_a_server(folders, site):
    site.close()
    check_download_fails(folders, "refused")


def test_download_cut_short(folders, site):
    site.serve_tiny(length=1000)
    check_download_fails(folders, r"ended after \d+ of 1000 bytes")


def test_download_that_never_ends(folders, site):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))

    site.answers["/train-images-idx3-ubyte.gz"] = endless
    check_download_fails(folders, "sends more than")


def test_download_that_never_begins(folders, site, monkeypatch):
    done = threading.Event()
    site.answers["/train-images-idx3-ubyte.gz"] = lambda handler: done.wait(30)
    monkeypatch.setattr(datasets.fashion_mnist, "_TIMEOUT", 0.1)
    try:
        check_download_fails(folders, "timed out")
    finally:
        done.set()


@pytest.mark.parametrize("damage", DAMAGES)
def test_download_of_something_else(folders, site, damage):
    content = DAMAGES[damage](idx_bytes(IMAGES))
    site.answers["/train-images-idx3-ubyte.gz"] = Site.body(content)
    check_download_fails(folders, "train-images-idx3-ubyte")


def test_answer_that_is_not_http(folders, site):
    site.answers["/train-images-idx3-ubyte.gz"] = lambda handler: handler.wfile.write(b"hello\n\n")
    check_download_fails(folders, "hello")


def test_cache_that_cannot_be_written(folders, site):
    site.serve_tiny()
    folders.cache.rmdir()
    write(folders.cache, b"a file where the folder should be")
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(OSError, match=r"cannot download.*SOFTMAX_EXT_DATA"),
    ):
        load_fashion_mnist()


def test_download_appears_in_the_cache_only_when_whole_and_on_disk(folders, site, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        status = os.fstat(descriptor)
        events.append(("fsync", "folder" if stat.S_ISDIR(status.st_mode) else status.st_size))
        fsync(descriptor)

    def recording_replace(source, target):
        assert not os.path.exists(target)
        events.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    site.serve_tiny()
    load_fashion_mnist()
    sizes = [(folders.cache / f"{name}.gz").stat().st_size for name in TINY]
    assert events == [
        event
        for size in sizes
        for event in (("fsync", size), ("replace", size), ("fsync", "folder"))
    ]


def test_interrupted_download_leaves_nothing(folders, site):
    def interrupt(name, done, total):
        raise KeyboardInterrupt

    site.serve_tiny()
    with pytest.raises(KeyboardInterrupt):
        load_fashion_mnist(progress=interrupt)
    assert cached(folders) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.invalid/",
        "http://127.0.0.1@example.invalid/",
        "http://127.0.0.1.example.invalid/",
        "http://localhost/",  # a name, which may lead anywhere
        "ftp://127.0.0.1/",
        "file:///etc/hostname",
        "//example.invalid/",
    ],
)
def test_only_https_leaves_this_machine(folders, site, monkeypatch, url):
    for name in TINY:
        site.answers[f"/{name}.gz"] = Site.redirect(url)
    if not url.startswith("//"):  # in a redirect this would be a path on the same host
        check_download_fails(folders, "not HTTPS|not allowed")
    site.requests.clear()
    monkeypatch.setattr(datasets.fashion_mnist, "_MIRRORS", (url,))
    check_download_fails(folders, f"refused to download from {url}.*: not HTTPS")


def test_the_real_mirrors_are_https():
    assert len(datasets.fashion_mnist._MIRRORS) == 2
    for mirror in datasets.fashion_mnist._MIRRORS:
        assert mirror.startswith("https://")
        assert mirror.endswith("/")
        datasets.fashion_mnist._check_url(mirror)


# ------------------------------------------------------------------ Fashion-MNIST, the real


@pytest.fixture(scope="module")
def fashion():
    if None in find_fashion_mnist().values():
        pytest.skip("Fashion-MNIST is not on this machine (apt-get install dataset-fashion-mnist)")
    return load_fashion_mnist(download=False)


def test_real_fashion_mnist(fashion):
    assert fashion.train_images.shape == (60000, 28, 28)
    assert fashion.train_labels.shape == (60000,)
    assert fashion.test_images.shape == (10000, 28, 28)
    assert fashion.test_labels.shape == (10000,)
    for array in fashion[:4]:
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
    assert np.bincount(fashion.train_labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test_labels).tolist() == [1000] * 10
    assert fashion.train_labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert (fashion.train_images.min(), fashion.train_images.max()) == (0, 255)


def test_real_fashion_mnist_class_names(fashion):
    assert " ".join(fashion.class_names) == (
        "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle boot"
    )
    # Trousers are the one class with a gap down the lower middle between two bright legs.
    trousers = fashion.train_images[fashion.train_labels == 1].mean(axis=0)
    assert trousers[20, 13:15].max() < trousers[20, [10, 17]].min()


def test_real_fashion_mnist_unpacked(fashion, tmp_path):
    for name, array in zip(TINY, fashion[:4], strict=True):
        write(tmp_path / name, idx_bytes(array))
    again = load_fashion_mnist(tmp_path, download=False)
    for array, expected in zip(again[:4], fashion[:4], strict=True):
        np.testing.assert_array_equal(array, expected)
    assert str(tmp_path / "t10k-images-idx3-ubyte") in describe_fashion_mnist(tmp_path)


# ------------------------------------------------------------------- the lecture's images


def test_two_by_two_shapes():
    data = make_two_by_two(10)
    assert data.images.shape == (10, 2, 2)
    assert data.images.dtype == np.uint8
    assert data.labels.shape == (10,)
    assert data.labels.dtype == np.uint8
    assert data.class_names == ("cat", "chicken", "dog")
    assert sorted(np.bincount(data.labels)) == [3, 3, 4]
    assert make_two_by_two(0).images.shape == (0, 2, 2)


def test_two_by_two_without_noise_has_three_patterns():
    data = make_two_by_two(30, noise=0)
    patterns = [np.unique(data.images[data.labels == k], axis=0) for k in range(3)]
    assert [len(pattern) for pattern in patterns] == [1, 1, 1]
    assert len(np.unique(np.concatenate(patterns), axis=0)) == 3


def test_two_by_two_is_nearly_linearly_separable():
    patterns = make_two_by_two(3, noise=0)
    W = patterns.images.reshape(3, 4)[np.argsort(patterns.labels)].T.astype(float)
    data = make_two_by_two(30000)
    right = (data.images.reshape(-1, 4) @ W).argmax(axis=1) == data.labels
    assert 0.985 < right.mean() < 0.995


def test_two_by_two_noise_is_as_asked_and_stays_in_range():
    clean = make_two_by_two(10000, noise=0)
    noisy = make_two_by_two(10000, noise=10)
    np.testing.assert_array_equal(clean.labels, noisy.labels)
    assert 9.9 < (noisy.images - clean.images.astype(float)).std() < 10.1
    wild = make_two_by_two(1000, noise=1e6).images
    assert set(np.unique(wild)) == {0, 255}  # clipped, not wrapped


def test_two_by_two_seed():
    first, again, other = (make_two_by_two(50, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.images != other.images).any()
    assert (first.labels != other.labels).any()
    unseeded = [make_two_by_two(50, seed=None).images for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).any()
    np.testing.assert_array_equal(make_two_by_two(50).images, make_two_by_two(50, seed=0).images)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ValueError, "n: -1 came"),
        ({"n": 2.5}, TypeError, "n: float came, an integer was wanted"),
        ({"n": 3, "noise": -1}, ValueError, "noise: -1 came"),
        ({"n": 3, "noise": float("nan")}, ValueError, "noise: nan came"),
        ({"n": 3, "noise": float("inf")}, ValueError, "noise: inf came"),
    ],
)
def test_two_by_two_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        make_two_by_two(**arguments)


# ---------------------------------------------------------------------------- minibatches

X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10)


def order(*arguments, **options) -> list[int]:
    """The targets of one pass, one after the other."""
    return np.concatenate([y for _, y in minibatches(*arguments, **options)]).tolist()


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(1, [1] * 10), (3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (99, [10])]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_minibatches_cover_every_example_once(batch_size, sizes, shuffle):
    batches = list(minibatches(X, Y, batch_size, shuffle=shuffle))
    assert [len(y) for _, y in batches] == sizes
    assert sorted(np.concatenate([y for _, y in batches])) == Y.tolist()
    for X_batch, y_batch in batches:
        np.testing.assert_array_equal(X_batch, X[y_batch], strict=True)


def test_minibatches_are_shuffled_by_the_seed():
    assert order(X, Y, 3) == order(X, Y, 3, seed=0)
    assert order(X, Y, 3) == order(X, Y, 4)
    assert order(X, Y, 3) != Y.tolist()
    assert order(X, Y, 3, seed=1) != order(X, Y, 3, seed=2)


def test_minibatches_of_a_generator_differ_from_epoch_to_epoch():
    def two_epochs():
        rng = np.random.default_rng(7)
        return [order(X, Y, 3, seed=rng) for _ in range(2)]

    first, second = two_epochs()
    assert first != second
    assert two_epochs() == [first, second]


def test_minibatches_without_a_seed():
    many = np.arange(1000)
    assert order(many, many, 100, seed=None) != order(many, many, 100, seed=None)


def test_minibatches_in_order_are_views():
    images = np.zeros((10, 2, 2), np.uint8)
    batches = list(minibatches(images, Y, 4, shuffle=False))
    assert np.concatenate([y for _, y in batches]).tolist() == Y.tolist()
    assert all(np.shares_memory(batch, images) for batch, _ in batches)
    assert not np.shares_memory(next(minibatches(images, Y, 4))[0], images)


def test_minibatches_of_lists_and_of_nothing():
    ((X_batch, y_batch),) = minibatches([[1, 2], [3, 4]], [0, 1], 2, shuffle=False)
    np.testing.assert_array_equal(X_batch, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(y_batch, [0, 1])
    assert list(minibatches(X[:0], Y[:0], 2)) == []


def test_minibatches_of_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    rows = sparse.csr_array(X)
    for X_batch, y_batch in minibatches(rows, Y, 4):
        assert sparse.issparse(X_batch)
        np.testing.assert_array_equal(X_batch.toarray(), X[y_batch])


def test_minibatches_take_a_series_by_position():
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series(Y, index=Y[::-1])
    frame = pandas.DataFrame(X)
    for X_batch, y_batch in minibatches(frame, labels, 4):
        np.testing.assert_array_equal(X_batch, X[y_batch])


def test_minibatches_keep_a_mask():
    masked = np.ma.masked_equal(X, 3.0)
    batches = [batch for batch, _ in minibatches(masked, Y, 4)]
    assert sum(np.ma.count_masked(batch) for batch in batches) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, Y, 0), ValueError, "batch_size: 0 came, an integer from 1"),
        ((X, Y, -3), ValueError, "batch_size: -3"),
        ((X, Y, 2.0), TypeError, "batch_size: float came, an integer was wanted"),
        ((X, Y[:9], 2), ValueError, "y: 9 targets came, 10 were wanted"),
        ((X, Y[0], 2), ValueError, "y: a scalar"),
        ((3.0, Y, 2), ValueError, "X: a scalar"),
    ],
)
def test_minibatches_refuse_at_the_call(arguments, error, message):
    with pytest.raises(error, match=message):
        minibatches(*arguments)


# ----------------------------------------------------------------------------- the module


def test_import_is_cheap():
    heavy = {"gzip", "hashlib", "http.client", "tempfile", "tqdm", "urllib.request"}
    code = (
        "import sys, numpy; before = set(sys.modules); import softmax_ext.datasets;"
        f" print(*({heavy!r} & (set(sys.modules) - before)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.split() == []
