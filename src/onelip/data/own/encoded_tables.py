"""Images in Parquet files, the layout of the hub, of any one size and with any classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onelip.data.own.contents import Contents, numbered
from onelip.data.own.decoding import Encoded, decode_once
from onelip.data.own.tables import LABELS, label_column, label_names, row_of
from onelip.data.parquet import IMAGE_COLUMNS
from onelip.data.pixels import Size
from onelip.errors import UsageError, missing_extra

_LABELS = (*LABELS, "labels", "fine_label")


def holds_images(file: Path) -> bool:
    """Return whether a Parquet file has a column of encoded images.

    Raises:
        UsageError: it cannot be read.
    """
    return _image_column(_schema(file)) is not None


def read_encoded(
    files: Mapping[str, Sequence[Path]], label: str | None, resize: Size | None
) -> Contents:
    """Read the images of Parquet files into one array of each split, through the cache.

    Classes have the names that the files give them, if they do.

    Args:
        files: of each split, whose rows follow each other.
        label: column of the labels; one that is called so by default.
        resize: see ``decode_image``.

    Raises:
        UsageError: a file cannot be read, an image has another size, or a label is missing; the
            message names the file and the row.
    """
    names: dict[str, list[str]] = {split: [] for split in files}
    places: dict[str, list[str]] = {split: [] for split in files}
    known: Sequence[str] | None = None
    for split, paths in files.items():
        for path in paths:
            schema = _schema(path)
            column = label_column(schema.names, path, label, _LABELS)
            rows = label_names(_column(path, column), column, path)
            of_file = _class_names(schema, column) or known
            if of_file is not None:
                rows = [_named(row, of_file, path) for row in rows]
                known = known or of_file
            names[split] += rows
            places[split] += [f"{row_of(path, row)} of {path}" for row in range(len(rows))]
        if not names[split]:
            raise UsageError(f"{paths[0]} holds no images")
    labels, classes = numbered(names, lambda split, row: places[split][row], known)

    def encoded() -> dict[str, list[Encoded]]:
        return {
            split: [
                Encoded(lambda data=data: data, f"the image in {row_of(path, row)} of {path}")  # type: ignore[misc]
                for path in paths
                for row, data in enumerate(_encoded(path))
            ]
            for split, paths in files.items()
        }

    counts = {split: len(rows) for split, rows in names.items()}
    sources = [path for paths in files.values() for path in paths]
    pixels, notes = decode_once(counts, sources, resize, encoded)
    return Contents({split: (pixels[split], labels[split]) for split in files}, classes, (), notes)


def _schema(file: Path) -> Any:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        return parquet.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot read {file} ({type(error).__name__}): replace it") from None


def _column(file: Path, name: str) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(file, columns=[name]).column(name)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"cannot read {file} ({type(error).__name__}): replace it") from None


def _image_column(schema: Any) -> str | None:
    """Name of the column of encoded images, structs with a field ``bytes``."""
    from pyarrow import types

    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
    return None


def _encoded(file: Path) -> list[bytes]:
    """Encoded images of a file; a missing one is empty."""
    name = _image_column(_schema(file))
    if name is None:
        raise UsageError(f"no column {' or '.join(IMAGE_COLUMNS)} with images in {file}")
    cells = _column(file, name).to_pylist()
    return [(cell or {}).get("bytes") or b"" for cell in cells]


def _class_names(schema: Any, column: str) -> list[str] | None:
    """Names of the classes as the hub writes them into a file."""
    try:
        content = json.loads((schema.metadata or {})[b"huggingface"])
        names = content["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names if len(set(names)) == len(names) else None
    return None


def _named(number: str, names: Sequence[str], path: Path) -> str:
    """Name of the class of a number.

    Raises:
        UsageError: there is no class of it.
    """
    if not number.isdecimal() or int(number) >= len(names):
        raise UsageError(f"label {number} of {path} is outside 0..{len(names) - 1}: remove it")
    return names[int(number)]
