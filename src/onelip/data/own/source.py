"""Where data of one's own are, and which of the readers takes them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onelip.data import parquet, tiny_imagenet
from onelip.data.datasets import download
from onelip.data.own.arrays import read_arrays
from onelip.data.own.class_folders import find_classes, read_classes
from onelip.data.own.contents import TRAIN, WORDS, Contents
from onelip.data.own.encoded_tables import holds_images, read_encoded
from onelip.data.own.tables import SUFFIXES, read_tables
from onelip.data.pixels import Size
from onelip.errors import UsageError
from onelip.image_sets import OWN

HUB = "hub:"
_KINDS = "a folder with a sub-folder of images for each class, an .npz, .csv or .parquet file"


@dataclass(frozen=True)
class Source:
    """Place of a data set, and how to read it.

    Args:
        place: a folder, a file, or ``hub:OWNER/NAME``.
        label: column of the labels in a table; one that is called ``label`` or the like by default.
        size: height and width to which images are scaled and cropped; their own by default.
    """

    place: str
    label: str | None = None
    size: Size | None = None

    @property
    def lasting(self) -> str:
        """The place, as it is found from every working directory."""
        return self.place if self.of_hub else str(self.path.resolve())

    @property
    def of_hub(self) -> bool:
        """Whether it is downloaded."""
        return self.place.startswith(HUB)

    @property
    def path(self) -> Path:
        """The file or folder, downloaded if need be.

        Raises:
            UsageError: there is none.
        """
        if self.of_hub:
            owner, name, *below = [*self.place.removeprefix(HUB).split("/"), ""][:3]
            if not re.fullmatch(r"[\w.-]+", owner) or not re.fullmatch(r"[\w.-]+", name):
                raise UsageError(f"{self.place} is no data set of the hub: --data hub:OWNER/NAME")
            return download(f"{owner}/{name}") / below[0]
        return Path(self.place).expanduser()


def holds_own_data(name: str, place: str) -> bool:
    """Return whether a place holds other data than those of a published data set.

    Args:
        name: of the published one; ``"own"`` if none is meant.
        place: see ``Source``.
    """
    if name == OWN or place.startswith(HUB):
        return True
    path = Path(place).expanduser()
    if not os.path.isdir(path):  # False, too, for names that no folder can have
        return os.path.isfile(path)
    if name == "digits":
        return bool(_split_files(path) or find_classes(path))
    if name == "tiny-imagenet" and tiny_imagenet.find(path) is not None:
        return False
    return not parquet.holds(path, name) and bool(_split_files(path) or find_classes(path))


def read_source(source: Source) -> Contents:
    """Read the splits that a source has.

    Raises:
        UsageError: it does not exist, or cannot be used; the message names the file and the row.
    """
    path = source.path
    if not os.path.exists(path):  # False, too, for names that no file can have
        raise UsageError(f"no file or folder {path}: --data takes {_KINDS}, or hub:OWNER/NAME")
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return _checked(read_arrays(path), source)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"cannot read {path}: --data takes {_KINDS}, or hub:OWNER/NAME")
        return _of_tables({TRAIN: [path]}, source)
    files = _split_files(path)
    if files:
        return _of_tables(files, source)
    found = find_classes(path)
    if found is None:
        raise UsageError(f"no data in {path}: --data takes {_KINDS}, or hub:OWNER/NAME")
    return _checked(read_classes(found, source.size), source)


def _of_tables(files: Mapping[str, list[Path]], source: Source) -> Contents:
    """Read tables of numbers, or of encoded images."""
    first = files[TRAIN][0]
    if first.suffix.lower() == ".parquet" and holds_images(first):
        return read_encoded(files, source.label, source.size)
    return _checked(read_tables(files, source.label), source)


def _checked(contents: Contents, source: Source) -> Contents:
    """Refuse options that such data do not have."""
    images = contents.splits[TRAIN][0].ndim == 4
    if source.size is not None and not (images and Path(source.place).suffix.lower() != ".npz"):
        raise UsageError(f"--size is for image files, and {source.place} holds none")
    if source.label is not None and not contents.columns:
        raise UsageError(f"--label names a column of a table, and {source.place} is none")
    return contents


def _split_files(folder: Path) -> dict[str, list[Path]]:
    """Tables of each split in a folder or one below it, in order of their names.

    Raises:
        UsageError: there are several folders of them.
    """
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [(place, files) for place in places if TRAIN in (files := _named_after_splits(place))]
    if len(found) > 1 and found[0][0] != folder:
        names = ", ".join(place.name for place, _ in found)
        raise UsageError(f"{folder} holds several data sets, {names}: name the folder of one")
    return found[0][1] if found else {}


def _named_after_splits(folder: Path) -> dict[str, list[Path]]:
    """Files such as ``train.csv`` and ``test-00000-of-00002.parquet``, by split."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        word = re.match(r"[a-zA-Z]+", path.name)
        split = WORDS.get(word[0].lower()) if word else None
        if split is not None and path.suffix.lower() in SUFFIXES and path.is_file():
            files.setdefault(split, []).append(path)
    return dict(sorted(files.items(), key=lambda item: item[0] != TRAIN))
