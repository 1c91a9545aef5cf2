"""The contract: what a layer says of itself."""

import abc
import copy

from torch import Tensor, nn

from onelip.errors import UnboundedModuleError


class LipschitzModule(nn.Module, abc.ABC):
    """A module that proves a bound of its own Lipschitz constant."""

    export_keeps_function = True
    """Whether ``export`` computes the same function, unless it lowers the bound."""

    @abc.abstractmethod
    def lipschitz_bound(self) -> Tensor:
        """Upper bound of the Lipschitz constant of ``forward`` as it would run now.

        Returns:
            A 0-d float64 tensor, computed without side effect from the weights that ``forward``
            uses, rounding added.
        """

    def export(self) -> nn.Module:
        """The same function from fixed weights; a layer without reparametrisation copies itself.

        Raises:
            UnboundedModuleError: it holds other layers, whose export it would have to arrange.
        """
        if any(isinstance(part, LipschitzModule) for part in self.children()):
            raise UnboundedModuleError(f"{type(self).__name__} holds layers: write its export()")
        return copy.deepcopy(self)
