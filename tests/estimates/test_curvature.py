"""Estimates of curvature: from below, close after some calls, differentiable."""

import torch
from torch import nn

from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.estimates.curvature import CurvatureEstimate


def test_they_approach_the_proved_numbers_from_below_as_calls_go_on():
    torch.manual_seed(0)
    inner, outer = nn.Linear(12, 30).double(), nn.Linear(30, 4).double()
    first, second = torch.cartesian_prod(torch.arange(4), torch.arange(4)).unbind(1)
    first, second = first[first != second], second[first != second]
    proved = Curvature(TwoLayers.of(inner, nn.Tanh(), outer))(first, second)
    estimate = CurvatureEstimate(12, 4, (-0.76981, 0.76981)).double()
    early = estimate(inner.weight, outer.weight, first, second)
    for _ in range(200):
        late = estimate(inner.weight, outer.weight, first, second)
    for values in (early, late):
        assert bool((values <= proved).all())
    assert bool((early >= 0).all())
    assert bool((late > 0.999 * proved).all())
    assert float((early.detach() / proved).min()) < 0.99


def test_in_eval_mode_the_vectors_stay():
    estimate = CurvatureEstimate(3, 2, (0.0, 0.25)).eval()
    before = estimate.vectors.clone()
    estimate(torch.randn(5, 3), torch.randn(2, 5), torch.tensor([0]), torch.tensor([1]))
    assert torch.equal(estimate.vectors, before)


def test_gradients_are_those_of_the_largest_eigenvalue():
    torch.manual_seed(0)
    inner = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    estimate = CurvatureEstimate(4, 2, (0.0, 0.25)).double()
    one, two = torch.tensor([0]), torch.tensor([1])
    for _ in range(500):
        value = estimate(inner, outer, one, two)
    found = torch.autograd.grad(value.sum(), (inner, outer))
    bend = (outer[1] - outer[0]).clamp_min(0) / 4
    exact = torch.linalg.eigvalsh(inner.T @ (bend[:, None] * inner))[-1]
    for gradient, expected in zip(found, torch.autograd.grad(exact, (inner, outer)), strict=True):
        torch.testing.assert_close(gradient, expected)
