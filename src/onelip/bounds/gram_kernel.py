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

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip.bounds.rounding import UNDERFLOW, frobenius, gamma, upward

_SQUARINGS = 20  # of the matrix whose leading eigenvector is sought
_LEAST_WEIGHT = 1e-100


def squared_norm(kernels: Tensor) -> Tensor:
    """Bound of the largest squared norm of circular convolutions on any grid.

    Args:
        kernels: ``(groups, out, in, height, width)`` in float64, entries at most about 1.

    Returns:
        A 0-d tensor on the CPU.
    """
    sides = (kernels, kernels.transpose(1, 2))
    bounds = [torch.stack([_bound(kernel) for kernel in side]).max() for side in sides]
    return torch.minimum(*bounds).cpu()


def _bound(kernel: Tensor) -> Tensor:
    """For one kernel, from the Gram kernel over its first dimension."""
    rows, _, height, width = kernel.shape
    gram = F.conv2d(kernel, kernel, padding=(height - 1, width - 1))
    # each entry is a sum of products; its error is below gamma times the product of two lengths
    lengths = frobenius(kernel.flatten(1)[:, None])
    entry_error = gamma(kernel[0].numel() + 1) * lengths.square().max() + UNDERFLOW * rows
    taps = gram.shape[-1] * gram.shape[-2]
    sums = upward(gram.abs().sum((2, 3)), taps) + taps * entry_error
    gershgorin = torch.minimum(sums.sum(1).max(), _scaled_row_sum(sums))
    gershgorin = upward(gershgorin, 2 * rows + 2)
    level = gram[:, :, height - 1, width - 1].diagonal().mean().clamp_min(0)
    gram[:, :, height - 1, width - 1].diagonal().sub_(level)  # rounds once more: the + 1 above
    parts = frobenius(gram.permute(2, 3, 0, 1)).sum() + rows * taps * entry_error
    return upward(torch.minimum(gershgorin, level + upward(parts, taps + 4)), 8)


def _scaled_row_sum(sums: Tensor) -> Tensor:
    """``max_i sum_j a_ij q_j / q_i`` for a q near the leading eigenvector, which is any q > 0."""
    power = sums
    for _ in range(_SQUARINGS):
        power = power @ (power / power.max())
    weights = (power / power.max()).sum(1).clamp_min(_LEAST_WEIGHT)
    return ((sums @ weights) / weights).max()
