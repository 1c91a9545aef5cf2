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
from onelip.norms.rounding import UNDERFLOW, frobenius, gamma, power_of_two, upward

_CHUNK = 2**24  # entries of the Gram matrix held at a time
_STEPS = 30  # of power iterations, which choose but do not prove
_ROUNDS = 30
_LEAST = 1e-4  # entry of q, next to 1


class Weighting(NamedTuple):
    """Choice of T: with all q equal, or with a q that makes ``T^(1/2) inner`` short."""

    chosen: bool
    inner: LinearMap


def weight(rows: Tensor, errors: Tensor, weighting: Weighting) -> tuple[Tensor, Tensor]:
    r"""Return the diagonal of :math:`T^{1/2}`, and what to add to :math:`|T^{1/2} y|` per |y|.

    Args:
        rows: of P, each known up to an error.
        errors: bounds of the norms of the rows' errors.
        weighting: the choice of T.
    """
    if not rows.any():
        return rows.new_zeros(rows.shape[1]), upward(errors.sum(), len(errors))
    scale = power_of_two(rows)
    scaled = rows * scale
    tries = [_above(scaled, q) for q in _scalings(scaled, weighting)]
    root = min(tries, key=lambda diagonal: float(_stretched(diagonal, weighting.inner)[0]))
    error = frobenius((errors * scale)[None])
    lost = math.sqrt(rows.numel() * UNDERFLOW)  # to underflow in the scaling
    root = torch.where(root > 0, torch.nextafter(root / scale, root.new_tensor(math.inf)), 0.0)
    return root, upward(error + lost, 2) / scale


def _scalings(rows: Tensor, weighting: Weighting) -> list[Tensor]:
    """Candidates for q: all equal, and one fitted to the inputs that T^(1/2) W stretches most.

    For inputs with mean squares y of W x, the best q is the root of y: each round adds an input.
    """
    equal, sizes = rows.new_ones(rows.shape[1]), rows.abs()
    if not weighting.chosen:
        return [equal]
    best, least, squares = equal, math.inf, torch.zeros_like(equal)
    q = equal
    for _ in range(_ROUNDS):
        diagonal = (sizes.mT @ (sizes @ q) / q).sqrt()
        size, image = _stretched(diagonal, weighting.inner)
        if float(size) < least:
            best, least = q, float(size)
        squares = squares + image.square()
        q = (squares / squares.max()).nan_to_num(1.0).sqrt().clamp_min(_LEAST)
    return [equal, best]


def _above(rows: Tensor, q: Tensor) -> Tensor:
    r"""Return the diagonal of :math:`T^{1/2}`, rounded upwards."""
    count, width = rows.shape
    sums = torch.cat([(part.mT @ rows).abs() @ q for part in rows.split(_chunk(width), 1)])
    sizes = rows.abs()
    rounding = 2 * gamma(count + 2) * (sizes.mT @ (sizes @ q)) + 2 * width * UNDERFLOW * q.max()
    diagonal = upward(upward(sums, width) + upward(rounding, count + width), 4) / q
    return torch.where(sizes.any(0), upward(diagonal, 4).sqrt(), 0.0)


def _chunk(width: int) -> int:
    """Number of rows of the Gram matrix that are held at a time."""
    return max(1, _CHUNK // width)


def _stretched(diagonal: Tensor, inner: LinearMap) -> tuple[Tensor, Tensor]:
    """Estimate the norm of ``T^(1/2) W`` from below; return W's image of the maximiser as well."""
    factor = diagonal.unflatten(0, inner.outputs)
    x = torch.randn(1, *inner.inputs, generator=torch.Generator().manual_seed(0)).double()
    image = inner(x)
    for _ in range(_STEPS):
        x = inner.adjoint(image * factor.square())
        x = (x / torch.linalg.vector_norm(x)).nan_to_num(0.0)
        image = inner(x)
    return torch.linalg.vector_norm(image * factor), image.flatten()
