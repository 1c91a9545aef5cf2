r"""A smooth absolute value, :math:`\sqrt{x^2 + \delta^2} - \delta`."""

import math

import torch
from torch import Tensor

from onelip.activations import ACTIVATIONS, Activation, Curve, Interval, Pieces, slopes
from onelip.chains import Elementwise
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import ABOVE, Local, Run
from onelip.lipschitz import LipschitzModule


class SoftHuber(LipschitzModule):
    r"""``sqrt(x^2 + delta^2) - delta``: the absolute value, rounded off near 0.

    It is :math:`\delta (\sqrt{1 + (x / \delta)^2} - 1)`, a parabola up to about delta, and
    ``|x| - delta`` far away.

    Bound: 1, approached far away from 0; the second derivative is at most ``1 / delta``.
    Shape: any to the same.
    Cost: a few elementwise operations.

    Args:
        delta: where the parabola ends, above 0.

    Raises:
        ValueError: a delta that is not a positive number.

    Example:
        >>> SoftHuber(3.0)(torch.tensor([0.0, -4.0]))
        tensor([0., 2.])
    """

    same_in_float64 = True

    def __init__(self, delta: float = 0.05) -> None:
        super().__init__()
        if not 0 < delta < math.inf:
            raise ValueError(f"delta must be a positive number, got {delta}")
        self.delta = delta

    def forward(self, x: Tensor) -> Tensor:
        """Return ``sqrt(x^2 + delta^2) - delta``."""
        return (x.square() + self.delta**2).sqrt() - self.delta

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        slopes(self)
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as an activation with slopes between -1 and 1."""
        return value.activated(Elementwise.of(self))

    def forward_error(self, run: Run) -> Local:
        """Rounding of a root of squares and a difference."""
        return _forward_error(self, run)

    def extra_repr(self) -> str:
        """The delta."""
        return str(self.delta)


def _slopes(module: SoftHuber) -> Interval:
    """Slopes of a delta that is still a positive number."""
    if not 0 < module.delta < math.inf:
        raise UnboundedModuleError(f"SoftHuber with delta={module.delta}, which must be positive")
    return -1.0, 1.0


def _forward_error(module: SoftHuber, run: Run) -> Local:
    """Rounding of the root, of delta and its square; squares that underflow count by their root."""
    delta = module.delta * math.sqrt(run.count) * ABOVE
    size = run.x.reach + 2 * delta
    run.arithmetic.check(2 * size * size)
    lost = math.sqrt(4 * run.arithmetic.lost * run.count)
    return Local(0.0, (run.rounding(8, size * ABOVE) + lost) * ABOVE)


def _derivative(module: SoftHuber, x: Tensor) -> Tensor:
    return x / torch.hypot(x, torch.full_like(x, module.delta))


def _primitive(module: SoftHuber, x: Tensor) -> Tensor:
    """The integral of the root, minus delta x."""
    delta = module.delta
    root = torch.hypot(x, torch.full_like(x, delta))
    return (x * root + delta**2 * torch.asinh(x / delta)) / 2 - delta * x


ACTIVATIONS[SoftHuber] = Activation(
    slopes=_slopes,
    pieces=lambda _: Pieces((), (Curve(_derivative),)),
    second_derivatives=lambda module: (0.0, math.nextafter(1 / module.delta, math.inf)),
    primitive=_primitive,
    forward_error=_forward_error,
)
