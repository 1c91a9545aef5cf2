"""The smooth absolute value, and slopes that are clamped."""

import math

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.activations import ACTIVATIONS, primitive, second_derivatives
from onelip.errors import NonFiniteError, UnboundedModuleError


@pytest.mark.parametrize("delta", [1e-3, 0.05, 1.0, 40.0])
def test_its_formula_and_derivatives(delta):
    layer = layers.SoftHuber(delta)
    x = torch.cat([torch.linspace(-5, 5, 101), torch.tensor([0.0, 1e4])]).double()
    x.requires_grad_()
    y = layer(x)
    assert torch.allclose(y, delta * ((1 + (x / delta) ** 2).sqrt() - 1), atol=1e-12)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    low, high = second_derivatives(layer)
    assert bool((slope.abs() <= 1).all())
    assert low <= float(bend.min()) <= float(bend.max()) <= high
    assert float(bend.max()) == pytest.approx(1 / delta)
    integral = primitive(layer, x)
    (found,) = torch.autograd.grad(integral.sum(), x)
    assert torch.allclose(found, y.detach(), atol=1e-9 * max(1, delta))
    (curve,) = ACTIVATIONS[layers.SoftHuber].pieces(layer).slopes
    assert torch.allclose(curve.slope(layer, x.detach()), slope.detach(), atol=1e-12)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_a_delta_that_is_no_number(delta):
    with pytest.raises(ValueError, match="delta must be a positive number"):
        layers.SoftHuber(delta)
    layer = layers.SoftHuber()
    layer.delta = delta
    with pytest.raises(UnboundedModuleError, match="must be positive"):
        onelip.lipschitz_bound(layer)


def test_slopes_are_clamped_and_stay_so():
    layer, x = layers.LPReLU(3), torch.tensor([[-2.0, -2.0, -2.0]])
    layer.raw_weight.data = torch.tensor([-4.0, 0.5, 4.0])
    expected = torch.tensor([[2.0, -1.0, -2.0]])
    fixed = onelip.export(layer)
    assert type(fixed) is nn.PReLU
    for module in (layer, fixed):
        assert torch.equal(module(x), expected)
        assert float(onelip.lipschitz_bound(module)) == 1
    for value in (math.nan, math.inf):
        layer.raw_weight.data[0] = value
        with pytest.raises(NonFiniteError):
            onelip.lipschitz_bound(layer)
    with pytest.raises(ValueError, match="num_parameters must be positive"):
        layers.LPReLU(0)
