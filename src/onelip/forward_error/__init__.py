"""Rounding of one part of a network: the arithmetic that rules for layers and modules count in."""

from onelip.forward_error.arithmetic import (
    ABOVE,
    Arithmetic,
    Computed,
    Local,
    Reference,
    Run,
    Size,
    largest,
)
from onelip.forward_error.linear import (
    absolute_norm,
    affine,
    moved,
    refuse_fast_convolutions,
    repeated,
    scaled,
)
from onelip.forward_error.sums import Sums, additions, lengths

__all__ = [
    "ABOVE",
    "Arithmetic",
    "Computed",
    "Local",
    "Reference",
    "Run",
    "Size",
    "Sums",
    "absolute_norm",
    "additions",
    "affine",
    "largest",
    "lengths",
    "moved",
    "refuse_fast_convolutions",
    "repeated",
    "scaled",
]
