"""Lipschitz constants of logits and of their differences: row norms, rounded upwards."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.products.norms import LEVELS, Norms, cheapest_first, row_norms
from onelip.bounds.products.scaled_maps import finite_above, fraction
from onelip.norms.rounding import UNDERFLOW, power_of_two, upward
from onelip.norms.spectral import ends_above

_CHUNK = 2**24  # entries of the differences held at a time


class LogitBounds(NamedTuple):
    """Proved Lipschitz constants of a network and of its logits, in float64.

    Attributes:
        network: constant of the whole network, 0-d.
        per_class: constants of the logits, ``(classes,)``.
        pairwise: constants of the differences of two logits, ``(classes, classes)``: symmetric,
            0 on the diagonal.
        layers: constants of the blocks by themselves.
    """

    network: Tensor
    per_class: Tensor
    pairwise: Tensor
    layers: tuple[Tensor, ...]


def tightened(
    network: Tensor, per_class: Tensor, pairwise: Tensor, layers: Sequence[Fraction]
) -> LogitBounds:
    """Tighten the constants of logits by bounds that hold for any network.

    A logit has at most the constant of the network. A difference of two logits has at most the root
    of 2 times that, and at most the sum of the constants of the two.
    """
    per_class = torch.minimum(per_class, network)
    sums = upward(per_class[:, None] + per_class, 1)
    pairwise = pairwise.minimum(upward(network * math.sqrt(2), 2)).minimum(sums)
    pairwise = pairwise.minimum(pairwise.mT).fill_diagonal_(0)
    return LogitBounds(network, per_class, pairwise, tuple(finite_above(layer) for layer in layers))


def least(found: Sequence[LogitBounds]) -> LogitBounds:
    """Return the smallest of several proofs of the same network, number by number."""
    network, per_class, pairwise, layers = zip(*found, strict=True)
    shortest = tuple(torch.stack(bounds).amin(0) for bounds in zip(*layers, strict=True))
    return LogitBounds(
        torch.stack(network).amin(0),
        torch.stack(per_class).amin(0),
        torch.stack(pairwise).amin(0),
        shortest,
    )


def least_in_time(
    proved: Callable[[Norms, float], LogitBounds],
    work: float,
    seconds: float,
    levels: Sequence[float] = LEVELS,
) -> LogitBounds:
    """Return the smallest constants of logits over growing budgets of work (``cheapest_first``).

    Raises:
        NotApplicableError: the time is over before the first proof.
    """
    found: list[LogitBounds] = []

    def network(norms: Norms, allowed: float) -> Fraction:
        found.append(proved(norms, allowed))
        return fraction(found[-1].network)

    cheapest_first(network, work, seconds, levels)
    return least(found)


def lengths(rows: Tensor, errors: Tensor) -> Tensor:
    """Bound the norms of rows, each known up to an error: ``(count,)``."""
    if not rows.any():
        return errors
    scale = power_of_two(rows)
    return ends_above(row_norms(rows * scale) / scale + errors)


def pair_lengths(rows: Tensor, errors: Tensor) -> Tensor:
    """Bound the norms of all differences of rows: ``(count, count)``."""
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
    # Squares below the smallest normal number may be lost: at most UNDERFLOW per term.
    differences = upward(torch.cat(found), terms + 6) + math.sqrt(2 * terms * UNDERFLOW)
    return ends_above(differences / scale + both)


def raised(sizes: Tensor, factor: Fraction) -> Tensor:
    """Multiply ``factor * sizes``, rounded upwards.

    Raises:
        NonFiniteError: the factor is beyond the largest float64 number.
    """
    return ends_above(sizes * finite_above(factor)) if factor else torch.zeros_like(sizes)
