"""Second derivatives of torch's elementwise activations.

``second_derivatives(activation)`` is an interval that contains every slope of the derivative, so
that ``f`` lies between two parabolas at each of its tangents. Activations with a kink have none.
Constants without a closed form are rounded outwards.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.norms.slopes import Interval, fixed, slopes


def _softplus(module: nn.Softplus) -> Interval:
    return 0.0, module.beta / 4


def _elu(module: nn.ELU) -> Interval:
    if module.alpha != 1:
        raise UnboundedModuleError(f"ELU with alpha={module.alpha} has a kink: use alpha=1")
    return 0.0, 1.0


def _celu(module: nn.CELU) -> Interval:
    return 0.0, math.nextafter(1 / module.alpha, math.inf)


def _gelu(module: nn.GELU) -> Interval:
    if module.approximate != "none":
        raise UnboundedModuleError("only GELU(approximate='none') has a known second derivative")
    return -0.10799, 0.79789


SECOND_DERIVATIVES: dict[type[nn.Module], Callable[[Any], Interval]] = {
    nn.Identity: fixed(0, 0),
    nn.Tanh: fixed(-0.76981, 0.76981),
    nn.Tanhshrink: fixed(-0.76981, 0.76981),
    nn.Sigmoid: fixed(-0.096226, 0.096226),
    nn.LogSigmoid: fixed(-0.25, 0),
    nn.Softsign: fixed(-2, 2),
    nn.SiLU: fixed(-0.03692, 0.5),
    nn.Mish: fixed(-0.05904, 0.64421),
    nn.GELU: _gelu,
    nn.ELU: _elu,
    nn.CELU: _celu,
    nn.Softplus: _softplus,
}


def second_derivatives(activation: nn.Module) -> Interval:
    """Interval that contains every slope of the derivative of an elementwise activation.

    Args:
        activation: one of the exact types in ``SECOND_DERIVATIVES``.

    Raises:
        UnboundedModuleError: the type is not known, or its derivative jumps.

    Example:
        >>> second_derivatives(nn.Softplus(beta=2))
        (0.0, 0.5)
    """
    rule = SECOND_DERIVATIVES.get(type(activation))
    if rule is None:
        known = ", ".join(sorted(kind.__name__ for kind in SECOND_DERIVATIVES))
        raise UnboundedModuleError(
            f"no bound is known for the second derivative of {type(activation).__name__}; "
            f"known: {known}"
        )
    slopes(activation)  # refuses settings that make it discontinuous
    low, high = rule(activation)
    if not low <= high < math.inf:
        raise NonFiniteError(f"the second derivative of {activation} is between {low} and {high}")
    return low, high
