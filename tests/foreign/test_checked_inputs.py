"""The layers that others are exported to, by themselves."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip.foreign.adjoint_step import AdjointStep
from onelip.foreign.checked_inputs import Centering, HalvesHouseHolder, factor_above
from onelip.testing import check_layer
from tests.oracles import materialised, sigma_max


@pytest.mark.parametrize("factor", [0.1, -0.1, 0.3, 1 / 3, 2.0, math.sqrt(3)])
def test_a_factor_counts_as_tensors_of_either_dtype_are_multiplied_by_it(factor):
    for dtype in (torch.float32, torch.float64):
        seen = torch.ones(1, dtype=dtype) * factor
        assert float(seen.abs()) <= factor_above(factor) <= abs(factor) * (1 + 1e-7)


def test_the_average_of_a_whole_image_is_rounded_in_float32():
    deel = pytest.importorskip("deel.torchlip")
    pool = deel.ScaledAdaptiveAvgPool2d((1, 1))
    bound = float(onelip.lipschitz_bound(pool))
    assert bound <= 1 + 2e-7
    for side in range(1, 200):
        factor = float(torch.ones(()) * math.sqrt(side))
        assert factor / math.sqrt(side) <= bound


@pytest.mark.parametrize(("size", "padding", "groups"), [(3, 1, 1), (2, 0, 2), (4, 3, 1)])
def test_adjoint_step(size, padding, groups):
    """The outer map is the transposed matrix of the inner one, on a slope of 1."""
    weight = torch.randn(4, 4 // groups, size, size, dtype=torch.float64)
    layer = AdjointStep(weight, None, nn.Identity(), step=0.5, padding=padding, groups=groups)

    def inner(x):
        return F.conv2d(x, weight, padding=padding, groups=groups)

    matrix = materialised(inner, (4, 5, 4))
    expected = torch.eye(80, dtype=torch.float64) - 0.5 * matrix.T @ matrix
    with torch.no_grad():
        assert torch.allclose(materialised(layer, (4, 5, 4)), expected, atol=1e-12)
    assert sigma_max(expected) <= float(onelip.lipschitz_bound(layer))
    check_layer(
        AdjointStep(
            weight, weight[:, 0, 0, 0], nn.ReLU(), step=2.0, padding=padding, groups=groups
        ),
        (4, 4, 4),
    )


@pytest.mark.parametrize("scale", [1.0, 1 / math.sqrt(2)])
def test_a_fold_with_float32_cosines(scale):
    layer = HalvesHouseHolder(torch.linspace(-7, 7, 1000), scale=scale)
    cos, sin = layer.theta.detach().cos().double(), layer.theta.detach().sin().double()
    longest = float((cos.square() + sin.square()).sqrt().max())
    assert longest > 1 + 1e-9
    factor = float(torch.ones(1) * scale)
    assert longest * factor <= float(onelip.lipschitz_bound(layer)) <= scale * (1 + 3e-7)


def test_a_fold_keeps_lengths_and_is_continuous():
    theta = torch.tensor([0.7, -2.0], dtype=torch.float64)
    layer, x = HalvesHouseHolder(theta), torch.randn(1000, 4, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(layer(x).norm(dim=1), x.norm(dim=1))
        on_the_line = torch.cat([(theta / 2).cos(), (theta / 2).sin()])[None]
        for step in (1e-9, -1e-9):
            assert torch.allclose(layer(on_the_line + step), on_the_line, atol=1e-8)


def test_centering_is_a_projection():
    matrix = materialised(Centering((-2, -1), None), (2, 3, 2))
    assert torch.allclose(matrix @ matrix, matrix)
    assert torch.allclose(matrix, matrix.T)
    with pytest.raises(ValueError, match="hold the batch"):
        Centering((-3,), None)(torch.rand(2, 3, 4))
