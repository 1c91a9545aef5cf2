"""The records of torch's own modules."""

from onelip.lipschitz.torch_modules import activations, linear, moves, normalization, pooling
from onelip.lipschitz.torch_modules.activations import activation
from onelip.lipschitz.torch_modules.linear import norm_of, sides_of

__all__ = ["activation", "norm_of", "sides_of"]
del activations, linear, moves, normalization, pooling
