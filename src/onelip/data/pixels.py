"""Decoding of image files, with a check of their shape."""

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from onelip.errors import UsageError, missing_extra

Shape = tuple[int, int, int]
Size = tuple[int, int]
"""Height and width."""
Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif"),
)
"""Suffixes of files that are read as images."""

_GRAY = ("1", "L", "LA", "La", "I", "F")
_TURNED = (5, 6, 7, 8)  # orientations that swap the sides


class Decoded(NamedTuple):
    """Decoded images of one split; `jpeg` tells whether any of them was a JPEG."""

    images: Tensor
    labels: Tensor
    jpeg: bool


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    size: Size
    gray: bool
    deep: bool
    """More than 8 bits a pixel, which are rounded."""
    alpha: bool
    """Transparent pixels, whose transparency is left out."""


def is_jpeg(encoded: bytes) -> bool:
    """Return whether the bytes begin like a JPEG file."""
    return encoded[:2] == b"\xff\xd8"


def decode_image(encoded: bytes, shape: Shape, where: str, resize: Size | None = None) -> Pixels:
    """Decode the pixels of a file; a gray image fills every channel.

    Args:
        encoded: Content of an image file.
        shape: The ``(channels, height, width)`` that it must have.
        where: Name of the image in errors, such as ``"the image in row 3 of FILE"``.
        resize: Scale it to cover this size, and cut off what is too much on both sides alike.

    Raises:
        UsageError: If it cannot be decoded or has another shape.
    """
    image = decode_pixels(encoded, where, resize)
    if image.shape not in (shape, (1, *shape[1:])):
        expected, found = ("x".join(map(str, size)) for size in (shape, image.shape))
        raise UsageError(f"{where} is {found}, expected {expected}: is this another data set?")
    return np.broadcast_to(image, shape)


def decode_pixels(encoded: bytes, where: str, resize: Size | None = None) -> Pixels:
    """Decode the pixels of a file, of any size: one channel if it is gray, else three.

    It is turned as its EXIF entry says. 16 bits are rounded to 8, and transparency is left out.

    Raises:
        UsageError: If it cannot be decoded.
    """
    try:
        return _pixels(encoded, resize)
    except ImportError as error:
        raise missing_extra("pillow", "data") from error
    except Exception as error:
        raise UsageError(f"cannot decode {where}: replace the file") from error


def read_header(encoded: bytes, where: str) -> Header:
    """Return size and kind of an image without decoding it.

    Raises:
        UsageError: If it is no image.
    """
    try:
        from PIL import Image

        with Image.open(io.BytesIO(encoded)) as opened:
            return _header(opened)
    except ImportError as error:
        raise missing_extra("pillow", "data") from error
    except Exception as error:
        raise UsageError(f"cannot decode {where}: replace the file") from error


def _header(opened: Any) -> Header:
    width, height = opened.size
    if opened.getexif().get(0x0112) in _TURNED:
        width, height = height, width
    mode = opened.mode
    alpha = "A" in mode or "a" in mode or "transparency" in opened.info
    return Header((height, width), _is_gray(mode), _is_deep(mode), alpha)


def _is_gray(mode: str) -> bool:
    return mode in _GRAY or mode.startswith("I;16")


def _is_deep(mode: str) -> bool:
    return mode in ("I", "F") or mode.startswith("I;16")


def _pixels(encoded: bytes, resize: Size | None) -> Pixels:
    """Decode an image by Pillow, to channels first."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(encoded)) as opened:
        image = ImageOps.exif_transpose(opened)
        if _is_deep(image.mode):
            image = _of_16_bits(image)
        elif image.mode not in ("L", "RGB"):
            image = image.convert("L" if _is_gray(image.mode) else "RGB")
        if resize is not None:
            image = ImageOps.fit(image, resize[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _of_16_bits(image: Any) -> Any:
    """Round an image of 16 bits to 8; Pillow would cut off what is above 255.

    Raises:
        ValueError: it has numbers outside 16 bits, or fractions.
    """
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise ValueError("no pixels of 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
