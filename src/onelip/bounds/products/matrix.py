"""The matrix of a linear map, with a bound of its rounding error."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.chains import Composition, Dense, Gather, LinearMap, Reshape, Sum
from onelip.norms.rounding import UNIT, frobenius, upward


def written_out(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """Return the matrix of an exact map, and a bound of the Frobenius norm of its error.

    Dense layers and permutations come out exactly.
    """
    basis = torch.eye(linear.columns, dtype=torch.float64).unflatten(1, linear.inputs)
    images = _images(linear, _Images(basis, torch.zeros((), dtype=torch.float64), True))
    return images.batch.flatten(1).T.contiguous(), images.error


class _Images(NamedTuple):
    """Images of the basis vectors, as a batch."""

    batch: Tensor
    error: Tensor  # of all of them together, in Frobenius norm
    moved: bool  # whether each is a basis vector still, or 0


def _images(linear: LinearMap, before: _Images) -> _Images:
    """Apply a map to the images so far, and add its error."""
    if isinstance(linear, Composition):
        for part in linear.maps:
            before = _images(part, before)
        return before
    if isinstance(linear, Sum):
        parts = [_images(part, before) for part in linear.maps]
        batch = torch.stack([part.batch for part in parts]).sum(0)
        rounding = len(parts) * UNIT * sum(_size(part.batch) for part in parts)
        error = torch.stack([part.error for part in parts]).sum()
        return _Images(batch, upward(error + rounding, 2 * len(parts) + 4), False)
    moves = isinstance(linear, Reshape | Gather)
    batch = linear(before.batch)
    if before.moved and (moves or isinstance(linear, Dense)):
        return _Images(batch, before.error, moves)  # sums of one term that is not 0
    lost = linear.rounding * _size(before.batch) + math.sqrt(len(batch)) * linear.underflow
    if before.error > 0:
        norm = linear.norm()
        assert norm is not None
        lost = norm * before.error + lost
    return _Images(batch, upward(torch.as_tensor(lost, dtype=torch.float64), 8), False)


def _size(batch: Tensor) -> Tensor:
    """Frobenius norm of a batch."""
    return frobenius(batch.flatten(1))
