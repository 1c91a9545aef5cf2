"""Predictions for files of images and of arrays, each with its certified radius."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onelip.certificates import certify
from onelip.data.own.tables import SUFFIXES, read_rows, row_of
from onelip.data.pixels import IMAGE_SUFFIXES, decode_image
from onelip.directed_rounding import downwards
from onelip.errors import UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.load import network_of
from onelip.experiments.radius_files import check_table, write_table
from onelip.experiments.threads import use_threads
from onelip.image_sets import DataInfo

_ARRAYS = (".npy", ".npz")


class Inputs(NamedTuple):
    """Inputs from files, each with a name, as floats; of files of one precision."""

    names: list[str]
    values: Tensor


def predict_run(
    run: ClassificationFolder,
    files: Sequence[Path],
    *,
    method: str | None = None,
    level: Literal["real", "float"] = "real",
    out: Path | None = None,
    average: str | None = None,
) -> str:
    """Predict the inputs in some files, and return a table of classes and certified radii.

    Bytes are pixels, divided by 255 in float32; floats are taken as they are: an array in float64
    is predicted by the network in float64.

    Args:
        run: a trained run.
        files: images of the run's size, or scaled and cropped to it as for training; ``.npy``
            or ``.npz`` files with one input, or several along the first axis; tables with the
            run's columns.
        method: a name in ``onelip.certificates.METHODS``; that of the recipe by default.
        level: of the certificates.
        average: transforms that the mean of the network is taken over; see ``onelip.load``.
        out: ``.csv``, ``.json`` or ``.parquet`` file for the table.

    Raises:
        UsageError: a file cannot be read or holds something else.
    """
    if out is not None:
        check_table(out)
    use_threads(run.recipe.threads)
    network, info = network_of(run, average), run.info
    rows: dict[str, list[Any]] = {"file": [], "prediction": [], "class": [], "radius": []}
    rests_on: dict[str, Any] = {"run": str(run.path), "units": info.unit}
    for inputs in _by_precision(files, info, _stored_size(run)):
        found = certify(
            network.to(inputs.values.dtype),
            inputs.values,
            method=method or run.recipe.certificate,
            level=level,
            box=info.box,
        )
        labels = found.prediction.tolist()
        rows["file"] += inputs.names
        rows["prediction"] += labels
        rows["class"] += [info.classes[label] for label in labels]
        rows["radius"] += found.radius.tolist()
        rests_on |= found.rests_on()
    written = write_table(out, rows, rests_on) if out is not None else []
    notes = [f"radii: l2, {info.unit}; {rests_on['method']}, level {level}"]
    return "\n".join([_text(rows), "", *notes, *(f"written {path}" for path in written)])


def _stored_size(run: ClassificationFolder) -> tuple[int, int] | None:
    """Return the size to which images were scaled and cropped for training."""
    size = run.read().get("data", {}).get("size")
    return (size[0], size[1]) if size else None


def _text(rows: dict[str, list[Any]]) -> str:
    """Format a table of file, class and radius, rounded downwards."""
    wide = max([4, *map(len, rows["file"])])
    name = max([5, *map(len, rows["class"])])
    lines = [f"{'file':<{wide}}  {'class':<{name}}  {'radius':>10}"]
    for file, word, radius in zip(rows["file"], rows["class"], rows["radius"], strict=True):
        lines.append(f"{file:<{wide}}  {word:<{name}}  {downwards(radius):>10}")
    return "\n".join(lines)


def _by_precision(
    files: Sequence[Path], info: DataInfo, size: tuple[int, int] | None
) -> Iterator[Inputs]:
    """Yield the inputs of files in float32, then those in float64."""
    found = [pair for file in files for pair in _read(file, info, size)]
    if not found:
        raise UsageError("nothing to predict: name image, .npy or .npz files with an input or more")
    for dtype in (torch.float32, torch.float64):
        chosen = [(name, value) for name, value in found if value.dtype == dtype]
        if chosen:
            names, values = zip(*chosen, strict=True)
            yield Inputs(list(names), torch.stack(values))


def _read(file: Path, info: DataInfo, size: tuple[int, int] | None) -> Iterator[tuple[str, Tensor]]:
    """Yield the inputs in a file, with their names."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES and info.columns:
        for place, row in enumerate(read_rows(file, info.columns)):
            yield f"{file}:{row_of(file, place)}", torch.from_numpy(row)
        return
    if suffix in IMAGE_SUFFIXES:
        if len(info.shape) != 3:
            raise UsageError(
                f"{file} is an image, and the run is about {len(info.columns)} columns"
            )
        channels, height, width = info.shape
        pixels = decode_image(file.read_bytes(), (channels, height, width), str(file), size)
        yield str(file), torch.from_numpy(pixels.copy()).float().div(255)
        return
    if suffix not in _ARRAYS:
        tables = SUFFIXES if info.columns else ()
        known = ", ".join((*IMAGE_SUFFIXES, *_ARRAYS, *tables))
        raise UsageError(f"cannot predict {file}: name files that end in {known}")
    for name, array in _arrays(file):
        values, shape = _floats(array, name), info.shape
        gray = len(shape) == 3 and shape[0] == 1  # such images may come without their channel
        single = values.shape == shape or (gray and values.shape == shape[1:])
        several = values[None] if single else values
        if gray and several.shape[1:] == shape[1:]:
            several = several[:, None]
        if several.shape[1:] != shape:
            asked = ", ".join(map(str, shape))
            raise UsageError(f"{name} has shape {tuple(values.shape)}: ({asked}) or (n, {asked})")
        for place, value in enumerate(several):
            yield name if single else f"{name}[{place}]", value


def _arrays(file: Path) -> list[tuple[str, Any]]:
    """Arrays of a file, by name."""
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return [(str(file), found)]
        with found:
            return [(f"{file}:{key}", found[key]) for key in found.files]
    except (OSError, ValueError, EOFError, KeyError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise UsageError(f"cannot read {file}: save one array of numbers, or several") from error


def _floats(array: Any, name: str) -> Tensor:
    """Return an array as floats, pixels in [0, 1]."""
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array)).float().div(255)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise UsageError(f"{name} holds {array.dtype}: save uint8, float32 or float64")
    little = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(little))
