"""ONNX's ``Resize``: a matrix along each axis, from where each pixel of the result lies."""

import functools
import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Along
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.onnx.attributes import Attributes

_ROUNDINGS = 32  # of a weight, times the places: a coordinate, a cubic polynomial, a quotient


def resize(attributes: Attributes, value: Value, *inputs: Any) -> Value:
    """Nearest, linear and cubic interpolation; each is made of one axis after the other."""
    scales, sizes = (
        inputs[i] if i < len(inputs) and inputs[i] is not None and inputs[i].numel() else None
        for i in (1, 2)
    )
    if attributes.version < 11:  # the second input holds the scales
        scales = inputs[0] if inputs else torch.tensor(attributes.get("scales"))
    if attributes.get("antialias", 0):
        raise UnboundedModuleError("resizing with antialias is not known")
    frame = attributes.frame
    whole = frame.shape(value)
    along = [axis % len(whole) for axis in attributes.get("axes", range(len(whole)))]
    factors, lengths = _targets(attributes, whole, along, scales, sizes)
    for axis, factor, length in zip(along, factors, lengths, strict=True):
        if length == whole[axis] and (factor == 1 or scales is None):
            continue
        if min(length, whole[axis]) < 1:
            raise UsageError("resizes to no pixels")
        place = frame.axis(value, axis) - 1
        matrix = _matrix(attributes, whole[axis], length, factor)
        rows = matrix.argmax(1)
        if attributes.get("mode", "nearest") == "nearest":
            value = linear.moved(value, functools.partial(_taken, axis=place + 1, places=rows))
        else:
            lost = _ROUNDINGS * (whole[axis] + length)
            value = value.then(Along(value.shape, place, matrix, lost))
    return value


def _taken(x: Tensor, axis: int, places: Tensor) -> Tensor:
    return x.index_select(axis, places)


def _targets(
    attributes: Attributes,
    whole: tuple[int, ...],
    along: list[int],
    scales: Tensor | None,
    sizes: Tensor | None,
) -> tuple[list[float], list[int]]:
    """Factor and length of the result along each axis."""
    given = [whole[axis] for axis in along]
    if scales is not None:
        factors = [float(scale) for scale in scales.flatten()]
        lengths = [
            math.floor(n * Fraction(f)) if f > 0 and math.isfinite(f) else 0
            for n, f in zip(given, factors, strict=True)
        ]
        return factors, lengths
    if sizes is None:
        raise UsageError("resizes by neither scales nor sizes")
    wanted = [int(size) for size in sizes.flatten()]
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise UnboundedModuleError(f"keep_aspect_ratio_policy {policy!r} is not known")
    return [w / n for w, n in zip(wanted, given, strict=True)], wanted


def _matrix(attributes: Attributes, length: int, target: int, factor: float) -> Tensor:
    """Weights of the pixels, one row for each pixel of the result."""
    mode = attributes.get("mode", "nearest")
    at = _coordinates(attributes, length, target, factor)
    places = torch.arange(length, dtype=torch.float64)
    rows = torch.arange(target)
    if mode == "nearest":
        matrix = torch.zeros(target, length, dtype=torch.float64)
        matrix[rows, _rounded(attributes, at).clamp(0, length - 1)] = 1
        return matrix
    if mode == "linear":
        at = at.clamp(0, length - 1)
        return (1 - (at[:, None] - places).abs()).clamp_min(0)
    if mode != "cubic":
        raise UnboundedModuleError(f"resizing in mode {mode!r} is not known")
    steep = attributes.get("cubic_coeff_a", -0.75)
    floor = at.floor()
    matrix = torch.zeros(target, length, dtype=torch.float64)
    for offset in range(-1, 3):
        weights = _cubic(at - floor - offset, steep)
        taken = (floor + offset).long()
        if attributes.get("exclude_outside", 0):
            weights = weights * ((taken >= 0) & (taken < length))
        matrix.index_put_((rows, taken.clamp(0, length - 1)), weights, accumulate=True)
    return matrix / matrix.sum(1, keepdim=True) if attributes.get("exclude_outside", 0) else matrix


def _coordinates(attributes: Attributes, length: int, target: int, factor: float) -> Tensor:
    """Where the pixels of the result lie among those of the input."""
    x = torch.arange(target, dtype=torch.float64)
    default = "half_pixel" if attributes.version >= 11 else "asymmetric"
    mode = attributes.get("coordinate_transformation_mode", default)
    if mode == "asymmetric":
        return x / factor
    if mode == "align_corners":
        return x * (length - 1) / (target - 1) if target > 1 else torch.zeros_like(x)
    if mode == "pytorch_half_pixel" and target == 1:
        return torch.zeros_like(x)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / factor - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = target / (factor * length)
        return length / 2 * (1 - adjustment) + (x + 0.5) / factor - 0.5
    raise UnboundedModuleError(f"coordinate_transformation_mode {mode!r} is not known")


def _rounded(attributes: Attributes, at: Tensor) -> Tensor:
    default = "round_prefer_floor" if attributes.version >= 11 else "floor"
    mode = attributes.get("nearest_mode", default)
    if mode == "floor":
        return at.floor().long()
    if mode == "ceil":
        return at.ceil().long()
    if mode == "round_prefer_floor":
        return (at - 0.5).ceil().long()
    if mode == "round_prefer_ceil":
        return (at + 0.5).floor().long()
    raise UnboundedModuleError(f"nearest_mode {mode!r} is not known")


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel of cubic convolution."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
