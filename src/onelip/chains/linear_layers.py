"""Linear maps of ordinary layers, applied to a value."""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.chains import (
    Adjoint,
    Along,
    Convolution,
    Dense,
    Gather,
    Opaque,
    Repeat,
    Reshape,
    Scale,
    Shape,
    Taking,
)
from onelip.chains.linear_map import reciprocal
from onelip.chains.value import Value
from onelip.chains.volume_convolution import Triple, VolumeConvolution
from onelip.chains.windows import Windows, Wrapping
from onelip.errors import UnboundedModuleError, UsageError
from onelip.norms.convolutions import Pair
from onelip.norms.rounding import quotient, upward

Sides = tuple[Pair, Pair]  # pixels before and after, of rows and of columns
UNPADDED: Sides = ((0, 0), (0, 0))
_ROOT = 6  # roundings in float64 in the factor of a batch normalisation


def expect(value: Value, wanted: str, fits: bool) -> None:
    """Check a value's shape.

    Raises:
        UsageError: it does not fit.
    """
    if not fits:
        raise UsageError(f"takes inputs of shape {wanted}, got {value.shape}")


def tried(function: Callable[[Tensor], Tensor], sample: Tensor) -> Tensor:
    """Output of a function for a batch.

    Raises:
        UsageError: it does not take it, or mixes the inputs.
    """
    shape = tuple(sample.shape[1:])
    try:
        result = function(sample)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"does not take inputs of shape {shape}: {reason}") from error
    if not isinstance(result, Tensor) or result.ndim < 1 or len(result) != len(sample):
        raise UsageError(f"does not return one output for each input of shape {shape}")
    return result


def opaque(module: nn.Module, constant: float, value: Value) -> Value:
    """A module of which only a proved Lipschitz constant is known, after a value.

    Raises:
        UsageError: it does not take inputs of the value's shape.
    """
    sample = value.point.like.new_zeros(2, *value.shape)
    with torch.no_grad():
        shape = tuple(tried(copy.deepcopy(module), sample).shape[1:])
    return value.activated(Opaque(module, constant, shape))


def moved(value: Value, move: Callable[[Tensor], Tensor]) -> Value:
    """A map that moves or repeats numbers or adds zeros, read off from where it puts each number.

    Raises:
        UsageError: it does not take inputs of this shape.
    """
    numbers = torch.arange(torch.Size(value.shape).numel())
    batch = (1.0 + numbers.double()).view(1, *value.shape).expand(3, *value.shape)
    target = tried(move, batch)[0]
    return placed(value, tuple(target.shape), target.flatten().long() - 1)


def placed(value: Value, shape: Shape, index: Tensor) -> Value:
    """The numbers of a value at other places.

    Args:
        value: of which they are taken.
        shape: of the result.
        index: for each place of the result, that in the value, both flattened; -1 for zeros.
    """
    if torch.equal(index, torch.arange(torch.Size(value.shape).numel())):
        return reshaped(value, shape)
    flat = (len(index),)
    value = value if value.shape else reshaped(value, (1,))
    taken = value.then(taking(value.shape, shape or flat, index.to(value.point.like.device)))
    return taken if shape else reshaped(taken, shape)


def taking(inputs: Shape, outputs: Shape, index: Tensor) -> Taking:
    """The map that takes inputs by their places, -1 for zeros."""
    taken = index[index >= 0]
    kind = Gather if len(taken) == len(taken.unique()) else Repeat
    return kind(inputs, outputs, index)


def reshaped(value: Value, shape: Shape) -> Value:
    """Value in another shape; several reshapings in a row are one."""
    if shape == value.shape:
        return value
    if value.maps and isinstance(value.maps[-1], Reshape):
        return reshaped(Value(value.point, value.maps[:-1]), shape)
    return value.then(Reshape(value.shape, shape))


def flattened(value: Value, start: int, end: int) -> Value:
    """Axes in one, counted with the batch as ``torch.flatten`` does."""
    axes = len(value.shape) + 1
    start, end = start % axes, end % axes
    if start == 0 or end < start:
        raise UsageError(f"flattens the batch, or nothing: start_dim={start}, end_dim={end}")
    middle = torch.Size(value.shape[start - 1 : end]).numel()
    return reshaped(value, (*value.shape[: start - 1], middle, *value.shape[end:]))


def dense(value: Value, weight: Tensor, bias: Tensor | None) -> Value:
    """``nn.Linear``; along the last of several axes, as a convolution of the turned image."""
    expect(value, f"(*, {weight.shape[1]})", value.shape[-1:] == (weight.shape[1],))
    rest = value.shape[:-1]
    if torch.Size(rest).numel() == 1:
        row = reshaped(value, (weight.shape[1],)).then(Dense(weight, bias))
        return reshaped(row, (*rest, weight.shape[0]))
    flat = reshaped(value, (1, torch.Size(rest).numel(), weight.shape[1]))
    images = convolution(moved(flat, _turned), weight[:, :, None, None], bias)
    return reshaped(moved(images, _turned), (*rest, weight.shape[0]))


def convolution(
    value: Value,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair = (1, 1),
    sides: Sides = UNPADDED,
    dilation: Pair = (1, 1),
    groups: int = 1,
    circular: bool = False,
) -> Value:
    """``conv2d``, padded with zeros or circularly, perhaps more on one side than on the other."""
    channels = weight.shape[1] * groups
    expect(
        value, f"({channels}, height, width)", len(value.shape) == 3 and value.shape[0] == channels
    )
    padding = (min(sides[0]), min(sides[1]))
    if value.maps and isinstance(value.maps[-1], Wrapping) and sides == UNPADDED:
        padding, circular = value.maps[-1].padding, True
        value = Value(value.point, value.maps[:-1])
    elif sides == UNPADDED and (around := _wrapped_by_hand(value)) is not None:
        (value, padding), circular = around, True
    elif circular and _uneven(sides):
        weight, padding = _evened(weight, sides, dilation), (max(sides[0]), max(sides[1]))
        dilation = (1, 1)
    elif _uneven(sides):
        (top, bottom), (left, right) = ((a - min(a, b), b - min(a, b)) for a, b in sides)
        value = moved(value, lambda x: F.pad(x, (left, right, top, bottom)))
    linear = Convolution(value.shape, weight, bias, stride, padding, dilation, groups, circular)
    wrapped = not circular or all(p <= n for p, n in zip(padding, value.shape[1:], strict=True))
    expect(value, "large enough for the kernel", wrapped and min(linear.outputs) > 0)
    return value.then(linear)


def volume_convolution(
    value: Value,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Triple = (1, 1, 1),
    sides: Sequence[Pair] = ((0, 0), (0, 0), (0, 0)),
    dilation: Triple = (1, 1, 1),
    groups: int = 1,
) -> Value:
    """``conv3d``, padded with zeros, perhaps more on one side than on the other."""
    channels = weight.shape[1] * groups
    fits = len(value.shape) == 4 and value.shape[0] == channels
    expect(value, f"({channels}, depth, height, width)", fits)
    depth, height, width = (min(side) for side in sides)
    if _uneven(sides):
        more = [n for a, b in reversed(sides) for n in (a - min(a, b), b - min(a, b))]
        value = moved(value, lambda x: F.pad(x, more))
    padding = (depth, height, width)
    linear = VolumeConvolution(value.shape, weight, bias, stride, padding, dilation, groups)
    expect(value, "large enough for the kernel", min(linear.outputs) > 0)
    return value.then(linear)


def transposed_convolution(
    value: Value,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    groups: int,
    dilation: Pair,
) -> Value:
    """``conv_transpose2d``: the adjoint of the convolution of its output."""
    channels = len(weight)
    fits = len(value.shape) == 3 and value.shape[0] == channels
    expect(value, f"({channels}, height, width)", fits)
    sides = [
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, s, p, d, k, more in zip(
            value.shape[1:],
            stride,
            padding,
            dilation,
            weight.shape[2:],
            output_padding,
            strict=True,
        )
    ]
    image = (weight.shape[1] * groups, *sides)
    expect(value, "large enough for the kernel", min(sides) > 0)
    linear = Convolution(image, weight, None, stride, padding, dilation, groups)
    expect(value, str(linear.outputs), linear.outputs == value.shape)
    return value.then(Adjoint(linear, bias))


def wrapped(value: Value, sides: Sides) -> Value:
    """Circular padding."""
    expect(value, "(channels, height, width)", len(value.shape) == 3)
    padding = (max(sides[0]), max(sides[1]))
    fits = all(p <= n for p, n in zip(padding, value.shape[1:], strict=True))
    expect(value, f"(channels, {padding[0]} or more, {padding[1]} or more)", fits)
    channels = value.shape[0]
    one = value.point.like.new_ones(channels, 1, 1, 1)
    around = value.then(Wrapping(value.shape, one, padding=padding, groups=channels, circular=True))
    if not _uneven(sides):
        return around
    (top, bottom), (left, right) = ((a - max(a, b), b - max(a, b)) for a, b in sides)
    return moved(around, lambda x: F.pad(x, (left, right, top, bottom)))


def average(
    value: Value, kernel: Pair, stride: Pair, padding: Pair, divisor: float | None = None
) -> Value:
    """Sums over windows, divided by their size or by another number."""
    expect(value, "(channels, height, width)", len(value.shape) == 3)
    channels = value.shape[0]
    one = value.point.like.new_ones(channels, 1, *kernel)
    sums = Windows(value.shape, one, None, stride, padding, groups=channels)
    expect(value, f"large enough for a window of {kernel}", min(sums.outputs) > 0)
    area = float(kernel[0] * kernel[1]) if divisor is None else divisor
    return divided(value.then(sums), torch.tensor(area, dtype=torch.float64))


def adaptive_averages(value: Value, sizes: Sequence[int | None]) -> Value:
    """Means of as many windows as asked along each axis, of torch's choice; they may overlap."""
    fits = len(value.shape) == len(sizes) + 1
    expect(value, f"(channels, and {len(sizes)} axes of pixels)", fits)
    for axis, size in enumerate(sizes):
        length = value.shape[axis + 1]
        rows = torch.zeros(length if size is None else size, length, dtype=torch.float64)
        for row, (start, end) in enumerate(adaptive_windows(length, len(rows))):
            rows[row, start:end] = quotient(1, end - start)
        value = value.then(Along(value.shape, axis + 1, rows, 2))
    return value


def adaptive_windows(length: int, count: int) -> list[Pair]:
    """Begin and end of each window of torch's adaptive poolings."""
    return [(row * length // count, -(-(row + 1) * length // count)) for row in range(count)]


def scaled(value: Value, factor: Tensor, shift: Tensor | None = None, operations: int = 0) -> Value:
    """Times a factor, plus a shift."""
    return value.then(Scale(value.shape, factor, shift, operations))


def shifted(value: Value, shift: Tensor) -> Value:
    """Plus a constant."""
    return scaled(value, torch.ones((), dtype=torch.float64, device=shift.device), shift)


def divided(value: Value, divisor: Tensor, operations: int = 0) -> Value:
    """Divided by constants; the quotients are exact for powers of two."""
    if not divisor.all():
        raise UnboundedModuleError("divides by 0")
    powers = bool((torch.frexp(divisor.detach().double()).mantissa.abs() == 0.5).all())
    factor = reciprocal(divisor).to(divisor.device)
    return scaled(value, factor, operations=operations + (not powers))


def standardised(
    value: Value,
    mean: Tensor,
    variance: Tensor,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
) -> Value:
    """Batch normalisation with fixed statistics; its factor is rounded away from 0."""
    fits = len(value.shape) >= 1 and value.shape[0] == len(mean)
    expect(value, f"({len(mean)}, ...)", fits)
    factor = upward((variance.double() + epsilon).rsqrt(), _ROOT)
    if weight is not None:
        factor = upward(factor * weight.double(), 1)
    shift = -mean * factor if bias is None else bias - mean * factor
    shape = (-1, *(1,) * (len(value.shape) - 1))
    return scaled(value, factor.view(shape), shift.view(shape), 3 * _ROOT)


def _wrapped_by_hand(value: Value) -> tuple[Value, Pair] | None:
    """Value before circular padding that a file writes with slices and joins, and its width."""
    maps, index = list(value.maps), torch.arange(torch.Size(value.shape).numel())
    found = None
    while maps and isinstance(maps[-1], Taking | Reshape):
        last = maps.pop()
        if isinstance(last, Taking):
            index = last.index.cpu()[index]
            if bool((index < 0).any()):
                break
        padding = _circular(last.inputs, value.shape, index)
        if padding is not None and any(padding):
            found = Value(value.point, tuple(maps)), padding
    return found


def _circular(inputs: Shape, outputs: Shape, index: Tensor) -> Pair | None:
    """Pixels added around each side of an image, if they are those of the opposite side."""
    if len(inputs) != 3 or len(outputs) != 3 or inputs[0] != outputs[0]:
        return None
    sides = [(n, m - n) for n, m in zip(inputs[1:], outputs[1:], strict=True)]
    if any(more % 2 or not 0 <= more // 2 <= side for side, more in sides):
        return None
    (_, more), (_, wider) = sides
    places = torch.arange(torch.Size(inputs).numel(), dtype=torch.float64).view(1, *inputs)
    around = F.pad(places, (wider // 2, wider // 2, more // 2, more // 2), mode="circular")
    return (more // 2, wider // 2) if torch.equal(around.flatten().long(), index) else None


def _uneven(sides: Sequence[Pair]) -> bool:
    return any(before != after for before, after in sides)


def _evened(weight: Tensor, sides: Sides, dilation: Pair) -> Tensor:
    """The kernel without dilation, and with zeros where it is to be padded less."""
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    spread = weight.new_zeros(*weight.shape[:2], *reach)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    (top, bottom), (left, right) = ((max(b - a, 0), max(a - b, 0)) for a, b in sides)
    return F.pad(spread, (left, right, top, bottom))


def _turned(x: Tensor) -> Tensor:
    """Rows to channels, and channels to columns."""
    return x.permute(0, 3, 2, 1)
