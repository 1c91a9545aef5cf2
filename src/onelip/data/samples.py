"""Samples of a distribution, from array files, folders of images, or data sets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onelip.data.datasets import DATASETS, load
from onelip.data.pixels import IMAGE_SUFFIXES, decode_pixels
from onelip.errors import UsageError

SHAPES_READ = "(n,), (n, d) or (n, channels, height, width)"
FEWEST = 4


@dataclass(frozen=True)
class Samples:
    """Independent samples of one distribution.

    Args:
        values: floats of shape (n, d) or (n, channels, height, width); images are in [0, 1].
        name: the word by which the user named them.
        note: caveat for results computed from them.
    """

    values: Tensor
    name: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.values)


def read_samples(
    text: str,
    *,
    split: str = "train",
    data: str | Path | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Samples:
    """Read samples that the user names in one word.

    ============================= =============================================================
    ``a.npy``, ``a.npz:key``      an array; the key may be left out if the file holds one array
    ``a.pt``                      a tensor, as ``torch.save`` writes it
    ``folder``                    its png, jpg, tif, ... files, all of one size
    ``NAME[:SPLIT[:CLASS]]``      a data set: ``mnist``, ``mnist:test``, ``cifar10:train:3``
    ============================= =============================================================

    Numbers are floats of shape (n,), which becomes (n, 1), (n, d) or (n, channels, height, width),
    or uint8, which are pixels and become floats in [0, 1]. The name of a data set comes before a
    file or folder of that name: write ``./mnist`` for the folder.

    Args:
        text: the word.
        split: split of a data set, if the word names none.
        data: folder of the data set, as for ``onelip.data.load``.
        count: number of samples, drawn without replacement; all by default.
        seed: seed of the draw.

    Raises:
        UsageError: there is no such file, or it holds something else, or fewer than 4 samples.

    Example:
        >>> read_samples("digits:test:3").values.shape
        torch.Size([46, 1, 8, 8])
    """
    if text.partition(":")[0] in DATASETS:
        values, note = _of_data_set(text, split, data)
    else:
        values, note = _of_path(text), ""
    values = _in_layout(values, text)
    return Samples(_as_floats(drawn(values, count, seed, text), text), text, note)


def drawn(values: Tensor, count: int | None, seed: int, name: str) -> Tensor:
    """Draw ``count`` of the samples without replacement, and keep their order.

    Raises:
        UsageError: there are fewer samples than that, or fewer than 4.
    """
    total = len(values)
    if total < FEWEST:
        raise UsageError(f"{name} holds {total} samples: a distance needs at least {FEWEST}")
    if count is None:
        return values
    if not FEWEST <= count <= total:
        raise UsageError(f"--samples {count}: choose {FEWEST} to {total}, which {name} holds")
    generator = torch.Generator().manual_seed(seed)
    return values[torch.randperm(total, generator=generator)[:count].sort().values]


def check_pair(p: Samples, q: Samples) -> None:
    """Refuse samples from different spaces.

    Raises:
        UsageError: their shapes or their precisions differ.
    """
    a, b = (tuple(samples.values.shape[1:]) for samples in (p, q))
    if a != b:
        raise UsageError(
            f"samples of {p.name} have shape {a}, those of {q.name} {b}: "
            "bring both into one shape, images to one size"
        )
    if p.values.dtype != q.values.dtype:
        raise UsageError(
            f"{p.name} holds {p.values.dtype}, {q.name} {q.values.dtype}: save both alike"
        )


def _of_data_set(text: str, split: str, data: str | Path | None) -> tuple[Tensor, str]:
    """Load the images that ``NAME[:SPLIT[:CLASS]]`` names, and their note."""
    name, *rest = text.split(":")
    if len(rest) > 2:
        raise UsageError(f"{text} is no data set: write NAME, NAME:SPLIT or NAME:SPLIT:CLASS")
    images = load(name, rest[0] if rest else split, data)
    if len(rest) < 2:
        return images.inputs, images.note
    if not rest[1].isdecimal() or int(rest[1]) >= images.classes:
        raise UsageError(f"no class {rest[1]!r} in {name}: choose 0 to {images.classes - 1}")
    return images.inputs[images.labels == int(rest[1])], images.note


def _of_path(text: str) -> Tensor:
    """Read the tensor of an array file, or the images of a folder."""
    path, key = Path(text).expanduser(), ""
    if not path.exists() and ".npz:" in text:
        place, _, key = text.rpartition(":")
        path = Path(place).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise UsageError(
            f"no file or folder {text}: name an .npy, .npz or .pt file, a folder of images, "
            f"or one of {', '.join(DATASETS)}"
        )
    readers: dict[str, Callable[[Path], Any]] = {
        ".npy": lambda file: np.load(file, allow_pickle=False),
        ".npz": lambda file: _of_archive(file, key),
        ".pt": lambda file: torch.load(file, map_location="cpu", weights_only=True),
    }
    if path.suffix not in readers:
        raise UsageError(f"cannot read {path}: save it as .npy, .npz or .pt")
    try:
        content = readers[path.suffix](path)
    except UsageError:
        raise
    except Exception as error:  # a damaged file can raise anything, objects are not read
        raise UsageError(
            f"cannot read {path} ({type(error).__name__}): save one array or tensor of numbers"
        ) from None
    if isinstance(content, np.ndarray) and content.dtype.kind in "fu" and content.itemsize <= 8:
        # torch knows no other byte order than the machine's, and no strides below 0
        little = content.astype(content.dtype.newbyteorder("="), copy=False)
        content = torch.from_numpy(np.ascontiguousarray(little))
    if not isinstance(content, Tensor) or not _is_plain(content):
        found = getattr(content, "dtype", type(content).__name__)
        raise UsageError(f"{path} holds {found}: save one array or tensor of floats, or of uint8")
    return content.detach()


def _is_plain(tensor: Tensor) -> bool:
    """Return whether the tensor is dense: not sparse, nested, quantized or on meta."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and not tensor.is_meta
    )


def _of_archive(file: Path, key: str) -> Any:
    """Read one array of an ``.npz`` file: that of the key, or the only one."""
    with np.load(file, allow_pickle=False) as archive:
        names = list(archive.files)
        if key not in names and (key or len(names) != 1):
            raise UsageError(f"{file} holds {', '.join(names) or 'nothing'}: name one, {file}:KEY")
        return archive[key or names[0]]


def _of_folder(folder: Path) -> Tensor:
    """Read the images of a folder, in the order of their names; gray ones fill all channels."""
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise UsageError(f"no images in {folder}: it needs {', '.join(IMAGE_SUFFIXES)} files")
    images = [decode_pixels(file.read_bytes(), str(file)) for file in files]
    sizes = [image.shape[1:] for image in images]
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            first, other = ("x".join(map(str, pixels)) for pixels in (sizes[0], size))
            raise UsageError(
                f"{files[0]} has {first} pixels, {file} {other}: bring all images to one size"
            )
    channels = max(len(image) for image in images)
    same = [np.broadcast_to(image, (channels, *sizes[0])) for image in images]
    return torch.from_numpy(np.stack(same))


def _in_layout(values: Tensor, name: str) -> Tensor:
    """Samples of shape (n, d) or (n, channels, height, width)."""
    if values.ndim not in (1, 2, 4) or 0 in values.shape[1:]:
        raise UsageError(f"{name} has shape {tuple(values.shape)}: bring it to {SHAPES_READ}")
    if values.dtype == torch.uint8 and values.ndim == 4 and values.shape[1] > 4 >= values.shape[3]:
        raise UsageError(
            f"{name} has shape {tuple(values.shape)}: channels come first, {SHAPES_READ}"
        )
    return values[:, None] if values.ndim == 1 else values


def _as_floats(values: Tensor, name: str) -> Tensor:
    """Convert pixels to floats in [0, 1], and refuse numbers that are not finite."""
    if values.dtype == torch.uint8:
        return values.to(torch.float32).div(255)
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.to(torch.float32)
    if values.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"{name} holds {values.dtype}: save floats, or pixels as uint8")
    if not torch.isfinite(values).all():
        raise UsageError(f"{name} holds infinite numbers or NaN: leave those samples out")
    return values.contiguous()
