"""The records of torch's own modules."""

from onelip.lipschitz.torch_modules import activations, linear, moves, normalization, pooling
from onelip.lipschitz.torch_modules.activations import elementwise
from onelip.lipschitz.torch_modules.linear import norm_of, padding_in_use, sides_along, sides_of

__all__ = ["elementwise", "norm_of", "padding_in_use", "sides_along", "sides_of"]
del activations, linear, moves, normalization, pooling
