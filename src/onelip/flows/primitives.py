"""Functions whose derivative is an activation: what a ridge potential sums up."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.errors import NotApplicableError
from onelip.norms.slopes import HOMOGENEOUS


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)


def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))  # F.softplus is x from 20 on


def _softsign(x: Tensor) -> Tensor:
    return x.abs() - x.abs().log1p()


PRIMITIVES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: _log_cosh,
    nn.Sigmoid: _softplus,
    nn.Softsign: _softsign,
}


def primitive(activation: nn.Module, x: Tensor) -> Tensor:
    """The integral of an activation from 0, up to a constant, number by number.

    Where ``s(c x) = c s(x)`` for c >= 0, as for ReLU, it is ``x s(x) / 2``.

    Raises:
        NotApplicableError: no closed form is known here; gradients and bounds do not need it.

    Example:
        >>> primitive(nn.ReLU(), torch.tensor([-1.0, 3.0]))
        tensor([-0.0000, 4.5000])
    """
    kind = type(activation)
    if kind in HOMOGENEOUS:
        half: Tensor = x * activation(x.clone()) / 2  # which may work in place
        return half
    if kind not in PRIMITIVES:
        known = ", ".join(k.__name__ for k in [*HOMOGENEOUS, *PRIMITIVES])
        raise NotApplicableError(
            f"no primitive is known for {kind.__name__}; known: {known}. gradient() needs none"
        )
    return PRIMITIVES[kind](x)
