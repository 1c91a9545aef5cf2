r"""Forward error bounds around samples, for the radii of level ``float``.

The inputs, features and logits of each sample are followed in float64, so that what is known at an
attacked input is a vector and a distance, and not only a length (``onelip.forward_error``). The
assumptions are those of ``forward_error``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.bounds.layer_product import distances, flattened, is_linear, without_accumulation
from onelip.certificates.forward_error import followed
from onelip.forward_error import (
    ABOVE,
    Arithmetic,
    Computed,
    Reference,
    Size,
    Sums,
    additions,
    lengths,
)
from onelip.norms.proved_once import proved_once
from onelip.norms.rounding import exact, upward


class SampleErrors(NamedTuple):
    """Bounds of rounding around samples, and what float64 computes of them.

    Attributes:
        features: ``(batch, ...)`` float64, the features of the samples in front of the head.
        logits: ``(batch, classes)`` float64.
        off_features: ``(batch,)``, no farther from the exact features.
        off_logits: ``(batch,)``, no farther from the exact logits.
        attacked: ``(batch, classes)``: by how much less than the exact one a margin of the
            prediction may be as it is computed, on every input within the radius.
    """

    features: Tensor
    logits: Tensor
    off_features: Tensor
    off_logits: Tensor
    attacked: Tensor


@torch.no_grad()
@proved_once()
def sample_errors(
    model: nn.Module, x: Tensor, radius: Tensor, prediction: Tensor, *, head_parts: int = 0
) -> SampleErrors:
    r"""Bound the rounding error around each sample.

    Bound: for every :math:`x'` with :math:`|x' - x| \le r`, computed in any order of summation.
    With a the input of a linear part as float64 computes it at x, :math:`L_k` the proved constant
    of the parts before it and e the error so far, the sums of absolute terms at :math:`x'` are at
    most :math:`|W| |a|` and a rest of norm :math:`\||W|\| (L_k r + e)`. So a sample pays for its
    own numbers, and not for the worst input of its length.
    Cost: for each linear part three passes of the batch in float64.

    Args:
        model: an exported network in eval mode, from inputs to logits.
        x: ``(batch, ...)``.
        radius: ``(batch,)`` float64, r.
        prediction: ``(batch,)``, the classes whose margins are asked for.
        head_parts: number of parts behind the features.
    """
    prediction = prediction.cpu()
    values = followed(model, _around(x, radius))
    features, logits = values[-1 - head_parts].near, values[-1].near
    assert features is not None
    assert logits is not None
    attacked = upward(math.sqrt(2) * _tensor(values[-1].error, len(x)), 2)[:, None]
    attacked = attacked.expand(-1, logits.point.shape[1])
    parts = [part for _, part in flattened(model)]
    head = without_accumulation(parts[-1]) if parts else None
    if head is not None and is_linear(head):
        stored = Arithmetic.of(head.weight.dtype)
        summed = stored if head is parts[-1] else Arithmetic.of(torch.float64)
        attacked = torch.fmin(attacked, _of_rows(head, values[-2], prediction, summed, stored))
    return SampleErrors(features.point, logits.point, features.off, logits.off, attacked)


def _of_rows(
    head: nn.Linear, x: Computed, prediction: Tensor, summed: Arithmetic, stored: Arithmetic
) -> Tensor:
    """Errors of the margins of a linear head: its own of two rows, the features' by their distance.

    The terms of a row w change by at most ``|w| d`` within a distance d of the known features.
    """
    near = x.as_exact().near
    assert near is not None
    counts = additions(head, x.shape)
    most = int(counts.max())
    moved = near.away[:, None] * lengths(exact(head.weight).cpu())
    terms, peak = (number + moved for number in Sums.of(head, near.point))
    share = summed.gamma(most + 1) / (most + 1)
    own = share * (terms + counts * peak) + summed.summation(most, 0.0, 0.0, 1)
    if summed is not stored:  # no result is above the peak
        own = own + stored.gamma(1) * (peak + own) + stored.summation(0, 0.0, 0.0, 1)
    own = own + own.gather(1, prediction[:, None])
    carried = distances(head.weight)[prediction] * _tensor(x.error, len(own))[:, None]
    return (own + carried) * ABOVE


def _tensor(size: Size, count: int) -> Tensor:
    return torch.as_tensor(size, dtype=torch.float64).expand(count)


def _around(x: Tensor, radius: Tensor) -> Computed:
    """Return what is known of all inputs within the radii of samples."""
    near = Reference(x.double().cpu(), torch.zeros_like(radius), radius)
    return Computed(tuple(x.shape[1:]), (near.lengths + radius) * ABOVE, near=near)


@torch.no_grad()
@proved_once()
def errors_after_parts(model: nn.Module, x: Tensor, radius: Tensor) -> list[Tensor]:
    """Bound the rounding error after each part of the model, per sample, within a radius.

    Args:
        model: see ``sample_errors``.
        x: ``(batch, ...)``.
        radius: ``(batch,)`` float64.

    Returns:
        One tensor ``(batch,)`` for each part.
    """
    return [_tensor(value.error, len(x)) for value in followed(model, _around(x, radius))[1:]]
