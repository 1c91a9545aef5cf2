"""Published tables and the stored runs that belong to their rows.

A folder of ``tables/`` holds ``expected.csv``, one published row a line, and ``results/*.json``,
the ``metrics.json`` of runs. A run belongs to every row that names its recipe, whichever folder it
is stored in; runs that differ only in their seed are averaged. A number that a run does not hold,
such as that of another radius, is left open.
"""

import csv
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from onelip.attacks import ATTACKS
from onelip.errors import UsageError
from onelip.experiments.classification.numbers import Key
from onelip.experiments.tables.stored_runs import CONSTANTS, DISTANCES, StoredRun, read_run

_WORDS = ("recipe", "row", "source")
_PLAIN = ("clean", "exact", "seconds_per_epoch")
_AT_RADIUS = ("certified", *ATTACKS)


@dataclass(frozen=True)
class Row:
    """Published row, numbers with their published digits; without a recipe it has no runs."""

    recipe: str
    row: str
    source: str
    published: dict[str, str]


@dataclass(frozen=True)
class Ours:
    """Averages of runs that differ only in their seed.

    ``std`` is the sample standard deviation of two runs or more; bounds are the runs' largest.
    """

    recipe: str
    files: list[str]
    seeds: list[int]
    mean: dict[str, float | None]
    std: dict[str, float]
    epochs: str
    minutes: float
    bound: float | None
    body_bound: float | None
    notes: list[str]


@dataclass(frozen=True)
class Table:
    """Published rows, each with our runs, and runs of the table's folder that no row names."""

    name: str
    columns: list[str]
    rows: list[tuple[Row, list[Ours]]]
    other: list[Ours]

    def as_json(self) -> str:
        """Return the table as JSON, published numbers as numbers."""
        rows = [
            {
                **asdict(row),
                "published": {name: float(text) for name, text in row.published.items()},
                "ours": [asdict(ours) for ours in groups],
            }
            for row, groups in self.rows
        ]
        other = [asdict(ours) for ours in self.other]
        table = {"name": self.name, "columns": self.columns, "rows": rows, "other_runs": other}
        return json.dumps(table, indent=1)


def read_table(name: str | None, folder: Path | None = None) -> Table:
    """Read a table and every run that is stored for it.

    Args:
        name: of a folder with an ``expected.csv``.
        folder: of the tables; ``tables`` in the working directory by default, else that of the
            checkout that the library runs from.

    Raises:
        UsageError: there is no such table, or a file cannot be understood.
    """
    folder = _folder(folder)
    known = sorted(path.parent.name for path in folder.glob("*/expected.csv"))
    if name not in known:
        problem = "name a table" if name is None else f"no table {name!r}"
        raise UsageError(f"{problem}; known in {folder}: {', '.join(known) or 'none'}")
    columns, rows = _read_rows(folder / name / "expected.csv")
    runs = [read_run(path) for path in sorted(folder.glob("*/results/*.json"))]
    by_recipe = {row.recipe: [r for r in runs if r.recipe == row.recipe] for row in rows}
    by_recipe[""] = []
    other = [r for r in runs if r.file.parts[-3] == name and r.recipe not in by_recipe]
    return Table(
        name,
        columns,
        [(row, _grouped(by_recipe[row.recipe], columns)) for row in rows],
        _grouped(other, columns),
    )


def _folder(given: Path | None) -> Path:
    """Return the folder of the tables."""
    choices = [given] if given else [Path("tables"), Path(__file__).parents[4] / "tables"]
    for folder in choices:
        if folder.is_dir():
            return folder
    raise UsageError(f"no folder {choices[0]}: name that of the tables with --tables DIR")


def _read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Read the columns of numbers, and the rows."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file, strict=True)
        if len({*header}) < len(header) or not {*_WORDS} < {*header}:
            raise ValueError(f"its columns need {', '.join(_WORDS)}, numbers, and none twice")
        numbers = [name for name in header if name not in _WORDS]
        columns = [name for name in numbers if not name.startswith("std_")]
        # Radii are compared as numbers: 36/255 and 72/510 are one column.
        if len({_key(name) for name in columns}) < len(columns):
            raise ValueError("two columns hold the same radius")
        if unknown := {*numbers} - {*columns, *(f"std_{name}" for name in columns)}:
            raise ValueError(f"{', '.join(sorted(unknown))} belongs to no other column")
        return columns, [_row(header, line) for line in lines]
    except (ValueError, ZeroDivisionError, csv.Error) as error:
        raise UsageError(f"{path} is no table of published rows: {error}") from None


def is_share(column: str) -> bool:
    """Check whether a column is in per cent of the test set."""
    return column not in ("seconds_per_epoch", *CONSTANTS, *DISTANCES)


def _key(column: str) -> Key:
    """Parse a column: ``certified_36/255`` is certified accuracy at exactly ``36 / 255``."""
    kind, _, radius = column.partition("_")
    if column in (*_PLAIN, *CONSTANTS, *DISTANCES):
        return column, 0.0
    if kind in _AT_RADIUS and radius:
        above, _, below = radius.partition("/")
        eps = _number(above) / _number(below or "1")
        if eps > 0:
            return kind, eps
    known = (*_PLAIN, *(f"{kind}_EPS" for kind in _AT_RADIUS), *CONSTANTS, *DISTANCES)
    raise ValueError(f"no column can be {column!r}; known: {', '.join(known)}, std_ before each")


def _number(text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError(f"{text!r} is no number")
    return float(text)


def _row(header: list[str], line: list[str]) -> Row:
    if len(line) != len(header):
        raise ValueError(f"{len(line)} cells instead of {len(header)} in {','.join(line)!r}")
    cells = {name: text.strip() for name, text in zip(header, line, strict=True)}
    words = {name: cells.pop(name) for name in _WORDS}
    for name, text in cells.items():
        if text and _number(text) > 100 and is_share(name.removeprefix("std_")):
            raise ValueError(f"{text} per cent under {name}")
    return Row(**words, published={name: text for name, text in cells.items() if text})


def _grouped(runs: Iterable[StoredRun], columns: list[str]) -> list[Ours]:
    """Group runs that differ only in their seed; the longest first."""
    kinds: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        kinds[run.kind].append(run)
    return sorted((_ours(kind, columns) for kind in kinds.values()), key=lambda o: -o.minutes)


def _ours(runs: list[StoredRun], columns: list[str]) -> Ours:
    """Average the runs of one group."""
    keys = {name: _key(name) for name in columns}
    held = {
        name: [run.numbers[key] for run in runs]
        for name, key in keys.items()
        if all(key in run.numbers for run in runs)
    }
    bounds = [run.bounds for run in runs if run.bounds]
    attacks = {kind for kind, _ in keys.values()}
    records = {f"{k}: {record}" for r in runs for k, record in r.attacked.items() if k in attacks}
    return Ours(
        recipe=runs[0].recipe,
        files=[str(run.file) for run in runs],
        seeds=[run.seed for run in runs],
        mean={name: statistics.fmean(held[name]) if name in held else None for name in columns},
        std={name: statistics.stdev(values) for name, values in held.items() if len(values) > 1},
        epochs=runs[0].epochs,
        minutes=statistics.fmean(run.minutes for run in runs),
        bound=max((whole for whole, _ in bounds), default=None),
        body_bound=max((body for _, body in bounds if body is not None), default=None),
        notes=[*runs[0].notes, *sorted(records)],
    )
