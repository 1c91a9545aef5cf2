"""Activations that files write out as products: SiLU, Mish, GELU; and softplus with its threshold.

A product of two values has no Lipschitz bound in general; these do. A value knows what it was made
of, so they are recognised by their factors.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise, Scale
from onelip.chains.value import Value, constant
from onelip.errors import UnboundedModuleError
from onelip.lipschitz.torch_modules import elementwise
from onelip.reading.graphs.clamps import Clamp, clamped

_STEEPEST = 1.1283791670955127  # 2 / sqrt(pi), rounded upwards


class Erf(nn.Module):
    """The error function; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.erf(x)


@dataclass(frozen=True)
class Comparison:
    """``value > threshold`` or ``value < threshold``, which jump: softplus and clamps use them."""

    value: Value
    threshold: Any
    above: bool = True

    @classmethod
    def of(cls, first: Any, second: Any, above: bool) -> "Comparison":
        """Comparison of a value and a constant, on either side."""
        if isinstance(first, Value) and not isinstance(second, Value):
            return cls(first, second, above)
        if isinstance(second, Value) and not isinstance(first, Value):
            return cls(second, first, not above)
        raise UnboundedModuleError("a comparison of two values jumps, and has no bound")


def erf(value: Value) -> Value:
    """The error function."""
    low, high = torch.tensor([0.0, _STEEPEST], dtype=torch.float64)
    return value.activated(Elementwise(Erf(), low, high))


def gated(first: Value, second: Value) -> Value:
    """The product of two values, where it is an activation.

    Raises:
        UnboundedModuleError: it is none that is known.
    """
    for x, gate in ((first, second), (second, first)):
        if _activated_by(gate, nn.Sigmoid) is x:
            return elementwise(nn.SiLU(), x)
        inner = _activated_by(gate, nn.Tanh)
        if inner is not None and _plain_softplus(inner) is x:
            return elementwise(nn.Mish(), x)
        if _is_one_plus_erf(gate, x):
            two = torch.tensor(2.0, dtype=torch.float64)
            return elementwise(nn.GELU(), x).then(Scale(x.shape, two))
    raise UnboundedModuleError("a product of two values that depend on the input has no bound")


def chosen(condition: object, above: object, below: object) -> Value:
    """``where(x > t, x, softplus(x))``, and ``where(x > t, t, x)`` or its like: a clamp.

    Raises:
        UnboundedModuleError: it is something else.
    """
    if isinstance(condition, Comparison) and isinstance(below, Value):
        clamp = _chosen_end(condition, above, below)
        if clamp is not None:
            return clamp
    if (
        isinstance(condition, Comparison)
        and isinstance(below, Value)
        and condition.above
        and condition.value is above
        and _plain_softplus(below) is above
    ):
        threshold = float(condition.threshold)
        return elementwise(nn.Softplus(threshold=threshold), condition.value)
    raise UnboundedModuleError("a choice between values may jump, and has no bound")


def _chosen_end(condition: Comparison, end: object, rest: Value) -> Value | None:
    """The clamp that takes the threshold itself beyond it; of x, or of x clamped further on."""
    x, threshold = condition.value, condition.threshold
    if isinstance(end, Value) or not torch.equal(torch.as_tensor(end), torch.as_tensor(threshold)):
        return None
    if rest is x:
        return clamped(x, high=threshold) if condition.above else clamped(x, low=threshold)
    inner = None if rest.maps or rest.point.block is None else rest.point.block.nonlinearity.module
    if not isinstance(inner, Clamp) or rest.point.source is not x:
        return None
    other = inner.low if condition.above else inner.high
    last = constant(threshold, x)[0]
    if other is None or (inner.low is not None and inner.high is not None):
        return None
    ordered = (other <= last) if condition.above else (last <= other)
    if not bool(ordered.all()):
        return None  # it jumps
    return clamped(x, other, last) if condition.above else clamped(x, last, other)


def _activated_by(value: Value, kind: type[nn.Module]) -> Value | None:
    """Argument of an activation, if the value is its result."""
    block = value.point.block
    plain = block is not None and not value.maps and type(block.nonlinearity.module) is kind
    return value.point.source if plain else None


def _plain_softplus(value: Value) -> Value | None:
    """Argument of a softplus of beta = 1; another one makes neither Mish nor softplus."""
    before = _activated_by(value, nn.Softplus)
    block = value.point.block
    plain = block is not None and getattr(block.nonlinearity.module, "beta", None) == 1
    return before if plain else None


def _is_one_plus_erf(gate: Value, x: Value) -> bool:
    r"""Whether the gate is :math:`1 + \mathrm{erf}(c x)`, with c close to :math:`1/\sqrt{2}`.

    :math:`x (1 + \mathrm{erf}(c x))` has the slopes of :math:`2\,\mathrm{GELU}`, whatever c > 0.
    """
    if len(gate.maps) != 1 or not _is_affine(gate.maps[0], 1.0, 1.0):
        return False
    inner = _activated_by(Value(gate.point), Erf)
    if inner is None or inner.point is not x.point or len(inner.maps) != len(x.maps) + 1:
        return False
    same = all(a is b for a, b in zip(inner.maps, x.maps, strict=False))
    return same and _is_affine(inner.maps[-1], math.sqrt(0.5), None)


def _is_affine(linear: object, factor: float, shift: float | None) -> bool:
    if not isinstance(linear, Scale) or linear.factor.numel() != 1:
        return False
    if (linear.shift is None) != (shift is None):
        return False
    added = 0.0 if linear.shift is None else float(linear.shift.sum() / linear.shift.numel())
    even = linear.shift is None or bool((linear.shift == linear.shift.flatten()[0]).all())
    return even and added == (shift or 0.0) and abs(float(linear.factor) - factor) < 1e-6
