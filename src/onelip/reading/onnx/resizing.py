"""ONNX's ``Resize``: axes, sizes and settings of an interpolation."""

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs.interpolation import Interpolation, interpolated
from onelip.reading.onnx.attributes import Attributes


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
    how = _interpolation(attributes)
    for axis, factor, length in zip(along, factors, lengths, strict=True):
        if length != whole[axis] or (factor != 1 and scales is not None):
            value = interpolated(value, frame.axis(value, axis) - 1, length, factor, how)
    return value


def _interpolation(attributes: Attributes) -> Interpolation:
    new = attributes.version >= 11
    return Interpolation(
        attributes.get("mode", "nearest"),
        attributes.get("coordinate_transformation_mode", "half_pixel" if new else "asymmetric"),
        attributes.get("nearest_mode", "round_prefer_floor" if new else "floor"),
        attributes.get("cubic_coeff_a", -0.75),
        bool(attributes.get("exclude_outside", 0)),
    )


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
