"""Plain chains written out as dense matrices, for bounds that work on quadratic forms.

Each matrix is scaled by a power of two, which rounds nothing, so that the product of the layers'
constants stays about 1. Slopes and sorting only relate the size of a difference after a layer to
the size before it, which does not change when both are scaled.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.products.matrix import written_out
from onelip.chains import (
    Block,
    Chain,
    Dense,
    Elementwise,
    GroupSorting,
    LinearMap,
)
from onelip.errors import NotApplicableError
from onelip.lipschitz import finite
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, product, upward
from onelip.norms.spectral import dense

_STACKED = 2**17  # numbers in a stack of matrices whose norms are proved together: a megabyte

WIDEST = 4096
"""Largest width of the input or of a layer: the work grows with its cube."""


@dataclass(frozen=True)
class Slopes:
    """Elementwise activation whose slopes lie between ``low`` and ``high``, one per entry."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Groups:
    """Sorting within ``count`` groups; ``index`` is the group of each entry."""

    index: Tensor
    count: int


@dataclass(frozen=True)
class Matrices:
    """Plain chain, written out as scaled matrices.

    Attributes:
        weights: one float64 matrix per layer and one for the last map, scaled.
        errors: bounds of the spectral norms of their errors.
        norms: proved spectral norms.
        growths: a proved Lipschitz constant of each layer, then of the last map, scaled as well.
        kinds: the nonlinearity of each layer.
        factors: the powers of two that undo the scaling.
    """

    weights: list[Tensor]
    errors: list[Tensor]
    norms: list[Tensor]
    growths: list[Tensor]
    kinds: list[Slopes | Groups]
    factors: list[Tensor]

    @cached_property
    def product(self) -> Tensor:
        """Product of the layers' constants, for the chain before scaling."""
        return self.unscaled(product(self.growths))

    @property
    def terms(self) -> int:
        """Number of operations for each entry of two products of these matrices, and a few sums."""
        return 2 * max(max(weight.shape) for weight in self.weights) + 16

    def unscaled(self, bound: Tensor) -> Tensor:
        """Turn a bound of the scaled chain into one of the chain before scaling."""
        return product([bound, *self.factors]) if torch.isfinite(bound) else bound


def matrices(chain: Chain, *, widest: int = WIDEST) -> Matrices:
    """Write a chain out as scaled matrices.

    Args:
        chain: plain layers whose nonlinearity is elementwise or sorts groups.
        widest: largest width of the input and of each layer.

    Raises:
        NotApplicableError: other blocks, or layers that are too wide.
        NonFiniteError: a weight, or the product of the layers' constants, is infinite or NaN.
    """
    refuse_other_blocks(chain)
    maps = [*(block.inner for block in chain.blocks), chain.last]
    width = max(*(linear.columns for linear in maps), *(linear.rows for linear in maps))
    if width > widest:
        raise NotApplicableError(
            f"a layer of {width} numbers is wider than the {widest} that this method takes: "
            "use LipLT()"
        )
    maps = [linear.exact() for linear in maps]
    scaled, reached = [], 1.0
    for linear, norm, block in zip(maps, _norms(maps), [*chain.blocks, None], strict=True):
        scaled.append(_scaled(linear, norm, block, reached))
        reached *= float(scaled[-1].growth)
    network = Matrices(
        [part.weight for part in scaled],
        [part.error for part in scaled],
        [part.norm for part in scaled],
        [part.growth for part in scaled],
        _kinds(chain),
        [part.factor for part in scaled],
    )
    finite(network.product, "the product of the layers' constants")
    return network


def refuse_other_blocks(chain: Chain) -> None:
    """Refuse chains other than plain layers with elementwise activations or sorting.

    Raises:
        NotApplicableError: a skip connection, an outer map, or another nonlinearity.
    """
    if not chain.plain:
        raise NotApplicableError(
            "quadratic multipliers cover plain layers only, this network has skip connections or "
            "outer maps: use LipLT()"
        )
    for block in chain.blocks:
        if not isinstance(block.nonlinearity, Elementwise | GroupSorting):
            raise NotApplicableError(
                f"of {block.name or type(block.nonlinearity.module).__name__} nothing but a "
                "Lipschitz constant is known, which quadratic multipliers cannot use: use LipLT()"
            )


def _kinds(chain: Chain) -> list[Slopes | Groups]:
    """Nonlinearities of all layers, one object for those that are alike."""
    found: list[Slopes | Groups] = []
    known: dict[tuple[float, float, int], Slopes | Groups] = {}
    for block in chain.blocks:
        kind = block.nonlinearity
        if isinstance(kind, Elementwise) and kind.low.numel() == kind.high.numel() == 1:
            key = float(kind.low), float(kind.high), block.inner.rows
            if key not in known:
                known[key] = _kind(block)
            found.append(known[key])
        else:
            found.append(_kind(block))
    return found


def _kind(block: Block) -> Slopes | Groups:
    """Slopes or groups of a block's nonlinearity, one entry per output."""
    shape, nonlinearity = block.inner.outputs, block.nonlinearity
    if isinstance(nonlinearity, Elementwise):
        low, high = (s.detach().double().cpu() for s in (nonlinearity.low, nonlinearity.high))
        return Slopes(low.broadcast_to(shape).flatten(), high.broadcast_to(shape).flatten())
    assert isinstance(nonlinearity, GroupSorting)
    size, pixels = nonlinearity.size, math.prod(shape[1:])
    channels = torch.arange(shape[0])[:, None] // size
    index = channels * pixels + torch.arange(pixels)
    return Groups(index.flatten(), shape[0] // size * pixels)


class _Scaled(NamedTuple):
    """Scaled map with its error, its norm, its layer's constant and the factor that undoes it."""

    weight: Tensor
    error: Tensor
    norm: Tensor
    growth: Tensor
    factor: Tensor


def stacks(shapes: Sequence[tuple[int, ...]], numbers: int) -> Iterator[list[int]]:
    """Yield indices of things of one shape, so many that they hold about as many numbers."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(tuple(shape), []).append(index)
    for shape, group in groups.items():
        most = max(1, numbers // max(1, math.prod(shape)))
        yield from (group[start : start + most] for start in range(0, len(group), most))


def _norms(maps: list[LinearMap]) -> list[Tensor | None]:
    """Prove the norms of all maps, those of dense layers of one shape together."""
    weights = {i: linear.weight for i, linear in enumerate(maps) if type(linear) is Dense}
    norms: list[Tensor | None] = [None] * len(maps)
    for group in stacks([weight.shape for weight in weights.values()], _STACKED):
        places = [list(weights)[i] for i in group]
        if len(group) > 1:
            found = each(torch.stack([weights[i] for i in places]))
            for i, norm in zip(places, found, strict=True):
                norms[i] = norm
    known = zip(maps, norms, strict=True)
    return [linear.norm() if norm is None else norm for linear, norm in known]


def _scaled(linear: LinearMap, norm: Tensor | None, block: Block | None, reached: float) -> _Scaled:
    """Scale a map: differences of size ``reached`` before it get a size of about 1 after it."""
    if type(linear) is Dense:
        weight, error = linear.weight, torch.zeros((), dtype=torch.float64)
    else:
        weight, error = written_out(linear)
    if norm is None:
        norm = upward(dense(weight) + error, 1)
    growth = norm if block is None else _growth(block, norm)
    exponent = max(-1000, min(1000, math.frexp(float(growth) * reached)[1]))
    # Scaling down by a power of two can only lose digits to underflow.
    lost = math.sqrt(weight.numel()) * UNDERFLOW * (exponent > 0)
    scale = 2.0**-exponent
    return _Scaled(
        weight * scale,
        upward(error * scale + lost, 4),
        upward(norm * scale + lost, 2),
        upward(growth * scale + lost, 2),
        torch.tensor(2.0**exponent, dtype=torch.float64),
    )


def _growth(block: Block, norm: Tensor) -> Tensor:
    """Lipschitz constant of a layer."""
    slope = torch.tensor(block.nonlinearity.constant, dtype=torch.float64)
    growth = product([norm, slope])
    if block.constant is None:
        return growth
    return torch.minimum(growth, torch.tensor(block.constant, dtype=torch.float64))
