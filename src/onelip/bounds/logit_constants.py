"""Constants of single logits and of their differences: lengths of rows, rounded upwards."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.products.norms import row_norms
from onelip.bounds.products.scaled_maps import finite_above
from onelip.norms.rounding import UNDERFLOW, power_of_two, upward
from onelip.norms.spectral import ends_above

_CHUNK = 2**24  # entries of the differences held at a time


class Constants(NamedTuple):
    """Proved Lipschitz constants, in float64.

    Attributes:
        network: of the whole network, 0-d.
        per_class: of each logit, ``(classes,)``.
        pairwise: of each difference of two logits, ``(classes, classes)``: symmetric, 0 on the
            diagonal.
        layers: of each block by itself.
    """

    network: Tensor
    per_class: Tensor
    pairwise: Tensor
    layers: tuple[Tensor, ...]


def constants(
    network: Tensor, per_class: Tensor, pairwise: Tensor, layers: Sequence[Fraction]
) -> Constants:
    """With what holds of any network: a logit is no steeper than all of them.

    A difference of two is no steeper than the root of 2 times that, or than the sum of its two.
    """
    per_class = torch.minimum(per_class, network)
    sums = upward(per_class[:, None] + per_class, 1)
    pairwise = pairwise.minimum(upward(network * math.sqrt(2), 2)).minimum(sums)
    pairwise = pairwise.minimum(pairwise.mT).fill_diagonal_(0)
    return Constants(network, per_class, pairwise, tuple(finite_above(layer) for layer in layers))


def lengths(rows: Tensor, errors: Tensor) -> Tensor:
    """Bounds of the norms of rows, each known up to an error: ``(count,)``."""
    if not rows.any():
        return errors
    scale = power_of_two(rows)
    return ends_above(row_norms(rows * scale) / scale + errors)


def pair_lengths(rows: Tensor, errors: Tensor) -> Tensor:
    """Bounds of the norms of all differences of rows: ``(count, count)``."""
    both = errors[:, None] + errors
    if not rows.any():
        return upward(both, 1)
    scale = power_of_two(rows)
    scaled = rows * scale
    chunk = max(1, _CHUNK // rows.numel())
    found = [
        torch.linalg.vector_norm(part[:, None] - scaled, dim=2) for part in scaled.split(chunk)
    ]
    terms = rows.shape[1]
    differences = upward(torch.cat(found), terms + 6) + math.sqrt(2 * terms * UNDERFLOW)
    return ends_above(differences / scale + both)


def raised(sizes: Tensor, factor: Fraction) -> Tensor:
    """``factor * sizes``, rounded upwards.

    Raises:
        NonFiniteError: the factor is beyond the largest float64 number.
    """
    return ends_above(sizes * finite_above(factor)) if factor else torch.zeros_like(sizes)
