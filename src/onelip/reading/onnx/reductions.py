"""ONNX's sums, means, extremes and normalisations along axes; see ``operators``."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Along, Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.norms.windows import root_above
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.normalisations import Squares, normalised
from onelip.reading.graphs.sorting import lengths
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.windows import copied, extreme, on_images


def _along(attributes: Attributes, value: Value, axes: Tensor | None) -> tuple[list[int], bool]:
    """Axes of a reduction, counted with the batch, and whether they stay."""
    given = attributes.numbers("axes", axes)
    keep = bool(attributes.get("keepdims", 1))
    if not given and attributes.get("noop_with_empty_axes", 0):
        return [], keep
    return attributes.frame.axes(value, given or None), keep


def _summed(value: Value, axes: Sequence[int], keep: bool) -> Value:
    for axis in axes:
        ones = torch.ones(1, value.shape[axis - 1], dtype=torch.float64)
        value = value.then(Along(value.shape, axis - 1, ones))
    return value if keep else _without(value, axes)


def _without(value: Value, axes: Sequence[int]) -> Value:
    return linear.reshaped(value, tuple(n for i, n in enumerate(value.shape, 1) if i not in axes))


def total(attributes: Attributes, value: Any, axes: Tensor | None = None) -> Any:
    """The sum of numbers, or of squares."""
    if isinstance(value, Squares):
        return value.summed(*_along(attributes, value.parts[0], axes), mean=False)
    return _summed(value, *_along(attributes, value, axes))


def mean(attributes: Attributes, value: Any, axes: Tensor | None = None) -> Any:
    """The mean of numbers, or of squares."""
    if isinstance(value, Squares):
        return value.summed(*_along(attributes, value.parts[0], axes), mean=True)
    return mean_along(value, *_along(attributes, value, axes))


def mean_along(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """The sum, divided by the number of what is summed."""
    count = float(math.prod(value.shape[axis - 1] for axis in axes))
    if not count:
        raise UsageError("takes the mean of no numbers")
    return linear.divided(_summed(value, axes, keep), torch.tensor(count, dtype=torch.float64))


def squares(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Squares:
    """Sums of squares, which a root has to follow."""
    return Squares((value,)).summed(*_along(attributes, value, axes), mean=False)


def length(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Euclidean lengths."""
    along, keep = _along(attributes, value, axes)
    return lengths(value, 2, along, keep) if along else on.layer(_absolute(), value)


def absolute_total(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Sums of absolute values."""
    return _summed(on.layer(_absolute(), value), *_along(attributes, value, axes))


def _absolute() -> nn.Module:
    from onelip.layers import Abs

    return Abs()


def extremes(largest: bool) -> Any:
    """Maxima or minima along axes."""

    def operator(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
        along, keep = _along(attributes, value, axes)
        return extreme(value, along, keep=keep, largest=largest)

    return operator


class LogSumExp(nn.Module):
    """Along axes, counted with the batch."""

    def __init__(self, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = tuple(axes), keep

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of the sum of exponentials."""
        return torch.logsumexp(x, self.axes, keepdim=self.keep)


def log_sum_exp(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    """Its gradient is a vector of probabilities, whose length is at most 1."""
    along, keep = _along(attributes, value, axes)
    if not along:
        return value
    module = LogSumExp(along, keep)
    shape = tuple(module(torch.empty(1, *value.shape, device="meta")).shape[1:])
    return value.activated(Opaque(module, 1.0, shape))


def softmax(attributes: Attributes, value: Value) -> Value:
    r"""Softmax along an axis, 1/2-Lipschitz, whatever its size.

    Its Jacobian is :math:`\mathrm{diag}(p) - p p^\top`, and for a unit vector v
    :math:`v^\top J v` is the variance of v's entries under p, at most
    :math:`(\max v - \min v)^2 / 4 \le 1/2`: a variance is at most a quarter of the square of the
    range (Popoviciu), and two entries of a unit vector are at most :math:`\sqrt 2` apart. Two equal
    entries that carry all of p attain it.
    """
    return _probabilities(attributes, value, nn.Softmax(-1), 0.5)


def log_softmax(attributes: Attributes, value: Value) -> Value:
    r"""Log-softmax along an axis of n numbers, :math:`\sqrt n`-Lipschitz; constant for n = 1.

    Its Jacobian :math:`I - 1 p^\top` is a projection, since p sums to 1, and so is
    :math:`1 p^\top`, its complement. A projection that is neither 0 nor I has the norm of its
    complement, :math:`|1| |p| \le \sqrt n`; one entry that carries all of p comes as close as
    wanted.
    """
    return _probabilities(attributes, value, nn.LogSoftmax(-1), None)


def _probabilities(
    attributes: Attributes, value: Value, module: nn.Module, constant: float | None
) -> Value:
    """A function of groups along an axis; before version 13, along all axes from one on."""
    old = attributes.version < 13
    axis = attributes.frame.axis(value, attributes.get("axis", 1 if old else -1))
    shape = value.shape
    if old:
        rows = linear.reshaped(value, (math.prod(shape[: axis - 1]), math.prod(shape[axis - 1 :])))
    else:
        rows = linear.moved(value, lambda x: x.movedim(axis, -1))
    size = rows.shape[-1]
    bound = root_above(size) if constant is None else constant
    groups = rows.activated(Opaque(module, bound if size > 1 else 0.0, rows.shape))
    if old:
        return linear.reshaped(groups, shape)
    return linear.moved(groups, lambda x: x.movedim(-1, axis))


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
    return mean_along(value, list(range(2, len(value.shape) + 1)), True)


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
    place = attributes.frame.axis(value, int(axis))
    size = value.shape[place - 1]
    below = -1 if attributes.get("exclusive", 0) else 0
    matrix = torch.ones(size, size, dtype=torch.float64).tril(below)
    matrix = matrix.T.contiguous() if attributes.get("reverse", 0) else matrix
    return value.then(Along(value.shape, place - 1, matrix))
