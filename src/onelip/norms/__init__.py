"""Proved upper bounds of operator norms.

A 0-d float64 tensor that a function here returns is never below the exact real norm of the
floating-point numbers it is given: the rounding of the computation itself is added. What holds with
a probability only is a ``ProbableNorm``, which nothing takes for a bound.
"""

from onelip import versions as versions  # warns before the first proof
from onelip.norms._operator import ProbableNorm, operator
from onelip.norms.convolutions import convolution
from onelip.norms.functional import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from onelip.norms.spectral import dense

__all__ = [
    "ProbableNorm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "dense",
    "operator",
]
