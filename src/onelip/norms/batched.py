"""The spectral norm of every matrix of a batch: guess, then prove, as in ``spectral.py``."""

import math

import torch
from torch import Tensor

from onelip.norms.rounding import frobenius, product_error, upward
from onelip.norms.verification import Lower, above

_MARGINS = (1e-10, 1e-7, 1e-3)  # how far above the guess the proof is tried


def each(matrices: Tensor, error: Tensor | None = None) -> Tensor:
    """Proved upper bounds of the spectral norms of a batch of matrices.

    Bound: never below the exact norms; within 1e-8 of them, relative, where ``error`` is 0. A
    matrix with an entry that is not finite has the bound infinity.
    Shape: ``(batch, rows, columns)``, float64, to ``(batch,)``.
    Cost: about ``3 n^2 m`` multiplications a matrix and one symmetric eigenvalue problem of size n,
    the smaller side. ``spectral.largest_norm`` is faster where only the largest is wanted.

    Args:
        matrices: known numbers.
        error: ``(batch,)``, the Frobenius norm of what each matrix may be off by; 0 if left out.

    Example:
        >>> each(torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]]).double())
        tensor([4.0000, 1.0000], dtype=torch.float64)
    """
    usable = torch.isfinite(matrices).all(-1).all(-1)
    if not usable.all():
        matrices = torch.where(usable[:, None, None], matrices, 0.0)
    if matrices.shape[1] < matrices.shape[2]:
        matrices = matrices.mT
    if 0 in matrices.shape:
        norms = matrices.new_zeros(len(matrices))
    else:
        largest = matrices.abs().amax((1, 2))
        exponents = torch.frexp(largest).exponent.clamp(-1000, 1000).tolist()
        scales = matrices.new_tensor([2.0**-exponent for exponent in exponents])
        scaled = matrices * scales[:, None, None]  # exact but for underflow, entries below 1
        norms = upward(upward(_squares(scaled), 2).sqrt() / scales, 4)
        norms = torch.nextafter(norms, norms.new_tensor(math.inf))
        norms = torch.where(largest > 0, norms, 0.0)
    norms = norms if error is None else upward(norms + error, 1)
    return torch.where(usable & ~norms.isnan(), norms, math.inf)


def _squares(matrices: Tensor) -> Tensor:
    """Bounds of the squared norms of tall matrices with entries below 1."""
    gram = matrices.mT @ matrices
    bounds = frobenius(gram)
    if gram.shape[-1] > 1:
        guesses = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0.0)
        for margin in _MARGINS:
            proved = above(Lower(gram), guesses * (1 + margin)).bound
            bounds = torch.fmin(bounds, proved)  # a failed factor gives NaN
            if bool((bounds <= guesses * (1 + 2 * margin)).all()):
                break
    error = upward(
        1.5 * product_error(matrices), 1
    )  # a lower triangle is off by sqrt(2) times that
    return upward(bounds + error, 2)
