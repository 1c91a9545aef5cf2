"""Elementwise activations: one record of what is known of each type.

Layers that used to be here, such as ``MaxMin``, are in ``onelip.layers``.
"""

import importlib
from typing import Any

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
from onelip.errors import renamed

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

_LAYERS = ("Absolute", "GroupSort", "HouseHolder", "MaxMin", "NActivation")


def __getattr__(name: str) -> Any:
    if name not in _LAYERS:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    renamed(f"onelip.activations.{name}", f"onelip.layers.{name}")
    return getattr(importlib.import_module("onelip.layers"), name)
