"""Pictures to predict, as a model was trained on: grey, from 0 for black to 255 for white."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataFormatError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_picture"]

# Tags of TIFF, and what their values mean.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_WANTED = "8 or 16 bits from 0 for black were wanted"


def read_picture(path: str, n_pixels: int, *, resize: bool = False) -> NDArray[np.uint8]:
    """Read a picture in grey, upright as its EXIF data say, what is transparent on white.

    Parameters
    ----------
    path : str
        A file of any format that Pillow reads. Of several pictures in it the first is taken.
    n_pixels : int
        How many it must have.
    resize : bool, optional
        Bring it to a square of so many pixels.

    Returns
    -------
    ndarray of uint8, shape (n_pixels,)

    Raises
    ------
    DataFormatError
        If it is damaged, no picture, or one whose black and white are not known.
    ValueError
        If it has another number of pixels.
    ImportError
        If Pillow is not installed.

    Warns
    -----
    UserWarning
        If there are several pictures in the file.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(
            f'{path}: reading pictures needs Pillow: pip install "softmax-ext[cli]"'
        ) from error

    with open(path, "rb") as file:
        try:
            with Image.open(file) as picture:
                n_pictures = getattr(picture, "n_frames", 1)
                white = _white(picture)
                grey = _as_grey(ImageOps.exif_transpose(picture), white)
        except MemoryError:
            raise
        except DataFormatError as error:
            raise DataFormatError(f"{path}: {error}") from None
        except UnidentifiedImageError as error:
            raise DataFormatError(
                f"{path}: an unknown format came, a picture, an .npy or an IDX file was wanted"
            ) from error
        except Exception as error:  # whatever Pillow raises for a damaged file
            raise DataFormatError(f"{path}: not a sound picture ({error})") from error
    if n_pictures > 1:
        warnings.warn(f"{path}: {n_pictures} pictures; the first is taken", stacklevel=2)

    side = math.isqrt(n_pixels)
    is_square = side * side == n_pixels
    if resize and is_square:
        grey = grey.resize((side, side))
    if grey.width * grey.height != n_pixels:
        wanted = f"{n_pixels} ({side} x {side})" if is_square else str(n_pixels)
        hint = ", or pass --resize" if is_square else ""
        raise ValueError(
            f"{path}: {grey.width} x {grey.height} pixels came, {wanted} were wanted; scale it "
            f"first{hint}"
        )
    return np.array(grey, np.uint8).reshape(-1)


def _white(picture: Image) -> float:
    """The number for white; DataFormatError where it, or that of black, is not known."""
    mode, tags = picture.mode, getattr(picture, "tag_v2", {})  # the tags of a TIFF
    if mode == "I" and picture.format not in ("PNG", "PPM"):
        raise DataFormatError(f"a picture of 32 bits or with a sign came, {_WANTED}")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise DataFormatError(f"a picture of numbers with a sign came, {_WANTED}")
    if not mode.startswith(("I", "F")):
        return 255.0
    # Pillow turns neither of them into what it makes of other depths.
    if tags.get(_BITS_PER_SAMPLE) == (12,) or tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataFormatError(f"a picture of 12 bits or with 0 for white came, {_WANTED}")
    return 1.0 if mode == "F" else 65535.0


def _as_grey(picture: Image, white: float) -> Image:
    """A picture in grey of 8 bits; what is transparent becomes white."""
    from PIL import Image

    if white == 255:
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture.convert("RGBA"))
        return ground.convert("L")
    values = np.array(picture, np.float64)
    if not ((values >= 0) & (values <= white)).all():
        came = f"{values.min():g} to {values.max():g}"
        raise DataFormatError(
            f"grey values from {came} came, 0 for black to {white:g} for white were wanted"
        )
    values[values == picture.info.get("transparency")] = white
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
