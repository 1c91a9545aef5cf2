"""A head with one hidden layer, certified by its curvature (Singla, Feizi, 2022)."""

import copy
from typing import Unpack

from torch import Tensor, nn

from onelip.activations import second_derivatives
from onelip.chains.value import Value
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule, bound_of_part, read_module
from onelip.norms.rounding import product


class MLPHead(LipschitzModule):
    r"""``outer(activation(inner(x)))``: logits of a network that need no Lipschitz constant.

    After a 1-Lipschitz body, ``certify(model, x, method=HeadCurvature())`` finds
    how far the features may move before the prediction changes, from the second derivative of the
    differences of two logits: the weights of this head are free.

    Bound: the product of the norms of both layers and the slope of the activation; the certificate
    does not use it.
    Shape: ``(batch, in_features)`` to ``(batch, classes)``.
    Cost: two linear layers.

    Args:
        in_features: size of the input.
        classes: number of logits.
        hidden: width of the hidden layer.
        activation: one whose derivative does not jump; Softplus by default.
        **factory: ``device`` and ``dtype`` of the linear layers.

    Raises:
        UnboundedModuleError: the activation has a kink.

    Example:
        >>> head = MLPHead(8, 10, hidden=32)
        >>> [tuple(weight.shape) for weight in head.parameters()]
        [(32, 8), (32,), (10, 32), (10,)]

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022,
    section 5.
    """

    def __init__(
        self,
        in_features: int,
        classes: int,
        hidden: int = 4096,
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        activation = nn.Softplus() if activation is None else activation
        second_derivatives(activation)  # refuses activations with a kink
        self.inner = nn.Linear(in_features, hidden, **factory)
        self.activation = activation
        self.outer = nn.Linear(hidden, classes, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``outer(activation(inner(x)))``."""
        logits: Tensor = self.outer(self.activation(self.inner(x)))
        return logits

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return product([bound_of_part(part) for part in self.parts()])

    def export(self) -> nn.Sequential:
        """Return three plain torch modules."""
        return nn.Sequential(*(copy.deepcopy(part) for part in self.parts()))

    def parts(self) -> tuple[nn.Linear, nn.Module, nn.Linear]:
        """The modules that ``forward`` calls, in order."""
        return self.inner, self.activation, self.outer

    def to_chain(self, value: Value) -> Value:
        """Read the parts in turn."""
        for part in self.parts():
            value = read_module(part, value)
        return value
