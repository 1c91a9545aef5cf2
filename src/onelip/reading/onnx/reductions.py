"""ONNX's sums, means, extremes and normalisations along axes; see ``operators``."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs import along_axes as along
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.normalisations import normalised
from onelip.reading.graphs.sorting import lengths
from onelip.reading.graphs.squares import Squares
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.windows import copied, on_images


def _along(attributes: Attributes, value: Value, axes: Tensor | None) -> tuple[list[int], bool]:
    """Axes of a reduction, counted with the batch, and whether they stay."""
    given = attributes.numbers("axes", axes)
    keep = bool(attributes.get("keepdims", 1))
    if not given and attributes.get("noop_with_empty_axes", 0):
        return [], keep
    return attributes.frame.axes(value, given or None), keep


def total(attributes: Attributes, value: Any, axes: Tensor | None = None) -> Any:
    """The sum of numbers, or of squares."""
    if isinstance(value, Squares):
        return value.summed(*_along(attributes, value.parts[0], axes), mean=False)
    return along.summed(value, *_along(attributes, value, axes))


def mean(attributes: Attributes, value: Any, axes: Tensor | None = None) -> Any:
    """The mean of numbers, or of squares."""
    if isinstance(value, Squares):
        return value.summed(*_along(attributes, value.parts[0], axes), mean=True)
    return along.averaged(value, *_along(attributes, value, axes))


def squares(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Squares:
    """Sums of squares, which a root has to follow."""
    return Squares((value,)).summed(*_along(attributes, value, axes), mean=False)


def length(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Euclidean lengths."""
    places, keep = _along(attributes, value, axes)
    return lengths(value, 2, places, keep) if places else on.layer(_absolute(), value)


def absolute_total(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Sums of absolute values."""
    return along.summed(on.layer(_absolute(), value), *_along(attributes, value, axes))


def _absolute() -> nn.Module:
    from onelip.layers import Abs

    return Abs()


def extremes(largest: bool) -> Any:
    """Maxima or minima along axes."""

    def operator(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
        places, keep = _along(attributes, value, axes)
        return along.extreme(value, places, keep=keep, largest=largest)

    return operator


def log_sum_exp(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Logarithms of sums of exponentials."""
    return along.log_sum_exp(value, *_along(attributes, value, axes))


def softmax(attributes: Attributes, value: Value) -> Value:
    """Probabilities."""
    return _in_groups(attributes, value, along.softmax)


def log_softmax(attributes: Attributes, value: Value) -> Value:
    """Logarithms of probabilities."""
    return _in_groups(attributes, value, along.log_softmax)


def _in_groups(
    attributes: Attributes, value: Value, function: Callable[[Value, int], Value]
) -> Value:
    """A function of groups along an axis; before version 13, along all axes from one on."""
    old = attributes.version < 13
    axis = attributes.frame.axis(value, attributes.get("axis", 1 if old else -1))
    if not old:
        return function(value, axis)
    shape = value.shape
    rows = linear.reshaped(value, (math.prod(shape[: axis - 1]), math.prod(shape[axis - 1 :])))
    return linear.reshaped(function(rows, 2), shape)


def layer_norm(
    attributes: Attributes, value: Value, scale: Tensor, bias: Tensor | None = None
) -> Value:
    """Over all axes from one on; the mean and the deviation that it may return are not known."""
    first = attributes.frame.axis(value, attributes.get("axis", -1))
    axes = list(range(first, len(value.shape) + 1))
    epsilon = attributes.get("epsilon", 1e-5)
    return _scaled(attributes, normalised(value, axes, epsilon, centred=True), scale, bias)


def rms_norm(attributes: Attributes, value: Value, scale: Tensor) -> Value:
    """Over all axes from one on, without the mean."""
    first = attributes.frame.axis(value, attributes.get("axis", -1))
    axes = list(range(first, len(value.shape) + 1))
    return _scaled(attributes, normalised(value, axes, attributes.get("epsilon", 1e-5)), scale)


def _scaled(
    attributes: Attributes, value: Value, scale: Tensor, bias: Tensor | None = None
) -> Value:
    if isinstance(scale, Value) or isinstance(bias, Value):
        raise UnboundedModuleError("a scale that depends on the input makes it a product")
    _, factor = attributes.frame.broadcast([value, scale])
    value = on.multiply(value, factor)
    if bias is None:
        return value
    _, shift = attributes.frame.broadcast([value, bias])
    return on.add(value, shift)


@on_images
def instance_norm(
    attributes: Attributes, copies: int, value: Value, scale: Tensor, bias: Tensor
) -> Value:
    """Each channel by itself."""
    axes = list(range(2, len(value.shape) + 1))
    result = normalised(value, axes, attributes.get("epsilon", 1e-5), centred=True)
    shape = (-1, *(1,) * len(axes))
    scale, bias = copied(scale, copies).view(shape), copied(bias, copies).view(shape)
    return on.add(on.multiply(result, scale), bias)


@on_images
def group_norm(
    attributes: Attributes, copies: int, value: Value, scale: Tensor, bias: Tensor
) -> Value:
    """Groups of channels; the scale is one per group before version 21."""
    channels, *rest = value.shape
    groups = attributes.get("num_groups") * copies
    if channels % groups:
        raise UsageError(f"{channels} channels are not {groups} groups")
    each = channels // groups
    apart = linear.reshaped(value, (groups, each, *rest))
    axes = list(range(2, len(rest) + 3))
    result = normalised(apart, axes, attributes.get("epsilon", 1e-5), centred=True)
    result = linear.reshaped(result, value.shape)
    scale, bias = copied(scale, copies), copied(bias, copies)
    if len(scale) == groups:
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    shape = (-1, *(1,) * len(rest))
    return on.add(on.multiply(result, scale.view(shape)), bias.view(shape))


@on_images
def global_average(_: Attributes, __: int, value: Value) -> Value:
    """The mean of each channel."""
    return along.averaged(value, list(range(2, len(value.shape) + 1)), True)


@on_images
def batch_norm(attributes: Attributes, copies: int, value: Value, *inputs: Tensor) -> Value:
    """With fixed statistics."""
    weight, bias, mean, variance = (copied(part, copies) for part in inputs)
    return on.batch_norm(
        value,
        weight=weight,
        bias=bias,
        mean=mean,
        variance=variance,
        epsilon=attributes.get("epsilon", 1e-5),
        training=bool(attributes.get("training_mode", 0)),
    )


def cumulative(attributes: Attributes, value: Value, axis: Tensor) -> Value:
    """Sums of all numbers up to each."""
    return along.cumulative(
        value,
        attributes.frame.axis(value, int(axis)),
        exclusive=bool(attributes.get("exclusive", 0)),
        reverse=bool(attributes.get("reverse", 0)),
    )
