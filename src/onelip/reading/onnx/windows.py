"""ONNX's convolutions and poolings; see ``onnx_operators``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Opaque
from onelip.chains.linear_layers import expect, tried
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import lipschitz_bound
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import shapes

Attributes = dict[str, Any]


def conv(attributes: Attributes, value: Value, weight: Tensor, bias: Any = None) -> Value:
    """Along one axis or two."""
    axes = weight.ndim - 2
    stride = attributes.get("strides", [1] * axes)
    dilation = attributes.get("dilations", [1] * axes)
    return on.convolve(
        value,
        weight,
        bias,
        stride=stride,
        sides=_sides(attributes, value, weight.shape[2:], stride, dilation),
        dilation=dilation,
        groups=attributes.get("group", 1),
    )


def _sides(
    attributes: Attributes,
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """Pixels before and after, along each axis."""
    axes, mode = len(kernel), attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = attributes.get("pads", [0] * 2 * axes)
        return [(pads[i], pads[i + axes]) for i in range(axes)]
    if mode == "VALID":
        return [(0, 0)] * axes
    sides = []
    for n, k, s, d in zip(value.shape[1:], kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return sides


def max_pool(attributes: Attributes, value: Value) -> Value:
    """Padded with numbers below all others; its bound is that of the windows."""
    kernel, stride, dilation, sides = _pool(attributes, value)
    pool = nn.MaxPool2d(
        kernel, stride, dilation=dilation, ceil_mode=bool(attributes.get("ceil_mode", 0))
    )
    (top, bottom), (left, right) = sides
    padded = nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), -torch.inf), pool)
    module = padded if any(map(any, sides)) else pool
    shape = tuple(tried(module, value.point.like.new_zeros(1, *value.shape)).shape[1:])
    return value.activated(Opaque(module, float(lipschitz_bound(pool)), shape))


def average_pool(attributes: Attributes, value: Value) -> Value:
    """Average over windows that are all divided by the same number."""
    kernel, stride, dilation, sides = _pool(attributes, value)
    counted = bool(attributes.get("count_include_pad", 0))
    if dilation != (1, 1) or (any(map(any, sides)) and not counted):
        raise UnboundedModuleError("divides by less at the border: count_include_pad=1")
    (top, bottom), (left, right) = sides
    if any(map(any, sides)):
        value = shapes.pad(value, [left, right, top, bottom])
    ceil = bool(attributes.get("ceil_mode", 0))
    return on.layer(nn.AvgPool2d(kernel, stride, ceil_mode=ceil), value)


def _pool(attributes: Attributes, value: Value) -> Any:
    """Kernel, stride, dilation and pixels around, along both axes."""
    expect(value, "(channels, height, width)", len(value.shape) == 3)
    kernel = attributes["kernel_shape"]
    stride = attributes.get("strides", [1, 1])
    dilation = attributes.get("dilations", [1, 1])
    sides = _sides(attributes, value, kernel, stride, dilation)
    return tuple(kernel), tuple(stride), tuple(dilation), sides
