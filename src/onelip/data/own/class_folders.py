"""Folders of images, a sub-folder for each class."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from onelip.data.own.contents import (
    TEST,
    TRAIN,
    VALIDATION,
    WORDS,
    Contents,
    class_name,
    numbered,
    ordered,
    shortened,
)
from onelip.data.own.decoding import Encoded, decode_once
from onelip.data.pixels import IMAGE_SUFFIXES, Size
from onelip.errors import UsageError


def find_classes(root: Path) -> dict[str, dict[str, list[Path]]] | None:
    """Return the image files of each class of each split; None if this is no folder of classes.

    Classes are the sub-folders of ``root``, or of its ``train``, ``val`` and ``test``. Files whose
    names begin with a dot are left out.

    Raises:
        UsageError: there is no training split, its images lie in no class folders, or the name of a
            class cannot be written down.
    """
    folders = _folders(root)
    splits = {WORDS[name.lower()]: path for name, path in folders.items() if name.lower() in WORDS}
    for place in (root, *(path for split, path in splits.items() if split == TRAIN)):
        if not _folders(place) and _images(place):
            raise UsageError(
                f"the images in {place} have no classes: put those of each class into a sub-folder"
            )
    if TRAIN not in splits:
        if splits:
            words = ", ".join(path.name for path in splits.values())
            raise UsageError(f"{root} has {words}, but no train: add it")
        if any(_images(path) for path in folders.values()):
            return {TRAIN: _classes(root)}
        return None
    found = {split: _classes(path) for split, path in splits.items()}
    return found if any(found[TRAIN].values()) else None


def read_classes(found: Mapping[str, Mapping[str, list[Path]]], resize: Size | None) -> Contents:
    """Read all images into one array of each split, from the cache if they did not change.

    Raises:
        UsageError: an image cannot be decoded or has another size, a class of the training split
            has no image, or another split has a class of its own; the message names the file.
    """
    _refuse_empty(found)
    files = {
        split: [(name, path) for name, paths in classes.items() for path in paths]
        for split, classes in found.items()
    }
    names = {split: [name for name, _ in rows] for split, rows in files.items()}
    known = ordered(found[TRAIN])
    labels, classes = numbered(names, lambda split, row: str(files[split][row][1]), known)

    def encoded() -> dict[str, list[Encoded]]:
        return {
            split: [Encoded(path.read_bytes, str(path)) for _, path in rows]
            for split, rows in files.items()
        }

    counts = {split: len(rows) for split, rows in files.items()}
    sources = [path for rows in files.values() for _, path in rows]
    pixels, said = decode_once(counts, sources, resize, encoded)
    missing = [name for name in classes if TEST in found and not found[TEST].get(name)]
    notes = [*said, *_other_files(found)]
    if missing:
        notes.append(f"the test split has no image of {shortened(missing)}")
    splits = {split: (pixels[split], labels[split]) for split in labels}
    return Contents(splits, classes, notes=tuple(notes))


def _folders(root: Path) -> dict[str, Path]:
    """Sub-folders by name, in order of their names."""
    paths = sorted(path for path in root.iterdir() if path.is_dir())
    return {path.name: path for path in paths if not path.name.startswith((".", "__MACOSX"))}


def _classes(root: Path) -> dict[str, list[Path]]:
    """Images by class, classes and files in order of their names."""
    found: dict[str, list[Path]] = {}
    for name, path in _folders(root).items():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the folder {os.fsencode(path)!r} has a name that is no UTF-8: rename it"
            ) from None
        if class_name(name) in found:
            raise UsageError(f"{root} has two folders {class_name(name)!r}: put them into one")
        found[class_name(name)] = _images(path)
    return dict(sorted(found.items()))


def _images(folder: Path) -> list[Path]:
    """Image files in a folder and below it, in order of their paths."""
    return [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _files(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)


def _refuse_empty(found: Mapping[str, Mapping[str, list[Path]]]) -> None:
    empty = [name for name, paths in found[TRAIN].items() if not paths]
    if empty:
        raise UsageError(
            f"the class folder {empty[0]!r} of the training split holds no images "
            f"({', '.join(IMAGE_SUFFIXES)}): fill it, or remove it"
        )
    for split in (VALIDATION, TEST):
        if split in found and not any(found[split].values()):
            raise UsageError(f"the {split} split holds no images: fill it, or remove its folder")


def _other_files(found: Mapping[str, Mapping[str, list[Path]]]) -> list[str]:
    """Say which files beside the images were left out."""
    taken = [path for classes in found.values() for paths in classes.values() for path in paths]
    places = {path.parent for path in taken}
    left = sorted(
        path
        for place in places
        for path in place.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix.lower() not in IMAGE_SUFFIXES
    )
    return [f"{len(left)} files are no images and left out, such as {left[0]}"] if left else []
