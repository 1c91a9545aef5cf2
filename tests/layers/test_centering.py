"""Layers that subtract means."""

import copy
import math

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NonFiniteError
from tests.oracles import sigma_max


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 5), (3, 2, 4)])
@pytest.mark.parametrize("mean", [-2.0, 2.0])
@pytest.mark.parametrize("deviation", [0.1, 10.0])
def test_a_batch_is_projected(shape, mean, deviation):
    """In training mode, as a map of the whole batch."""
    layer = layers.BatchCentering(3).double().train()
    batch = mean + deviation * torch.randn(4, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(copy.deepcopy(layer), batch)
    matrix = jacobian.reshape(batch.numel(), batch.numel())
    assert sigma_max(matrix) <= 1 + 1e-12
    y = layer(batch)
    assert torch.allclose(y.mean((0, *range(2, y.ndim))), torch.zeros(3).double(), atol=1e-12)
    running = 0.1 * batch.mean((0, *range(2, y.ndim)))
    assert torch.allclose(layer.running_mean, running)
    shape = (3, *(1,) * (y.ndim - 2))
    assert torch.allclose(layer.eval()(batch), batch - running.view(shape))


def test_the_running_mean_follows_as_that_of_torch():
    ours, torchs = layers.BatchCentering(2), nn.BatchNorm1d(2)
    for _ in range(5):
        batch = torch.randn(6, 2)
        for layer in (ours, torchs):
            layer(batch)
    assert torch.allclose(ours.running_mean, torchs.running_mean, atol=1e-6)


def test_a_batch_that_is_repeated_counts_once():
    layer, batch = layers.BatchCentering(2), torch.randn(6, 2)
    layer(batch)
    once = layer.running_mean.clone()
    layer(batch)
    assert torch.equal(layer.running_mean, once)
    layer(batch + 1)
    assert not torch.equal(layer.running_mean, once)


@pytest.mark.parametrize("name", ["running_mean", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite(name, value):
    layer = layers.BatchCentering(2).eval()
    getattr(layer, name).data[0] = value
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)
    with pytest.raises(NonFiniteError):
        onelip.reading.read(layer, (2, 3))


def test_a_batch_of_nan_is_seen():
    layer = layers.BatchCentering(2)
    layer(torch.full((3, 2), math.nan))
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer.eval())


@pytest.mark.parametrize("kind", [layers.BatchCentering, layers.LayerCentering])
def test_channels_that_do_not_fit(kind):
    for shape in ((2, 1, 3), (2, 4), (3,)):
        with pytest.raises(ValueError, match=r"expected \(batch, 3, ...\)"):
            kind(3)(torch.zeros(shape))
    with pytest.raises(ValueError, match="channels must be positive"):
        kind(0)
    with pytest.raises(ValueError, match="momentum is a share"):
        layers.BatchCentering(3, momentum=1.5)


def test_an_empty_batch_moves_nothing():
    layer = layers.BatchCentering(2)
    assert layer(torch.zeros(0, 2, 3)).shape == (0, 2, 3)
    assert torch.equal(layer.running_mean, torch.zeros(2))


def test_each_sample_is_centred_by_itself():
    layer, x = layers.LayerCentering(2), torch.randn(3, 2, 4, 5) + 7
    layer.bias.data = torch.tensor([1.0, -1.0])
    means = layer(x).mean((2, 3))
    assert torch.allclose(means, layer.bias.expand(3, 2), atol=1e-5)
    vectors = layers.LayerCentering(5, bias=False)(x[0, 0])
    assert torch.allclose(vectors.mean(1), torch.zeros(4), atol=1e-5)
