"""ONNX's operators that move numbers, by name; see ``onnx_operators``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import shapes

Attributes = dict[str, Any]


def _numbers(attributes: Attributes, name: str, given: Tensor | None) -> list[int] | None:
    """Argument that later versions of the format give as an input, earlier ones as an attribute."""
    return attributes.get(name) if given is None else [int(n) for n in given.flatten()]


def _reshape(attributes: Attributes, value: Value, shape: Tensor | None = None) -> Value:
    wanted = _numbers(attributes, "shape", shape) or []
    if not attributes.get("allowzero", 0):
        old = (1, *value.shape)
        wanted = [n or old[i] for i, n in enumerate(wanted)]
    return shapes.reshape(value, wanted)


def _flatten(attributes: Attributes, value: Value) -> Value:
    if attributes.get("axis", 1) % (len(value.shape) + 1) != 1:
        raise UsageError("flattens the batch: axis=1")
    return shapes.reshape(value, (1, -1))


def _transpose(attributes: Attributes, value: Value) -> Value:
    return shapes.permute(value, attributes.get("perm", range(len(value.shape), -1, -1)))


def _squeeze(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    dropped = _numbers(attributes, "axes", axes)
    if dropped is None:
        raise UsageError("squeezes the batch: axes are asked")
    return shapes.squeeze(value, dropped)


def _unsqueeze(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    added = _numbers(attributes, "axes", axes) or []
    final = len(value.shape) + 1 + len(added)
    for axis in sorted(axis % final for axis in added):
        value = shapes.unsqueeze(value, axis)
    return value


def _mean(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    over = _numbers(attributes, "axes", axes)
    if over is None:
        raise UsageError("takes the mean over the batch: axes are asked")
    return shapes.mean(value, over, bool(attributes.get("keepdims", 1)))


def _global_average(_: Attributes, value: Value) -> Value:
    return shapes.mean(value, range(2, len(value.shape) + 1), True)


def _pad(
    attributes: Attributes,
    value: Value,
    pads: Tensor | None = None,
    number: Tensor | None = None,
    axes: Tensor | None = None,
) -> Value:
    """The format has all beginnings, then all ends, of some axes or of all."""
    given = _numbers(attributes, "pads", pads) or []
    count = len(value.shape) + 1
    along = range(count) if axes is None else [int(a) % count for a in axes.flatten()]
    around = dict(zip(along, zip(given, given[len(along) :], strict=False), strict=True))
    flat = [n for axis in range(count - 1, -1, -1) for n in around.get(axis, (0, 0))]
    mode = str(attributes.get("mode", "constant")).replace("wrap", "circular")
    filling = attributes.get("value", 0.0) if number is None else float(number)
    return shapes.pad(value, flat, mode, filling)


def _slice(attributes: Attributes, value: Value, *inputs: Tensor | None) -> Value:
    names = ("starts", "ends", "axes", "steps")
    starts, ends, axes, steps = (
        _numbers(attributes, name, inputs[i] if i < len(inputs) else None)
        for i, name in enumerate(names)
    )
    assert starts is not None
    assert ends is not None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = (1, *value.shape)[axis]
        taken = list(range(size))[_range(start, end, step, size)]
        if taken != list(range(size)):
            value = shapes.part_of(value, axis, torch.tensor(taken))
    return value


def _range(start: int, end: int, step: int, size: int) -> slice:
    """A negative end that is out of reach takes all, going backwards."""
    return slice(start, None if step < 0 and end < -size else end, step)


def _gather(attributes: Attributes, value: Value, places: Tensor) -> Value:
    axis = attributes.get("axis", 0)
    if not isinstance(value, Value) or places.ndim > 1:
        raise UnboundedModuleError("only a list of fixed places along an axis is known")
    return shapes.part_of(value, axis, places if places.ndim else int(places))


def _shape(attributes: Attributes, value: Value) -> Tensor:
    shape = [1, *value.shape]
    return torch.tensor(shape[attributes.get("start", 0) : attributes.get("end", None)])


def _depth_to_space(attributes: Attributes, value: Value) -> Value:
    block = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return on.layer(nn.PixelShuffle(block), value)
    channels, height, width = value.shape
    split = shapes.reshape(value, (1, block, block, channels // block**2, height, width))
    turned = shapes.permute(split, (0, 3, 4, 1, 5, 2))
    return shapes.reshape(turned, (1, channels // block**2, height * block, width * block))


def _concat(attributes: Attributes, *parts: Any) -> Value:
    return shapes.concatenate(parts, attributes["axis"])


def _split(attributes: Attributes, value: Value, sizes: Tensor | None = None) -> list[Value]:
    axis = attributes.get("axis", 0) % (len(value.shape) + 1)
    given = _numbers(attributes, "split", sizes)
    length = (1, *value.shape)[axis]
    if given is None:
        each = -(-length // attributes.get("num_outputs", 2))
        given = [min(each, length - start) for start in range(0, length, each)]
    return shapes.parts(value, lambda x: x.split(given, axis), axis)


SHAPES: dict[str, Callable[..., Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "ReduceMean": _mean,
    "GlobalAveragePool": _global_average,
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _gather,
    "Shape": _shape,
    "DepthToSpace": _depth_to_space,
    "Concat": _concat,
    "Split": _split,
}
