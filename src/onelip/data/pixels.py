"""Decoding of image files, with a check of their shape."""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from onelip.errors import UsageError, missing_extra

Shape = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """Decoded images of one split; `jpeg` tells whether any of them was a JPEG."""

    images: Tensor
    labels: Tensor
    jpeg: bool


def is_jpeg(encoded: bytes) -> bool:
    """Return whether the bytes begin like a JPEG file."""
    return encoded[:2] == b"\xff\xd8"


def decode_image(encoded: bytes, shape: Shape, where: str) -> Pixels:
    """Decode the pixels of a file; a gray image fills every channel.

    Args:
        encoded: Content of a PNG or JPEG file.
        shape: The ``(channels, height, width)`` that it must have.
        where: Name of the image in errors, such as ``"the image in row 3 of FILE"``.

    Raises:
        UsageError: If it cannot be decoded or has another shape.
    """
    image = decode_pixels(encoded, where)
    if image.shape not in (shape, (1, *shape[1:])):
        expected, found = ("x".join(map(str, size)) for size in (shape, image.shape))
        raise UsageError(f"{where} is {found}, expected {expected}: is this another data set?")
    return np.broadcast_to(image, shape)


def decode_pixels(encoded: bytes, where: str) -> Pixels:
    """Decode the pixels of a file, of any size: one channel if it is gray, else three.

    Raises:
        UsageError: If it cannot be decoded.
    """
    try:
        return _pixels(encoded)
    except ImportError as error:
        raise missing_extra("pillow", "data") from error
    except Exception as error:
        raise UsageError(f"cannot decode {where}: replace the file") from error


def _pixels(encoded: bytes) -> Pixels:
    """Decode an image by Pillow, to channels first."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
