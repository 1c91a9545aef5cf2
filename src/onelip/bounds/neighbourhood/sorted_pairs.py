"""Sorting of pairs as an elementwise activation: ``(a + b -+ |a - b|) / 2``."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from onelip.bounds.neighbourhood.slopes import Fold
from onelip.chains import (
    Block,
    Dense,
    Elementwise,
    GroupSorting,
    Reshape,
    Shape,
    composed,
    identity,
)
from onelip.errors import NotApplicableError


def folded(block: Block) -> Block:
    """Rewrite a block with an elementwise activation.

    Args:
        block: its activation is elementwise or sorts pairs.

    Raises:
        NotApplicableError: the activation is neither of the two.
    """
    kind = block.nonlinearity
    if isinstance(kind, Elementwise):
        return block
    if not (isinstance(kind, GroupSorting) and kind.size == 2):
        raise NotApplicableError(
            f"of {block.name or type(kind.module).__name__} no slopes around a point are known: "
            "use onelip.bounds.LipLT()"
        )
    shape = block.inner.outputs
    numbers = math.prod(shape)
    mix = _sums_and_differences(shape)
    back = mix.mT / 2
    back[:, numbers // 2 :] *= _sign(kind.module, shape)
    fold = Fold(numbers // 2)
    return replace(
        block,
        inner=composed([block.inner, Reshape(shape, (numbers,)), Dense(mix)]),
        nonlinearity=Elementwise(fold, fold.slopes_below, torch.ones(numbers).double()),
        outer=composed([Dense(back), Reshape((numbers,), shape), block.outer or identity(shape)]),
    )


def _sums_and_differences(shape: Shape) -> Tensor:
    """Matrix that maps pairs to all ``a + b``, then all ``a - b``."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    first, second = basis.unflatten(1, (-1, 2)).unbind(2)
    return torch.cat([(first + second).flatten(1), (first - second).flatten(1)], 1).mT


def _sign(module: nn.Module, shape: Shape) -> float:
    """Return 1 if the larger number of a pair comes first, -1 if it comes last."""
    pairs = torch.zeros(1, *shape, dtype=torch.float64)
    pairs[:, 1::2] = 1
    return 1.0 if module(pairs)[:, 0].all() else -1.0
