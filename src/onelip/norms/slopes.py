"""Slopes of torch's elementwise activations.

``slopes(activation)`` is an interval that contains every slope ``(f(a) - f(b)) / (a - b)``. Its
largest absolute value is the Lipschitz constant of the activation, and a lower end >= 0 means that
it is non-decreasing. Constants without a closed form are rounded outwards. Softplus is taken as
``log(1 + exp(beta x)) / beta``: from a threshold of 20 on torch computes x instead, which is off by
at most 1.1e-10 of the value: rounding, as far as the level ``real`` is concerned.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.norms.rounding import exact

Interval = tuple[float, float]


def fixed(low: float, high: float) -> Callable[[Any], Interval]:
    """The rule of activations whose interval does not depend on their settings."""
    return lambda _: (low, high)


def _leaky_relu(module: nn.LeakyReLU) -> Interval:
    return min(module.negative_slope, 1.0), max(module.negative_slope, 1.0)


def _prelu(module: nn.PReLU) -> Interval:
    weight = exact(module.weight)
    return min(1.0, float(weight.min())), max(1.0, float(weight.max()))


def _elu(module: nn.ELU) -> Interval:
    return min(module.alpha, 0.0), max(module.alpha, 1.0)


def _celu(module: nn.CELU) -> Interval:
    if not 0 < module.alpha < math.inf:
        raise UnboundedModuleError(f"CELU with alpha={module.alpha} is steep without limit")
    return 0.0, 1.0


def _softplus(module: nn.Softplus) -> Interval:
    if module.beta <= 0 or module.threshold < 20:
        raise UnboundedModuleError("Softplus jumps at its threshold: use beta > 0, threshold >= 20")
    return 0.0, 1.0


def _softshrink(module: nn.Softshrink) -> Interval:
    if module.lambd < 0:
        raise UnboundedModuleError("Softshrink with a negative lambd is not continuous")
    return 0.0, 1.0


SLOPES: dict[type[nn.Module], Callable[[Any], Interval]] = {
    nn.Identity: fixed(1, 1),
    nn.ReLU: fixed(0, 1),
    nn.ReLU6: fixed(0, 1),
    nn.Hardtanh: fixed(0, 1),
    nn.Tanh: fixed(0, 1),
    nn.Softsign: fixed(0, 1),
    nn.LogSigmoid: fixed(0, 1),
    nn.Tanhshrink: fixed(0, 1),
    nn.Sigmoid: fixed(0, 0.25),
    nn.Hardsigmoid: fixed(0, 0.16666666666666669),
    nn.SELU: fixed(0, 1.7580993408473769),
    nn.GELU: fixed(-0.12905, 1.12905),
    nn.SiLU: fixed(-0.09984, 1.09984),
    nn.Mish: fixed(-0.11253, 1.0885),
    nn.Hardswish: fixed(-0.5, 1.5),
    nn.LeakyReLU: _leaky_relu,
    nn.PReLU: _prelu,
    nn.ELU: _elu,
    nn.CELU: _celu,
    nn.Softplus: _softplus,
    nn.Softshrink: _softshrink,
}


def steepest(activation: nn.Module) -> float | Tensor:
    """The largest slope, as a step in a forward pass needs it: a bound is from ``slopes``.

    Of PReLU it is a tensor, so that no device is asked for a number.
    """
    if type(activation) is nn.PReLU:
        return activation.weight.detach().max().clamp_min(1.0)
    return slopes(activation)[1]


HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU)
"""Activations f with ``f(c x) = c f(x)`` for every c >= 0."""


def slopes(activation: nn.Module) -> Interval:
    """Interval that contains every slope of an elementwise activation.

    Args:
        activation: one of the exact types in ``SLOPES``.

    Raises:
        UnboundedModuleError: the type is not known, or its settings make it discontinuous.

    Example:
        >>> slopes(nn.LeakyReLU(0.1))
        (0.1, 1.0)
    """
    rule = SLOPES.get(type(activation))
    if rule is None:
        known = ", ".join(sorted(kind.__name__ for kind in SLOPES))
        name = type(activation).__name__
        raise UnboundedModuleError(f"no slopes are known for {name}; known: {known}")
    low, high = rule(activation)
    if not low <= high < math.inf:
        raise NonFiniteError(f"the slopes of {activation} reach from {low} to {high}")
    return low, high
