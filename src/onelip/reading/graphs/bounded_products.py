r"""Products of two values whose numbers are bounded: :math:`|u v - u' v'| \le B_v L_u + B_u L_v`.

Gates of sigmoids, attention after a normalisation: a product of bounded factors has a Lipschitz
constant, where one of unbounded factors has none. Numbers are bounded after an activation that is,
after a normalisation, and after whatever linear map or Lipschitz map follows. Products of matrices
are bounded in the same way, by :math:`|U V|_F \le |U|_F |V|_2`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import (
    Adjoint,
    Along,
    Block,
    Chain,
    Composition,
    Convolution,
    Dense,
    Elementwise,
    GroupMean,
    GroupSorting,
    LinearMap,
    Nonlinearity,
    Opaque,
    Reshape,
    Scale,
    Sum,
    Taking,
    identity,
)
from onelip.chains.value import Point, Value
from onelip.norms.rounding import upward
from onelip.reading.graphs.branches import Ways, meeting
from onelip.reading.graphs.clamps import Clamp

Reach = Callable[[Any], float]

REACHES: dict[type[nn.Module], Reach] = {
    **dict.fromkeys((nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Softsign, nn.Softmax), lambda _: 1.0),
    nn.ReLU6: lambda _: 6.0,
    nn.Hardtanh: lambda module: max(abs(module.min_val), abs(module.max_val)),
}
"""Bounds of the absolute values that activations and other nonlinearities return, by type."""

_EXTREMES: tuple[type[nn.Module], ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_ROOM = 1e-9  # relative, for all roundings in sums of up to a million terms


class Product(nn.Module):
    """The product of two chains from the input of a branch, in float64 on the CPU.

    Args:
        first: one factor.
        second: the other.
        matrices: whether matrices along the last two axes are multiplied.
        reach: of the absolute values of the result.
    """

    def __init__(self, first: Chain, second: Chain, matrices: bool, reach: float) -> None:
        super().__init__()
        self.chains = first.exact(), second.exact()
        self.matrices, self.reach = matrices, reach

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, in the dtype and on the device of x."""
        first, second = (chain.forward(x.double().cpu()) for chain in self.chains)
        return (first @ second if self.matrices else first * second).to(x)


REACHES[Product] = lambda module: module.reach


def bounded_product(first: Value, second: Value, *, matrices: bool = False) -> Value | None:
    """The product of two values, or None where the numbers of one are not known to be bounded.

    Args:
        first: one factor.
        second: one of the same shape; of matrices, the last two axes may differ.
        matrices: whether matrices along the last two axes are multiplied.
    """
    sizes = [magnitudes(value) for value in (first, second)]
    one, other = sizes
    if one is None or other is None:
        return None
    start = meeting(first.point, second.point)
    chains = [Chain(tuple(v.point.path(start)), v.linear) for v in (first, second)]
    slopes = [Ways(chain).bound() for chain in chains]
    if matrices:
        result = one @ other
        norms = [float(_matrix_norms(size).max()) for size in sizes if size is not None]
    else:
        result = one * other
        norms = [float(size.max()) for size in (one, other)]
    constant = (norms[1] * slopes[0] + norms[0] * slopes[1]) * (1 + 1e-15)
    module = Product(chains[0], chains[1], matrices, float(result.max()) * (1 + _ROOM))
    opaque = Opaque(module, constant, tuple(result.shape))
    return Value(start).behind(Block(identity(start.shape), opaque))


def _matrix_norms(sizes: Tensor) -> Tensor:
    """Frobenius norms of matrices, which are not below their spectral norms."""
    squares = sizes.square().sum((-1, -2))
    return upward(squares, sizes.shape[-1] * sizes.shape[-2] + 4).sqrt() * (1 + 1e-15)


def magnitudes(value: Value) -> Tensor | None:
    """Bounds of the absolute values of all numbers, of the value's shape; None for no bound."""
    start = _of_point(value.point)
    return None if start is None else _after(value.linear, start)


def _of_point(point: Point) -> Tensor | None:
    """Of what a block returns."""
    return None if point.block is None else _of_block(point.block, lambda: _before(point))


def _before(point: Point) -> Tensor | None:
    return None if point.before is None else _of_point(point.before)


def _of_block(block: Block, before: Callable[[], Tensor | None]) -> Tensor | None:
    reach = REACHES.get(type(block.nonlinearity.module))
    if reach is not None:
        number = reach(block.nonlinearity.module)
        hidden: Tensor | None = torch.full(block.hidden, float(number), dtype=torch.float64)
    else:
        start = before()
        inner = None if start is None else _after(block.inner, start)
        hidden = None if inner is None else _through(block.nonlinearity, inner)
    if hidden is None or not bool(hidden.isfinite().all()):
        return None
    result = hidden if block.outer is None else _after(block.outer, hidden)
    if result is None or block.skip is None:
        return result
    start = before()
    around = None if start is None else _after(block.skip, start)
    return None if around is None else result + around


def _through(phi: Nonlinearity, inner: Tensor) -> Tensor | None:
    """After a nonlinearity that is bounded where its input is."""
    module = phi.module
    if isinstance(phi, Elementwise):
        steep = torch.maximum(phi.low.abs(), phi.high.abs())
        double = copy.deepcopy(module).cpu().double()
        at_zero: Tensor = double(torch.zeros(1, *inner.shape, dtype=torch.float64))[0].abs()
        return (at_zero + steep * inner) * (1 + _ROOM)
    if isinstance(phi, GroupSorting) or type(module) in _EXTREMES:
        shape = phi.outputs(tuple(inner.shape))
        return torch.full(shape, float(inner.max()), dtype=torch.float64)
    if isinstance(module, Ways) and isinstance(phi, Opaque):
        total: Tensor | None = torch.zeros(phi.shape, dtype=torch.float64)
        for chain in module.chains:
            way = _of_chain(chain, inner)
            total = None if way is None or total is None else total + way
        return total
    return None


def _of_chain(chain: Chain, start: Tensor) -> Tensor | None:
    size: Tensor | None = start
    for block in chain.blocks:
        size = _of_block(block, lambda known=size: known)  # type: ignore[misc]
        if size is None:
            return None
    return None if size is None else _after(chain.last, size)


def _after(linear: LinearMap, sizes: Tensor) -> Tensor | None:
    """After a linear map with its bias: the map of absolute values."""
    absolute = _absolute(linear.exact())
    if absolute is None:
        return None
    image: Tensor = absolute.affine(sizes[None])[0]
    return image * (1 + _ROOM)


def _absolute(linear: LinearMap) -> LinearMap | None:
    """The map with the absolute values of its numbers; None for one that is not known."""
    if isinstance(linear, Composition | Sum):
        parts = [_absolute(part) for part in linear.maps]
        kind = Composition if isinstance(linear, Composition) else Sum
        return None if None in parts else kind(tuple(part for part in parts if part is not None))
    if isinstance(linear, GroupMean) and linear.remainder:
        return Sum((identity(linear.inputs), replace(linear, remainder=False)))
    if isinstance(linear, Adjoint):
        of = _absolute(linear.of)
        return None if of is None else replace(linear, of=of, **_numbers(linear))
    if isinstance(linear, Scale | Dense | Convolution | Along):
        return replace(linear, **_numbers(linear))
    return linear if isinstance(linear, Reshape | Taking | GroupMean) else None


def _numbers(linear: LinearMap) -> dict[str, Any]:
    """Absolute values of the numbers that a map holds, by the names of its fields."""
    found = {name: getattr(linear, name, None) for name in ("factor", "shift", "weight", "bias")}
    return {name: numbers.abs() for name, numbers in found.items() if numbers is not None}


def _clamp(module: Clamp) -> float:
    if module.low is None or module.high is None:
        return math.inf
    return float(torch.maximum(module.low.abs().max(), module.high.abs().max()))


REACHES[Clamp] = _clamp
