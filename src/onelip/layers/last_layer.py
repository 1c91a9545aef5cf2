"""Deprecated module: ``UnitNormLinear`` under its old path and name."""

from onelip.errors import keep_old_names

keep_old_names(__name__, {"LastLayer": "onelip.layers.UnitNormLinear"})
