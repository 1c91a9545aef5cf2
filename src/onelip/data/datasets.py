"""Data sets by name: scikit-learn's digits, and the others from files or the hub."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onelip.data import cache, parquet, tiny_imagenet
from onelip.data.labelled_set import LabelledSet
from onelip.data.pixels import Decoded
from onelip.errors import UsageError, missing_extra
from onelip.image_sets import SHAPES

SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Published:
    """A data set on the hub: its repository, columns, files and notes."""

    title: str
    repository: str
    label_columns: tuple[str, ...] = ("label", "fine_label")
    test_files: str = "test"
    test_note: str = ""
    lossy: bool = False  # published as JPEG files

    def note(self, split: str, jpeg: bool) -> str:
        """Return the caveat of a split, empty if there is none."""
        if jpeg and not self.lossy:
            return f"{self.title} (JPEG copy)"
        return self.test_note if split == "test" else ""


_PUBLISHED = {
    "mnist": _Published("MNIST", "ylecun/mnist"),
    "fashion-mnist": _Published("Fashion-MNIST", "zalando-datasets/fashion_mnist"),
    "cifar10": _Published("CIFAR-10", "uoft-cs/cifar10"),
    "cifar100": _Published("CIFAR-100", "uoft-cs/cifar100", ("fine_label", "label")),
    "tiny-imagenet": _Published(
        "Tiny-ImageNet",
        "zh-plus/tiny-imagenet",
        test_files="valid",
        test_note="Tiny-ImageNet, validation split",
        lossy=True,
    ),
}
DATASETS = ("digits", *_PUBLISHED)


def load(name: str, split: str, folder: str | Path | None = None) -> LabelledSet:
    """Load one split of a data set.

    Decoded images are cached under ``$ONELIP_CACHE`` (``~/.cache/onelip`` if unset).

    Args:
        name: One of `DATASETS`.
        split: ``"train"`` or ``"test"``, which for Tiny-ImageNet is its validation split.
        folder: Folder of the files ``{split}-*.parquet`` in the layout of the hub, or a parent
            of it; for Tiny-ImageNet also that of its unpacked archive. Without it the files are
            downloaded. The digits need neither.

    Raises:
        UsageError: If the name or the split is unknown, or the files are missing or unusable.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if name == "digits":
        return _digits(split)
    published = _PUBLISHED[name]
    root = download(published.repository) if folder is None else Path(folder).expanduser()
    decoded = _decode(name, split, root)
    note = published.note(split, decoded.jpeg)
    return LabelledSet(decoded.images, decoded.labels, SHAPES[name][1], note)


def _decode(name: str, split: str, root: Path) -> Decoded:
    """Decode a split from the files below a folder, or take it from the cache."""
    published, (shape, classes) = _PUBLISHED[name], SHAPES[name]
    archive = tiny_imagenet.find(root) if name == "tiny-imagenet" else None
    if archive is None:
        files = parquet.find(root, name, published.test_files if split == "test" else split)
    else:
        files = tiny_imagenet.sources(archive, split)

    def build() -> cache.Stored:
        if archive is None:
            decoded = parquet.decode(files, shape, classes, published.label_columns)
        else:
            decoded = tiny_imagenet.decode(archive, split)
        tensors = {"images": decoded.images, "labels": decoded.labels}
        return cache.Stored(tensors, {"jpeg": decoded.jpeg})

    def usable(stored: cache.Stored) -> bool:
        images, labels = (stored.tensors.get(part) for part in ("images", "labels"))
        return (
            images is not None
            and labels is not None
            and images.dtype == torch.uint8
            and labels.dtype == torch.int64
            and images.shape == (len(labels), *shape)
            and isinstance(stored.facts.get("jpeg"), bool)
        )

    stored = cache.load_or_build(f"{name}-{split}", files, build, usable)
    return Decoded(stored.tensors["images"], stored.tensors["labels"], stored.facts["jpeg"])


def _digits(split: str) -> LabelledSet:
    """Return a split of the 1797 digits of scikit-learn, 8x8: always the same 1347 and 450."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise missing_extra("scikit-learn", "data") from error
    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=450, stratify=labels, random_state=0
    )
    rows = np.sort(train if split == "train" else test)
    # pixels of the digits are whole numbers from 0 to 16
    images = np.rint(pixels[rows] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return LabelledSet(
        torch.from_numpy(images), torch.from_numpy(labels[rows].astype(np.int64)), 10
    )


def download(repository: str) -> Path:
    """Download the Parquet files of a repository of the hub, and return their folder."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_extra("huggingface_hub", "data") from error
    try:
        return Path(
            snapshot_download(repository, repo_type="dataset", allow_patterns=["*.parquet"])
        )
    except Exception as error:
        raise UsageError(
            f"cannot download {repository} ({type(error).__name__}): "
            "pass --data DIR with a folder in the parquet layout"
        ) from error
