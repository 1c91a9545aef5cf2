r"""The spectral norm of dense matrices: guess, then prove.

A symmetric eigenvalue solver guesses :math:`s \approx \|M\|^2`, the largest eigenvalue of
:math:`M^H M`, and ``verification.py`` proves a bound just above, which takes no trust in the guess.
One Gram product, one factorisation and one product replace the 25 products that Gram iteration
takes to come as close.
"""

import math

import torch
from torch import Tensor

from onelip.norms.proved_once import known
from onelip.norms.rounding import exact, frobenius, power_of_two, product_error, upward
from onelip.norms.verification import Lower, above

_MARGIN = 1e-10  # how far above the guess the proof is tried first
_GUESSES = 8  # blocks of a batch whose eigenvalues are computed in one round
_POWER_STEPS = 8
_ROUNDS = 40


def dense(matrix: Tensor, *, error: Tensor | None = None) -> Tensor:
    """Proved upper bound of the spectral norm of a matrix, or of the largest in a batch.

    Bound: never below the exact norm; within 1e-8 of it, relative, up to 4096 columns.
    Shape: ``(..., rows, columns)``, any floating or complex dtype.
    Cost: about ``3 n^2 m`` multiplications in float64, n the smaller side, and one symmetric
    eigenvalue problem of size n.

    Args:
        matrix: the exact numbers whose norm is asked.
        error: Frobenius norm of what each matrix may be off by, a scalar; 0 if left out.

    Raises:
        NonFiniteError: an entry is infinite or NaN.

    Example:
        >>> import torch, onelip
        >>> onelip.norms.dense(torch.diag(torch.tensor([3.0, 4.0])))
        tensor(4.0000, dtype=torch.float64)
    """
    if matrix.ndim < 2:
        raise ValueError(f"a matrix has two dimensions, got shape {tuple(matrix.shape)}")
    numbers = exact(matrix).flatten(0, -3) if matrix.ndim > 2 else exact(matrix)[None]
    norm = known(numbers, "dense", largest_norm)
    return norm if error is None else upward(norm + error.cpu(), 1)


def largest_norm(matrices: Tensor, error: Tensor | None = None) -> Tensor:
    """Bound of the largest spectral norm in a batch, each matrix known up to ``error``.

    Args:
        matrices: ``(batch, rows, columns)``, float64 or complex128.
        error: Frobenius norm of what each matrix may be off by, a scalar; 0 if left out.

    Returns:
        A 0-d float64 tensor on the CPU.
    """
    error = torch.zeros((), dtype=torch.float64) if error is None else error.cpu()
    if not matrices.any():
        return error
    scale = power_of_two(matrices)
    scaled = matrices * scale  # exact but for underflow: a power of two, entries now below 1
    if scaled.shape[-2] < scaled.shape[-1]:
        scaled = scaled.mT
    square = _norm_of_gram(scaled)
    return ends_above(upward(square, 2).sqrt() / scale + error)


def ends_above(norm: Tensor) -> Tensor:
    """Round a norm upwards for the last time; of subnormal numbers too."""
    norm = upward(norm, 4)
    return torch.nextafter(norm, torch.full_like(norm, math.inf))


def _norm_of_gram(matrices: Tensor) -> Tensor:
    """Bound of the largest squared norm of a batch of tall matrices with entries up to 1.

    Blocks whose proof fails at the level of the guess are those with a larger norm: the guess is
    raised to the eigenvalues of a few of them, and only they are tried again.
    """
    gram = matrices.mH @ matrices
    bounds = frobenius(gram)  # holds without any factorisation
    pending = torch.arange(len(gram), device=gram.device)
    if len(gram) > _GUESSES:
        pending = _look(gram).argsort(descending=True)
    level, margin = torch.zeros_like(bounds[0]), _MARGIN
    for _ in range(_ROUNDS):
        guess = torch.linalg.eigvalsh(gram[pending[:_GUESSES]]).amax()
        if guess <= level:  # the guess was high enough: the margin did not cover the rounding
            margin *= 100
        level = torch.maximum(level, guess)
        proved = above(Lower(gram[pending]), level * (1 + margin)).bound
        bounds[pending] = torch.fmin(bounds[pending], proved)  # a failed factor gives NaN
        pending = pending[bounds[pending] > level * (1 + 2 * margin)]
        if not len(pending):
            break
    error = 1.5 * product_error(matrices).max()  # a lower triangle is off by sqrt(2) times that
    return upward(bounds.max() + error, 4).cpu()


def _look(gram: Tensor) -> Tensor:
    """Estimate the norm of each block by power steps: no bound, only the order to try them."""
    vector = gram.sum(-1, keepdim=True)
    for _ in range(_POWER_STEPS):
        vector = gram @ (vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True))
        vector = vector.nan_to_num()  # of a zero block
    looks: Tensor = torch.linalg.vector_norm(vector, dim=(1, 2))
    return looks
