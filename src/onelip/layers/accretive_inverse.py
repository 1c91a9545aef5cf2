r"""Inverses of matrices whose Hermitian part is at least the identity, without batched LU.

torch's batched LU on a CPU with MKL is wrong from 151 x 151 on as soon as there are two threads
(pytorch #141358, #142815, #181570): residuals of 1 and more, or a crash. Layers by the Cayley
transform need inverses of :math:`M = I + A` with :math:`A + A^H \succeq 0`, and those need no
pivots between blocks. With

.. math:: M = \begin{pmatrix} P & B \\ C & D \end{pmatrix}, \qquad S = D - C P^{-1} B,

both P and the Schur complement S have a Hermitian part of at least I again, for
:math:`x^H S x = z^H M z` with :math:`z = (-P^{-1} B x, x)`. Halving ends in blocks of a size
for which LU is right; the rest is products. They are right in the forward and the backward pass, in
forward mode and under ``vmap``, on every device and with every number of threads.
"""

import torch
from torch import Tensor

_LARGEST = 128  # rows of the blocks that are left to LU; it is right up to 150
_BATCH = 2**16  # matrices in one call; beyond, LU on ROCm is wrong (pytorch #196745)


def accretive_inverse(matrices: Tensor) -> Tensor:
    r"""Invert matrices with :math:`M + M^H \succeq 2 I`, in batches.

    The error grows with the norm of M as that of LU does for most matrices, and with its square
    where leading blocks are next to skew-symmetric and much smaller than the rest.

    Shape: ``(..., n, n)``, real or complex, to the same.
    Cost: ``2 n^3`` multiplications, those of LU.

    Args:
        matrices: in float32 or float64, real or complex. The condition on them is not checked.

    Example:
        >>> accretive_inverse(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
        tensor([[ 0.5000, -0.5000],
                [ 0.5000,  0.5000]])
    """
    size = matrices.shape[-1]
    if size <= _LARGEST:
        return _lu_inverse(matrices)
    half = -(-size // 2)
    # block inverse by the Schur complement of the first block, which needs no pivots
    first, right = matrices[..., :half, :half], matrices[..., :half, half:]
    below, last = matrices[..., half:, :half], matrices[..., half:, half:]
    inverse = accretive_inverse(first)
    from_right, from_below = inverse @ right, below @ inverse
    complement = accretive_inverse(last - below @ from_right)
    corner = from_right @ complement
    top = torch.cat([inverse + corner @ from_below, -corner], -1)
    return torch.cat([top, torch.cat([-complement @ from_below, complement], -1)], -2)


def _lu_inverse(matrices: Tensor) -> Tensor:
    """Invert small matrices by LU, at most ``_BATCH`` in one call."""
    if matrices.shape[:-2].numel() > _BATCH:
        parts = matrices.flatten(0, -3).split(_BATCH)
        return torch.cat([torch.linalg.inv_ex(part).inverse for part in parts]).view_as(matrices)
    inverse: Tensor = torch.linalg.inv_ex(matrices).inverse
    return inverse
