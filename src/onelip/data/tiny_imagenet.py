"""Tiny-ImageNet in the folders of its archive: finding and decoding its files.

``wnids.txt`` lists the classes, ``train/CLASS/images/*.JPEG`` are the training images, and
``val/val_annotations.txt`` names the class of each of ``val/images/*.JPEG``. Classes are numbered
in alphabetical order, as in the hub's copy, not in that of ``wnids.txt``: a network trained on one
copy can be tested on the other.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from onelip.data.pixels import Decoded, decode_image, is_jpeg
from onelip.errors import UsageError
from onelip.image_sets import SHAPES

_SHAPE, _CLASSES = SHAPES["tiny-imagenet"]

_ARCHIVE = "tiny-imagenet-200"
_LIST, _ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"


def find(folder: Path) -> Path | None:
    """Return the folder of the archive's files: ``folder`` or one below it; None if missing."""
    places = (folder, folder / _ARCHIVE, folder / "tiny-imagenet")
    return next((place for place in places if (place / _LIST).is_file()), None)


def sources(root: Path, split: str) -> list[Path]:
    """Files that the split depends on: lists, and the folders of images.

    A folder changes when images are added or removed, not when one is rewritten in place.

    Raises:
        UsageError: If one of them is missing, or the list of classes has another length.
    """
    if split == "train":
        wanted = [root / "train" / name / "images" for name in _classes(root)]
    else:
        wanted = [root / _ANNOTATIONS, root / "val/images"]
    for path in wanted:
        if not path.exists():
            raise UsageError(f"no {path}: unpack {_ARCHIVE}.zip again")
    return [root / _LIST, *wanted]


def decode(root: Path, split: str) -> Decoded:
    """Decode every image of ``"train"`` or, for ``"test"``, of the validation split.

    Raises:
        UsageError: If a file is missing, cannot be read or holds something else.
    """
    names = _classes(root)
    files, labels = _trained(root, names) if split == "train" else _annotated(root, names)
    if not files:
        raise UsageError(f"{root / split} holds no images: unpack {_ARCHIVE}.zip again")
    images = np.empty((len(files), *_SHAPE), dtype=np.uint8)
    jpeg = False
    for index, file in enumerate(files):
        encoded = _read(file)
        images[index] = decode_image(encoded, _SHAPE, str(file))
        jpeg = jpeg or is_jpeg(encoded)
    return Decoded(torch.from_numpy(images), torch.tensor(labels), jpeg)


def _classes(root: Path) -> list[str]:
    """Names of the classes, in alphabetical order."""
    names = {*_read(root / _LIST).decode(errors="replace").split()}
    if len(names) != _CLASSES:
        raise UsageError(
            f"{root / _LIST} lists {len(names)} classes, expected {_CLASSES}: "
            f"unpack {_ARCHIVE}.zip again"
        )
    return sorted(names)


def _trained(root: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Training images and labels, class by class, files by name."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted((root / "train" / name / "images").glob("*.JPEG"))
        files += found
        labels += [label] * len(found)
    return files, labels


def _annotated(root: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Images in the order of the annotations, whose lines hold a file, its class and a box."""
    numbered = {name: label for label, name in enumerate(names)}
    files: list[Path] = []
    labels: list[int] = []
    lines = _read(root / _ANNOTATIONS).decode(errors="replace").splitlines()
    for row, line in enumerate(lines):
        file, _, rest = line.partition("\t")
        name = rest.partition("\t")[0]
        if name not in numbered:
            raise UsageError(
                f"line {row + 1} of {root / _ANNOTATIONS} names the class {name!r}, "
                f"which {_LIST} does not list: unpack {_ARCHIVE}.zip again"
            )
        files.append(root / "val/images" / file)
        labels.append(numbered[name])
    return files, labels


def _read(file: Path) -> bytes:
    """Read a file of the archive."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {file} ({type(error).__name__}): unpack {_ARCHIVE}.zip again"
        ) from error
