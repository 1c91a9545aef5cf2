r"""Radii of level ``float``: a fixed point of radius and rounding.

The rounding on inputs within r of a sample grows with r, and the radius R(r) that is left falls.
For every r a prediction is certain within :math:`\min(r, R(r))`: all inputs closer than that are
among those whose rounding was counted. The best r is the one with R(r) = r. The radius of level
``real`` is above it, the radius left there is below it, and R of a number below it is above again.
"""

import math

import torch
from torch import Tensor, nn

from onelip.certificates._radius_proof import ForwardPass, Found, Radii, Rounding
from onelip.certificates.sample_errors import SampleErrors, sample_errors
from onelip.norms.rounding import upward

_AT_ONCE = 2**20  # numbers of inputs
_GAP = 0.1  # of all radii of level real, from which on another two passes are made


def float_radii(
    model: nn.Module, batch: ForwardPass, radii: Radii, real: Found, head_parts: int
) -> Found:
    """Return radii within which rounding is counted.

    Args:
        model: from inputs to logits.
        batch: what was computed of some samples.
        radii: proved radii for a given rounding.
        real: those without rounding, no smaller.
        head_parts: number of parts behind the features.
    """
    diameter = math.sqrt(math.prod(batch.x.shape[1:]))

    def left(within: Tensor) -> Found:
        return radii(_rounding(model, batch, within, head_parts))

    def capped(found: Found, within: Tensor) -> Found:
        radius = torch.minimum(found.radius.cpu(), within)
        return found._replace(radius=torch.where(radius > 0, radius, 0.0))

    most = real.radius.cpu()
    pixels = bool(((batch.x >= 0) & (batch.x <= 1)).all())
    most = most.clamp(max=diameter) if pixels else torch.where(most < math.inf, most, diameter)
    found = capped(left(most), most)
    if float(found.radius.sum()) < (1 - _GAP) * float(most.sum()):
        nearer = torch.minimum(left(found.radius).radius.cpu(), most)
        again = capped(left(nearer), nearer)
        found = found._replace(radius=torch.maximum(found.radius, again.radius))
    return found


def _rounding(model: nn.Module, batch: ForwardPass, within: Tensor, head_parts: int) -> Rounding:
    """Bound the rounding of a batch on all inputs within these radii."""
    at_once = max(1, _AT_ONCE // max(1, math.prod(batch.x.shape[1:])))
    rows = (part.split(at_once) for part in (batch.x, within, batch.prediction))
    parts = [sample_errors(model, *some, head_parts=head_parts) for some in zip(*rows, strict=True)]
    found = SampleErrors(*(torch.cat(column) for column in zip(*parts, strict=True)))
    at_sample = math.sqrt(2) * found.off_logits[:, None]
    margins = upward(at_sample + found.attacked, 4)
    return Rounding(found.off_features, margins, (found.features, found.logits))
