"""Torch's operators along axes: sums, extremes, softmax, normalisations, resizing, repetition.

They have the rules of ONNX's operators; the batch is the first axis, and has one entry.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.aten.batch_size import BatchSize
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.normalisations import normalised
from onelip.reading.graphs.refusals import jumps
from onelip.reading.onnx import reductions
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.frame import Frame
from onelip.reading.onnx.resizing import resize
from onelip.reading.onnx.windows import extreme

_FRAME = Frame(1)
_BATCH = Frame(3)  # of several, so that it shows where they are mixed
_VERSION = 21  # of the rules: those of today


def _attributes(kind: str, **given: Any) -> Attributes:
    return Attributes(kind, given, _FRAME, _VERSION, lambda *_: None)


def softmax(value: Value, axis: int, *_: Any) -> Value:
    """Probabilities along an axis."""
    return reductions.softmax(_attributes("softmax", axis=axis), value)


def log_softmax(value: Value, axis: int, *_: Any) -> Value:
    """Logarithms of probabilities along an axis."""
    return reductions.log_softmax(_attributes("log_softmax", axis=axis), value)


def total(value: Value, axes: Sequence[int] | None, keep: bool, *_: Any) -> Value:
    """Sums along axes."""
    given = _attributes("sum", axes=axes or None, keepdims=keep)
    summed: Value = reductions.total(given, value)
    return summed


def mean(value: Value, axes: Sequence[int] | None, keep: bool, *_: Any) -> Value:
    """Means along axes."""
    given = _attributes("mean", axes=axes or None, keepdims=keep)
    averaged: Value = reductions.mean(given, value)
    return averaged


def extremes(largest: bool) -> Callable[..., Value]:
    """Maxima or minima along axes."""

    def operator(value: Value, axes: Sequence[int], keep: bool) -> Value:
        return extreme(value, _FRAME.axes(value, axes or None), keep=keep, largest=largest)

    return operator


def extremes_with_places(largest: bool) -> Callable[..., list[Any]]:
    """Maxima or minima along one axis; where they are is no number with a bound."""

    def operator(value: Value, axis: int, keep: bool) -> list[Any]:
        return [extreme(value, _FRAME.axes(value, [axis]), keep=keep, largest=largest), None]

    return operator


def log_sum_exp(value: Value, axes: Sequence[int], keep: bool) -> Value:
    """Logarithms of sums of exponentials."""
    return reductions.log_sum_exp(_attributes("logsumexp", axes=axes, keepdims=keep), value)


def cumulative(value: Value, axis: int, *_: Any) -> Value:
    """Sums of all numbers up to each, along an axis."""
    return reductions.cumulative(_attributes("cumsum"), value, torch.tensor(axis))


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
    return _scaled(normalised(value, axes, epsilon, centred=True), weight, bias)


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
    result = normalised(apart, list(range(2, len(rest) + 3)), epsilon, centred=True)
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
        where = {"nearest": "asymmetric", "nearest-exact": "half_pixel"}.get(mode, "half_pixel")
        given: dict[str, Any] = {
            "mode": "nearest" if mode.startswith("nearest") else mode,
            "coordinate_transformation_mode": "align_corners" if any(aligned) else where,
            "nearest_mode": "floor" if mode == "nearest" else "round_prefer_ceil",
            "axes": list(range(2, len(value.shape) + 1)),
        }
        if factors is not None:  # the sizes of the result are whole numbers
            sides = value.shape[1:]
            sizes = [math.floor(n * factor) for n, factor in zip(sides, factors, strict=True)]
            if any(n * f != s for n, f, s in zip(sides, factors, sizes, strict=True)):
                raise UnboundedModuleError(
                    f"resizing {sides} by {factors} is not known: give sizes"
                )
        return resize(_attributes("resize", **given), value, None, None, torch.tensor(sizes))

    return operator


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
