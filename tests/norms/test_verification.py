"""The one proof of eigenvalues: against ball arithmetic, for factors that are anything."""

import itertools
import math

import pytest
import torch
from flint import arb, ctx
from torch import Tensor

from onelip.norms import verification
from onelip.norms.banded import Tridiagonal, _Factor
from onelip.norms.verification import Dense, Hermitian, Lower, above, below, gap

DTYPES = [torch.float64, torch.complex128]


def _balls(matrix: Tensor) -> list[list[tuple[arb, arb]]]:
    pairs = torch.view_as_real(matrix.to(torch.complex128)).tolist()
    return [[(arb(real), arb(imaginary)) for real, imaginary in row] for row in pairs]


def exact_gap(matrix: Tensor, factor: Tensor) -> arb:
    """``|G - L L^H|_F`` of the stored numbers."""
    with ctx.workprec(400):
        g, rows, total = _balls(matrix), _balls(factor), arb(0)
        for i, j in itertools.product(range(len(g)), repeat=2):
            real, imaginary = g[i][j]
            for (a, b), (c, d) in zip(rows[i], rows[j], strict=True):  # (a + ib)(c - id)
                real, imaginary = real - (a * c + b * d), imaginary - (b * c - a * d)
            total += real * real + imaginary * imaginary
        return total.sqrt()


def not_below(bound: Tensor, exact: arb) -> bool:
    with ctx.workprec(400):
        return bool(arb(float(bound)) >= exact.lower())


def hermitian(size: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    root = torch.randn(size, size, dtype=dtype)
    return scale * (root @ root.mH + (root + root.mH))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 3, 64])
def test_a_lower_triangle_stands_for_the_whole(dtype: torch.dtype, rows: int, monkeypatch) -> None:
    """Whatever stands above the diagonal of the matrix and right of the factor's blocks."""
    monkeypatch.setattr(verification, "_ROWS", rows)
    for size in (1, 2, 5, 8):
        matrix = hermitian(size, dtype) + 9 * size * torch.eye(size, dtype=dtype)
        good = torch.linalg.cholesky(matrix)
        near = good * (1 + 1e-3 * torch.randn(size, size))
        for factor in (good, near, 0 * good, torch.randn(size, size, dtype=dtype)):
            block = torch.arange(size) // rows
            kept = torch.where(block[:, None] >= block, factor, 0)  # what the proof reads of it
            above_it = (block[:, None] < block).to(dtype)
            stored = matrix + 1e3 * above_it
            found, exact = gap(Lower(stored), factor + 1e2 * above_it), exact_gap(matrix, kept)
            assert not_below(found, exact)
        stored = matrix + 1e3 * above_it
        for level in (0.5, 1.0, 1.5):
            largest = torch.linalg.eigvalsh(matrix)[-1]
            bound = above(Lower(stored), largest * level).bound
            assert not bound < largest


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-140, 1e100])
def test_the_gap_of_any_factor(dtype: torch.dtype, scale: float, monkeypatch) -> None:
    """Good ones, ones with numbers above the diagonal, zero; matrices not quite Hermitian, too."""
    torch.manual_seed(0)
    for rows in (256, 2, 3):  # of the residual at a time
        monkeypatch.setattr(verification, "_ROWS", rows)
        for size in (1, 2, 5, 8):
            matrix = hermitian(size, dtype, scale) + scale * 9 * size * torch.eye(size, dtype=dtype)
            good = torch.linalg.cholesky(matrix)
            near = good * (1 + 1e-3 * torch.randn(size, size))
            full = math.sqrt(scale) * torch.randn(size, size, dtype=dtype)
            for factor in (good, near, full, 0 * good):
                for stored in (matrix, matrix + 1e-16 * matrix.tril(-1)):
                    found, exact = gap(Dense(stored), factor), exact_gap(stored, factor)
                    assert not_below(found, exact)
                    rounding = 1e-13 * size * float(torch.linalg.vector_norm(factor) ** 2)
                    assert float(found) <= float(exact) * 1.0001 + rounding + 1e-149


def test_half_a_residual_is_taken_only_of_triangular_factors(monkeypatch) -> None:
    monkeypatch.setattr(verification, "_ROWS", 2)
    torch.manual_seed(1)
    matrix = hermitian(6, torch.float64)
    corner = torch.zeros(6, 6, dtype=torch.float64)
    corner[0, 5] = 10.0  # right of all blocks on the diagonal
    for factor in (corner, torch.linalg.qr(matrix).Q):
        assert not_below(gap(Dense(matrix), factor), exact_gap(matrix, factor))
    lopsided = matrix.clone()
    lopsided[0, 5] += 100.0
    lower = matrix.tril()
    assert not_below(gap(Dense(lopsided), lower), exact_gap(lopsided, lower))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_ends_of_the_spectrum_at_any_level(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    for size in (1, 3, 7):
        for scale in (1.0, 1e-100):
            matrix = hermitian(size, dtype, scale)
            values = torch.linalg.eigvalsh(matrix)
            least, largest, width = values[0], values[-1], values.abs().max()
            for share in (-2.0, -0.1, -1e-9, 0.0, 1e-12, 1e-9, 0.1, 5.0):
                upper = above(Dense(matrix), largest + share * width).bound
                lower = below(Dense(matrix), least - share * width).bound
                assert not upper < largest - 1e-14 * width
                assert not lower > least + 1e-14 * width
                if share >= 1e-12:
                    slack = (share + 1e-12) * width
                    assert upper <= largest + slack
                    assert lower >= least - slack


def test_each_matrix_of_a_batch_has_its_level() -> None:
    torch.manual_seed(3)
    matrices = torch.stack([hermitian(4, torch.float64) * k for k in (1.0, 2.0, 3.0)])
    values = torch.linalg.eigvalsh(matrices)
    levels = values[:, -1] + torch.tensor([1e-9, -1.0, 1.0])
    together = above(Dense(matrices), levels).bound
    for matrix, level, bound in zip(matrices, levels, together, strict=True):
        torch.testing.assert_close(bound, above(Dense(matrix), level).bound, equal_nan=True)
    assert together.isnan().tolist() == [False, True, False]


def test_a_factor_of_other_numbers_makes_the_bound_larger() -> None:
    matrix = hermitian(5, torch.float64)
    values = torch.linalg.eigvalsh(matrix)
    high, low = values[-1] * (1 + 1e-9), values[0] - 1e-9 * values[-1]
    for by in (0.0, 0.5, 0.999, 1.1):
        wrong = Dense(matrix, lambda m, by=by: by * verification.cholesky(m))
        assert above(wrong, high).bound > above(Dense(matrix), high).bound
        assert below(wrong, low).bound < below(Dense(matrix), low).bound <= values[0]


def _written_out(form: Tridiagonal) -> Tensor:
    blocks, size, _ = form.diagonal.shape
    matrix = torch.block_diag(*form.diagonal)
    for i in range(blocks - 1):
        first, second = slice(i * size, (i + 1) * size), slice((i + 1) * size, (i + 2) * size)
        matrix[second, first], matrix[first, second] = form.below[i], form.below[i].mT
    return matrix


@pytest.mark.parametrize(("blocks", "size"), [(1, 3), (2, 1), (4, 3)])
def test_block_tridiagonal_matrices(blocks: int, size: int) -> None:
    torch.manual_seed(blocks)
    diagonal = torch.stack([hermitian(size, torch.float64) for _ in range(blocks)])
    form = Tridiagonal(diagonal, torch.randn(blocks - 1, size, size, dtype=torch.float64))
    matrix = _written_out(form)
    values = torch.linalg.eigvalsh(matrix)
    for sign, end, try_ in ((1, values[-1], above), (-1, values[0], below)):
        trial = try_(form, end + sign * 1e-9 * values.abs().max())
        dense = try_(Dense(matrix), trial.level).bound
        torch.testing.assert_close(trial.bound, dense, rtol=1e-12, atol=1e-12)
        assert sign * float(trial.bound - end) >= 0
    wrong = _Factor(torch.randn_like(form.diagonal), torch.randn_like(form.below))
    written = _lower(wrong)
    found: Hermitian[_Factor] = form
    assert not_below(gap(found, wrong), exact_gap(matrix, written))


def _lower(factor: _Factor) -> Tensor:
    blocks, size, _ = factor.diagonal.shape
    matrix = torch.block_diag(*factor.diagonal)
    for i in range(blocks - 1):
        matrix[(i + 1) * size : (i + 2) * size, i * size : (i + 1) * size] = factor.below[i]
    return matrix
