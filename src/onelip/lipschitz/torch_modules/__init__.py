"""The records of torch's own modules."""

from onelip.lipschitz.torch_modules import activations, linear, moves, normalization, pooling
from onelip.lipschitz.torch_modules.activations import activation
from onelip.lipschitz.torch_modules.linear import sides_of

__all__ = ["activation", "sides_of"]
del activations, linear, moves, normalization, pooling
