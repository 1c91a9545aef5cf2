r"""Proved norm of a large linear map from a Gram matrix of its narrowest place.

Where :math:`M = A B` narrows to n numbers between A and B, let :math:`R R^\top` be close to
:math:`B B^\top`. Then

.. math:: \|A B\|^2 = \|A B B^\top A^\top\|
          \le \|R^\top A^\top A R\| + \|A\|^2 \|B B^\top - R R^\top\| ,

and all matrices are n x n. Each is proved by ``norms/verification.py``, from one factorisation and
one residual; the guesses come from Lanczos steps instead of all eigenvalues.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.chains.linear_map import Shape
from onelip.deadline import Deadline
from onelip.norms.banded import lanczos
from onelip.norms.rounding import UNIT, frobenius, gamma, upward
from onelip.norms.spectral import ends_above
from onelip.norms.verification import Dense, above, gap

Push = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Map of a batch to its image under ``M^T M`` (or ``M M^T``), and the error norm of each row."""

_CHUNK = 256
_LANCZOS_STEPS = 60
_INVERSE_STEPS = 10
_FIRST_MARGIN = 1e-3  # above the first guess
_MARGIN = 1e-9  # above a guess that a successful factorisation has refined
_SHIFT = 1e-12  # added to a Gram matrix, relative to its norm, before it is factored
_TRIES = 8
_NEVER = Deadline()


class Gram(NamedTuple):
    """Symmetric matrix with an error of at most ``error`` in Frobenius norm."""

    matrix: Tensor
    error: Tensor


def norm(push: Push, shape: Shape, deadline: Deadline = _NEVER) -> Tensor:
    """Proved bound of the norm of M, whose Gram matrix acts on tensors of this shape.

    Returns:
        A 0-d float64 tensor; infinite where numbers overflow.

    Raises:
        OutOfTimeError: a factorisation would not end in time.
    """
    gram = _gram(push, shape)
    if not torch.isfinite(gram.matrix).all():
        return torch.tensor(math.inf, dtype=torch.float64)
    return ends_above(upward(_proved(gram, deadline), 1).sqrt())


def norm_through(
    push_before: Push,
    push_behind: Push,
    shape: Shape,
    before: Tensor,
    behind: Tensor,
    *,
    deadline: Deadline = _NEVER,
) -> Tensor:
    """Proved bound of the norm of A B, which narrows to tensors of this shape between the two.

    Args:
        push_before: ``B B^T``.
        push_behind: ``A^T A``.
        shape: shape of the outputs of B, the inputs of A.
        before: a bound of the norm of B.
        behind: a bound of the norm of A.
        deadline: as for ``norm``.
    """
    gram = _gram(push_before, shape)
    if not torch.isfinite(gram.matrix).all():
        return torch.tensor(math.inf, dtype=torch.float64)
    root, gap = _factored(gram, deadline)
    inner, size = root.new_empty(root.shape), frobenius(root)
    squares = root.new_zeros(())
    for rows, part in _chunks(root.mT):  # columns of R
        image, error = push_behind(part.unflatten(1, shape))
        image = image.flatten(1)
        inner[rows] = image @ root
        product = upward(gamma(len(root)) * frobenius(image) * size, 4)
        # |R|^2 = |R R^T| <= |B B^T| + gap.
        length = upward(before.square() + gap, 4).sqrt()  # of R
        squares = squares + upward(frobenius(error[None]) * length + product, 4).square()
    if not torch.isfinite(inner).all():
        return torch.tensor(math.inf, dtype=torch.float64)
    error = upward(squares, len(root)).sqrt()
    proved = _proved(_symmetric(inner, error), deadline)
    return ends_above(upward(proved + behind.square() * gap, 4).sqrt())


def _gram(push: Push, shape: Shape) -> Gram:
    """Compute the Gram matrix from images of the basis."""
    size = math.prod(shape)
    matrix = torch.empty(size, size, dtype=torch.float64)
    squares = torch.zeros((), dtype=torch.float64)
    for rows, part in _chunks(torch.eye(size, dtype=torch.float64)):
        image, error = push(part.unflatten(1, shape))
        matrix[rows] = image.flatten(1)
        squares = squares + frobenius(error[None]).square()
    return _symmetric(matrix, upward(squares, size + 4).sqrt())


def _symmetric(matrix: Tensor, error: Tensor) -> Gram:
    """Return the symmetric part, whose distance from a symmetric matrix is no larger."""
    mean = (matrix + matrix.mT).mul_(0.5)
    return Gram(mean, upward(error + 2 * UNIT * frobenius(mean), 4))


def _chunks(matrix: Tensor) -> list[tuple[slice, Tensor]]:
    """Split the rows of a matrix into chunks."""
    starts = range(0, len(matrix), _CHUNK)
    return [(slice(start, start + _CHUNK), matrix[start : start + _CHUNK]) for start in starts]


def _proved(gram: Gram, deadline: Deadline = _NEVER) -> Tensor:
    """Bound the norm at a level just above a guess of the largest eigenvalue."""
    matrix = gram.matrix
    best = frobenius(matrix)
    guess, margin = _largest_eigenvalue(matrix), _FIRST_MARGIN
    for _ in range(_TRIES):
        trial = above(Dense(matrix), guess * (1 + margin))
        deadline.allow(len(matrix) ** 3 / 3)
        if not torch.isfinite(trial.factor).all():
            margin *= 10
        elif margin < _FIRST_MARGIN:
            best = torch.fmin(best, trial.bound)
            break
        else:
            # The factor's inverse gives the distance of the level from the largest eigenvalue.
            guess, margin = trial.level - 1 / _inverse_norm(trial.factor), _MARGIN
    return upward(best + gram.error, 2)


def _factored(gram: Gram, deadline: Deadline = _NEVER) -> tuple[Tensor, Tensor]:
    """Return R with ``R R^T`` close to the matrix, and a bound of the norm of the difference."""
    matrix = gram.matrix
    shift = _largest_eigenvalue(matrix).clamp_min(0) * _SHIFT
    for _ in range(_TRIES):
        shifted = Dense(matrix).shifted(-shift, 1)
        deadline.allow(len(matrix) ** 3 / 3)
        factor = shifted.factor()
        if torch.isfinite(factor).all():
            return factor, upward(gap(shifted, factor) + shift + gram.error, 4)
        # Rounding made the matrix indefinite: a larger shift, which the bound pays for.
        shift = shift * 100
    return torch.zeros_like(matrix), upward(frobenius(matrix) + gram.error, 2)


def _largest_eigenvalue(matrix: Tensor) -> Tensor:
    """Estimate the largest eigenvalue by Lanczos steps, from below."""
    return lanczos(lambda x: matrix @ x, _start(matrix), _LANCZOS_STEPS)


def _inverse_norm(factor: Tensor) -> Tensor:
    """Estimate the norm of the inverse of ``factor factor^T``."""

    def solve(x: Tensor) -> Tensor:
        return torch.cholesky_solve(x[:, None], factor).squeeze(1)

    return lanczos(solve, _start(factor), _INVERSE_STEPS)


def _start(like: Tensor) -> Tensor:
    """Draw a fixed random start vector."""
    return torch.randn(len(like), generator=torch.Generator().manual_seed(0), dtype=like.dtype)
