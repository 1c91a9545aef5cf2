r"""Norms of convolutions from their Gram kernel, tight where the kernel is nearly orthogonal.

The Gram operator :math:`C^T C` of a convolution with taps :math:`K_t` is one with the taps
:math:`G_d = \sum_t K_t^T K_{t + d}`. Hence, on every grid and for every number s,

.. math:: \|C\|^2 \le s + \|G_0 - s I\|_F + \sum_{d \ne 0} \|G_d\|_F ,

which for an orthogonal kernel is 1 plus its rounding, whatever the size of the image; and
(Gershgorin, scaled) :math:`\|C\|^2 \le \max_i \sum_{d, j} |G_d[i, j]|\, q_j / q_i` for every
:math:`q > 0`. The best q is the leading eigenvector of the sums of absolute values over d (Perron);
an almost-orthogonal layer attains 1 with it, for its d are the inverse of that q. The same holds
for :math:`C C^T`, and the smaller result counts.
"""

import math

import torch
from torch import Tensor

from onelip.norms.rounding import UNDERFLOW, frobenius, gamma, upward
from onelip.norms.symbol import gram_tap, half_space

_TIGHT = 1e-4  # relative excess at which the first side's bound is taken
_SQUARINGS = 20  # of the matrix whose leading eigenvector is sought
_LEAST_WEIGHT = 1e-100


def squared_norm(kernels: Tensor) -> Tensor:
    """Bound of the largest squared norm of circular convolutions on any grid.

    Args:
        kernels: ``(groups, out, in, *taps)`` in float64, entries at most about 1.

    Returns:
        A 0-d tensor on the CPU.
    """
    sides = sorted((kernels, kernels.transpose(1, 2)), key=lambda side: side.shape[1])
    best = None
    for side in sides:
        bounds, levels = zip(*(_bound(kernel) for kernel in side), strict=True)
        bound, level = torch.stack(bounds).max(), torch.stack(levels).max()
        best = bound if best is None else torch.minimum(best, bound)
        if best <= level * (1 + _TIGHT):
            break  # no side can do much better, for the norm is at least that mean
    assert best is not None
    return best.cpu()


def _bound(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Bound of the squared norm of one kernel, and the mean diagonal of its Gram kernel."""
    rows, _, *sides = kernel.shape
    # each entry is a sum of products; its error is below gamma times the product of two lengths
    lengths = frobenius(kernel.flatten(1)[:, None])
    entry_error = gamma(kernel[0].numel() + 1) * lengths.square().max() + UNDERFLOW * rows
    taps = math.prod(2 * side - 1 for side in sides)
    centre = gram_tap(kernel, (0,) * len(sides))
    level = centre.diagonal().mean().clamp_min(0)
    sums = centre.abs()
    centre.diagonal().sub_(level)  # rounds once more: the + 1 above
    parts = frobenius(centre)
    for shift in half_space(sides):
        tap = gram_tap(kernel, shift)
        sums += tap.abs() + tap.abs().mT  # the opposite tap is the transpose
        parts = parts + 2 * frobenius(tap)
    sums = upward(sums, 2 * taps) + taps * entry_error
    gershgorin = torch.minimum(sums.sum(1).max(), _scaled_row_sum(sums))
    gershgorin = upward(gershgorin, 2 * rows + 2)
    parts = upward(parts, 2 * taps + 4) + rows * taps * entry_error
    return upward(torch.minimum(gershgorin, upward(level + parts, 2)), 8), level


def _scaled_row_sum(sums: Tensor) -> Tensor:
    """``max_i sum_j a_ij q_j / q_i`` for a q near the leading eigenvector, which is any q > 0."""
    power = sums
    for _ in range(_SQUARINGS):
        power = power @ (power / power.max())
    weights = (power / power.max()).sum(1).clamp_min(_LEAST_WEIGHT)
    return ((sums @ weights) / weights).max()
