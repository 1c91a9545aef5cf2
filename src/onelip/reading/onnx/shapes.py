"""ONNX's operators that move or repeat numbers, or put constants between them, by name.

Each is a map ``x -> L x + f(0)``: the numbers 1, 2, 3, ... are put in for x, with zeros for all
other numbers, and the operator itself, as the package of the format defines it, moves them to where
L takes each from.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import shapes
from onelip.reading.onnx.attributes import Attributes

Operator = Callable[..., Any]


def moving(*data: int) -> Operator:
    """An operator that only moves numbers.

    Args:
        data: places of the inputs that hold numbers, all of them if none is given; the others say
            where to.
    """

    def operator(attributes: Attributes, *inputs: Any) -> Any:
        numbers = [i for i in range(len(inputs)) if not data or i in data]
        if any(isinstance(part, Value) for i, part in enumerate(inputs) if i not in numbers):
            raise UnboundedModuleError("a place that depends on the input jumps: no constant")
        return _affine(attributes, inputs, numbers)

    return operator


def _affine(attributes: Attributes, inputs: tuple[Any, ...], numbers: list[int]) -> Any:
    frame = attributes.frame
    empty = list(inputs)
    for i in numbers:
        if isinstance(inputs[i], Value):
            empty[i] = torch.zeros(frame.shape(inputs[i]), dtype=torch.float64)
        elif isinstance(inputs[i], Tensor):
            empty[i] = inputs[i].double()
    nothing = [torch.zeros_like(part) if i in numbers else part for i, part in enumerate(empty)]

    def at(place: int) -> Any:
        def move(x: Tensor) -> Any:
            return attributes.compute(*nothing[:place], x, *nothing[place + 1 :])

        return frame.moved(inputs[place], move)

    moved = [at(i) for i in numbers if isinstance(inputs[i], Value)]
    if isinstance(moved[0], list):
        return moved[0]
    total = functools.reduce(on.add, moved)
    if any(isinstance(inputs[i], Tensor) and bool(inputs[i].any()) for i in numbers):
        return _plus(attributes, total, attributes.compute(*empty))
    return total


def _pad(
    attributes: Attributes,
    value: Value,
    pads: Tensor | None = None,
    number: Tensor | None = None,
    axes: Tensor | None = None,
) -> Value:
    """Circular padding of images is left to the convolution after it."""
    frame, mode = attributes.frame, attributes.get("mode", "constant")
    if isinstance(number, Value):
        raise UnboundedModuleError("a number that depends on the input is not known in padding")
    count = len(frame.shape(value))
    given = attributes.numbers("pads", pads) or []
    along = range(count) if axes is None else [int(a) % count for a in axes.flatten()]
    around = dict(zip(along, zip(given, given[len(along) :], strict=False), strict=True))
    flat = [n for axis in range(count - 1, -1, -1) for n in around.get(axis, (0, 0))]
    if mode == "constant":
        filling = float(attributes.get("value", 0.0) if number is None else number)
        padded: Value = frame.moved(value, lambda x: F.pad(x, flat))
        if filling == 0:
            return padded
        offset = F.pad(torch.zeros(frame.shape(value), dtype=torch.float64), flat, value=filling)
        return _plus(attributes, padded, offset)
    images = frame.batch is not None and count in (3, 4) and not any(flat[-4:])
    if mode == "wrap" and images and min(flat) >= 0:
        return shapes.pad(value, flat[:-4], "circular")
    moved: Value = frame.moved(value, lambda x: attributes.compute(x, pads, None, axes))
    return moved


def _plus(attributes: Attributes, value: Value, offset: Tensor) -> Value:
    if not bool(offset.isfinite().all()):
        raise UnboundedModuleError("puts infinite numbers between those of the input")
    _, row = attributes.frame.broadcast([value, offset])
    return on.add(value, row)


def _scatter(attributes: Attributes, *inputs: Any) -> Value:
    if attributes.get("reduction", "none") != "none":
        raise UnboundedModuleError(f"scattering with {attributes.get('reduction')!r} is not known")
    scattered: Value = moving(0, 2)(attributes, *inputs)
    return scattered


def _shape(attributes: Attributes, value: Value) -> Tensor:
    whole = attributes.frame.shape(value)
    return torch.tensor(whole[attributes.get("start", 0) : attributes.get("end")])


def _size(attributes: Attributes, value: Value) -> Tensor:
    return torch.tensor(torch.Size(attributes.frame.shape(value)).numel())


_FIRST = (
    "CenterCropPad",
    "Compress",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Reshape",
    "ReverseSequence",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
)
SHAPES: dict[str, Operator] = {
    **dict.fromkeys(_FIRST, moving(0)),
    "Concat": moving(),
    "Pad": _pad,
    "Scatter": _scatter,
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Shape": _shape,
    "Size": _size,
}
"""Rules of the operators of the format, by name."""
