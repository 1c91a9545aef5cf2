"""Elementwise activations: one record of what is known of each type.

Layers that used to be here, such as ``MaxMin``, are in ``onelip.layers``.
"""

from onelip.activations import torch_activations as _torch_activations
from onelip.activations.record import (
    ACTIVATIONS,
    Activation,
    Curve,
    Interval,
    Pieces,
    is_homogeneous,
    primitive,
    second_derivatives,
    slopes,
    steepest,
)
from onelip.errors import keep_old_names

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Curve",
    "Interval",
    "Pieces",
    "is_homogeneous",
    "primitive",
    "second_derivatives",
    "slopes",
    "steepest",
]
del _torch_activations

_LAYERS = {
    "Absolute": "Abs",
    "GroupSort": "GroupSort",
    "HouseHolder": "Householder",
    "MaxMin": "MaxMin",
    "NActivation": "NActivation",
}
keep_old_names(__name__, {old: f"onelip.layers.{new}" for old, new in _LAYERS.items()})
