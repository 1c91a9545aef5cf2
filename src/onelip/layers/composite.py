"""Base of layers that hold networks: their export, their reading and their rounding."""

import abc
from collections.abc import Callable

from torch import nn

from onelip.chains.value import Value, like_of
from onelip.forward_error import Computed, Run
from onelip.lipschitz import LipschitzModule, read_module, through


class Composite(LipschitzModule):
    """A layer made of modules that have bounds of their own."""

    @abc.abstractmethod
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """Return the layer with fixed numbers and converted parts, as ``onelip.export`` needs it.

        Args:
            convert: applied to each part.
        """


def read_alone(module: nn.Module, shape: tuple[int, ...]) -> Value:
    """A module by itself, after an input of its own."""
    return _in_turn(module, Value.entering(shape, like_of(module)))


def _in_turn(module: nn.Module, value: Value) -> Value:
    """Parts of nested sequences, one after the other."""
    if type(module) is not nn.Sequential:
        return read_module(module, value)
    for part in module:
        value = _in_turn(part, value)
    return value


def followed(network: nn.Module, x: Computed, run: Run) -> Computed:
    """Bounds of a vector after nested sequences of parts."""
    if type(network) is not nn.Sequential:
        return through(network, x, run.arithmetic)
    for part in network:
        x = followed(part, x, run)
    return x
