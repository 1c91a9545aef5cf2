"""Norms from Gram matrices, against singular values."""

import torch
from torch import Tensor

from onelip.bounds.products.bottleneck import Gram, Push, _factored, _proved, norm, norm_through


def _gram(matrix: Tensor) -> Push:
    return lambda x: (x @ matrix @ matrix.mT, torch.full((len(x),), 1e-13).double())


def _sigma(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def test_norm_is_above_and_close() -> None:
    for seed in range(100):
        torch.manual_seed(seed)
        matrix = torch.randn(int(torch.randint(1, 40, ())), 12, dtype=torch.float64)
        found = float(norm(_gram(matrix), (len(matrix),)))
        assert _sigma(matrix) <= found * (1 + 1e-13)
        assert found <= _sigma(matrix) * (1 + 1e-8)


def test_product_is_above_and_close_when_the_place_is_singular_too() -> None:
    for seed in range(100):
        torch.manual_seed(seed)
        before = torch.randn(30, 5 + seed, dtype=torch.float64)  # up to rank 30
        behind = torch.randn(40, 30, dtype=torch.float64)
        sizes = torch.tensor([_sigma(before), _sigma(behind)]).double() * (1 + 1e-12)
        found = float(norm_through(_gram(before), _gram(behind.mT), (30,), *sizes))
        assert _sigma(behind @ before) <= found * (1 + 1e-13)
        assert found <= _sigma(behind @ before) * (1 + 1e-8)


def test_clustered_eigenvalues_are_proved() -> None:
    matrix = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64)).Q
    assert 1 - 1e-14 <= float(norm(_gram(matrix), (60,))) <= 1 + 1e-8


def test_what_pushes_are_off_by_is_added() -> None:
    exact = torch.eye(4, dtype=torch.float64)
    error = torch.tensor(0.25, dtype=torch.float64)
    assert float(_proved(Gram(exact, error))) >= 1.25
    root, gap = _factored(Gram(exact, error))
    assert float(gap) >= 0.25
    torch.testing.assert_close(root @ root.mT, exact)


def test_zero_and_overflow() -> None:
    assert float(norm(lambda x: (0 * x, x.new_zeros(len(x))), (5,))) < 1e-70
    assert float(norm(lambda x: (x * 1e308 * 1e308, x.new_zeros(len(x))), (5,))) == float("inf")
