"""Axes of a grid, as ``objective.offset=0.5,1,2`` and ``seed=0..4`` write them."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence

from onelip.errors import UsageError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST = 100_000  # values of an axis
_LONGEST = 120  # characters of a folder's name


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse axes: commas between values, two dots between the first and the last whole number.

    Commas inside brackets belong to a value, as in ``eps=[0.1,0.2],[0.3]``.

    Raises:
        UsageError: an axis cannot be understood, or a field or a value stands there twice.

    Example:
        >>> parse_grid(["lr=1e-3,1e-2", "seed=0..2"])
        {'lr': ('1e-3', '1e-2'), 'seed': ('0', '1', '2')}
    """
    grid: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, values = parse_axis(text)
        if name in grid:
            raise UsageError(f"{name} is in the grid twice: give it one list of values")
        grid[name] = values
    return grid


def parse_axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse one axis.

    Raises:
        UsageError: see ``parse_grid``.
    """
    name, equals, listed = text.partition("=")
    name = name.removeprefix("--").replace("-", "_")
    parts = [value for part in split(listed) for value in _expanded(part)]
    if not equals or not name or "" in parts:
        raise UsageError(
            f"{text!r} is no axis of a grid: write FIELD=VALUE,VALUE or FIELD=0..4, as in "
            "objective.offset=0.5,1,2 seed=0..4"
        )
    if len(set(parts)) < len(parts):
        raise UsageError(f"{text!r} holds a value twice")
    return name, tuple(parts)


def points(grid: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """List the points of a grid, the last axis fastest.

    Example:
        >>> points({"lr": ("1", "2"), "seed": ("0", "1")})[1]
        {'lr': '1', 'seed': '1'}
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def point_name(point: Mapping[str, str]) -> str:
    """Name the folder of a point.

    Example:
        >>> point_name({"objective.offset": "0.5", "seed": "0"})
        'objective.offset=0.5,seed=0'
    """
    written = ",".join(f"{name}={value}" for name, value in point.items())
    name = re.sub(r"[^A-Za-z0-9.,=+_-]", "_", written).lstrip(".-")
    if name != written or len(name) > _LONGEST:  # two points keep two names
        name = f"{name[:_LONGEST]}-{hashlib.sha256(written.encode()).hexdigest()[:8]}"
    return name


def split(listed: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth = [""], 0
    for character in listed:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _expanded(part: str) -> Sequence[str]:
    """Write out a range of whole numbers."""
    found = _RANGE.fullmatch(part)
    if found is None:
        return [part]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST:
        raise UsageError(f"{part} is no range: write the smaller number first, as in 0..4")
    return [str(number) for number in range(first, last + 1)]
