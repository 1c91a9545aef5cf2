"""Norms of each matrix of a batch against the SVD and ball arithmetic."""

import math

import pytest
import torch

from onelip.norms.batched import each
from tests.oracles import is_above, norm_below, relative_excess


def assert_each_proved(matrices: torch.Tensor, tightness: float = 1e-8) -> None:
    bounds = each(matrices)
    assert bounds.shape == matrices.shape[:1]
    for matrix, bound in zip(matrices, bounds, strict=True):
        lower = norm_below(matrix)
        assert is_above(bound, lower)
        if lower:
            assert relative_excess(bound, lower) <= tightness


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (5, 5), (3, 9), (9, 3)], ids=str)
def test_random_matrices_of_different_sizes(shape):
    scales = torch.tensor([1.0, 1e-3, 1e5, 1e-100, 1e120], dtype=torch.float64)
    assert_each_proved(torch.randn(5, *shape).double() * scales[:, None, None])


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-160, 1e160, 1e300])
def test_tiny_and_huge(scale):
    matrices = torch.randint(-9, 10, (4, 3, 5)).double() * scale
    assert_each_proved(matrices, 1e-8 if scale > 1e-310 else 0.5)


def test_rank_one_orthogonal_and_repeated():
    q, _ = torch.linalg.qr(torch.randn(6, 6).double())
    rank_one = torch.randn(6, 1).double() * torch.randn(6).double()
    assert_each_proved(torch.stack([q, rank_one, torch.eye(6).double(), torch.ones(6, 6).double()]))


def test_zeros_and_empty_matrices():
    assert torch.equal(each(torch.zeros(2, 3, 4).double()), torch.zeros(2).double())
    for shape in ((2, 0, 3), (2, 3, 0), (0, 3, 3)):
        assert torch.equal(each(torch.zeros(shape).double()), torch.zeros(shape[0]).double())


def test_errors_are_added():
    matrices = torch.stack([torch.eye(3), torch.zeros(3, 3)]).double()
    bounds = each(matrices, torch.tensor([0.5, 0.25]).double())
    assert (bounds >= torch.tensor([1.5, 0.25]).double()).all()
    assert (bounds <= torch.tensor([1.500001, 0.250001]).double()).all()
    assert math.isinf(each(matrices, torch.tensor([math.nan, 0.0]).double())[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_matrix_does_not_spoil_the_others(bad):
    matrices = torch.eye(3).double().repeat(3, 1, 1)
    matrices[1, 2, 0] = bad
    bounds = each(matrices)
    assert math.isinf(bounds[1])
    assert ((bounds[[0, 2]] >= 1) & (bounds[[0, 2]] < 1 + 1e-8)).all()


@pytest.mark.parametrize("wrong", [0.0, 0.5, 1 - 1e-9, 1 + 1e-3, 1e3])
def test_a_wrong_guess_costs_tightness_only(monkeypatch, wrong):
    solver = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda gram: wrong * solver(gram))
    assert_each_proved(torch.randn(4, 6, 5).double(), tightness=40)
