"""Weights divided by their Frobenius norm, and singular values to look at."""

import itertools
import math

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import UsageError
from onelip.layers import singular_values


@pytest.mark.parametrize("k", [0.5, 1.0, 3.0])
def test_the_constant_by_name(k):
    """``k`` of a head is attained; of more outputs it is the root of a sum of squares."""
    head = layers.FrobeniusLinear(7, 1, k=k)
    assert float(onelip.lipschitz_bound(head)) == pytest.approx(k, rel=1e-6)
    values = singular_values(layers.FrobeniusLinear(5, 3, k=k), (5,))
    assert float(values.square().sum().sqrt()) == pytest.approx(k, rel=1e-6)
    assert float(values[0]) < k


def test_kernels_of_every_shape(each):
    """Never above k, whatever overlaps; one pixel to one channel attains it."""
    grid = itertools.product([1, 2, 3], [1, 2, 3], [1, 2], [1, 2], ["circular", "zeros"])
    for kernel, stride, dilation, groups, mode in each(grid):
        if mode == "circular" and 6 % stride:
            continue
        padding = 0 if kernel % 2 == 0 or dilation > 1 else None
        layer = layers.FrobeniusConv2d(
            2, 2, kernel, stride, padding, dilation, groups, padding_mode=mode, k=2.0
        )
        assert float(singular_values(layer, (2, 6, 6))[0]) <= 2 + 1e-6
        assert float(onelip.lipschitz_bound(layer)) <= 2 + 1e-6
    point = layers.FrobeniusConv2d(3, 1, 1, k=2.0)
    assert float(onelip.lipschitz_bound(point)) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("kind", [layers.FrobeniusLinear, layers.FrobeniusConv2d])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weight_of_zeros(kind, dtype):
    layer = kind(*(2, 3, 1)[: 3 if kind is layers.FrobeniusConv2d else 2], dtype=dtype)
    nn.init.zeros_(layer.raw_weight)
    assert float(onelip.lipschitz_bound(layer)) == 0
    for k in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="k must be positive"):
            kind(2, 3, 1, k=k)


def test_singular_values_are_those_of_the_matrix():
    linear = nn.Linear(4, 3)
    expected = torch.linalg.svdvals(linear.weight.detach().double())
    assert torch.allclose(singular_values(linear, (4,)), expected)
    values = singular_values(layers.AOCConv2d(2, 4, 3, stride=2), (2, 6, 6))
    assert torch.allclose(values, torch.ones(36, dtype=torch.float64), atol=1e-5)
    assert len(singular_values(nn.Conv2d(1, 1, 3), (1, 18, 18))) == 256


@pytest.mark.parametrize("layer", [nn.ReLU(), layers.MaxMin(), nn.Tanh(), layers.Abs()])
def test_what_is_not_affine_has_no_singular_values(layer):
    with pytest.raises(UsageError, match="is not affine"):
        singular_values(layer, (4,))


def test_a_shape_that_a_layer_does_not_take():
    with pytest.raises(UsageError, match="does not take inputs of shape"):
        singular_values(nn.Linear(3, 2), (4,))
