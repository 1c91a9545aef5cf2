"""A data set with its splits, published or one's own: what every command asks."""

import abc
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from onelip.data.datasets import load
from onelip.data.labelled_set import LabelledSet
from onelip.data.own import Contents, Source, read_source
from onelip.data.own.contents import TEST, TRAIN, VALIDATION, shortened
from onelip.data.split import by_class, holdout
from onelip.errors import UsageError
from onelip.image_sets import OWN, DataInfo, published

_TEST_SHARE = 5
_VALIDATION_SHARE = 10
_DIGITS = 1e4  # of 32 bits: a column whose mean is larger than this many deviations loses too many


class DataSet(abc.ABC):
    """Facts of a data set, and its splits, which are read when they are asked for.

    Args:
        name: of a published data set, or ``"own"``.
        source: where its files are; None for a download.
        split_seed: of the splits that are made.
    """

    def __init__(self, name: str, source: Source | None, split_seed: int) -> None:
        self.name, self.source, self.split_seed = name, source, split_seed

    @property
    @abc.abstractmethod
    def info(self) -> DataInfo:
        """Shape, classes and units."""

    @property
    @abc.abstractmethod
    def train(self) -> LabelledSet:
        """What is trained on."""

    @property
    @abc.abstractmethod
    def validation(self) -> LabelledSet:
        """What is held out for every choice."""

    @property
    @abc.abstractmethod
    def test(self) -> LabelledSet:
        """What results are of."""

    @property
    def made(self) -> Mapping[str, str]:
        """Words for the splits that the files do not have."""
        return {}

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of results should know."""
        return ()

    def record(self) -> dict[str, Any]:
        """Return what is in the data, for the record of a run."""
        info = self.info
        splits = {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}
        size = None if self.source is None or self.source.size is None else [*self.source.size]
        found = {
            "name": self.name,
            "folder": None if self.source is None else self.source.lasting,
            "label": None if self.source is None else self.source.label,
            "size": size,
            "shape": [*info.shape],
            "classes": [*info.classes],
            "columns": [*info.columns],
            "mean": [*info.mean],
            "std": [*info.std],
            "note": self.train.note,
            "notes": [*self.notes],
            "train": len(self.train),
            "split_seed": self.split_seed,
            "splits": {
                split: {
                    "count": len(data),
                    "made": self.made.get(split),
                    "sha256": digest(data),
                }
                for split, data in splits.items()
            },
        }
        return {key: value for key, value in found.items() if value != []}

    def summary(self) -> str:
        """What is in the data, in a line, and a line for each note."""
        info = self.info
        shape = " x ".join(map(str, info.shape))
        what = f"rows of {shape} numbers" if info.columns else f"images of {shape}"
        counts = ", ".join(
            f"{split} {len(data)}" + (f" ({self.made[split]})" if split in self.made else "")
            for split, data in (
                (TRAIN, self.train),
                (VALIDATION, self.validation),
                (TEST, self.test),
            )
        )
        line = f"data: {what}, {len(info.classes)} classes ({shortened(info.classes)}); {counts}"
        return "\n".join([line, *(f"note: {note}" for note in self.notes)])


class PublishedSet(DataSet):
    """Data set that has a name.

    Args:
        name: one of ``DATASETS``.
        source: where its files are; None for a download.
        validation: number of training images that are held out.
        split_seed: of that choice.
    """

    def __init__(self, name: str, source: Source | None, validation: int, split_seed: int) -> None:
        super().__init__(name, source, split_seed)
        self._held_out = validation

    @property
    def info(self) -> DataInfo:
        """Published shape; classes are numbered."""
        return published(self.name)

    @property
    def train(self) -> LabelledSet:
        """Training images without those that are held out."""
        return self._parts[0]

    @property
    def validation(self) -> LabelledSet:
        """Training images that are held out."""
        return self._parts[1]

    @cached_property
    def test(self) -> LabelledSet:
        """Published test images."""
        return self._load("test")

    @property
    def made(self) -> Mapping[str, str]:
        """Validation is drawn."""
        return {VALIDATION: f"drawn with seed {self.split_seed}"}

    @cached_property
    def _parts(self) -> tuple[LabelledSet, LabelledSet]:
        return holdout(self._load("train"), self._held_out, self.split_seed)

    def _load(self, split: str) -> LabelledSet:
        return load(self.name, split, None if self.source is None else self.source.place)


class OwnSet(DataSet):
    """Data set of one's own.

    Splits that the files do not have are drawn by class: a fifth of the training rows for tests,
    then those for validation.

    Args:
        source: where its files are.
        validation: number of training rows that are held out; a tenth by default.
        split_seed: of the splits that are made.

    Raises:
        UsageError: the files cannot be used, or there are too few rows.
    """

    def __init__(self, source: Source, validation: int | None, split_seed: int) -> None:
        super().__init__(OWN, source, split_seed)
        contents = read_source(source)
        self._contents = contents
        self._made: dict[str, str] = {}
        self._splits = {
            split: LabelledSet(inputs, labels, len(contents.classes))
            for split, (inputs, labels) in contents.splits.items()
        }
        if TEST not in self._splits:
            self._draw(TEST, max(1, len(self._splits[TRAIN]) // _TEST_SHARE), "a fifth")
        if VALIDATION in self._splits:
            given = len(self._splits[VALIDATION])
            if validation not in (None, given):
                raise UsageError(
                    f"--validation {validation}: {source.place} has a validation split of {given}, "
                    "which is taken"
                )
        else:
            tenth = max(1, len(self._splits[TRAIN]) // _VALIDATION_SHARE)
            self._draw(VALIDATION, validation or tenth)
        self._info = _info(contents, self._splits[TRAIN], source)

    @property
    def info(self) -> DataInfo:
        """Shape and classes of the files; the scaling of a table is that of its training split."""
        return self._info

    @property
    def train(self) -> LabelledSet:
        """Training rows without those that are drawn for other splits."""
        return self._splits[TRAIN]

    @property
    def validation(self) -> LabelledSet:
        """Given or drawn."""
        return self._splits[VALIDATION]

    @property
    def test(self) -> LabelledSet:
        """Given or drawn."""
        return self._splits[TEST]

    @property
    def made(self) -> Mapping[str, str]:
        """Splits that were drawn."""
        return self._made

    @property
    def notes(self) -> Sequence[str]:
        """What was changed in the files, and classes of a single row."""
        counts = torch.bincount(self.train.labels, minlength=len(self.info.classes))
        notes = [*self._contents.notes]
        single = [self.info.classes[label] for label in (counts == 1).nonzero().flatten()]
        if single:
            notes.append(f"a single row is left to train {shortened(single)}")
        none = [self.info.classes[label] for label in (counts == 0).nonzero().flatten()]
        if none:
            notes.append(f"the training split has no row of {shortened(none)}")
        return notes

    def _draw(self, split: str, size: int, share: str = "") -> None:
        """Take a split from the training rows."""
        whole = self._splits[TRAIN]
        try:
            kept, drawn = by_class(whole.labels, size, self.split_seed)
        except UsageError as error:
            raise UsageError(
                f"no {split} split can be drawn from the training rows: {error}"
            ) from None
        how = f"drawn by class with seed {self.split_seed}"
        self._made[split] = f"{share} of all, {how}" if share else how
        self._splits[TRAIN], self._splits[split] = whole.subset(kept), whole.subset(drawn)
        if split == TEST:
            note = "own data, a test split drawn from them"
            self._splits[split] = LabelledSet(
                self._splits[split].inputs, self._splits[split].labels, whole.classes, note
            )


def open_data(
    name: str,
    source: Source | None = None,
    *,
    validation: int | None = None,
    split_seed: int = 0,
) -> DataSet:
    """Open a data set: files of one's own are read, published splits when they are asked for.

    Args:
        name: one of ``DATASETS``, or ``"own"``.
        source: where its files are; None for the download of a published one.
        validation: number of training rows that are held out; a tenth by default of one's own.
        split_seed: of the splits that are made.

    Raises:
        UsageError: the data cannot be used, or none are named.
    """
    if name == OWN:
        if source is None:
            raise UsageError("name your data: --data FOLDER, --data FILE or --data hub:OWNER/NAME")
        return OwnSet(source, validation, split_seed)
    if source is not None and (source.label is not None or source.size is not None):
        raise UsageError(f"--label and --size are for data of your own, not for {name}")
    if validation is None:
        raise UsageError(f"{name} needs a number of images to hold out")
    return PublishedSet(name, source, validation, split_seed)


def digest(data: LabelledSet) -> str:
    """SHA-256 of type, shape and numbers of a split."""
    found = hashlib.sha256(
        json.dumps([str(data.inputs.dtype), [*data.inputs.shape], data.classes]).encode()
    )
    for part in (data.inputs, data.labels):
        found.update(np.ascontiguousarray(part.numpy()).data)
    return found.hexdigest()


def _info(contents: Contents, train: LabelledSet, source: Source) -> DataInfo:
    """Facts of one's own data; a column that is constant is scaled like the widest one.

    Raises:
        UsageError: a column changes too little beside its mean for arithmetic of 32 bits.
    """
    shape, rows = tuple(train.inputs.shape[1:]), train.inputs
    if not contents.columns:
        return DataInfo(shape, contents.classes)
    mean, std = rows.mean(0), rows.std(0, correction=0)
    moving = std > 0
    if not bool(moving.any()):
        raise UsageError(f"every column of {source.place} is constant: there is nothing to learn")
    std = torch.where(moving, std, std.max())  # the bound is 1 / min(std)
    numbers = (mean.tolist(), std.tolist(), moving.tolist())
    for column, middle, width, moves in zip(contents.columns, *numbers, strict=True):
        if moves and abs(middle) > _DIGITS * width:
            raise UsageError(
                f"column {column!r} of {source.place} has mean {middle:g} and deviation {width:g}: "
                "subtract a number from it first, or leave it out"
            )
        if not 1e-30 < width < 1e30:
            raise UsageError(
                f"column {column!r} of {source.place} has deviation {width:g}: scale it"
            )
    return DataInfo(shape, contents.classes, contents.columns, (*mean.tolist(),), (*std.tolist(),))
