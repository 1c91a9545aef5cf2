"""The old place of activations, which are layers: ``onelip.layers`` has them."""

from onelip.errors import keep_old_names

_NEW = {
    "Absolute": "Abs",
    "GroupSort": "GroupSort",
    "HouseHolder": "Householder",
    "MaxMin": "MaxMin",
    "NActivation": "NActivation",
}
keep_old_names(__name__, {old: f"onelip.layers.{new}" for old, new in _NEW.items()})
