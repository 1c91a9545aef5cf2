"""The absolute value, which keeps the norm of gradients."""

import torch
from torch import Tensor

from onelip.errors import keep_old_names
from onelip.lipschitz import LipschitzModule


class Abs(LipschitzModule):
    """``|x|``, number by number; torch has the function and no module.

    Bound: 1, attained; the Jacobian is diagonal with entries 1 and -1, except at 0.
    Shape: any to the same.
    Cost: one elementwise operation.

    Example:
        >>> Abs()(torch.tensor([-2.0, 3.0]))
        tensor([2., 3.])

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop the signs."""
        return x.abs()

    def lipschitz_bound(self) -> Tensor:
        """1."""
        return torch.ones((), dtype=torch.float64)


keep_old_names(__name__, {"Absolute": "onelip.layers.Abs"})
