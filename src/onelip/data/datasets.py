"""Data sets by name: scikit-learn's digits, and the others from files or the hub."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onelip.data import cache, parquet, tiny_imagenet
from onelip.data.pixels import Decoded
from onelip.errors import UsageError, missing_extra
from onelip.image_sets import SHAPES

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels in memory.

    Args:
        images: uint8, shape ``(n, channels, height, width)``.
        labels: int64, shape ``(n,)``.
        classes: Number of classes; labels lie in ``range(classes)``.
        note: Caveat for results computed from this set, such as ``"CIFAR-10 (JPEG copy)"``; empty
            if the pixels are the published ones.

    Raises:
        UsageError: If a type or a shape differs from these.
    """

    images: Tensor
    labels: Tensor
    classes: int
    note: str = ""

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UsageError("images must be uint8 of shape (n, channels, height, width)")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UsageError("labels must be int64, one per image")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes, self.note)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images at ``indices``, in that order."""
        return ImageSet(self.images[indices], self.labels[indices], self.classes, self.note)


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


def load(name: str, split: str, folder: str | Path | None = None) -> ImageSet:
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
    root = _download(published.repository) if folder is None else Path(folder).expanduser()
    decoded = _decode(name, split, root)
    note = published.note(split, decoded.jpeg)
    return ImageSet(decoded.images, decoded.labels, SHAPES[name][1], note)


def _decode(name: str, split: str, root: Path) -> Decoded:
    """Decode a split from the files below a folder, or take it from the cache."""
    published, (shape, classes) = _PUBLISHED[name], SHAPES[name]
    archive = tiny_imagenet.find(root) if name == "tiny-imagenet" else None
    if archive is None:
        files = parquet.find(root, name, published.test_files if split == "test" else split)
        build = partial(parquet.decode, files, shape, classes, published.label_columns)
    else:
        files = tiny_imagenet.sources(archive, split)
        build = partial(tiny_imagenet.decode, archive, split)
    return cache.load_or_build(name, split, files, shape, build)


def _digits(split: str) -> ImageSet:
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
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels[rows].astype(np.int64)), 10)


def _download(repository: str) -> Path:
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
