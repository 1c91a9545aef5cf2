"""Interpolation of pixels: a matrix along an axis, from where each pixel of the result lies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.chains import Along
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError

_ROUNDINGS = 32  # of a weight, times the places: a coordinate, a cubic polynomial, a quotient


@dataclass(frozen=True)
class Interpolation:
    """How pixels are interpolated, in the words of ONNX.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        coordinates: where the pixels of the result lie.
        rounding: to which pixel, for ``nearest``.
        steep: the coefficient of cubic interpolation.
        inside: whether weights of pixels outside are left out.
    """

    mode: str
    coordinates: str
    rounding: str
    steep: float = -0.75
    inside: bool = False


def interpolated(value: Value, place: int, length: int, factor: float, how: Interpolation) -> Value:
    """A value with another length along an axis, counted without the batch."""
    before = value.shape[place]
    if min(length, before) < 1:
        raise UsageError("resizes to no pixels")
    matrix = _matrix(how, before, length, factor)
    if how.mode == "nearest":
        rows = matrix.argmax(1)
        return linear.moved(value, lambda x: x.index_select(place + 1, rows))
    return value.then(Along(value.shape, place, matrix, _ROUNDINGS * (before + length)))


def _matrix(how: Interpolation, length: int, target: int, factor: float) -> Tensor:
    """Weights of the pixels, one row for each pixel of the result."""
    mode, at = how.mode, _coordinates(how, length, target, factor)
    places = torch.arange(length, dtype=torch.float64)
    rows = torch.arange(target)
    if mode == "nearest":
        matrix = torch.zeros(target, length, dtype=torch.float64)
        matrix[rows, _rounded(how, at).clamp(0, length - 1)] = 1
        return matrix
    if mode == "linear":
        at = at.clamp(0, length - 1)
        return (1 - (at[:, None] - places).abs()).clamp_min(0)
    if mode != "cubic":
        raise UnboundedModuleError(f"resizing in mode {mode!r} is not known")
    floor = at.floor()
    matrix = torch.zeros(target, length, dtype=torch.float64)
    for offset in range(-1, 3):
        weights = _cubic(at - floor - offset, how.steep)
        taken = (floor + offset).long()
        if how.inside:
            weights = weights * ((taken >= 0) & (taken < length))
        matrix.index_put_((rows, taken.clamp(0, length - 1)), weights, accumulate=True)
    return matrix / matrix.sum(1, keepdim=True) if how.inside else matrix


def _coordinates(how: Interpolation, length: int, target: int, factor: float) -> Tensor:
    """Where the pixels of the result lie among those of the input."""
    x = torch.arange(target, dtype=torch.float64)
    mode = how.coordinates
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


def _rounded(how: Interpolation, at: Tensor) -> Tensor:
    mode = how.rounding
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
