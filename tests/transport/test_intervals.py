"""Confidence intervals: coverage by simulation, and the formulas against slow versions."""

import math

import pytest
import torch
from scipy import stats

from onelip.errors import NonFiniteError, UsageError
from onelip.transport.intervals import bernstein, student


def test_student_is_welch():
    torch.manual_seed(0)
    p, q = torch.randn(12, dtype=torch.float64), 3 * torch.randn(30, dtype=torch.float64) + 1
    expected = stats.ttest_ind(p.numpy(), q.numpy(), equal_var=False).confidence_interval(0.9)
    assert student(p, q, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_student_of_constants_is_a_point():
    assert student(torch.ones(5), torch.zeros(7), 0.95) == (1.0, 1.0)


def _missed(interval, draws, mean, runs=400):
    torch.manual_seed(0)
    ends = [interval(*draws()) for _ in range(runs)]
    return sum(not low <= mean <= high for low, high in ends) / runs


def test_intervals_cover_what_they_say():
    def draws():
        return torch.rand(200).double() ** 2, torch.rand(100).double()

    truth = 1 / 3 - 1 / 2
    assert 0.01 < _missed(lambda p, q: student(p, q, 0.9), draws, truth) < 0.2
    assert _missed(lambda p, q: bernstein(p, q, 0.9, 1.0), draws, truth) <= 0.1


def test_bernstein_holds_where_student_does_not():
    """Rare large values: most samples show no variance at all."""

    def draws():
        return (torch.rand(50) < 0.01).double(), torch.zeros(50).double()

    assert _missed(lambda p, q: student(p, q, 0.95), draws, 0.01) > 0.3
    assert _missed(lambda p, q: bernstein(p, q, 0.95, 1.0), draws, 0.01) <= 0.05


def test_bernstein_is_its_formula():
    p, q = torch.tensor([0.0, 1.0, 1.0]).double(), torch.tensor([0.5, 0.0]).double()
    log = math.log(2 / (0.05 / 4))
    width = math.sqrt(2 * (1 / 3) * log / 3) + 7 * 1.5 * log / (3 * 2)
    width += math.sqrt(2 * 0.125 * log / 2) + 7 * 1.5 * log / (3 * 1)
    low, high = bernstein(p, q, 0.95, 1.5)
    assert (low, high) == pytest.approx((2 / 3 - 0.25 - width, 2 / 3 - 0.25 + width))


def test_scores_beyond_the_diameter_are_refused():
    with pytest.raises(UsageError, match="not within a diameter"):
        bernstein(torch.tensor([0.0, 2.0]), torch.zeros(3), 0.95, 1.0)


@pytest.mark.parametrize("diameter", [math.inf, math.nan])
def test_a_diameter_is_finite(diameter):
    with pytest.raises(UsageError, match="diameter"):
        bernstein(torch.zeros(3), torch.zeros(3), 0.95, diameter)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_is_a_probability(confidence):
    with pytest.raises(UsageError, match=r"such as 0\.95"):
        student(torch.zeros(3), torch.ones(3), confidence)


def test_one_sample_has_no_interval():
    with pytest.raises(UsageError, match="two held-out samples"):
        student(torch.zeros(1), torch.ones(3), 0.95)


@pytest.mark.parametrize("scale", [1e-150, 1e-90, 1e90, 1e150])
def test_intervals_scale_with_the_scores(scale):
    p, q = torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([0.5, 0.0]).double()
    low, high = student(p, q, 0.95)
    assert student(scale * p, scale * q, 0.95) == pytest.approx((scale * low, scale * high))


def test_scores_that_are_off_widen_both_intervals():
    p, q = torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([0.5, 0.0]).double()
    freedom_and_more = student(p, q, 0.95, score_error=0.1)[0]
    for _ in range(200):  # any scores that are off by so much have narrower ones, around their mean
        moved = [s + 0.1 * (2 * torch.rand(len(s)).double() - 1) for s in (p, q)]
        low = bernstein(*moved, 0.95, 4.0)[0] - float(moved[0].mean() - moved[1].mean())
        assert low >= bernstein(p, q, 0.95, 4.0, score_error=0.1)[0] - float(p.mean() - q.mean())
    assert freedom_and_more < student(p, q, 0.95)[0]


def test_scores_must_be_finite():
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        bernstein(torch.tensor([0.0, math.nan]), torch.zeros(3), 0.95, 1.0)


def test_equal_scores_leave_no_width_of_student():
    """Said in its docstring: 50 ones say nothing of a zero in a hundred."""
    assert student(torch.ones(50).double(), torch.zeros(50).double(), 0.95)[0] == 1
    assert bernstein(torch.ones(50).double(), torch.zeros(50).double(), 0.95, 1.0)[0] < 0.8
