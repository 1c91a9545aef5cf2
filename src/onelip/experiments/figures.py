"""Figures of every kind of run: drawn without a window, written whole or not at all."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onelip.atomic_files import atomic_write
from onelip.errors import UsageError, missing_extra


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure without a window; nothing but the caller keeps it.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot") from error
    return Figure(figsize=(width, height), layout="constrained")


def colors() -> Iterator[str]:
    """Yield matplotlib's colours, over and over."""
    return (f"C{number}" for number in itertools.count())


def name_axes(axis: Any, x: str, y: str) -> None:
    """Label an axis in both directions, and draw a light grid."""
    axis.set(xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)


def checked_target(target: Path) -> Path:
    """Return a path that a figure can be written to.

    Raises:
        UsageError: another suffix than .png, .pdf or .svg.
    """
    if target.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"{target} is no figure: --out FIGURE.png, .pdf or .svg")
    return target


def save_figure(figure: Any, target: Path) -> Path:
    """Write a figure whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with atomic_write(checked_target(target)) as temporary:
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror}): choose another --out"
        ) from None
    return target
