r"""Diagonal matrices above a Gram matrix: :math:`T \succeq P^\top P`.

For positive q, :math:`T_i = \sum_j |P^\top P|_{ij} q_j / q_i` will do: the difference becomes
diagonally dominant when q scales it. With all q equal this is the rescaling of AOL. An elementwise
1-Lipschitz :math:`\psi` then has :math:`|P \psi(y)| \le |T^{1/2} y|`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.chains import LinearMap
from onelip.norms.rounding import UNDERFLOW, gamma, upward
from onelip.norms.spectral import power_of_two

_CHUNK = 2**24  # entries of the Gram matrix held at a time
_STEPS = 30  # of power iterations, which choose but do not prove
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Weighting(NamedTuple):
    """Which T is wanted: with all q equal, or the q that makes ``T^(1/2) inner`` shortest."""

    chosen: bool
    inner: LinearMap


def weight(rows: Tensor, errors: Tensor, weighting: Weighting) -> tuple[Tensor, Tensor]:
    r"""The diagonal of :math:`T^{1/2}`, and what is to be added to :math:`|T^{1/2} y|` per |y|.

    Args:
        rows: of P, each known up to an error.
        errors: of the rows, in norm.
        weighting: which T.
    """
    error = upward(torch.linalg.vector_norm(errors), len(errors) + 4)
    if not rows.any():
        return rows.new_zeros(rows.shape[1]), error
    scale = power_of_two(rows)
    scaled = rows * scale
    tries = [_above(scaled, q) for q in (_scalings(scaled) if weighting.chosen else [_ones(rows)])]
    root = min(tries, key=lambda diagonal: _estimate(diagonal, weighting.inner))
    lost = math.sqrt(rows.numel() * UNDERFLOW) / scale  # to underflow in the scaling
    return root / scale, upward(error + lost, 2)


def _ones(rows: Tensor) -> Tensor:
    return rows.new_ones(rows.shape[1])


def _scalings(rows: Tensor) -> list[Tensor]:
    """Powers of the Perron vector of ``|P|^T |P|``: 0 is AOL, 1 nears a multiple of I."""
    sizes, vector = rows.abs(), _ones(rows)
    for _ in range(_STEPS):
        vector = sizes.mT @ (sizes @ vector)
        vector = vector / vector.max()
    return [vector.clamp_min(1e-6) ** power for power in _POWERS]


def _above(rows: Tensor, q: Tensor) -> Tensor:
    r"""The diagonal of :math:`T^{1/2}`, rounded upwards."""
    count, width = rows.shape
    sums = torch.cat([(part.mT @ rows).abs() @ q for part in rows.split(_chunk(width), 1)])
    sizes = rows.abs()
    rounding = 2 * gamma(count + 2) * (sizes.mT @ (sizes @ q)) + 2 * width * UNDERFLOW * q.max()
    diagonal = upward(upward(sums, width) + upward(rounding, count + width), 4) / q
    return torch.where(sizes.any(0), upward(diagonal, 4).sqrt(), 0.0)


def _chunk(width: int) -> int:
    return max(1, _CHUNK // width)


def _estimate(diagonal: Tensor, inner: LinearMap) -> float:
    """About the norm of ``T^(1/2) W``, from below."""
    factor = diagonal.unflatten(0, inner.outputs)
    x = torch.randn(1, *inner.inputs, generator=torch.Generator().manual_seed(0)).double()
    size = x.new_zeros(())
    for _ in range(_STEPS):
        x = inner.adjoint(inner(x) * factor.square())
        size = torch.linalg.vector_norm(x)
        if not size > 0:
            break
        x = x / size
    return float(size)
