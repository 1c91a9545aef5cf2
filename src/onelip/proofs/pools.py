"""Maxima and lengths of groups of numbers as records of ``proof.json``."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip import layers
from onelip.chains import Block, Scale
from onelip.chains.linear_map import Shape
from onelip.norms.windows import overlap_of_maxima
from onelip.proofs.claims import ROOM
from onelip.proofs.elementwise import Written
from onelip.proofs.maps import Record, map_records
from onelip.proofs.tensors import TensorStore
from onelip.reading.graphs.along_axes import Extreme
from onelip.reading.graphs.sorting import Lengths
from onelip.reading.graphs.squares import Length

_MAXIMA = nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, layers.ScaledMaxPool2d


def pool_record(module: Any, block: Block, store: TensorStore, place: str) -> Written | None:
    """Maxima or lengths over windows, or along axes; None for any other map."""
    inputs, outputs = block.inner.outputs, block.hidden
    around: tuple[list[Record], list[Record]] = ([], [])
    if type(module) in _MAXIMA or type(module) is layers.ScaledL2NormPool2d:
        of = "maximum" if type(module) in _MAXIMA else "length"
        around = [], _scaled(outputs, getattr(module, "scale", 1.0), store, place)
        plain = _plain(module, len(inputs) - 1)
        if plain is not None:
            record, constant = plain
            return Written(record, (-constant, constant), *around)
        index = _windows(module, inputs, outputs)
    elif isinstance(module, Lengths | Extreme):
        of = "maximum" if isinstance(module, Extreme) else "length"
        index = _along(inputs, module.axes)
        if isinstance(module, Extreme) and not module.largest:
            around = _scaled(inputs, -1.0, store, place), _scaled(outputs, -1.0, store, place)
    elif type(module) is Length and not (module.guard.epsilon or module.guard.floor):
        of, axes = "length", (1, *(axis + 1 for axis in module.axes))
        index = _along(inputs, axes)
        around = [], _scaled(outputs, 1 / math.sqrt(module.divisor), store, place)
    else:
        return None
    most = int(index[index >= 0].bincount().max())
    constant = 1.0 if most == 1 else math.sqrt(most) * ROOM
    name = store.add(f"{place}.index", index)
    record = {"kind": "pool", "of": of, "index": name, "outputs": list(outputs)}
    return Written(record, (-constant, constant), *around)


def _plain(module: Any, axes: int) -> tuple[Record, float] | None:
    """Maxima over windows inside an image, and their Lipschitz constant."""
    size, stride, padding, dilation = _settings(module, axes)
    changed = any(padding) or dilation != [1] * axes or getattr(module, "ceil_mode", False)
    if axes != 2 or changed or type(module) not in _MAXIMA:
        return None
    overlap = overlap_of_maxima(list(zip(size, stride, strict=True)))
    constant = 1.0 if overlap == 1 else math.sqrt(overlap) * ROOM
    return {"kind": "max-pool", "size": size, "stride": stride}, constant


def _windows(module: Any, inputs: Shape, outputs: Shape) -> Tensor:
    """The pixels of each window, one row per window, -1 outside of the image."""
    place = torch.arange(inputs[0])[:, None]
    settings = zip(*_settings(module, len(inputs) - 1), strict=True)
    for n, m, (k, s, p, d) in zip(inputs[1:], outputs[1:], settings, strict=True):
        look = torch.arange(m)[:, None] * s + torch.arange(k) * d - p
        look = torch.where((look < 0) | (look >= n), -1, look)
        here, there = place[:, None, :, None], look[None, :, None, :]
        joined = torch.where((here < 0) | (there < 0), -1, here * n + there)
        place = joined.reshape(len(place) * m, -1)
    return place


def _along(inputs: Shape, axes: Sequence[int]) -> Tensor:
    """Groups along axes, which are counted with the batch."""
    numbers = torch.arange(math.prod(inputs)).view(inputs)
    along = [axis % (len(inputs) + 1) - 1 for axis in axes]
    rest = [axis for axis in range(len(inputs)) if axis not in along]
    groups = numbers.permute(*rest, *along)
    return groups.reshape(math.prod(inputs[axis] for axis in rest), -1)


def _scaled(shape: Shape, factor: float, store: TensorStore, place: str) -> list[Record]:
    """A factor; nothing for 1."""
    number = torch.tensor(factor, dtype=torch.float64)
    return [] if factor == 1 else map_records(Scale(shape, number), store, f"{place}.pool")


def _settings(module: Any, axes: int) -> list[list[int]]:
    """Size, stride, padding and dilation along each axis."""
    names = {"kernel_size": 0, "stride": 0, "padding": 0, "dilation": 1}
    found = [getattr(module, name, default) for name, default in names.items()]
    return [[x] * axes if isinstance(x, int) else [int(side) for side in x] for x in found]
