"""Encoded images of any one size, decoded into one array of each split, through the cache."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from onelip.data import cache
from onelip.data.pixels import Pixels, Shape, Size, decode_image, read_header
from onelip.errors import UsageError

_WORKERS = 4


class Encoded(NamedTuple):
    """An image that is not decoded yet."""

    read: Callable[[], bytes]
    where: str


def decode_once(
    counts: Mapping[str, int],
    sources: Sequence[Path],
    resize: Size | None,
    encoded: Callable[[], Mapping[str, Sequence[Encoded]]],
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Decode images, or take them from the cache if no source has changed since.

    Args:
        counts: number of images by split.
        sources: files in which they are.
        resize: see ``decode_image``.
        encoded: returns the images by split.

    Returns:
        Pixels by split, and what a reader of results should know of them.

    Raises:
        UsageError: see ``decode``.
    """

    def build() -> cache.Stored:
        pixels, notes = decode(encoded(), resize)
        return cache.Stored(pixels, {"notes": notes})

    def usable(stored: cache.Stored) -> bool:
        return {split: len(pixels) for split, pixels in stored.tensors.items()} == {**counts}

    options = json.dumps([resize, {**counts}])
    stored = cache.load_or_build("images", sources, build, usable, options)
    return stored.tensors, tuple(stored.facts["notes"])


def decode(
    encoded: Mapping[str, Sequence[Encoded]], resize: Size | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Decode the images of all splits to one shape, and say what was changed in them.

    Images are gray if all of them are; else gray ones fill three channels.

    Args:
        encoded: images by split.
        resize: see ``decode_image``.

    Raises:
        UsageError: one cannot be decoded, or their sizes differ; the message names it.
    """
    everything = [image for rows in encoded.values() for image in rows]
    with ThreadPoolExecutor(_WORKERS) as pool:
        headers = list(pool.map(lambda image: read_header(image.read(), image.where), everything))
        size = resize or headers[0].size
        if resize is None:
            _refuse_other_sizes(everything, [header.size for header in headers])
        shape = (1 if all(header.gray for header in headers) else 3, *size)
        pixels = {}
        for split, rows in encoded.items():
            pixels[split] = _room(len(rows), shape)
            decoded = pool.map(
                lambda image: decode_image(image.read(), shape, image.where, resize), rows
            )
            for row, image in enumerate(decoded):
                pixels[split][row] = image
    notes = []
    if resize is not None and any(header.size != resize for header in headers):
        height, width = resize
        notes.append(f"images are scaled and cropped to {height} x {width}; radii are of those")
    for said, count in (
        ("rounded from 16 bits to 8", sum(header.deep for header in headers)),
        ("read without their transparency", sum(header.alpha for header in headers)),
        ("gray, in three channels", shape[0] == 3 and sum(header.gray for header in headers)),
    ):
        if count:
            notes.append(f"{count} of {len(headers)} images are {said}")
    return {split: torch.from_numpy(array) for split, array in pixels.items()}, notes


def _room(count: int, shape: Shape) -> Pixels:
    try:
        return np.empty((count, *shape), dtype=np.uint8)
    except MemoryError:
        size = count * int(np.prod(shape)) / 2**30
        raise UsageError(
            f"{count} images of {'x'.join(map(str, shape))} take {size:.0f} GiB of memory: --size "
            "makes them smaller"
        ) from None


def _refuse_other_sizes(images: Sequence[Encoded], sizes: Sequence[Size]) -> None:
    """Refuse images of several sizes, with the way out."""
    for image, size in zip(images, sizes, strict=True):
        if size != sizes[0]:
            first, other = ("x".join(map(str, sides)) for sides in (sizes[0], size))
            raise UsageError(
                f"{images[0].where} has {first} pixels, {image.where} {other}: --size "
                f"{min(min(sides) for sides in sizes)} scales and crops all to one size, or crop "
                "them yourself"
            )
