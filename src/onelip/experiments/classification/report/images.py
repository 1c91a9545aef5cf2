"""Images as data URIs that every browser shows."""

import base64
import struct
import zlib

from torch import Tensor


def png_uri(image: Tensor) -> str:
    """Return a PNG file of an image as a data URI, for display alone: 8 bits a channel.

    Args:
        image: ``(channels, height, width)`` in [0, 1]; 3 channels are colours, of others the mean
            is shown.
    """
    shown = image if image.shape[0] == 3 else image.mean(0, keepdim=True)
    pixels = shown.double().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous()
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.numpy().tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    file = b"\x89PNG\r\n\x1a\n" + parts
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
