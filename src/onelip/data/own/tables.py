"""Tables in CSV or Parquet files: columns of numbers, and one with the labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from onelip.data.own.contents import Contents, numbered, shortened
from onelip.errors import UsageError, missing_extra

LABELS = ("label", "target", "class")
"""Columns that hold the labels where none is named."""

SUFFIXES = (".csv", ".tsv", ".parquet")
_DELIMITERS = (",", ";", "\t")


def read_tables(files: Mapping[str, Sequence[Path]], label: str | None) -> Contents:
    """Read tables by split.

    Args:
        files: of each split, whose rows follow each other.
        label: column of the labels; one of ``LABELS`` by default.

    Raises:
        UsageError: a file cannot be read, lacks a column that others have, or a cell is no finite
            number; the message names file, column and row.
    """
    names: dict[str, list[str]] = {}
    rows: dict[str, npt.NDArray[np.float64]] = {}
    places: dict[str, list[tuple[Path, int]]] = {}
    columns: list[str] | None = None
    for split, paths in files.items():
        names[split], parts, places[split] = [], [], []
        for path in paths:
            table = _read(path)
            column = label_column(table.column_names, path, label)
            _refuse_other_columns(table, path, columns)
            columns = columns or [name for name in table.column_names if name != column]
            if not columns:
                raise UsageError(f"{path} has no column beside {column!r}: there is nothing to use")
            names[split] += label_names(table.column(column), column, path)
            parts.append(_numbers(table, columns, path))
            places[split] += [(path, row) for row in range(table.num_rows)]
        rows[split] = np.concatenate(parts)
        if not len(rows[split]):
            raise UsageError(f"{paths[0]} has no rows")

    def where(split: str, row: int) -> str:
        path, number = places[split][row]
        return f"{row_of(path, number)} of {path}"

    labels, classes = numbered(names, where)
    splits = {split: (torch.from_numpy(rows[split]), labels[split]) for split in files}
    return Contents(splits, classes, tuple(columns or ()))


def read_rows(path: Path, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Read some columns of a table as numbers, shape (rows, columns).

    Raises:
        UsageError: see ``read_tables``.
    """
    table = _read(path)
    _refuse_other_columns(table, path, list(columns))
    return _numbers(table, columns, path)


def _read(path: Path) -> Any:
    """Read a table, cells of a CSV file as text."""
    try:
        import pyarrow as pa
        from pyarrow import csv, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        if path.suffix.lower() == ".parquet":
            table = parquet.read_table(path)
        else:
            with path.open(encoding="utf-8-sig") as opened:
                first = opened.readline()
            delimiter = max(_DELIMITERS, key=first.count)
            how = csv.ParseOptions(delimiter=delimiter)
            found = csv.open_csv(path, parse_options=how).schema.names
            text = csv.ConvertOptions(column_types=dict.fromkeys(found, pa.string()))
            table = csv.read_csv(path, parse_options=how, convert_options=text)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no UTF-8: save it as such") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"cannot read {path}: {reason}") from None
    doubled = {name for name in table.column_names if table.column_names.count(name) > 1}
    if doubled:
        raise UsageError(f"{path} has two columns {min(doubled)!r}: rename one")
    if table.column_names and all(_is_number(name) for name in table.column_names):
        raise UsageError(f"the first line of {path} holds numbers: write names of columns above it")
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def row_of(path: Path, row: int) -> str:
    """Words for a row: the line of a CSV file, below its line of names."""
    return f"row {row}" if path.suffix.lower() == ".parquet" else f"line {row + 2}"


def label_column(
    names: Sequence[str], path: Path, label: str | None, usual: Sequence[str] = LABELS
) -> str:
    """Return the column of the labels: the one that is asked, or the first of the usual ones.

    Raises:
        UsageError: the file has none of them.
    """
    wanted = usual if label is None else (label,)
    for name in wanted:
        if name in names:
            return name
    raise UsageError(
        f"no column {' or '.join(map(repr, wanted))} in {path}: --label COLUMN names one of "
        f"{shortened(names)}"
    )


def label_names(column: Any, name: str, path: Path) -> list[str]:
    """Return the labels of a column as text.

    Raises:
        UsageError: one is missing, or no text or whole number.
    """
    values = column.to_pylist()
    for row, value in enumerate(values):
        where = f"column {name!r} in {row_of(path, row)} of {path}"
        if value is None or value == "":
            raise UsageError(f"{where} is empty: remove the row")
        if isinstance(value, float) and value.is_integer():
            values[row] = int(value)
        elif not isinstance(value, str | int):
            raise UsageError(f"{where} is {value!r}: labels are text or whole numbers")
    return [value.strip() if isinstance(value, str) else str(value) for value in values]


def _refuse_other_columns(table: Any, path: Path, columns: list[str] | None) -> None:
    missing = [name for name in columns or [] if name not in table.column_names]
    if missing:
        raise UsageError(f"{path} has no column {missing[0]!r}, which the training table has")


def _numbers(table: Any, columns: Sequence[str], path: Path) -> npt.NDArray[np.float64]:
    """Columns as numbers, shape (rows, columns)."""
    found = np.empty((table.num_rows, len(columns)))
    for number, name in enumerate(columns):
        column = _floats(table.column(name), name, path)
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise UsageError(
                f"column {name!r} in {row_of(path, int(bad[0]))} of {path} is empty or no finite "
                "number: fill it, or remove the row"
            )
        found[:, number] = column
    return found


def _floats(column: Any, name: str, path: Path) -> npt.NDArray[np.float64]:
    """Numbers of a column, NaN where a cell is empty."""
    import pyarrow as pa
    from pyarrow import compute, types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = compute.utf8_trim_whitespace(column)
        column = compute.if_else(compute.equal(column, ""), None, column)
    elif types.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        cells = column.to_pylist()
    row = next((row for row, cell in enumerate(cells) if not _fits(cell, column.type)), 0)
    raise UsageError(
        f"column {name!r} in {row_of(path, row)} of {path} is {str(cells[row])[:40]!r}, no number: "
        "write numbers with a decimal point and without thousands, or leave the column out"
    )


def _fits(cell: Any, kind: Any) -> bool:
    """Check whether a cell alone becomes a number."""
    import pyarrow as pa

    try:
        pa.array([cell], kind).cast(pa.float64())
    except pa.ArrowException:
        return False
    return True
