"""What the files of a data set hold: splits with labels, names of classes, notes."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.errors import UsageError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
"""Splits by the words for them in names of files, folders and arrays."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Contents:
    """Splits that the files have, before any is made.

    Args:
        splits: inputs and labels by name, ``"train"`` among them; see ``LabelledSet``.
        classes: their names, in the order of the labels.
        columns: names of the columns of a table.
        notes: what a reader of results should know, a sentence each.
    """

    splits: Mapping[str, tuple[Tensor, Tensor]]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise UsageError(
                f"the data have {len(self.classes)} class ({', '.join(self.classes)}): a "
                "classifier needs two or more"
            )


def numbered(
    names: Mapping[str, Sequence[str]],
    where: Callable[[str, int], str],
    known: Sequence[str] | None = None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Number the classes of all splits alike: those of the training split, in order.

    Whole numbers are ordered as numbers, other names as text.

    Args:
        names: of the class of each row, by split.
        where: words for a row of a split in errors.
        known: names in order, if the data set has them.

    Returns:
        Labels by split, and the names.

    Raises:
        UsageError: another split has a class that the training split has not, or nearly every row
            has a class of its own.
    """
    names = {split: [class_name(name) for name in rows] for split, rows in names.items()}
    classes = ordered(set(names[TRAIN])) if known is None else [*map(class_name, known)]
    if known is None and len(classes) > max(10, len(names[TRAIN]) // 2):
        raise UsageError(
            f"{where(TRAIN, 0)}: {len(classes)} different labels in {len(names[TRAIN])} rows are "
            "no classes: name another label"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    labels = {}
    for split, rows in names.items():
        missing = next((row for row, name in enumerate(rows) if name not in numbers), None)
        if missing is not None:
            raise UsageError(
                f"{where(split, missing)} has the class {rows[missing]!r}, which the training "
                f"split has not ({shortened(classes)})"
            )
        labels[split] = torch.tensor([numbers[name] for name in rows], dtype=torch.int64)
    return labels, tuple(classes)


def class_name(name: str) -> str:
    """Return a name in the form in which equal ones have equal characters (NFC)."""
    return unicodedata.normalize("NFC", name)


def shortened(names: Sequence[str]) -> str:
    """The first of the names, with commas."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def ordered(names: Iterable[str]) -> list[str]:
    """Sort names: as numbers if all are whole numbers, else as text."""
    names = list(names)
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
