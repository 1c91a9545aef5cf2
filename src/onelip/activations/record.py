"""Records of elementwise activations, by exact type.

Every entry but the slopes may be missing, which ``docs/known.md`` shows. What asks for a missing
entry is refused by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from onelip.errors import NonFiniteError, NotApplicableError, UnboundedModuleError
from onelip.forward_error import Local, Run

Interval = tuple[float, float]
Function = Callable[[Any, Tensor], Tensor]


class Curve(NamedTuple):
    """Slopes that rise, or fall, from one end of a piece to the other.

    Attributes:
        slope: the derivative, of the module and float64 inputs.
        relative: whether float64 computes it up to a relative error; else up to one of 1.
    """

    slope: Function
    relative: bool = True


class Pieces(NamedTuple):
    """An activation in pieces with monotone slopes.

    Attributes:
        ends: where one piece ends and the next begins, ascending.
        slopes: of each piece, from the left: a number, one per channel, or a curve.
    """

    ends: tuple[float, ...]
    slopes: tuple[float | Tensor | Curve, ...]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """Facts about an elementwise activation f of one exact type, given its settings.

    Attributes:
        slopes: an interval that contains every ``(f(a) - f(b)) / (a - b)``. Its largest absolute
            value is the Lipschitz constant; a lower end >= 0 means that f is non-decreasing.
        pieces: the slopes between two inputs.
        second_derivatives: an interval that contains every slope of the derivative, so that f lies
            between two parabolas at each of its tangents; None where f has a kink.
        primitive: the integral of f from 0, up to a constant.
        homogeneous: whether ``f(c x) = c f(x)`` for every c >= 0.
        roundings: how often a number is rounded on the way to its value, at most once; None where
            library functions or sums come in.
        forward_error: what rounding does.
        aten: torch's operator; the arguments are those of the module.
        onnx: the operator of ONNX files, and its attributes in the order of the module's arguments,
            with their defaults.
    """

    slopes: Callable[[Any], Interval]
    pieces: Callable[[Any], Pieces] | None = None
    second_derivatives: Callable[[Any], Interval] | None = None
    primitive: Function | None = None
    homogeneous: bool = False
    roundings: Literal[0, 1] | None = None
    forward_error: Callable[[Any, Run], Local] | None = None
    aten: str | None = None
    onnx: tuple[str, dict[str, Any]] | None = None


ACTIVATIONS: dict[type[nn.Module], Activation] = {}
"""Records by exact type: a derived class inherits nothing."""


def slopes(activation: nn.Module) -> Interval:
    """Interval that contains every slope of an elementwise activation.

    Args:
        activation: one of the exact types in ``ACTIVATIONS``.

    Raises:
        UnboundedModuleError: the type is not known, or its settings make it discontinuous.

    Example:
        >>> slopes(nn.LeakyReLU(0.1))
        (0.1, 1.0)
    """
    record = ACTIVATIONS.get(type(activation))
    if record is None:
        known = _names(lambda _: True)
        name = type(activation).__name__
        raise UnboundedModuleError(f"no slopes are known for {name}; known: {known}")
    low, high = record.slopes(activation)
    if not low <= high < math.inf:
        raise NonFiniteError(f"the slopes of {activation} reach from {low} to {high}")
    return low, high


def steepest(activation: nn.Module) -> float | Tensor:
    """The largest slope, as a step in a forward pass needs it: a bound is from ``slopes``.

    Of PReLU it is a tensor, so that no device is asked for a number.
    """
    if type(activation) is nn.PReLU:
        return activation.weight.detach().max().clamp_min(1.0)
    return slopes(activation)[1]


def is_homogeneous(activation: nn.Module) -> bool:
    """Whether ``f(c x) = c f(x)`` for every c >= 0 is known of an activation."""
    record = ACTIVATIONS.get(type(activation))
    return record is not None and record.homogeneous


def second_derivatives(activation: nn.Module) -> Interval:
    """Interval that contains every slope of the derivative of an elementwise activation.

    Args:
        activation: one of the exact types in ``ACTIVATIONS``.

    Raises:
        UnboundedModuleError: the type is not known, or its derivative jumps.

    Example:
        >>> second_derivatives(nn.Softplus(beta=2))
        (0.0, 0.5)
    """
    record = ACTIVATIONS.get(type(activation))
    if record is None or record.second_derivatives is None:
        raise UnboundedModuleError(
            f"no bound is known for the second derivative of {type(activation).__name__}; "
            f"known: {_names(lambda known: known.second_derivatives is not None)}"
        )
    slopes(activation)  # refuses settings that make it discontinuous
    low, high = record.second_derivatives(activation)
    if not low <= high < math.inf:
        raise NonFiniteError(f"the second derivative of {activation} is between {low} and {high}")
    return low, high


def primitive(activation: nn.Module, x: Tensor) -> Tensor:
    """The integral of an activation from 0, up to a constant, number by number.

    Where ``f(c x) = c f(x)`` for c >= 0, as for ReLU, it is ``x f(x) / 2``.

    Raises:
        NotApplicableError: no closed form is known here; gradients and bounds do not need it.

    Example:
        >>> import torch
        >>> primitive(nn.ReLU(), torch.tensor([-1.0, 3.0]))
        tensor([-0.0000, 4.5000])
    """
    record = ACTIVATIONS.get(type(activation))
    if record is not None and record.homogeneous:
        half: Tensor = x * activation(x.clone()) / 2  # which may work in place
        return half
    if record is None or record.primitive is None:
        known = _names(lambda known: known.homogeneous or known.primitive is not None)
        raise NotApplicableError(
            f"no primitive is known for {type(activation).__name__}; known: {known}. gradient() "
            "needs none"
        )
    return record.primitive(activation, x)


def _names(has: Callable[[Activation], bool]) -> str:
    return ", ".join(sorted(kind.__name__ for kind, record in ACTIVATIONS.items() if has(record)))
