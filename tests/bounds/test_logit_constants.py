"""Lengths of rows and of their differences."""

import torch

from onelip.bounds.logit_bounds import lengths, pair_lengths, tightened


def test_lengths_are_above_and_close() -> None:
    for seed in range(50):
        torch.manual_seed(seed)
        scale = 10.0 ** float(torch.randint(-250, 150, ()))
        rows = torch.randn(6, 9, dtype=torch.float64)
        errors = torch.rand(6, dtype=torch.float64) * 1e-3
        single, pairs = lengths(rows * scale, errors * scale), None
        exact = rows.norm(dim=1) + errors
        assert (single / scale >= exact * (1 - 1e-15)).all()
        torch.testing.assert_close(single / scale, exact, rtol=1e-12, atol=0)
        pairs = pair_lengths(rows * scale, errors * scale) / scale
        exact = (rows[:, None] - rows).norm(dim=2) + errors[:, None] + errors
        assert (pairs >= exact * (1 - 1e-15)).all()
        torch.testing.assert_close(pairs, exact, rtol=1e-12, atol=0)


def test_differences_of_nearly_equal_rows_do_not_cancel() -> None:
    rows = torch.ones(3, 4, dtype=torch.float64)
    rows[1, 0] += 2.0**-50
    found = pair_lengths(rows, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found[0, 1], torch.tensor(2.0**-50).double(), rtol=1e-12, atol=0)
    assert found[0, 2] < 1e-140


def test_many_classes_go_in_chunks() -> None:
    rows = torch.randn(200, 500, dtype=torch.float64)
    found = pair_lengths(rows, torch.zeros(200, dtype=torch.float64))
    exact = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


def test_what_holds_of_any_network_is_used() -> None:
    loose = torch.full((3, 3), 100.0, dtype=torch.float64)
    per_class = torch.tensor([0.1, 5.0, 5.0], dtype=torch.float64)
    found = tightened(torch.tensor(2.0, dtype=torch.float64), per_class, loose, [])
    assert found.per_class.tolist() == [0.1, 2.0, 2.0]
    assert float(found.pairwise[1, 2]) >= 2 * 2**0.5 > float(found.pairwise[1, 2]) * (1 - 1e-14)
    assert float(found.pairwise[0, 1]) >= 0.1 + 2 > float(found.pairwise[0, 1]) * (1 - 1e-14)
    assert not found.pairwise.diagonal().any()
