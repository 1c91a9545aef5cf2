"""Absolute values of half of the channels."""

import math

import pytest
import torch
from torch import nn

from onelip import layers


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_the_first_half(channels, format_):
    x = torch.randn(3, channels, 2, 4).contiguous(memory_format=format_)
    y = layers.HalfAbs(channels)(x)
    half = channels // 2
    assert torch.equal(y, torch.cat((x[:, :half].abs(), x[:, half:]), 1))
    assert torch.equal(layers.HalfAbs(channels).export()(x), y)
    assert y.is_contiguous(memory_format=format_)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradient(dtype):
    x = torch.randn(3, 4, 2, dtype=dtype, requires_grad=True)
    weights = torch.randn(3, 4, 2, dtype=dtype)
    (layers.HalfAbs(4)(x) * weights).sum().backward()
    expected = torch.cat((weights[:, :2] * x[:, :2].sign(), weights[:, 2:]), 1)
    assert torch.equal(x.grad, expected)


def test_second_derivatives_forward_mode_and_vmap():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    layer = layers.HalfAbs(4)
    assert torch.autograd.gradcheck(layer, x, check_forward_ad=False)
    assert torch.autograd.gradgradcheck(lambda x: layer(x) ** 2, x)
    jacobian = torch.func.jacfwd(layer)(x.detach())
    assert torch.equal(jacobian, torch.func.jacrev(layer)(x.detach()))
    rows = torch.func.vmap(layer)(x.detach()[:, None])
    assert torch.equal(rows[:, 0], layer(x.detach()))


def test_max_min_is_a_rotation_of_it():
    x = torch.randn(100, 2, dtype=torch.float64)
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    inside = layers.HalfAbs(2)(x @ turn.mT)
    swap = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    assert torch.allclose(inside @ swap.mT, layers.MaxMin()(x))


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"expected \(batch, 4, ...\), got \(2, 3\)"):
        layers.HalfAbs(4)(torch.ones(2, 3))
    with pytest.raises(ValueError, match="channels must be positive, got 0"):
        layers.HalfAbs(0)


def test_a_network_of_it_is_compiled_to_the_same_numbers():
    net = nn.Sequential(nn.Linear(4, 4), layers.HalfAbs(4))
    x = torch.randn(3, 4)
    assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))
