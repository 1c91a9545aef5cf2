"""Proved upper bounds of operator norms.

Every function here returns a 0-d float64 tensor that is never below the exact real norm of the
floating-point numbers it is given: the rounding of the computation itself is added.
"""

from onelip import versions as versions  # warns before the first proof
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
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "dense",
]
