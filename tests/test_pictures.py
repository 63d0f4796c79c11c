"""Pictures to predict: every kind comes out as the same grey, or is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from softmax_ext.cli.pictures import read_picture
from softmax_ext.errors import DataFormatError

Image = pytest.importorskip("PIL.Image")

GREY = np.array([[0, 85, 170], [255, 85, 0]], np.uint8)
DEEP = GREY.astype(np.uint16) * 257


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, shape=GREY.shape, **options):
    return read_picture(name, shape[0] * shape[1], **options).reshape(shape).tolist()


def palette():
    return Image.fromarray(GREY).convert("RGB").quantize(4)


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", lambda: Image.fromarray(GREY)),
        ("16.png", lambda: Image.fromarray(DEEP)),
        ("16.tif", lambda: Image.fromarray(DEEP)),
        ("16.jp2", lambda: Image.fromarray(DEEP)),
        ("float.tif", lambda: Image.fromarray(GREY.astype(np.float32) / 255)),
        ("palette.png", palette),
        ("palette.gif", palette),
        ("alpha.png", lambda: Image.fromarray(GREY).convert("LA")),
        ("alpha.webp", lambda: Image.fromarray(GREY).convert("RGBA")),
        ("cmyk.tif", lambda: Image.fromarray(GREY).convert("RGB").convert("CMYK")),
        ("grey.bmp", lambda: Image.fromarray(GREY)),
    ],
)
def test_every_kind_is_the_same_grey(name, picture):
    picture().save(name, **({"lossless": True} if name.endswith("webp") else {}))
    assert read(name) == GREY.tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("16.pgm", b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes()),
        ("6.pgm", b"P5 3 2 51\n" + (GREY // 5).tobytes()),
        ("float.pfm", b"Pf\n3 2\n-1\n" + (GREY[::-1] / 255).astype("<f4").tobytes()),
    ],
)
def test_every_kind_of_netpbm_is_the_same_grey(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert read(name) == GREY.tolist()


def test_one_bit_is_black_and_white():
    Image.fromarray(GREY > 100).save("bits.png")
    assert read("bits.png") == np.where(GREY > 100, 255, 0).tolist()


@pytest.mark.parametrize(
    ("name", "deep"),
    [("a.jpg", False), ("a.png", False), ("a.tif", False), ("a.png", True), ("a.tif", True)],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_it(name, deep, orientation):
    # What turns the stored grey upright, orientation by orientation.
    turns = (
        *(lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud),
        *(np.transpose, lambda a: np.rot90(a, -1), lambda a: np.rot90(a.T, 2), np.rot90),
    )
    large = np.kron(GREY, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = large.astype(np.uint16) * 257 if deep else large
    Image.fromarray(stored).save(name, exif=exif, quality=100)
    wanted = turns[orientation - 1](large)
    np.testing.assert_allclose(read(name, wanted.shape), wanted, atol=2)


def png(width, bits, colour, row, key):
    """A PNG of one row with a colour that is transparent."""

    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    content = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + content + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (png(2, 8, 0, b"\x80\x10", b"\0\x80"), [255, 16]),
        (png(2, 16, 0, b"\x80\x80\x10\x10", b"\x80\x80"), [255, 16]),
        (png(2, 8, 2, b"\x80\x80\x80\x10\x10\x10", b"\0\x80\0\x80\0\x80"), [255, 16]),
        (png(8, 1, 0, b"\x0f", b"\0\0"), [255] * 8),
    ],
    ids=["8 bits", "16 bits", "colour", "1 bit"],
)
def test_a_transparent_colour_becomes_white(content, wanted, tmp_path):
    (tmp_path / "key.png").write_bytes(content)
    assert read("key.png", (1, len(wanted))) == [wanted]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_becomes_white(name, mode):
    """Black that is opaque, half transparent, and not there."""
    picture = Image.fromarray(np.zeros((1, 3), np.uint8)).convert(mode)
    picture.putalpha(Image.fromarray(np.array([[255, 128, 0]], np.uint8)))
    picture.save(name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
    assert read(name, (1, 3)) == [[0, 127, 255]]


def test_a_transparent_palette_entry_becomes_white():
    picture = palette()
    first = picture.getpixel((0, 0))
    for name in ("key.gif", "key.png"):
        picture.save(name, transparency=first)
        assert read(name) == np.where(GREY == 0, 255, GREY).tolist()


def tiff(bits, photometric, sample_format, data):
    """A TIFF of two grey pixels."""
    fields = ((256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 134))
    fields += ((277, 1), (278, 1), (279, len(data)), (339, sample_format))
    entries = b"".join(struct.pack("<HHIHxx", tag, 3, 1, value) for tag, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(16, 1, 1, struct.pack("<HH", 0, 65535)), None),
        (tiff(8, 0, 1, b"\xff\0"), None),
        (tiff(16, 0, 1, struct.pack("<HH", 65535, 0)), "with 0 for white came, 8 or 16 bits"),
        (tiff(32, 0, 3, struct.pack("<ff", 1, 0)), "with 0 for white came, 8 or 16 bits"),
        (tiff(12, 1, 1, b"\x00\x0f\xff"), "12 bits"),
        (tiff(16, 1, 2, struct.pack("<hh", 0, 32767)), "32 bits or with a sign"),
        (tiff(32, 1, 1, struct.pack("<II", 0, 2**32 - 1)), "32 bits or with a sign"),
        (tiff(8, 1, 2, struct.pack("<bb", 0, 127)), "with a sign"),
        (tiff(32, 1, 3, struct.pack("<ff", -1, 255)), "grey values from -1 to 255 came, 0 for"),
        (tiff(32, 1, 3, struct.pack("<ff", 0, np.nan)), "grey values from nan to nan came, 0"),
    ],
)
def test_a_scale_that_is_not_known_is_refused(content, message, tmp_path):
    (tmp_path / "grey.tif").write_bytes(content)
    if message is None:  # the others are changes of these two
        assert read("grey.tif", (1, 2)) == [[0, 255]]
        return
    with pytest.raises(DataFormatError, match=rf"^grey\.tif: .*{message}"):
        read("grey.tif", (1, 2))


@pytest.mark.parametrize("name", ["two.gif", "two.tif", "two.png", "two.webp"])
def test_of_several_pictures_the_first_is_taken_with_a_warning(name):
    other = Image.fromarray(255 - GREY)
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(GREY).save(name, save_all=True, append_images=[other], **options)
    with pytest.warns(UserWarning, match=f"{name}: 2 pictures; the first is taken"):
        assert read(name) == GREY.tolist()


def test_another_size_is_refused_or_brought_to_a_square():
    Image.fromarray(np.full((6, 8), 85, np.uint8)).save("a.png")
    with pytest.raises(
        ValueError, match=r"a\.png: 8 x 6 pixels came, 16 \(4 x 4\) were wanted; .* --resize$"
    ):
        read("a.png", (4, 4))
    assert read("a.png", (4, 4), resize=True) == np.full((4, 4), 85).tolist()
    for resize in (False, True):  # no square, so no help in --resize
        with pytest.raises(ValueError, match="8 x 6 pixels came, 6 were wanted; scale it first$"):
            read("a.png", (2, 3), resize=resize)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp"])
def test_damaged_pictures_are_refused_by_name(name, tmp_path, rng):
    path = tmp_path / name
    Image.fromarray(rng.integers(256, size=(16, 16), dtype=np.uint8)).save(path)
    sound = path.read_bytes()
    for kept in (0, 1, 20, len(sound) // 2):
        path.write_bytes(sound[:kept])
        with pytest.raises(DataFormatError, match=rf"^{name}: (not a sound|an unknown)"):
            read(name, (16, 16))
