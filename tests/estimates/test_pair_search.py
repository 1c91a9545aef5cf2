"""Pairs of points that are moved apart, against exact constants."""

import math

import pytest
import torch
from torch import Tensor, nn

from onelip.estimates import pair_search
from onelip.estimates._pair_search import quotients


def dip(x: Tensor) -> Tensor:
    """Slope 7 on an interval of width 0.1 around 3, 1 elsewhere."""
    return x + 6 * ((x - 2.95).relu() - (x - 3.05).relu())


def test_the_quotient_is_that_of_the_pair():
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 4)).double()
    pair = pair_search(model, torch.randn(6, 5).double(), steps=50)
    with torch.no_grad():
        change = (model(pair.x) - model(pair.y)).norm()
    torch.testing.assert_close(pair.quotient, change / (pair.x - pair.y).norm(), rtol=1e-6, atol=0)
    assert not pair.quotient.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_better_than_its_starts():
    model = nn.Sequential(nn.Linear(8, 30), nn.Tanh(), nn.Linear(30, 4)).double()
    start = 3 * torch.randn(16, 8).double()
    random = pair_search(model, start, steps=1).quotient
    assert float(pair_search(model, start).quotient) > 1.3 * float(random)


def test_wide_pairs_feel_what_jacobians_do_not():
    """The Jacobian at the starts is 1, and its gradient 0."""
    pair = pair_search(dip, torch.linspace(2, 2.8, 5).double()[:, None], width=1.0)
    assert float(pair.quotient) > 6.9


def test_reaches_the_norm_of_a_linear_map():
    weight = torch.randn(12, 20).double()
    pair = pair_search(lambda x: x @ weight.T, torch.zeros(8, 20).double(), steps=400)
    norm = float(torch.linalg.matrix_norm(weight, 2))
    assert 0.99 * norm < float(pair.quotient) <= norm


def test_numbers_that_are_none_are_passed_over():
    pair = pair_search(lambda x: (1 - x).log(), torch.zeros(4, 1).double(), steps=20, width=10.0)
    assert math.isfinite(float(pair.quotient))


@pytest.mark.parametrize("distance", [1e-8, 1e-5, 1.0])
def test_rounding_is_taken_off(distance):
    """A large constant in front of a small change: without care the quotient exceeds 1."""
    x = torch.rand(200, 3).double()
    y = x + distance * nn.functional.normalize(torch.randn(200, 3).double(), dim=1)
    assert (quotients(lambda z: z + 1e3, x, y) <= 1).all()
    assert (quotients(lambda z: z + 1e3, x, y) >= 1 - 1e-8 / distance).all()
