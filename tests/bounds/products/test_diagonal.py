"""Diagonal matrices above Gram matrices."""

import pytest
import torch

from onelip.bounds.products.diagonal import Weighting, weight
from onelip.chains import Dense


@pytest.mark.parametrize("chosen", [False, True])
def test_is_above_the_gram_matrix(chosen: bool) -> None:
    for seed in range(60):
        torch.manual_seed(seed)
        rows = torch.randn(1 + seed % 4, 7, dtype=torch.float64) * torch.rand(7).double() ** 4
        rows[:, seed % 7] = 0
        inner = Dense(torch.randn(7, 3, dtype=torch.float64))
        root, error = weight(rows, torch.zeros(len(rows)).double(), Weighting(chosen, inner))
        gap = torch.linalg.eigvalsh(torch.diag(root.square()) - rows.mT @ rows)
        assert float(gap.min()) >= -1e-14 * float(root.square().max())
        assert float(error) < 1e-12


def test_rows_that_are_orthogonal_have_an_exact_one() -> None:
    rows = torch.diag(torch.tensor([1.0, 2.0, 3.0]).double())
    inner = Dense(torch.eye(3).double())
    root, _ = weight(rows, torch.zeros(3).double(), Weighting(False, inner))
    torch.testing.assert_close(root, torch.tensor([1.0, 2.0, 3.0]).double())


def test_one_row_is_weighted_by_what_comes_in() -> None:
    r"""The least \|T^{1/2} w\| over T above g g^T is \sum |g_i w_i|."""
    for seed in range(20):
        torch.manual_seed(seed)
        row, column = torch.rand(1, 6).double() + 0.01, torch.rand(6, 1).double() + 0.01
        inner = Dense(column)
        root, _ = weight(row, torch.zeros(1).double(), Weighting(True, inner))
        assert float((root[:, None] * column).norm()) == pytest.approx(float(row @ column))


def test_errors_of_the_rows_and_scales_are_kept() -> None:
    errors = torch.tensor([3.0, 4.0]).double()
    for scale in (1e-250, 1.0, 1e250):
        rows = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).double() * scale
        root, error = weight(rows, errors * scale, Weighting(False, Dense(torch.eye(2).double())))
        assert float(error) >= 5 * scale
        assert scale < 1 or float(error / scale) == pytest.approx(5)
        torch.testing.assert_close(root / scale, torch.tensor([2.0, 3.0]).double().sqrt())
