"""The N-activation and the absolute value."""

import math

import pytest
import torch

import onelip
from onelip.errors import NonFiniteError
from onelip.layers import Abs, NActivation


def _layer(first: float, second: float) -> NActivation:
    layer = NActivation(1).double().requires_grad_(False)
    layer.theta.data = torch.tensor([[first], [second]], dtype=torch.float64)
    return layer


def _naive(x: float, low: float, high: float) -> float:
    if x < low:
        return x - 2 * low
    return -x if x < high else x - 2 * high


@pytest.mark.parametrize(
    ("first", "second"), [(-1.0, 0.5), (0.5, -1.0), (0.0, 0.0), (-100.0, 0.0), (2.0, 7.0)]
)
def test_three_pieces_whatever_the_order_of_the_thresholds(first, second):
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)[:, None]
    low, high = sorted((first, second))
    expected = torch.tensor([[_naive(float(v), low, high)] for v in x], dtype=torch.float64)
    y = _layer(first, second)(x)
    torch.testing.assert_close(y, expected)
    assert float(((y[1:] - y[:-1]) / (x[1:] - x[:-1])).abs().max()) <= 1 + 1e-12


def test_slopes():
    x = torch.tensor([[-2.0], [0.0], [2.0]], requires_grad=True)
    _layer(-1.0, 1.0).float()(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, -1, 1]


def test_starts_by_turns_as_absolute_value_and_identity():
    x = 10 * torch.randn(20, 4, 3)
    y = NActivation(4)(x)
    assert torch.equal(y[:, 1::2], x[:, 1::2])
    torch.testing.assert_close(y[:, ::2], x[:, ::2].abs(), rtol=0, atol=2e-5)


def test_equal_thresholds_learn_apart():
    """Each from its own side; a clamp or a minimum would give one of them the other's gradient."""
    layer = NActivation(2)
    layer(torch.tensor([[0.0, -3.0], [0.0, 1.0], [0.0, 2.0]])).sum().backward()
    assert layer.theta.grad[:, 1].tolist() == [-2, -4]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_thresholds_that_are_no_numbers_have_no_bound(value):
    layer = NActivation(2)
    layer.theta.data[0, 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


def test_bounds_are_exactly_1():
    layer = NActivation(3)
    torch.nn.init.normal_(layer.theta)
    assert float(onelip.lipschitz_bound(layer)) == 1
    assert float(onelip.lipschitz_bound(Abs())) == 1


def test_errors():
    with pytest.raises(ValueError, match="channels must be positive, got 0"):
        NActivation(0)
    with pytest.raises(ValueError, match="thresholds for 1, got 2"):
        NActivation(1)(torch.ones(1, 2))


def test_absolute():
    x = torch.tensor([-1.5, 0.0, 2.0], requires_grad=True)
    Abs()(x).sum().backward()
    assert Abs()(x).tolist() == [1.5, 0, 2]
    assert x.grad.tolist() == [-1, 0, 1]
