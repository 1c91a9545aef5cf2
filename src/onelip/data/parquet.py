"""Image data sets in the hub's Parquet layout: finding and decoding their files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from onelip.data.pixels import Decoded, Pixels, Shape, decode_image, is_jpeg, read_header
from onelip.errors import UsageError, missing_extra
from onelip.image_sets import SHAPES

IMAGE_COLUMNS = ("image", "img")
_ROWS_PER_READ = 4096


def find(folder: Path, name: str, split: str) -> list[Path]:
    """Return the files ``{split}-*.parquet`` of the data set ``name`` in or below ``folder``.

    Raises:
        UsageError: If the folder or the files are missing.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder {folder}: pass --data DIR with a folder that exists")
    for root in (folder, *_named_subfolders(folder, name)):
        for place in (root, root / "data", root / "plain_text", *_named_subfolders(root, name)):
            files = sorted(place.glob(f"{split}-*.parquet"))
            if files:
                return files
    raise UsageError(
        f"no {split}-*.parquet for {name} in {folder}: "
        "pass --data DIR with a folder in the parquet layout"
    )


def holds(folder: Path, name: str) -> bool:
    """Return whether a folder has training files of a published data set.

    Files whose first image has another size are those of another one.
    """
    try:
        files = find(folder, name, "train")
    except UsageError:
        return False
    try:
        _, (first, *_), _ = next(_read(files[0], ("label", "fine_label")))
        return read_header(first, "the first image").size == SHAPES[name][0][1:]
    except (UsageError, StopIteration, ValueError):
        return _parent_is_named(files[0], folder, name)


def _parent_is_named(file: Path, folder: Path, name: str) -> bool:
    """Return whether the folder of a file, below another one, is called after a data set."""
    return any(place in file.parents for place in _named_subfolders(folder, name))


def _named_subfolders(folder: Path, name: str) -> list[Path]:
    """Return subfolders such as ``cifar10`` or ``cifar10-jpeg``, not ``cifar100``; exact first."""
    pattern = re.compile(re.escape(name) + r"(?![0-9a-z])")
    spelled = {p: p.name.lower().replace("_", "-") for p in folder.iterdir() if p.is_dir()}
    named = [path for path, spelling in spelled.items() if pattern.match(spelling)]
    return sorted(named, key=lambda path: (spelled[path] != name, path.name))


def decode(
    files: Sequence[Path], shape: Shape, classes: int, label_columns: Sequence[str]
) -> Decoded:
    """Decode every image, checking shapes and labels.

    Args:
        files: Parquet files, in order.
        shape: The ``(channels, height, width)`` that every image must have, gray ones apart.
        classes: Labels must lie in ``range(classes)``.
        label_columns: Names of the label column, the preferred one first.

    Raises:
        UsageError: If a file cannot be read or holds something else.
    """
    images: list[Pixels] = []
    labels: list[npt.NDArray[np.int64]] = []
    jpeg = False
    for file in files:
        for first_row, encoded, targets in _read(file, label_columns):
            _check_labels(targets, classes, file, first_row)
            labels.append(targets)
            images.append(_decode_rows(encoded, shape, file, first_row))
            jpeg = jpeg or any(map(is_jpeg, encoded))
    if not images:
        raise UsageError(f"{files[0]} holds no images: pass --data DIR with another folder")
    return Decoded(
        torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels)), jpeg
    )


def _read(
    file: Path, label_columns: Sequence[str]
) -> Iterator[tuple[int, list[bytes], npt.NDArray[np.int64]]]:
    """Yield (first row, encoded images, labels) piece by piece."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        with pq.ParquetFile(file) as opened:
            columns = _columns(opened.schema_arrow, file, label_columns)
            row = 0
            for piece in opened.iter_batches(_ROWS_PER_READ, columns=list(columns)):
                yield row, *_values(piece, columns, file)
                row += piece.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot read {file} ({type(error).__name__}): replace it") from error


def _columns(schema: Any, file: Path, label_columns: Sequence[str]) -> tuple[str, str]:
    """Return the names of the image and the label column, after a check of their types."""
    import pyarrow.types as kinds

    image = _first_present(schema, IMAGE_COLUMNS, "image", file)
    label = _first_present(schema, label_columns, "label", file)
    kind = schema.field(image).type
    if not kinds.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise UsageError(f"column {image} of {file} is not a struct with a field 'bytes'")
    if not kinds.is_integer(schema.field(label).type):
        raise UsageError(f"column {label} of {file} does not hold integers")
    return image, label


def _first_present(schema: Any, wanted: Sequence[str], what: str, file: Path) -> str:
    """Return the first of the wanted column names that the file has."""
    for name in wanted:
        if name in schema.names:
            return name
    raise UsageError(
        f"no {what} column in {file}: rename one of {', '.join(schema.names) or 'no columns'} "
        f"to {' or '.join(wanted)}"
    )


def _values(
    piece: Any, columns: tuple[str, str], file: Path
) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """Return encoded images and labels of some rows; a missing image becomes empty bytes."""
    image, label = (piece.column(name) for name in columns)
    if label.null_count:
        raise UsageError(f"column {columns[1]} of {file} has missing labels: remove those rows")
    encoded = [data or b"" for data in image.field("bytes").to_pylist()]
    return encoded, label.to_numpy(zero_copy_only=False).astype(np.int64)


def _check_labels(labels: npt.NDArray[np.int64], classes: int, file: Path, first_row: int) -> None:
    """Refuse labels outside ``range(classes)``."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise UsageError(
            f"label {labels[wrong[0]]} in row {first_row + wrong[0]} of {file} is outside "
            f"0..{classes - 1}: is this another data set?"
        )


def _decode_rows(encoded: Sequence[bytes], shape: Shape, file: Path, first_row: int) -> Pixels:
    """Decode images into one array of shape ``(n, channels, height, width)``."""
    pixels = np.empty((len(encoded), *shape), dtype=np.uint8)
    for index, data in enumerate(encoded):
        where = f"the image in row {first_row + index} of {file}"
        pixels[index] = decode_image(data, shape, where)
    return pixels
