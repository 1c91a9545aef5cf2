"""The absolute value, which keeps the norm of gradients (Anil, Lucas, Grosse, ICML 2019)."""

import torch
from torch import Tensor

from onelip.activations import ACTIVATIONS, Activation, Pieces
from onelip.chains import Elementwise
from onelip.chains.value import Value
from onelip.errors import keep_old_names
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.lipschitz import LipschitzModule


class Abs(LipschitzModule):
    """``|x|``, elementwise; torch has the function and no module.

    Bound: 1, attained; the Jacobian is diagonal with entries 1 and -1, except at 0.
    Shape: any to the same.
    Cost: one elementwise operation.

    Example:
        >>> Abs()(torch.tensor([-2.0, 3.0]))
        tensor([2., 3.])

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    same_in_float64 = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``|x|``."""
        return x.abs()

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as an activation with slopes between -1 and 1."""
        return value.activated(Elementwise.of(self))

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


ACTIVATIONS[Abs] = Activation(
    slopes=lambda _: (-1.0, 1.0),
    pieces=lambda _: Pieces((0.0,), (-1.0, 1.0)),
    homogeneous=True,
    roundings=0,
    forward_error=no_error,
    aten="abs",
    onnx=("Abs", {}),
)


keep_old_names(__name__, {"Absolute": "onelip.layers.Abs"})
