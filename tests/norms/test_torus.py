"""The largest norm on grids and on the torus, against finer grids, and what it rests on."""

import math

import pytest
import torch
from torch import Tensor

from onelip.norms import symbol as symbols
from onelip.norms import torus
from onelip.norms.symbol import GramSymbol, half_grid
from onelip.norms.torus import largest_on_grid, largest_on_torus
from tests.oracles import sigma_max

SHAPES = [
    (1, 1, 1, 3),
    (2, 3, 3, 5),
    (1, 4, 5, 3, 3),
    (3, 1, 2, 2, 4),
    (1, 2, 2, 1, 7),
    (1, 2, 3, 2, 3, 2),
    (1, 9, 9, 1, 1),
]


def kernels(shape: tuple[int, ...], kind: int) -> Tensor:
    numbers = torch.randn(shape, dtype=torch.float64)
    several = [numbers, torch.ones_like(numbers), numbers.sign(), numbers**3]
    chosen = several[kind % len(several)]
    return chosen / chosen.abs().max()


def fine(kernel: Tensor, points: int) -> float:
    """The largest square on a grid, of each group by the transform."""
    count = kernel.ndim - 3
    transform = torch.fft.fftn(kernel, s=(points,) * count, dim=tuple(range(3, 3 + count)))
    blocks = transform.movedim((1, 2), (-2, -1)).flatten(0, -3)
    return float(torch.linalg.matrix_norm(blocks, 2).max()) ** 2


@pytest.mark.parametrize("work", [1e9, 0.0], ids=["fine", "coarse"])
def test_the_torus_is_above_every_grid_and_near_a_fine_one(each, work, monkeypatch):
    monkeypatch.setattr(torus, "_FINE_WORK", work)
    looseness = 7e-4 if work else 1.1e-2
    for shape in each(SHAPES):
        for kind in range(8):
            kernel = kernels(shape, kind)
            bound = float(largest_on_torus(GramSymbol(kernel)))
            points = {1: 1024, 2: 96, 3: 24}[kernel.ndim - 3]
            found = fine(kernel, points)
            turn = sum(length - 1 for length in shape[3:]) * math.pi / points / 2
            gap = 1 / math.cos(turn) ** 2  # between its points
            assert found * (1 - 1e-13) <= bound <= found * gap * (1 + looseness), (shape, kind)


def test_grids_are_exact(each):
    for shape in each(SHAPES):
        for kind in range(4):
            kernel = kernels(shape, kind)
            sizes = tuple(range(7, 7 + kernel.ndim - 3))
            dims = tuple(range(3, kernel.ndim))
            blocks = torch.fft.fftn(kernel, s=sizes, dim=dims).movedim((1, 2), (-2, -1))
            truth = float(torch.linalg.matrix_norm(blocks, 2).max()) ** 2
            bound = float(largest_on_grid(GramSymbol(kernel), sizes))
            assert truth * (1 - 1e-13) <= bound <= truth * (1 + 1e-8), (shape, kind)


def test_both_ways_to_the_gram_matrices_agree_within_the_error(each, monkeypatch):
    at = half_grid((9, 5))
    for shape in each([(2, 3, 4, 3, 3), (1, 1, 1, 5, 4), (1, 6, 6, 2, 2)]):
        kernel = kernels(shape, 0)
        found = {}
        for way in (True, False):
            monkeypatch.setattr(GramSymbol, "_many_channels", way)
            symbol = GramSymbol(kernel)
            found[way] = symbol(at), float(symbol.error)
        transform = torch.fft.fft2(kernel, s=(9, 5))[..., :3].permute(3, 4, 0, 1, 2)
        exact = (transform @ transform.mH).flatten(0, 1).flatten(0, 1)
        for matrices, error in found.values():
            assert torch.linalg.matrix_norm(matrices.flatten(0, 1) - exact).max() <= error + 1e-14
            assert error <= 1e-10


def test_a_level_that_is_wrong_costs_tightness_only(monkeypatch):
    """Nothing is believed of Lanczos or of the eigenvalue solver."""
    kernel = kernels((1, 3, 3, 2, 3), 0)
    truth = fine(kernel, 32)
    ritz, largest = torus.ritz, torus._largest
    for factor in (0.0, 0.3, 0.99, 1.2, 50.0):
        monkeypatch.setattr(torus, "ritz", lambda m, f=factor: f * ritz(m))
        monkeypatch.setattr(torus, "_largest", lambda m, f=factor: f * largest(m))
        assert float(largest_on_torus(GramSymbol(kernel))) >= truth * (1 - 1e-13)
        assert float(largest_on_grid(GramSymbol(kernel), (32, 32))) >= truth * (1 - 1e-13)


def test_the_centres_of_the_first_cells_are_not_enough():
    """A negative control: the bound rests on what a cell may hide."""
    below = 0
    for _ in range(20):
        symbol = GramSymbol(kernels((1, 1, 1, 3, 3), 0))
        truth = fine(symbol.kernels, 96)
        below += float(largest_on_grid(symbol, (16, 16))) < truth * (1 - 1e-3)
        assert float(largest_on_torus(symbol)) >= truth * (1 - 1e-13)
    assert below > 5


def test_the_inequality_of_bernstein_and_szego():
    """From ``0 <= f <= M`` follows ``f'^2 <= d^2 f (M - f)``, of random squares of polynomials."""
    for degree in (1, 2, 5):
        c = torch.randn(200, degree + 1, dtype=torch.complex128)
        t = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)
        powers = torch.exp(1j * t[:, None] * torch.arange(degree + 1))
        values = powers @ c.mT
        f = values.abs().square()
        slopes = (powers * 1j * torch.arange(degree + 1)) @ c.mT
        df = 2 * (values.conj() * slopes).real
        top = f.max(0).values * (1 + 1e-5)
        assert (df.square() <= degree**2 * f * (top - f) + 1e-4 * top**2).all()


def test_the_half_grid_has_one_of_each_pair():
    for sizes in ((4,), (5,), (4, 6), (3, 5), (2, 3, 4)):
        kept = half_grid(sizes).numerators.tolist()
        size = torch.tensor(sizes)
        opposite = ((-torch.tensor(kept)) % size).tolist()
        both = {tuple(f) for f in kept} | {tuple(f) for f in opposite}
        assert len(both) == math.prod(sizes)


def test_displacements_and_their_opposites_are_all():
    for taps in ((1,), (4,), (2, 3), (1, 2, 2)):
        some = symbols.half_space(taps)
        all_of_them = {*some, *(tuple(-d for d in shift) for shift in some)}
        assert len(all_of_them) == 2 * len(some) == math.prod(2 * n - 1 for n in taps) - 1


def test_a_kernel_of_one_tap_is_a_matrix():
    kernel = torch.randn(1, 5, 7, 1, 1, dtype=torch.float64)
    kernel /= kernel.abs().max()
    truth = sigma_max(kernel[0, :, :, 0, 0]) ** 2
    assert truth <= float(largest_on_torus(GramSymbol(kernel))) <= truth * (1 + 1e-9)
