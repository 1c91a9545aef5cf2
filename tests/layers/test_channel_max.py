"""Pooling over the two halves of the channels, number by number."""

import itertools

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.testing import jacobian_norm
from tests.oracles import sigma_max


def test_each_number_is_the_larger_of_two(each):
    for shape, dtype in each(
        itertools.product(
            [(3, 2), (2, 6), (2, 4, 5), (1, 8, 3, 2), (2, 2, 1, 1, 3)],
            [torch.float64, torch.float16, torch.bfloat16],
        )
    ):
        x = torch.randn(shape).to(dtype)
        y = layers.ChannelMaxPool()(x)
        half = shape[1] // 2
        assert y.shape == (shape[0], half, *shape[2:])
        assert y.dtype == dtype
        for sample in range(shape[0]):
            for channel in range(half):
                pairs = zip(
                    x[sample, channel].flatten().tolist(),
                    x[sample, channel + half].flatten().tolist(),
                    y[sample, channel].flatten().tolist(),
                    strict=True,
                )
                assert all(max(first, second) == larger for first, second, larger in pairs)


def test_one_is_attained_and_never_exceeded():
    pool = layers.ChannelMaxPool()
    for _ in range(200):
        x, y = torch.randn(2, 1, 6, 3, dtype=torch.float64)
        if torch.rand(()) < 0.5:
            y = x + 1e-3 * y
        assert float((pool(x) - pool(y)).norm()) <= float((x - y).norm()) * (1 + 1e-15)
    x, y = torch.zeros(2, 1, 4)
    y[0, 2] = 1
    assert float((pool(x) - pool(y)).norm()) == 1 == float(onelip.lipschitz_bound(pool))


def test_the_jacobian_selects():
    x = torch.randn(6, 2, 2, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda image: layers.ChannelMaxPool()(image[None])[0])(x)
    matrix = jacobian.reshape(12, 24)
    assert set(matrix.unique().tolist()) == {0.0, 1.0}
    assert matrix.sum(1).tolist() == [1.0] * 12
    assert float(matrix.sum(0).max()) == 1
    assert sigma_max(matrix) == 1


def test_a_tie_shares_its_gradient():
    x = torch.ones(1, 4, requires_grad=True)
    layers.ChannelMaxPool()(x).sum().backward()
    assert x.grad.norm() <= 2**0.5
    assert x.grad.view(2, 2).sum(0).tolist() == [1.0, 1.0]


def test_nan_is_not_hidden():
    assert bool(layers.ChannelMaxPool()(torch.tensor([[1.0, float("nan")]])).isnan())


def test_the_pooling_of_lip_convnets():
    """Downsampling, an orthogonal convolution and this pooling: together 1-Lipschitz."""
    pool = nn.Sequential(
        layers.InvertibleDownsampling(2),
        layers.BCOPConv2d(8, 8, 3, bias=False),
        layers.ChannelMaxPool(),
    ).double()
    assert pool(torch.zeros(1, 2, 6, 6).double()).shape == (1, 4, 3, 3)
    assert float(onelip.lipschitz_bound(pool)) == pytest.approx(1, abs=1e-8)
    for _ in range(5):
        x = torch.randn(2, 6, 6, dtype=torch.float64)
        assert float(jacobian_norm(pool, x)) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_odd_channels_have_no_halves(channels):
    with pytest.raises(ValueError, match=f"{channels} channels have no halves"):
        layers.ChannelMaxPool()(torch.zeros(2, channels, 3, 3))


def test_export_is_a_copy():
    pool = layers.ChannelMaxPool()
    exported = onelip.export(pool)
    assert type(exported) is layers.ChannelMaxPool
    assert exported is not pool
