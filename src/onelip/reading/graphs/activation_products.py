"""Activations that files write out as products: SiLU, Mish, GELU; and softplus with its threshold.

A product of two values has no Lipschitz bound in general; these do. A value knows what it was made
of, so they are recognised by their factors.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise, Scale
from onelip.chains.value import Line, Value, constant
from onelip.errors import UnboundedModuleError
from onelip.layers import Abs
from onelip.lipschitz.torch_modules import elementwise
from onelip.reading.graphs.bounded_products import REACHES, bounded_product
from onelip.reading.graphs.clamps import Clamp, clamped
from onelip.reading.graphs.refusals import Unfinished, jumps, only_locally, unbounded_product

_OFF = 1e-4  # more than the slopes of a GELU whose numbers were rounded to float32 are off
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


class TanhOfCubic(nn.Module):
    """``tanh(a x^3 + b x)``."""

    def __init__(self, cubic: float, factor: float) -> None:
        super().__init__()
        self.cubic, self.factor = cubic, factor

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.tanh(self.cubic * x**3 + self.factor * x)


REACHES[Erf] = REACHES[TanhOfCubic] = lambda _: 1.0


@dataclass(frozen=True)
class Cubic(Unfinished):
    """``a x^3 + b x``, under the hyperbolic tangent of an approximate GELU."""

    value: Value
    cubic: float = 1.0
    factor: float = 0.0

    def settled(self) -> Value:
        """Refuse."""
        raise only_locally("a cubic polynomial")

    def times(self, number: float) -> "Cubic":
        """A multiple."""
        return Cubic(self.value, number * self.cubic, number * self.factor)

    def plus(self, other: Value) -> "Cubic":
        """Sum with a multiple of its value."""
        for line in other.lines():
            if line.value is self.value and line.shift == 0:
                return Cubic(self.value, self.cubic, self.factor + line.factor)
        raise only_locally("a cubic polynomial")

    def tanh(self) -> Value:
        r"""Its hyperbolic tangent, for a, b >= 0.

        At x >= 0 the slope is :math:`(3 a x^2 + b) / \cosh^2(v)` with :math:`v \ge a x^3`, and
        :math:`\cosh^2 v \ge 1 + v^2`. The largest value of :math:`3 a x^2 / (1 + a^2 x^6)` is
        :math:`(4 a)^{1/3}`, at :math:`2 a^2 x^6 = 1`.
        """
        if not (0 <= self.cubic < math.inf and 0 <= self.factor < math.inf):
            raise only_locally("a cubic polynomial")
        steepest = (self.factor + (4 * self.cubic) ** (1 / 3)) * (1 + 1e-14)
        low, high = torch.tensor([0.0, steepest], dtype=torch.float64)
        module = TanhOfCubic(self.cubic, self.factor)
        return self.value.activated(Elementwise(module, low, high))


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
    """The product of two values, where it is an activation, up to factors.

    Raises:
        UnboundedModuleError: it is none that is known.
    """
    for value, other in ((first, second), (second, first)):
        for line in value.lines():
            for gate in other.lines():
                found = _gated(line.value, gate) if line.shift == 0 else None
                if found is not None:
                    factor = torch.tensor(line.factor, dtype=torch.float64)
                    return found if factor == 1 else found.then(Scale(found.shape, factor, None, 8))
    product = bounded_product(first, second) if first.shape == second.shape else None
    if product is None:
        raise unbounded_product("a product of two values")
    return product


def _gated(x: Value, gate: Line) -> Value | None:
    """``x (a g + b)`` for a gate g of x and numbers a, b, where it is an activation."""
    made = None
    if gate.shift == 0:
        tanh = argument(gate.value, nn.Tanh)
        if argument(gate.value, nn.Sigmoid) is x:
            made = elementwise(nn.SiLU(), x)
        elif tanh is not None and _plain_softplus(tanh) is x:
            made = elementwise(nn.Mish(), x)
        else:
            made = _ramp(gate.value, x)
        factor = gate.factor
    elif gate.shift == gate.factor:
        made, factor = _gelu(gate.value, x), 2 * gate.factor
    if made is None:
        return None
    number = torch.tensor(factor, dtype=torch.float64)
    return made if factor == 1 else made.then(Scale(x.shape, number, None, 8))


def _gelu(gate: Value, x: Value) -> Value | None:
    r"""GELU of x, exact or approximate, if one plus the gate is its factor.

    :math:`x (1 + \mathrm{erf}(c x))` has the slopes of :math:`2\,\mathrm{GELU}`, whatever c > 0.
    For ``tanh(a x^3 + b x)`` x is stretched until b is that of GELU; a is then off by at most
    :math:`4 \cdot 10^{-6}` of itself. With :math:`u = a x^3 + b x` the derivative of a slope by the
    logarithm of a is at most :math:`(2 u + 3 u^2) / \cosh^2 u \le 3`, since :math:`a x^3 \le u`.
    """
    inner = argument(gate, Erf)
    if inner is not None:
        for line in inner.lines():
            close = abs(line.factor / math.sqrt(0.5) - 1) < 1e-6
            if line.value is x and line.shift == 0 and close:
                return elementwise(nn.GELU(), x)
    block = gate.point.block
    curve = None if block is None or gate.maps else block.nonlinearity.module
    if isinstance(curve, TanhOfCubic) and gate.point.source is x:
        root = math.sqrt(2 / math.pi)
        a, b = curve.cubic / (0.044715 * root), curve.factor / root
        if abs(b - 1) < 1e-6 and abs(a - 1) < 1e-6:
            usual = elementwise(nn.GELU("tanh"), x)
            phi = usual.point.block.nonlinearity if usual.point.block else None
            assert isinstance(phi, Elementwise)
            return x.activated(Elementwise(phi.module, phi.low - _OFF, phi.high + _OFF))
    return None


def softsign(x: Value, divisor: Value) -> Value | None:
    """``x / (1 + |x|)``, or None for other quotients."""
    for line in divisor.lines():
        if line.factor == line.shift == 1 and argument(line.value, Abs) is x:
            return elementwise(nn.Softsign(), x)
    return None


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
    raise UnboundedModuleError("a choice between values may jump: no bound is known")


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
    if inner is None or gate.point.block is None:
        return None
    ends = cast(nn.Hardtanh, gate.point.block.nonlinearity.module)
    lines = [line for line in inner.lines() if line.value is x]
    if not lines or ends.min_val != 0:
        return None
    (_, factor, shift), most = lines[0], float(ends.max_val)
    if not 0 < factor < math.inf or not math.isfinite(shift) or not 0 < most < math.inf:
        return None
    ends_of_slopes = [min(0.0, -shift), max(most, 2 * most - shift)]
    room = 1e-14 * (abs(shift) + 2 * most)  # shifts are added up, and their difference is rounded
    low, high = torch.tensor(ends_of_slopes, dtype=torch.float64)
    module = RampGated(factor, shift, most)
    return x.activated(Elementwise(module, low - room, high + room))


def _plain_softplus(value: Value) -> Value | None:
    """Argument of a softplus of beta = 1; another one makes neither Mish nor softplus."""
    before = argument(value, nn.Softplus)
    block = value.point.block
    plain = block is not None and getattr(block.nonlinearity.module, "beta", None) == 1
    return before if plain else None
