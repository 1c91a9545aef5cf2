"""Rounding of one part of a network: the arithmetic that rules for layers and modules count in."""

from onelip.forward_error.arithmetic import ABOVE, Arithmetic, Computed, Local, Run
from onelip.forward_error.linear import (
    absolute_norm,
    affine,
    moved,
    refuse_fast_convolutions,
    repeated,
    scaled,
)

__all__ = [
    "ABOVE",
    "Arithmetic",
    "Computed",
    "Local",
    "Run",
    "absolute_norm",
    "affine",
    "moved",
    "refuse_fast_convolutions",
    "repeated",
    "scaled",
]
