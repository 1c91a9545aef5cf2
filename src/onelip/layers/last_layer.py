"""The old place of ``UnitNormLinear``, for files that name it."""

from onelip.errors import keep_old_names

keep_old_names(__name__, {"LastLayer": "onelip.layers.UnitNormLinear"})
