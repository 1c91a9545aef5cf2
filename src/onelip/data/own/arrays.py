"""Arrays of an ``.npz`` file: images or rows of numbers, with labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from onelip.data.own.contents import TRAIN, WORDS, Contents, numbered
from onelip.errors import UsageError

_Array = npt.NDArray[Any]
_CHANNELS = (1, 3, 4)


def read_arrays(file: Path) -> Contents:
    """Read ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ``y_test`` and ``x_val``.

    ``x`` are images: uint8 or uint16, or floats in [0, 1], of shape (n, height, width),
    (n, channels, height, width) or (n, height, width, channels); or rows of numbers, (n, d).

    Raises:
        UsageError: the file has other arrays; the message names the array and the row.
    """
    arrays = _arrays(file)
    splits = _splits(arrays, file)
    names = {split: _labels(arrays[y], f"{y} of {file}") for split, (_, y) in splits.items()}
    inputs = {split: _inputs(arrays[x], f"{x} of {file}") for split, (x, _) in splits.items()}
    for split, (x, y) in splits.items():
        if len(inputs[split]) != len(names[split]):
            raise UsageError(
                f"{file}: {x} has {len(inputs[split])} rows, {y} {len(names[split])}: a label for "
                "each is needed"
            )
        a, b = (tuple(inputs[part].shape[1:]) for part in (TRAIN, split))
        if a != b or inputs[TRAIN].dtype != inputs[split].dtype:
            raise UsageError(f"{file}: {x} has inputs of {b}, {splits[TRAIN][0]} of {a}")
    labels, classes = numbered(names, lambda split, row: f"row {row} of {splits[split][1]}")
    columns = tuple(f"x{column}" for column in range(inputs[TRAIN].shape[1]))
    return Contents(
        {split: (inputs[split], labels[split]) for split in splits},
        classes,
        columns if inputs[TRAIN].ndim == 2 else (),
    )


def _arrays(file: Path) -> Mapping[str, _Array]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"cannot read {file} ({reason}): save arrays of numbers or text") from None
    except Exception as error:  # a damaged archive can raise anything, objects are not read
        raise UsageError(f"cannot read {file} ({type(error).__name__}): save it again") from None


def _splits(arrays: Mapping[str, _Array], file: Path) -> dict[str, tuple[str, str]]:
    """Names of the arrays of inputs and labels, by split."""
    lower = {name.lower(): name for name in arrays}
    found = {}
    for word, split in {"": TRAIN, **WORDS}.items():
        x, y = (f"{letter}_{word}".rstrip("_") for letter in "xy")
        if x in lower and y in lower and split not in found:
            found[split] = (lower[x], lower[y])
    if TRAIN not in found:
        raise UsageError(
            f"{file} holds {', '.join(arrays) or 'nothing'}: name the arrays x and y, or x_train, "
            "y_train, x_test, y_test"
        )
    return dict(sorted(found.items(), key=lambda item: item[0] != TRAIN))


def _inputs(array: _Array, where: str) -> Tensor:
    """Pixels as uint8 or as floats in [0, 1], channels first; rows of numbers as float64."""
    if array.ndim not in (2, 3, 4) or 0 in array.shape or array.dtype.kind not in "uif":
        raise UsageError(
            f"{where} is {array.dtype} of shape {array.shape}: save numbers of shape (n, d), "
            "(n, height, width) or (n, channels, height, width)"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        if bad.size:
            raise UsageError(f"row {bad[0]} of {where} is infinite or NaN: leave it out")
    if array.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] in _CHANNELS and array.shape[1] not in _CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(_pixels(array, where)))


def _pixels(array: _Array, where: str) -> _Array:
    """Whole numbers up to 255 as uint8, of 16 bits rounded to 8, floats in [0, 1] in 32 bits."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8)
    least, most = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and least >= 0 and most <= 1:
        return array.astype(np.float32)
    if array.dtype.kind in "ui" and least >= 0 and most <= 255:
        return array.astype(np.uint8)
    raise UsageError(
        f"{where} has pixels from {least:g} to {most:g}: save uint8 of 0 to 255, or floats of 0 to "
        "1"
    )


def _labels(array: _Array, where: str) -> list[str]:
    """Names of the classes of all rows."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UsageError(
            f"{where} has shape {array.shape}: one label for each row, as of y.argmax(1)"
        )
    if array.dtype.kind == "f":
        bad = np.flatnonzero(array != np.rint(array))  # NaN, too
        if bad.size:
            raise UsageError(f"row {bad[0]} of {where} is {array[bad[0]]}: labels name classes")
        array = array.astype(np.int64)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "uibU":
        raise UsageError(f"{where} is {array.dtype}: save whole numbers or text")
    return [str(name) for name in array.tolist()]
