"""The exact distance of samples against enumeration, one dimension, and POT."""

import itertools

import pytest
import torch
from scipy.stats import wasserstein_distance

from onelip.errors import UsageError
from onelip.transport import exact as module
from onelip.transport import exact_distance


def test_assignment_is_the_best_permutation():
    torch.manual_seed(0)
    for _ in range(20):
        p, q = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
        best = min(
            float((p - q[list(order)]).norm(dim=1).mean())
            for order in itertools.permutations(range(5))
        )
        assert exact_distance(p, q) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 17), (1, 8)])
def test_on_the_line_it_is_the_area_between_the_quantiles(n, m):
    torch.manual_seed(0)
    p, q = torch.randn(n, 1, dtype=torch.float64), torch.rand(m, 1, dtype=torch.float64)
    expected = wasserstein_distance(p.flatten().numpy(), q.flatten().numpy())
    assert exact_distance(p, q) == pytest.approx(expected, rel=1e-9)


def test_equal_and_unequal_sizes_agree():
    torch.manual_seed(0)
    p, q = torch.randn(12, 3), torch.randn(12, 3)
    assert exact_distance(p, torch.cat([q, q])) == pytest.approx(exact_distance(p, q), rel=1e-9)


def test_equal_samples_are_at_distance_zero():
    """Not at the root of the rounding error, as by |x|^2 - 2 x.y + |y|^2."""
    p = 100 + torch.rand(40, 50)
    assert exact_distance(p, p[torch.randperm(40)]) == 0


def test_too_many_samples_are_refused_before_memory_is(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 8)
    with pytest.raises(UsageError, match="fit into memory"):
        exact_distance(torch.zeros(3, 1), torch.zeros(3, 1))


@pytest.mark.parametrize("m", [4, 3])
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_distances_whose_squares_leave_the_range(scale, m):
    p, q = torch.zeros(4, 2).double(), torch.tensor([[3.0, 4.0]]).double().repeat(m, 1)
    assert exact_distance(scale * p, scale * q) == pytest.approx(5 * scale, rel=1e-12)
