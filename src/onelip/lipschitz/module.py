"""The contract: what a layer says of itself."""

import abc
import copy

from torch import Tensor, nn

from onelip.chains.linear_layers import opaque
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run
from onelip.lipschitz.guards import finite


class LipschitzModule(nn.Module, abc.ABC):
    """A module that proves a bound of its own Lipschitz constant."""

    export_keeps_function = True
    """Whether ``export`` computes the same function, unless it lowers the bound."""

    same_in_float64 = False
    """Whether ``module.double()`` is the function that ``forward_error`` takes for the exact one.

    It is not where numbers are computed from others, as a cosine from an angle, and the rule counts
    from the rounded ones. Then errors around samples are counted from the layer's own dtype.
    """

    @abc.abstractmethod
    def lipschitz_bound(self) -> Tensor:
        """Upper bound of the Lipschitz constant of ``forward`` as it would run now.

        Returns:
            A 0-d float64 tensor, computed without side effect from the weights that ``forward``
            uses, rounding added.
        """

    def export(self) -> nn.Module:
        """Module with fixed weights and the same function; by default a copy of the layer.

        Raises:
            UnboundedModuleError: it holds other layers, whose export it would have to arrange.
        """
        if any(isinstance(part, LipschitzModule) for part in self.children()):
            raise UnboundedModuleError(f"{type(self).__name__} holds layers: write its export()")
        return copy.deepcopy(self)

    def to_chain(self, value: Value) -> Value:
        """The module after a value of a network, for bounds of the network as a whole.

        By default nothing is known of it but its bound.

        Raises:
            UsageError: it does not take inputs of the value's shape.
            NonFiniteError: its bound is infinite or NaN.
        """
        constant = float(finite(self.lipschitz_bound(), type(self).__name__))
        fixed = copy.deepcopy(self).eval() if self.training else self  # no power step in forward
        return opaque(fixed, constant, value)

    def forward_error(self, run: Run) -> Local:  # noqa: ARG002
        """Bounds of ``|f(0)|`` and of what rounding does inside f, for certificates of ``float``.

        Raises:
            UnboundedModuleError: nothing is known of it, as by default.
        """
        raise unknown_rounding(self)


def unknown_rounding(module: nn.Module) -> UnboundedModuleError:
    """The error for a module of whose rounding nothing is known."""
    return UnboundedModuleError(
        f"nothing is known of the rounding of {type(module).__name__}: use level='real', or "
        "onelip.export(model) first if it has not been exported"
    )
