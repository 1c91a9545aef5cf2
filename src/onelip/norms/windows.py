"""Lipschitz constants of sums and maxima over windows of pixels."""

import math
from fractions import Fraction

Windows = list[tuple[int, int]]  # kernel size and stride along each axis


def overlap_of_sums(windows: Windows) -> int:
    """Return the squared norm of sums over windows: taps by phase of the stride, squared."""
    return math.prod(
        sum(len(range(phase, kernel, stride)) ** 2 for phase in range(stride))
        for kernel, stride in windows
    )


def overlap_of_maxima(windows: Windows, dilations: tuple[int, ...] = (1, 1)) -> int:
    """Return the squared Lipschitz constant of maxima: the number of windows that share a pixel."""
    # taps that meet in a pixel are a multiple of stride / gcd apart; a list, which can be compiled
    along = [
        -(-kernel // (stride // math.gcd(stride, dilation)))
        for (kernel, stride), dilation in zip(windows, dilations, strict=True)
    ]
    return math.prod(along)


def root_above(square: int, divisor: int = 1) -> float:
    """The smallest float found that is not below ``sqrt(square) / |divisor|``."""
    value = math.sqrt(square) / abs(divisor)
    while (Fraction(value) * divisor) ** 2 < square:
        value = math.nextafter(value, math.inf)
    return value
