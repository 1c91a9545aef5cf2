"""Max pooling as rounds of maxima of pairs: ``max(a, b) = (a + b + |a - b|) / 2``."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from onelip.bounds.neighbourhood.slopes import Fold
from onelip.bounds.neighbourhood.sorted_pairs import folded
from onelip.chains import (
    Block,
    Dense,
    Elementwise,
    LinearMap,
    Opaque,
    Reshape,
    Scale,
    composed,
    identity,
)
from onelip.errors import NotApplicableError
from onelip.layers.pooling import ScaledMaxPool2d
from onelip.norms.rounding import upward

_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, ScaledMaxPool2d)
_LARGEST = 2**24  # entries of the table of windows


def elementwise_blocks(block: Block) -> list[Block]:
    """Rewrite a block with elementwise activations: one for each round of a max pooling.

    Args:
        block: its nonlinearity is elementwise, sorts pairs or takes maxima over windows.

    Raises:
        NotApplicableError: it is none of these, a max pooling inside a skip connection, or one of
            too many windows.
    """
    pool = block.nonlinearity
    if not (isinstance(pool, Opaque) and type(pool.module) in _POOLS):
        return [folded(block)]
    name = block.name or type(pool.module).__name__
    if block.skip is not None:
        raise NotApplicableError(
            f"{name} is inside a skip connection, of which no slopes around a point are known: use "
            "onelip.bounds.LipLT()"
        )
    members, scale = _windows(block, pool, name)
    inner = composed([block.inner, Reshape(block.inner.outputs, (block.inner.rows,))])
    norm, found = block.inner.norm(), []
    while members.shape[1] > 2:
        pairs = _pairs(members)
        found.append(_round(pairs, inner, norm))
        members = torch.arange(len(pairs)).reshape(len(members), -1)
        inner, norm = identity((len(pairs),)), torch.ones((), dtype=torch.float64)
    last = _round(_pairs(members), inner, norm)
    factor = Scale(pool.shape, torch.tensor(scale, dtype=torch.float64))
    after = [last.outer, Reshape((len(members),), pool.shape), factor, block.outer]
    outer = composed([part for part in after if part is not None])
    constant = last.constant if block.outer is None and scale <= 1 else None
    return [*found, replace(last, outer=outer, constant=constant)]


def _round(pairs: Tensor, inner: LinearMap, norm: Tensor | None) -> Block:
    """Return the maxima of pairs of numbers, ``inner`` being in front of them."""
    count = len(pairs)
    fold = Fold(count)
    kind = Elementwise(fold, fold.slopes_below, torch.ones(2 * count, dtype=torch.float64))
    back = torch.eye(count, dtype=torch.float64).repeat(1, 2) / 2
    # A maximum moves by the larger of two moves: each number counts once for each of its pairs.
    constant = None if norm is None else float(upward(norm * math.sqrt(_most(pairs)), 4))
    mixed = composed([inner, Dense(_mix(pairs, inner.rows))])
    return Block(mixed, kind, Dense(back), constant=constant)


def _windows(block: Block, pool: Opaque, name: str) -> tuple[Tensor, float]:
    """Return the inputs of each window, ``(windows, size)``, repeated where it is a smaller one.

    The pooling of an image with a single 1 is not 0 in the windows that contain it.
    """
    shape, inputs = block.inner.outputs, block.inner.rows
    windows = math.prod(pool.shape)
    if inputs * windows > _LARGEST:
        raise NotApplicableError(
            f"{name} has {windows} windows on {inputs} numbers, too many for one bound per sample: "
            "use onelip.bounds.LipLT()"
        )
    units = torch.eye(inputs, dtype=torch.float64).unflatten(1, shape)
    table = pool.module(units).flatten(1).mT
    inside = table > 0
    size = int(inside.sum(1).max())
    order = inside.double().argsort(dim=1, descending=True, stable=True)[:, :size]
    kept = inside.gather(1, order)
    return torch.where(kept, order, order[:, :1]), float(table.max())


def _pairs(members: Tensor) -> Tensor:
    """Return pairs of members of each window, one after the other; a last one with itself."""
    if members.shape[1] % 2:
        members = torch.cat([members, members[:, -1:]], 1)
    return members.reshape(-1, 2)


def _most(pairs: Tensor) -> int:
    """Return in how many pairs a number is at most."""
    first, second = pairs.mT
    both = torch.cat([first, second[first != second]])
    return int(both.bincount().max())


def _mix(pairs: Tensor, inputs: int) -> Tensor:
    """Matrix that maps numbers to the sums, then to the differences of pairs."""
    first, second = torch.eye(inputs, dtype=torch.float64)[pairs.mT]
    return torch.cat([first + second, first - second])
