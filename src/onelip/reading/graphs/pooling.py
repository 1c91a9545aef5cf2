"""Averages and maxima over windows, along one axis or more."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.chains import Along, Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.norms.convolutions import Pair
from onelip.norms.rounding import quotient
from onelip.norms.windows import overlap_of_maxima, root_above

_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_ADAPTIVE = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


class Windows(NamedTuple):
    """Windows along the axes of images.

    Attributes:
        kernel: numbers of a window, along each axis.
        stride: steps between windows.
        dilation: steps inside windows.
        sides: pixels before and after the image.
        ceil: whether a window may begin inside and end beyond what is around the image.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    sides: tuple[Pair, ...]
    ceil: bool = False


def maxima(value: Value, windows: Windows) -> Value:
    """Maxima over windows, padded with numbers below all others.

    Raises:
        UnboundedModuleError: along more axes than three, or sides that torch does not pad.
    """
    kernel, stride, dilation, sides, ceil = windows
    kind = _POOLS.get(len(kernel))
    if kind is None:
        raise UnboundedModuleError("a maximum over windows is known along one to three axes")
    even = all(a == b and 2 * a <= k for (a, b), k in zip(sides, kernel, strict=True))
    padding = tuple(before for before, _ in sides) if even else 0
    module: nn.Module = kind(kernel, stride, padding, dilation=dilation, ceil_mode=ceil)
    if not even:
        if ceil:
            raise UnboundedModuleError("ceil_mode with more pixels on one side is not known")
        module = nn.Sequential(_Bordered([n for side in reversed(sides) for n in side]), module)
    shape = tuple(linear.tried(module, value.point.like.new_zeros(1, *value.shape)).shape[1:])
    overlap = overlap_of_maxima(list(zip(kernel, stride, strict=True)), dilation)
    return value.activated(Opaque(module, root_above(overlap), shape))


class _Bordered(nn.Module):
    """Numbers below all others around images."""

    def __init__(self, sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = list(sides)

    def forward(self, x: Tensor) -> Tensor:
        """Pad."""
        return F.pad(x, self.sides, value=-math.inf)


def averages(
    value: Value, windows: Windows, *, counted: bool, divisor: float | None = None
) -> Value:
    """Averages over windows, one axis after the other.

    Args:
        value: of images.
        windows: where.
        counted: count pixels around the image, which are 0.
        divisor: divide sums by it, and not by the numbers of pixels.
    """
    _expect_images(value, len(windows.kernel))
    for axis in range(len(windows.kernel)):
        rows = _rows(value.shape[axis + 1], windows, axis, counted or divisor is not None)
        if divisor is not None:
            rows = (rows != 0).double() / (divisor if axis == 0 else 1)
        value = value.then(Along(value.shape, axis + 1, rows, 2))
    return value


def _rows(length: int, windows: Windows, axis: int, counted: bool) -> Tensor:
    """One row for each window; each is divided by its pixels, or by those of the padded axis."""
    kernel, stride, dilation = windows.kernel[axis], windows.stride[axis], windows.dilation[axis]
    before, after = windows.sides[axis]
    room = length + before + after - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if windows.ceil else room // stride) + 1
    if windows.ceil and (count - 1) * stride >= length + before:
        count -= 1  # a window that begins after the last pixel
    rows = torch.zeros(max(count, 0), length, dtype=torch.float64)
    for row in range(len(rows)):
        start = row * stride - before
        taps = [start + dilation * k for k in range(kernel)]
        inside = [tap for tap in taps if 0 <= tap < length]
        area = [tap for tap in taps if tap < length + after] if counted else inside
        if area:
            rows[row, inside] = quotient(1, len(area))
    return rows


def adaptive_maxima(value: Value, sizes: Sequence[int]) -> Value:
    """Maxima over as many windows as asked: a pixel reaches those that it is in."""
    _expect_images(value, len(sizes))
    overlap = 1
    for length, size in zip(value.shape[1:], sizes, strict=True):
        inside = torch.zeros(length, dtype=torch.long)
        for start, end in linear.adaptive_windows(length, size):
            inside[start:end] += 1
        overlap *= int(inside.max())
    module = _ADAPTIVE[len(sizes)](tuple(sizes))
    return value.activated(Opaque(module, root_above(overlap), (value.shape[0], *sizes)))


def _expect_images(value: Value, axes: int) -> None:
    fits = len(value.shape) == axes + 1
    linear.expect(value, f"(channels, and {axes} axes of pixels)", fits)
