"""Residual blocks: their formulas, their constants, and shapes that broadcasting would hide."""

import copy
import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.layers import MeanSquareResidual, WeightedResidual
from onelip.testing import check_layer
from tests.oracles import materialised, sigma_max


def times(factor: float) -> nn.Linear:
    layer = nn.Linear(3, 3, bias=False).double()
    layer.weight.data = factor * torch.eye(3, dtype=torch.float64)
    return layer


@pytest.mark.parametrize(("skip", "branch", "inner"), [(0.3, 0.7, 1.0), (-0.5, 0.2, -3.0)])
def test_weighted_residual(skip, branch, inner):
    weights = [torch.tensor(v, dtype=torch.float64) for v in (skip, branch, inner)]
    sign = math.copysign(1, skip * branch * inner)
    layer = WeightedResidual(times(4 * sign), *weights)
    expected = abs(skip) + 4 * abs(branch * inner)
    assert sigma_max(materialised(layer, (3,))) == pytest.approx(expected, rel=1e-12)
    assert expected <= float(onelip.lipschitz_bound(layer)) <= expected * (1 + 1e-8)
    check_layer(layer, (3,))


def test_mean_square_residual():
    layer, x = MeanSquareResidual(times(3.0), eps=0.0), torch.randn(1, 3, dtype=torch.float64)
    expected = math.sqrt((1 + 9) / 2)
    assert float((layer(2 * x) - layer(x)).detach().norm() / x.norm()) == pytest.approx(expected)
    assert expected <= float(onelip.lipschitz_bound(layer)) <= expected * (1 + 1e-8)
    with pytest.raises(UnboundedModuleError, match="steep without limit"):
        MeanSquareResidual(nn.ReLU(), eps=math.nan)


def test_residuals_export_their_branch():
    branch = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))
    one = torch.ones(())
    for layer in (WeightedResidual(branch, one, one, one), MeanSquareResidual(branch, eps=0.1)):
        exported, x = onelip.export(layer), torch.randn(2, 3)
        assert type(exported.fn) is nn.Linear
        assert torch.equal(exported(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_shares_add_up_to_exactly_one(dtype):
    """As computed, for every logit; a plain difference misses by a rounding."""
    logits = torch.cat([torch.linspace(-20, 20, 2001), torch.tensor([-1e4, 1e4])]).to(dtype)
    layer, missed = layers.Residual(nn.Identity(), dtype=dtype), 0
    for logit in logits:
        layer.logit.data = logit
        skip, branch = (Fraction(float(share.detach())) for share in layer.shares())
        assert skip + branch == 1
        assert 0 <= skip <= 1
        share = logit.sigmoid()
        missed += Fraction(float(share)) + Fraction(float(1 - share)) != 1
        assert float(onelip.lipschitz_bound(layer)) == 1
    assert missed > 0


def test_a_residual_is_the_convex_sum():
    layer = layers.Residual(times(-2.0), 0.25).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    assert torch.allclose(layer(x), 0.25 * x - 0.75 * 2 * x)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1.75, abs=1e-7)
    for skip in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="skip must be between 0 and 1"):
            layers.Residual(nn.Identity(), skip)
    assert not layers.Residual(nn.Identity(), trained=False).logit.requires_grad


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite(value):
    """A share of 0 or 1 is one; NaN is none."""
    layer = layers.Residual(times(3.0))
    layer.logit.data.fill_(value)
    if math.isnan(value):
        with pytest.raises(NonFiniteError):
            onelip.lipschitz_bound(layer)
    else:
        assert float(onelip.lipschitz_bound(layer)) == pytest.approx(3.0 if value < 0 else 1.0)


@pytest.mark.parametrize(
    "kind", [layers.Residual, MeanSquareResidual, lambda f: WeightedResidual(f, *torch.ones(2))]
)
def test_a_branch_of_another_shape(kind):
    """Broadcasting would add one number to all: the bound would be too small."""
    with pytest.raises(ValueError, match="a residual branch turned"):
        kind(nn.Linear(3, 1))(torch.randn(2, 3))


@pytest.mark.parametrize(
    "kind",
    [layers.Residual, MeanSquareResidual, lambda f: layers.Concatenated([f, nn.Identity()])],
)
def test_branches_that_work_in_place(kind):
    x = torch.randn(2, 3)
    before, other = x.clone(), kind(nn.ReLU())
    assert torch.equal(kind(nn.ReLU(inplace=True))(x), other(x))
    assert torch.equal(x, before)


def test_parts_of_their_own_channels():
    layer, x = layers.Split([times(2.0), nn.ReLU(), nn.Identity()], (3, 1, 2)), torch.randn(2, 6)
    layer = layer.to(torch.float32)
    layer.parts[0].float()
    expected = torch.cat([2 * x[:, :3], x[:, 3:4].relu(), x[:, 4:]], 1)
    assert torch.allclose(layer(x), expected)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(2, rel=1e-8)
    with pytest.raises(ValueError, match=r"parts of \[3, 1, 2\] channels, got 7"):
        layer(torch.randn(2, 7))
    with pytest.raises(ValueError, match="5 channels do not divide into 2 equal parts"):
        layers.Split([nn.ReLU(), nn.ReLU()])(torch.randn(2, 5))
    for parts, sizes in (([], None), ([nn.ReLU()], (1, 2)), ([nn.ReLU()], (0,))):
        with pytest.raises(UsageError, match=r"no parts|take as many sizes"):
            layers.Split(parts, sizes)


@pytest.mark.parametrize("count", range(1, 8))
def test_parts_side_by_side(count):
    """Isometries side by side are one; the scale is never above the exact root."""
    layer = layers.Concatenated([nn.Identity()] * count)
    assert Fraction(layer.scale) ** 2 * count <= 1
    norm = sigma_max(materialised(layer, (3,)))
    assert 1 - 1e-6 < norm <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-15) <= 1 + 1e-15
    with pytest.raises(UsageError, match="no parts"):
        layers.Concatenated([])


def test_the_root_of_the_mean_square_of_bounds():
    layer = layers.Concatenated([times(3.0), times(-1.0)])
    expected = math.sqrt(5)
    assert sigma_max(materialised(layer, (3,))) == pytest.approx(expected, rel=1e-6)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: layers.AOCConv2d(3, 5, 3),
        lambda: layers.BCOPConv2d(3, 3, 3, padding_mode="zeros"),
        lambda: layers.AOLConv2d(3, 2, 5),
        lambda: layers.RKOConv2d(3, 3, 1, padding="same", bias=False),
    ],
)
def test_the_outer_map_is_the_adjoint(build):
    torch.manual_seed(0)
    layer = layers.AdjointResidual(build(), nn.LeakyReLU(1.0)).double()
    layer.layer.bias = None
    inner = materialised(layer.layer, (3, 5, 6))
    found = materialised(layer, (3, 5, 6))
    expected = torch.eye(len(found), dtype=torch.float64) - 2 * inner.T @ inner
    assert torch.allclose(found, expected, atol=1e-12)


def test_a_block_that_changes_the_size():
    """SLL between two AOC convolutions, the first with a stride."""
    torch.manual_seed(0)
    block = nn.Sequential(
        layers.AOCConv2d(2, 4, 3, stride=2),
        layers.SLLConv2d(4, 4),
        layers.AdjointResidual(layers.AOCConv2d(4, 4, 3)),
        layers.AOCConv2d(4, 3, 3),
    )
    fixed = onelip.export(block)
    assert fixed(torch.randn(2, 2, 8, 8)).shape == (2, 3, 4, 4)
    assert 1 - 1e-4 < float(onelip.lipschitz_bound(fixed)) <= 1 + 1e-5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: layers.AOCConv2d(4, 4, 3, stride=2), "no mirrored adjoint"),
        (lambda: layers.AOCConv2d(4, 4, 2), "no mirrored adjoint"),
        (lambda: layers.AOCConv2d(4, 4, 3, groups=2), "no mirrored adjoint"),
        (lambda: layers.AOCConv2d(4, 4, 3, padding=0), "no mirrored adjoint"),
        (lambda: layers.AOCConv2d(4, 4, (1, 3)), "no mirrored adjoint"),
        (lambda: layers.OSSNConv2d(4, 4, 3, image_size=4), "ConvexPotentialConv2d"),
        (lambda: nn.Linear(4, 4), "no dense layer or convolution with a norm"),
    ],
)
def test_layers_that_give_no_block(build, message):
    with pytest.raises(ValueError, match=message):
        layers.AdjointResidual(build())


def test_a_block_with_an_activation_that_decreases():
    with pytest.raises(ValueError, match="decreases"):
        layers.AdjointResidual(layers.CholeskyLinear(3, 3), nn.SiLU())


def test_a_block_inside_a_block_is_exported():
    inner = layers.Residual(nn.Sequential(layers.CholeskyLinear(3, 3), layers.Abs()))
    model = nn.Sequential(layers.Residual(inner), layers.Split([inner, nn.Identity()], (1, 2)))
    model[1].parts[0] = nn.Identity()
    fixed, x = onelip.export(model), torch.randn(2, 3)
    assert type(fixed[0].fn) is WeightedResidual
    assert type(fixed[0].fn.fn[0]) is nn.Linear
    assert torch.allclose(fixed(x), model(x), atol=1e-6)
    assert float(onelip.lipschitz_bound(fixed)) <= 1 + 1e-6
    wide = onelip.export(model, accumulate=torch.float64)
    assert type(wide[0].fn.fn[0]) is layers.Accumulated


def test_a_class_of_ones_own_writes_its_parts():
    class Mine(layers.Residual):
        def forward(self, x):
            return 3 * super().forward(x)

    with pytest.raises(UnboundedModuleError, match="inherits"):
        onelip.lipschitz_bound(Mine(nn.Identity()))
    with pytest.raises(UnboundedModuleError, match="inherits"):
        onelip.export(Mine(nn.Identity()))


def test_weights_that_a_state_brings():
    layer, other = layers.Residual(times(3.0), 0.9), layers.Residual(times(1.0), 0.1)
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(onelip.lipschitz_bound(other), onelip.lipschitz_bound(layer))
