r"""Multipliers in closed form, layer by layer, by several rules at once.

With :math:`M = W X^{-1} W^T` and slopes of half-width h around m, a layer of multipliers T turns X
into :math:`T - T m M m T` (where no slope is negative and one is 0; in general the input is
eliminated first). ECLipsE-Fast takes the T that is a multiple of the identity and makes the
smallest eigenvalue of that as large as it can be. It treats all directions alike, and what follows
the layer does not. Here

.. math:: T_i = \frac{c}{h_i (|m_i| + h_i)} \cdot
          \frac{1}{q_i \, \lambda_{\max}(q^{-1/2} M q^{-1/2})} , \qquad
          q_i = \Big( \frac{\sqrt{M_{ii}}}{|W_+ e_i|} \Big)^e ,

with the next layer's weight :math:`W_+`. ECLipsE-Fast is c = 1 and e = 0. A larger c gives more to
the directions of small eigenvalues, and q more to entries on which the next layer acts strongly.
With e = 1 it is the best for a layer with orthogonal rows of W and orthogonal columns of
:math:`W_+`. For 100 layers of 100 the bound becomes 5000 times smaller at the same cost. Nothing
here is a proof: that is what ``multipliers.proved`` is for.
"""

import math

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import Multipliers, SlopeMultipliers
from onelip.bounds.semidefinite.layerwise import INSIDE, closed_form, fast, forward
from onelip.bounds.semidefinite.matrices import Groups, Matrices, Slopes

RULES = ((INSIDE, 0.0), (1.4, 1.0))
"""Pairs of c and e; the first is ECLipsE-Fast, strictly within what it allows."""

# What is lost on the way counts less; with c = 2 a direction that nothing follows up is given away.
_SHALLOW = tuple((size, power) for size in (1.6, 1.8, 1.95, 1.9999) for power in (0.0, 1.0))
_FEW = 3  # layers
_EXTREME = 1e8  # ratio of q to its mean


@torch.no_grad()
def in_closed_form(network: Matrices) -> tuple[list[Multipliers], Tensor]:
    """Choose multipliers layer by layer, by the rule that proves most at the end.

    Returns:
        The multipliers, and the level that they seem to prove: not above that of ECLipsE-Fast.
    """
    slopes = [kind for kind in network.kinds if isinstance(kind, Slopes)]
    if len(slopes) < len(network.kinds):
        return forward(network, fast)
    rules = RULES + _SHALLOW if len(slopes) <= _FEW else RULES
    numbers = torch.tensor(rules, dtype=torch.float64)
    found, levels = _forward(network, slopes, numbers[:, :1], numbers[:, 1:])
    best = int(levels.argmin())
    return [SlopeMultipliers(levels[best] * weights[best]) for weights in found], levels[best]


def _forward(
    network: Matrices, kinds: list[Slopes], sizes: Tensor, powers: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Weights of each layer and the level at the end, by each rule; infinite where one fails."""
    eye = torch.eye(network.weights[0].shape[1], dtype=torch.float64)
    known, failed = eye.expand(len(sizes), *eye.shape), torch.zeros(len(sizes), dtype=torch.bool)
    found, largest = [], {id(kind): closed_form(kind) for kind in kinds}
    for kind, weight, after in zip(kinds, network.weights, network.weights[1:], strict=False):
        whitened, wrong = _whitened(weight, known)
        moment = whitened.mT @ whitened
        failed |= wrong
        weights = sizes * largest[id(kind)] / _peak(moment, after, powers)
        failed |= ~torch.isfinite(weights).all(1)
        middle = weights * (kind.low + kind.high) / 2
        before = weights * kind.low * kind.high
        if before.any():
            inside = known + weight.mT @ (before[:, :, None] * weight)
            whitened, wrong = _whitened(weight, inside)
            moment = whitened.mT @ whitened
            failed |= wrong
        known = -middle[:, :, None] * moment * middle[:, None]
        known.diagonal(dim1=1, dim2=2).add_(weights)
        found.append(weights)
    whitened, wrong = _whitened(network.weights[-1], known)
    small = whitened if whitened.shape[1] < whitened.shape[2] else whitened.mT
    levels = _largest(small @ small.mT)
    return found, torch.where(failed | wrong | ~(levels > 0), math.inf, levels)


def balanced(kind: Slopes | Groups, weight: Tensor, after: Tensor) -> Multipliers:
    """Return the multipliers of one layer by the second rule, from ``W X^(-1/2)``."""
    if isinstance(kind, Groups):
        return fast(kind, weight, after)
    size, power = RULES[1]
    powers = torch.tensor([[power]], dtype=torch.float64)
    peak = _peak((weight @ weight.mT)[None], after, powers)[0]
    return SlopeMultipliers(size * closed_form(kind) / peak)


def _peak(moment: Tensor, after: Tensor, powers: Tensor) -> Tensor:
    """Compute ``q_i`` times the largest eigenvalue of ``q^(-1/2) M q^(-1/2)``."""
    ratio = moment.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt() / torch.linalg.vector_norm(
        after, dim=0
    )
    # Entries that are never reached, or never used, must not spoil the others.
    ratio = torch.where((ratio > 0) & torch.isfinite(ratio), ratio, math.nan)
    ratio = ratio / ratio.nanmean(1, keepdim=True)
    q = ratio.nan_to_num(1.0).clamp(1 / _EXTREME, _EXTREME) ** powers
    root = q.rsqrt()
    return q * _largest(root[:, :, None] * moment * root[:, None])[:, None]


def _whitened(weight: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``C^-1 W^T``, where ``C C^T`` is a known matrix, and whether there is no C."""
    factor, wrong = torch.linalg.cholesky_ex(known)
    half: Tensor = torch.linalg.solve_triangular(factor, weight.mT, upper=False)
    return half, wrong > 0


def _largest(moments: Tensor) -> Tensor:
    """Largest eigenvalues of a batch; NaN where one is not finite."""
    usable = torch.isfinite(moments).all(2).all(1)
    values: Tensor = torch.linalg.eigvalsh(torch.where(usable[:, None, None], moments, 0.0))[:, -1]
    return torch.where(usable, values, math.nan)
