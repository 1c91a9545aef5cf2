"""Torch's operators along axes: sums, extremes, softmax, normalisations, resizing, repetition.

The batch is the first axis, and has one entry.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.aten.batch_size import BatchSize
from onelip.reading.graphs import along_axes as along
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import sorting
from onelip.reading.graphs.frame import Frame
from onelip.reading.graphs.interpolation import Interpolation, interpolated
from onelip.reading.graphs.normalisations import at_most, deviations, normalised
from onelip.reading.graphs.refusals import jumps
from onelip.reading.graphs.squares import Root, Squares

_FRAME = Frame(1)
_BATCH = Frame(3)  # of several, so that it shows where they are mixed


def softmax(value: Value, axis: int, *_: Any) -> Value:
    """Probabilities along an axis."""
    return along.softmax(value, _FRAME.axis(value, axis))


def log_softmax(value: Value, axis: int, *_: Any) -> Value:
    """Logarithms of probabilities along an axis."""
    return along.log_softmax(value, _FRAME.axis(value, axis))


def total(value: Value | Squares, axes: Sequence[int] | None, keep: bool, *_: Any) -> Any:
    """Sums along axes, of squares too."""
    if isinstance(value, Squares):
        return value.summed(_places(value.parts[0], axes), keep, mean=False)
    return along.summed(value, _places(value, axes), keep)


def mean(value: Value | Squares, axes: Sequence[int] | None, keep: bool, *_: Any) -> Any:
    """Means along axes, of squares too."""
    if isinstance(value, Squares):
        return value.summed(_places(value.parts[0], axes), keep, mean=True)
    return along.averaged(value, _places(value, axes), keep)


def variance(
    value: Value, axes: Sequence[int] | None, correction: float | None, keep: bool
) -> Squares:
    """The mean square of deviations from the mean, which a root has to follow."""
    places = tuple(_places(value, axes))
    size = math.prod(value.shape[axis - 1] for axis in places)
    divisor = size - (1 if correction is None else float(correction))
    if divisor <= 0:
        raise UsageError(f"takes the variance of {size} numbers with correction {correction}")
    return Squares((deviations(value, places),), places, keep, divisor)


def deviation(*settings: Any) -> Root:
    """The root of the variance."""
    return Root(variance(*settings))


def variance_and_mean(
    value: Value, axes: Sequence[int] | None, correction: float | None, keep: bool
) -> list[Any]:
    """Both."""
    return [variance(value, axes, correction, keep), mean(value, axes, keep)]


def length(value: Value, order: float, axes: Sequence[int] | None, keep: bool, *_: Any) -> Any:
    """Euclidean lengths, which may become unit vectors."""
    places = range(len(value.shape) + 1) if axes is None else axes
    if order != 2 or not places or any(axis % (len(value.shape) + 1) == 0 for axis in places):
        return sorting.lengths(value, order, axes, keep)
    return Root(Squares((value,)).summed(_places(value, places), keep, mean=False))


def expanded(value: Any, sizes: Sequence[Any], *_: Any) -> Any:
    """A value repeated along axes; a root to the shape of what it divides stays what it is."""
    if isinstance(value, Root):
        shape = value.of.parts[0].shape
        wanted = [own if size == -1 else size for own, size in zip((1, *shape), sizes, strict=True)]
        if value.of.keep and tuple(wanted[1:]) == shape:
            return value
        value = value.settled()
    return moving(lambda x, sizes: x.expand(sizes))(value, sizes)


def _places(value: Value, axes: Sequence[int] | None) -> list[int]:
    return _FRAME.axes(value, axes or None)


def extremes(largest: bool) -> Callable[..., Value]:
    """Maxima or minima along axes."""

    def operator(value: Value, axes: Sequence[int], keep: bool) -> Value:
        return along.extreme(value, _places(value, axes), keep=keep, largest=largest)

    return operator


def extremes_with_places(largest: bool) -> Callable[..., list[Any]]:
    """Maxima or minima along one axis; where they are is no number with a bound."""

    def operator(value: Value, axis: int, keep: bool) -> list[Any]:
        return [along.extreme(value, _places(value, [axis]), keep=keep, largest=largest), None]

    return operator


def log_sum_exp(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """Logarithms of sums of exponentials."""
    return along.log_sum_exp(value, _places(value, axes), keep)


def cumulative(value: Value, axis: int, *_: Any) -> Value:
    """Sums of all numbers up to each, along an axis."""
    return along.cumulative(value, _FRAME.axis(value, axis))


def layer_norm(
    value: Value,
    sides: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    *_: Any,
) -> Value:
    """Normalisation over the last axes."""
    count = len(value.shape) + 1
    axes = list(range(count - len(sides), count))
    return _scaled(normalised(value, axes, at_most(epsilon, value), centred=True), weight, bias)


def group_norm(
    value: Value,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    *_: Any,
) -> Value:
    """Normalisation over groups of channels."""
    channels, *rest = value.shape
    apart = linear.reshaped(value, (groups, channels // groups, *rest))
    axes, least = list(range(2, len(rest) + 3)), at_most(epsilon, value)
    result = normalised(apart, axes, least, centred=True)
    shape = (-1, *(1,) * len(rest))
    numbers = [None if part is None else part.view(shape) for part in (weight, bias)]
    return _scaled(linear.reshaped(result, value.shape), *numbers)


def batch_norm(value: Value, *settings: Any) -> Value:
    """Normalisation by fixed statistics."""
    weight, bias, mean, variance, training, _, epsilon, _ = settings
    return on.batch_norm(
        value,
        weight=weight,
        bias=bias,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        training=training,
    )


def instance_norm(value: Value, *settings: Any) -> Value:
    """Normalisation of each channel, by its own or by fixed statistics."""
    weight, bias, _, _, own, _, epsilon, _ = settings
    if not own:
        return batch_norm(value, *settings)
    return group_norm(value, value.shape[0], weight, bias, epsilon)


def _scaled(value: Value, weight: Tensor | None, bias: Tensor | None) -> Value:
    if isinstance(weight, Value) or isinstance(bias, Value):
        raise UnboundedModuleError("a scale that depends on the input makes it a product")
    value = value if weight is None else on.multiply(value, weight)
    return value if bias is None else on.add(value, bias)


def resized(mode: str) -> Callable[..., Value]:
    """Interpolation of pixels, by sizes or by factors."""

    def operator(value: Value, sizes: Any, *settings: Any) -> Value:
        *aligned, factors = settings
        nearest = mode.startswith("nearest")
        where = "asymmetric" if mode == "nearest" else "half_pixel"
        how = Interpolation(
            "nearest" if nearest else mode,
            "align_corners" if any(aligned) else where,
            "floor" if mode == "nearest" else "round_prefer_ceil",
        )
        if factors is not None:  # the sizes of the result are whole numbers
            sides = value.shape[1:]
            sizes = [math.floor(n * factor) for n, factor in zip(sides, factors, strict=True)]
            if any(n * f != s for n, f, s in zip(sides, factors, sizes, strict=True)):
                raise UnboundedModuleError(
                    f"resizing {sides} by {factors} is not known: give sizes"
                )
        for place, size in enumerate(sizes, 1):
            factor = None if factors is None else factors[place - 1]
            if nearest and not _even_in_float32(value.shape[place], size, factor, how.rounding):
                raise UnboundedModuleError(
                    f"resizing {value.shape[place]} pixels to {size} takes other pixels in float32 "
                    "than in float64: another factor"
                )
            if size != value.shape[place]:
                value = interpolated(value, place, size, size / value.shape[place], how)
        return value

    return operator


def _even_in_float32(length: int, size: int, factor: float | None, rounding: str) -> bool:
    """Whether float32 takes the same nearest pixels as float64: not so for a factor of 41."""
    how: dict[str, Any] = {"size": size} if factor is None else {"scale_factor": factor}
    how["mode"] = "nearest" if rounding == "floor" else "nearest-exact"
    row = torch.arange(length, dtype=torch.float32)[None, None]
    return torch.equal(F.interpolate(row, **how).double(), F.interpolate(row.double(), **how))


def moving(operator: Callable[..., Any]) -> Callable[..., Value]:
    """An operator that moves or repeats numbers."""

    def operation(value: Value, *settings: Any) -> Value:
        if any(isinstance(part, Value) for part in settings):
            raise jumps("a place that depends on the input")
        batch = [_sized(part) for part in settings]
        moved: Value = _BATCH.moved(value, lambda x: operator(x, *batch))
        return moved

    return operation


def _sized(setting: Any) -> Any:
    """A setting for a batch of several."""
    if isinstance(setting, (list, tuple)):
        return [_sized(part) for part in setting]
    assert _BATCH.batch is not None
    return setting * _BATCH.batch if isinstance(setting, BatchSize) else setting
