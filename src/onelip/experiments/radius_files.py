"""Tables of certified radii as files: CSV, JSON and Parquet, with what the radii rest on."""

import csv
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onelip.atomic_files import atomic_write
from onelip.errors import UsageError, missing_extra

Columns = Mapping[str, Sequence[Any]]


def check_table(path: Path) -> None:
    """Refuse a file that no table can be written to, before anything is computed.

    Raises:
        UsageError: another suffix, no such folder, or a package is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"--out {path}: name a file that ends in {', '.join(_WRITERS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: name a file in a folder that exists")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write_table(path: Path, columns: Columns, rests_on: Mapping[str, Any]) -> list[Path]:
    """Write columns of the same length, and what their radii rest on.

    The latter is the entry ``rests_on`` of a JSON file, the entry ``onelip`` of the metadata of a
    Parquet file, and a file ``NAME.csv.json`` beside a CSV file, which stays free of comments. An
    infinite radius is the largest number there is in JSON, which has no infinity.

    Args:
        path: ends in ``.csv``, ``.json`` or ``.parquet``; one that exists is replaced.
        columns: by name.
        rests_on: as JSON takes it.

    Returns:
        The files that were written.
    """
    return _WRITERS[path.suffix.lower()](path, columns, rests_on)


def _write_csv(path: Path, columns: Columns, rests_on: Mapping[str, Any]) -> list[Path]:
    beside = path.with_name(f"{path.name}.json")
    _write_text(beside, _as_json(rests_on))
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return [path, beside]


def _write_json(path: Path, columns: Columns, rests_on: Mapping[str, Any]) -> list[Path]:
    rows = zip(*columns.values(), strict=True)
    samples = [dict(zip(columns, row, strict=True)) for row in rows]
    _write_text(path, _as_json({"rests_on": dict(rests_on), "samples": samples}))
    return [path]


def _write_parquet(path: Path, columns: Columns, rests_on: Mapping[str, Any]) -> list[Path]:
    pyarrow = _pyarrow()
    from pyarrow import parquet

    table = pyarrow.table({name: list(column) for name, column in columns.items()})
    table = table.replace_schema_metadata({"onelip": _as_json(rests_on)})
    with atomic_write(path) as temporary:
        parquet.write_table(table, temporary)
    return [path]


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _as_json(content: Any) -> str:
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(content: Any) -> Any:
    """Return content with the largest number in the place of infinity."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return sys.float_info.max if content == math.inf else content


_WRITERS: dict[str, Callable[[Path, Columns, Mapping[str, Any]], list[Path]]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
