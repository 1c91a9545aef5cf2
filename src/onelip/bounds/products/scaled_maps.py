"""Products of linear maps as a number times maps with entries of about 1."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import cast

import torch
from torch import Tensor

from onelip.chains import (
    Composition,
    Convolution,
    Dense,
    Gather,
    LinearMap,
    Reshape,
    Scale,
)
from onelip.errors import NonFiniteError
from onelip.norms.rounding import power_of_two, quotient

Cores = tuple[LinearMap, ...]
_WEIGHTED = (Dense, Convolution)  # exactly these: a subclass may have its own norm


def above(number: Fraction) -> Tensor:
    """Round a fraction up to float64; infinite beyond the largest number."""
    return quotient(number.numerator, number.denominator)


def finite_above(number: Fraction) -> Tensor:
    """Round a fraction up to float64.

    Raises:
        NonFiniteError: it is beyond the largest float64 number.
    """
    value = above(number)
    if not torch.isfinite(value):
        raise NonFiniteError("the bound is beyond the largest float64 number")
    return value


def fraction(number: float | Tensor) -> Fraction:
    """Return a float as an exact fraction.

    Raises:
        NonFiniteError: it is infinite or NaN.
    """
    if not math.isfinite(float(number)):
        raise NonFiniteError(f"a constant of the network is {float(number)}: no bound exists")
    return Fraction(float(number))


def flat(maps: Sequence[LinearMap]) -> Cores:
    """Flatten nested compositions."""
    found: list[LinearMap] = []
    for linear in maps:
        found += flat(linear.maps) if isinstance(linear, Composition) else [linear]
    return tuple(found)


def permutes(linear: LinearMap) -> bool:
    """Check whether the map is a permutation of its inputs."""
    if isinstance(linear, Gather):
        return linear.rows == linear.columns and bool((linear.index >= 0).all())
    return isinstance(linear, Reshape)


def pulled(linear: LinearMap) -> tuple[Fraction, LinearMap | None]:
    """Split a map into a number and a map with entries of about 1, None if nothing is left."""
    numbers = _numbers(linear)
    if numbers is None:
        return Fraction(1), linear
    if not numbers.any():
        return Fraction(0), linear
    if isinstance(linear, Scale) and numbers.numel() == 1:
        return fraction(linear.norm()), None  # the factor, and how often it was rounded
    scale = power_of_two(numbers)
    scaled = numbers * scale
    # Rescale only where the power of two loses no entry to underflow.
    if scale == 1 or not torch.equal(scaled / scale, numbers):
        return Fraction(1), linear
    if isinstance(linear, Scale):
        return 1 / Fraction(scale), replace(linear, factor=scaled)
    assert type(linear) in _WEIGHTED
    linear = cast(Dense | Convolution, linear)
    return 1 / Fraction(scale), replace(linear, weight=scaled)


def _numbers(linear: LinearMap) -> Tensor | None:
    if isinstance(linear, Scale):
        return linear.factor
    return cast(Dense, linear).weight if type(linear) in _WEIGHTED else None
