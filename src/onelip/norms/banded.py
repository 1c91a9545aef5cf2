r"""The exact norm of a zero-padded convolution, row of pixels by row of pixels.

Rows of the image further apart than the kernel reaches do not interact, so the Gram matrix of a
convolution is block tridiagonal, with blocks of as many rows as that. The proof is the one of
``verification.py`` with a block bidiagonal factor: n small factorisations instead of one of n times
the size.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.norms.rounding import UNDERFLOW, frobenius, gamma, upward
from onelip.norms.verification import Remainder, above

_FIRST_MARGIN = 1e-4  # how far above the first guess the proof is tried
_MARGIN = 1e-9  # above a guess that a successful factorisation has refined
_ROUNDS = 12
_LANCZOS_STEPS = 60
_INVERSE_STEPS = 15


class Rows(NamedTuple):
    """Output row o reads, through tap u, input row ``o stride + u dilation - before``."""

    inputs: int
    outputs: int
    taps: int
    stride: int
    dilation: int
    before: int


class _Factor(NamedTuple):
    """A block bidiagonal lower triangular matrix L."""

    diagonal: Tensor  # (blocks, size, size), each lower triangular
    below: Tensor  # (blocks - 1, size, size)

    def solve(self, vector: Tensor) -> Tensor:
        """Compute ``(L L^T)^-1 x`` for ``x`` of shape ``(blocks, size)``."""
        parts = list(vector[..., None])
        for i in range(len(parts)):
            ahead = self.below[i - 1] @ parts[i - 1] if i else 0
            parts[i] = _triangular(self.diagonal[i], parts[i] - ahead, upper=False)
        for i in reversed(range(len(parts))):
            after = self.below[i].mT @ parts[i + 1] if i + 1 < len(parts) else 0
            parts[i] = _triangular(self.diagonal[i].mT, parts[i] - after, upper=True)
        return torch.stack(parts).squeeze(-1)


class Tridiagonal(NamedTuple):
    """A symmetric block tridiagonal matrix, a form of ``verification.Hermitian``."""

    diagonal: Tensor  # (blocks, size, size)
    below: Tensor  # (blocks - 1, size, size)

    def shifted(self, level: Tensor, sign: int) -> "Tridiagonal":
        """Return ``sign (G - level I)``, each entry of the diagonal rounded once."""
        diagonal = sign * self.diagonal
        diagonal.diagonal(dim1=-2, dim2=-1).add_(level, alpha=-sign)
        return Tridiagonal(diagonal, sign * self.below)

    def factor(self) -> _Factor:
        """Compute a block Cholesky factor; nothing that it holds is trusted."""
        return _factor(self.diagonal, self.below)

    def remainder(self, factor: _Factor) -> Remainder:
        """Compute ``G - L L^T``; a block on the diagonal is the sum of two products."""
        squares = factor.diagonal @ factor.diagonal.mT
        squares[1:] += factor.below @ factor.below.mT
        # a block below the diagonal stands in the symmetric matrix twice: hence 2 * off
        on = frobenius(self.diagonal - squares).square().sum()
        off = frobenius(self.below - factor.below @ factor.diagonal[:-1].mT).square().sum()
        lengths = frobenius(factor.diagonal).square().sum() + frobenius(factor.below).square().sum()
        blocks, size, _ = self.diagonal.shape
        return Remainder(
            upward(on + 2 * off, 2 * blocks).sqrt(), size + 1, upward(lengths, 2 * blocks)
        )


def block_size(rows: Rows, inputs: int, outputs: int) -> tuple[int, int]:
    """Return size and number of blocks of the smaller of the two Gram matrices.

    Args:
        rows: how rows are read.
        inputs: numbers in an input row, channels times width.
        outputs: numbers in an output row.
    """
    return min(
        (_reach(rows, of_outputs) * width, -(-count // _reach(rows, of_outputs)))
        for of_outputs, width, count in (
            (True, outputs, rows.outputs),
            (False, inputs, rows.inputs),
        )
    )


def squared_norm(maps: Tensor, rows: Rows) -> Tensor:
    """Proved bound of the squared norm.

    Args:
        maps: ``(taps, outputs, inputs)``, float64: for each row of the kernel the map from an input
            row to an output row, exactly.
        rows: how rows are read.

    Returns:
        A 0-d float64 tensor.
    """
    of_outputs = maps.shape[1] * _reach(rows, True) <= maps.shape[2] * _reach(rows, False)
    gram, error = _gram(maps if of_outputs else maps.mT, rows, of_outputs)
    guess, margin = _largest_eigenvalue(maps, rows), _FIRST_MARGIN
    best = upward(frobenius(gram.diagonal).square().sum().sqrt(), 8 + len(gram.diagonal))
    best = upward(best + 2 * frobenius(gram.below).sum(), 8 + len(gram.diagonal))
    for _ in range(_ROUNDS):
        level = guess * (1 + margin)
        trial = above(gram, level)
        best = torch.fmin(best, trial.bound)  # a failed factorisation gives NaN, or much
        if not trial.bound <= level * (1 + 10 * _MARGIN):
            margin *= 10
            continue
        guess, margin = level - 1 / _inverse_norm(trial.factor), _MARGIN
        if best <= guess * (1 + 10 * _MARGIN):
            break
    return upward(best + error, 2)


def _reach(rows: Rows, of_outputs: bool) -> int:
    """Largest distance, at least 1, at which two rows may still interact."""
    apart = (rows.taps - 1) * rows.dilation
    return max(1, apart // rows.stride if of_outputs else apart)


def _gram(maps: Tensor, rows: Rows, of_outputs: bool) -> tuple[Tridiagonal, Tensor]:
    """Gram matrix of the outputs or of the inputs, and its error in Frobenius norm.

    ``maps`` lead there from the other side.
    """
    taps, width, length = maps.shape
    reach, count = _reach(rows, of_outputs), rows.outputs if of_outputs else rows.inputs
    products = torch.einsum("uik,vjk->uvij", maps, maps)
    blocks = -(-count // reach)
    whole = maps.new_zeros(blocks, 2, reach, reach, width, width)
    for row in range(count):
        for other in range(max(0, row - 2 * reach + 1), row + reach):
            block, lag = row // reach, row // reach - other // reach
            if other >= count or not 0 <= lag <= 1:
                continue
            for u, v in _meeting(rows, row, other, of_outputs):
                whole[block, lag, row % reach, other % reach] += products[u, v]
    joined = whole.transpose(3, 4).reshape(blocks, 2, reach * width, reach * width)
    size = upward(frobenius(maps).square().sum() * count, taps + 8)  # |B|_F^2
    error = upward(gamma(length + taps + 4) * size + count * taps * width**2 * UNDERFLOW, 4)
    return Tridiagonal(joined[:, 0], joined[1:, 1]), error


def _meeting(rows: Rows, row: int, other: int, of_outputs: bool) -> Sequence[tuple[int, int]]:
    """Taps u, v through which two rows meet in the same row of the other side."""
    return [
        (u, v)
        for u in range(rows.taps)
        for v in range(rows.taps)
        if (met := _met(rows, row, u, of_outputs)) is not None
        and met == _met(rows, other, v, of_outputs)
    ]


def _met(rows: Rows, row: int, tap: int, of_outputs: bool) -> int | None:
    """The input row that an output row reads through a tap, or the output row that reads it."""
    if of_outputs:
        met = row * rows.stride + tap * rows.dilation - rows.before
        return met if 0 <= met < rows.inputs else None
    met, rest = divmod(row + rows.before - tap * rows.dilation, rows.stride)
    return met if rest == 0 and 0 <= met < rows.outputs else None


def _largest_eigenvalue(maps: Tensor, rows: Rows) -> Tensor:
    """Estimate the largest eigenvalue of the Gram matrix: a guess, not a bound."""
    shapes = (rows.outputs, maps.shape[1]), (rows.inputs, maps.shape[2])
    smaller = math.prod(shapes[0]) < math.prod(shapes[1])
    there, back = (_backward, _forward) if smaller else (_forward, _backward)
    start = _start(shapes[0] if smaller else shapes[1], maps)
    return lanczos(lambda x: back(maps, rows, there(maps, rows, x)), start, _LANCZOS_STEPS)


def _start(shape: Sequence[int], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)


def lanczos(operator: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
    """Estimate the largest eigenvalue of a symmetric map from below (Lanczos, reorthogonalised)."""
    basis = [start / start.norm()]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    for _ in range(min(steps, start.numel())):
        image = operator(basis[-1])
        alphas.append((image * basis[-1]).sum())
        known = torch.stack(basis).flatten(1)
        for _ in range(2):  # twice is enough to be orthogonal up to rounding
            image = image - ((known @ image.flatten()) @ known).reshape(start.shape)
        betas.append(image.norm())
        if not betas[-1] > 1e-14 * alphas[0].abs():
            break
        basis.append(image / betas[-1])
    matrix = torch.diag(torch.stack(alphas))
    if len(alphas) > 1:
        off = torch.stack(betas[: len(alphas) - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    largest: Tensor = torch.linalg.eigvalsh(matrix)[-1]
    return largest


def _forward(maps: Tensor, rows: Rows, x: Tensor) -> Tensor:
    """Apply the operator to ``(input rows, numbers in a row)``."""
    image = x.new_zeros(rows.outputs, maps.shape[1])
    for matrix, (outputs, inputs) in zip(maps, _reads(rows, x.device), strict=True):
        image[outputs] += x[inputs] @ matrix.T
    return image


def _backward(maps: Tensor, rows: Rows, y: Tensor) -> Tensor:
    """Apply the adjoint of the operator to ``(output rows, numbers in a row)``."""
    image = y.new_zeros(rows.inputs, maps.shape[2])
    for matrix, (outputs, inputs) in zip(maps, _reads(rows, y.device), strict=True):
        image[inputs] += y[outputs] @ matrix
    return image


def _reads(rows: Rows, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Pairs (output rows, input rows that they read), one pair for each tap."""
    outputs = torch.arange(rows.outputs, device=device)
    read = [outputs * rows.stride + tap * rows.dilation - rows.before for tap in range(rows.taps)]
    inside = [(inputs >= 0) & (inputs < rows.inputs) for inputs in read]
    return [(outputs[kept], inputs[kept]) for inputs, kept in zip(read, inside, strict=True)]


def _factor(diagonal: Tensor, below: Tensor) -> _Factor:
    """Compute a block Cholesky factor of a block tridiagonal matrix; it is never trusted."""
    blocks, links = [torch.linalg.cholesky_ex(diagonal[0]).L], []
    for block, off in zip(diagonal[1:], below, strict=True):
        link = _triangular(blocks[-1], off.mT, upper=False).mT
        links.append(link)
        blocks.append(torch.linalg.cholesky_ex(block - link @ link.mT).L)
    size = diagonal.shape[-1]
    empty = diagonal.new_zeros(0, size, size)
    return _Factor(torch.stack(blocks), torch.stack(links) if links else empty)


def _inverse_norm(factor: _Factor) -> Tensor:
    """Norm of ``(L L^T)^-1``: from it follows a better guess."""
    start = _start(factor.diagonal.shape[:2], factor.diagonal)
    return lanczos(factor.solve, start, _INVERSE_STEPS)


def _triangular(matrix: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(matrix, right, upper=upper)
    return solution
