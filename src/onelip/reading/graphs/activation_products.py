"""Activations that files write out as products: SiLU, Mish, GELU; and softplus with its threshold.

A product of two values has no Lipschitz bound in general; these do. A value knows what it was made
of, so they are recognised by their factors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise, LinearMap, Scale
from onelip.chains.value import Value, constant
from onelip.lipschitz.torch_modules import elementwise
from onelip.reading.graphs.clamps import Clamp, clamped
from onelip.reading.graphs.refusals import Unfinished, jumps, only_locally

_STEEPEST = 1.1283791670955127  # 2 / sqrt(pi), rounded upwards


class Erf(nn.Module):
    """The error function; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.erf(x)


class RampGated(nn.Module):
    """``x clamp(a x + b, 0, m)``: with 1 / 6, 1 / 2 and 1 it is hardswish."""

    def __init__(self, factor: float, shift: float, most: float) -> None:
        super().__init__()
        self.factor, self.shift, self.most = factor, shift, most

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * (self.factor * x + self.shift).clamp(0, self.most)


@dataclass(frozen=True)
class Comparison(Unfinished):
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
        raise jumps("a comparison of two values")

    def settled(self) -> Value:
        """Refuse."""
        raise jumps("a comparison")


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
        if argument(gate, nn.Sigmoid) is x:
            return elementwise(nn.SiLU(), x)
        inner = argument(gate, nn.Tanh)
        if inner is not None and _plain_softplus(inner) is x:
            return elementwise(nn.Mish(), x)
        if _is_one_plus_erf(gate, x):
            two = torch.tensor(2.0, dtype=torch.float64)
            return elementwise(nn.GELU(), x).then(Scale(x.shape, two))
        ramp = _ramp(gate, x)
        if ramp is not None:
            return ramp
    raise only_locally("a product of two values that depend on the input")


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
    raise jumps("a choice between values")


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


def argument(value: Value, kind: type[nn.Module]) -> Value | None:
    """Argument of an activation of exactly this type, if the value is its result."""
    block = value.point.block
    plain = block is not None and not value.maps and type(block.nonlinearity.module) is kind
    return value.point.source if plain else None


def _ramp(gate: Value, x: Value) -> Value | None:
    """``x clamp(a x + b, 0, m)`` with a > 0, if the gate is the clamp.

    Its slopes are 0, then ``2 a x + b`` from -b to ``2 m - b``, then m.
    """
    inner = argument(gate, nn.Hardtanh)
    if inner is None or inner.point is not x.point or gate.point.block is None:
        return None
    ends = gate.point.block.nonlinearity.module
    same = all(a is b for a, b in zip(inner.maps, x.maps, strict=False))
    line = _line(inner.maps[len(x.maps) :]) if same else None
    if line is None or ends.min_val != 0:
        return None
    (factor, shift), most = line, float(cast(nn.Hardtanh, ends).max_val)
    if not 0 < factor < math.inf or not math.isfinite(shift) or not 0 < most < math.inf:
        return None
    low, high = min(0.0, -shift), max(most, 2 * most - shift)
    slopes = torch.tensor([low, high], dtype=torch.float64)
    # A sum is rounded once; where the clamp is reached is not part of the slopes.
    slopes = torch.nextafter(slopes, torch.tensor([-math.inf, math.inf], dtype=torch.float64))
    return x.activated(Elementwise(RampGated(factor, shift, most), slopes[0], slopes[1]))


def _line(maps: Sequence[LinearMap]) -> tuple[float, float] | None:
    """Factor and shift of maps that multiply by one number, then add one; None for others."""
    factor, shift = 1.0, 0.0
    for linear in maps:
        if not isinstance(linear, Scale) or linear.factor.numel() != 1:
            return None
        shifts = torch.zeros(1) if linear.shift is None else linear.shift.flatten()
        if not bool((shifts == shifts[0]).all()):
            return None
        number, more = float(linear.factor), float(shifts[0])
        if (number != 1 and (factor != 1 or shift)) or (more and shift):
            return None  # it would be rounded
        factor, shift = factor * number, shift + more
    return factor, shift


def _plain_softplus(value: Value) -> Value | None:
    """Argument of a softplus of beta = 1; another one makes neither Mish nor softplus."""
    before = argument(value, nn.Softplus)
    block = value.point.block
    plain = block is not None and getattr(block.nonlinearity.module, "beta", None) == 1
    return before if plain else None


def _is_one_plus_erf(gate: Value, x: Value) -> bool:
    r"""Whether the gate is :math:`1 + \mathrm{erf}(c x)`, with c close to :math:`1/\sqrt{2}`.

    :math:`x (1 + \mathrm{erf}(c x))` has the slopes of :math:`2\,\mathrm{GELU}`, whatever c > 0.
    """
    if len(gate.maps) != 1 or not _is_affine(gate.maps[0], 1.0, 1.0):
        return False
    inner = argument(Value(gate.point), Erf)
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
