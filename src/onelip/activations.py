"""The old place of activations, which are layers: ``onelip.layers`` has them."""

from typing import Any

from onelip import layers
from onelip.errors import renamed

_NAMES = ("Absolute", "GroupSort", "HouseHolder", "MaxMin", "NActivation")


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    renamed(f"onelip.activations.{name}", f"onelip.layers.{name}")
    return getattr(layers, name)
