"""Inverses with proved errors, log-determinants, and scores that do not fall."""

import math

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError


def contraction(size: int, factor: float = 0.8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        layers.CholeskyLinear(size, 2 * size),
        nn.ELU(),
        layers.CholeskyLinear(2 * size, size),
        layers.Rescale(factor, trained=False),
    )


@pytest.mark.parametrize("factor", [0.1, 0.8, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_is_within_its_error(factor, dtype):
    """Against the inverse of the same numbers in float64, whose error is far smaller."""
    layer = onelip.export(layers.InvertibleResidual(contraction(6, factor)))
    y = 3 * torch.randn(20, 6)
    fine = layer.double().inverse(y.double(), iterations=20_000)
    assert float(fine.error.max()) < 1e-12 / (1 - factor)
    for iterations in (1, 3, 1000):
        x, error = layer.to(dtype).inverse(y.to(dtype), iterations=iterations)
        away = (x.double() - fine.x).norm(dim=1)
        assert bool((away <= error + fine.error).all())
    slack = 1e-3 if dtype is torch.float32 else 1e-11
    assert float(error.max()) < slack / (1 - factor)


def test_a_linear_layer_is_inverted_as_its_matrix():
    """The bound is not far above the true error when the iteration is stopped early."""
    linear = nn.Linear(4, 4).double().eval()
    linear.weight.data *= 0.7 / torch.linalg.matrix_norm(linear.weight.data, 2)
    layer, y = layers.InvertibleResidual(linear).eval(), torch.randn(3, 4).double()
    exact = torch.linalg.solve(torch.eye(4).double() + linear.weight, (y - linear.bias).T).T
    x, error = layer.inverse(y, iterations=5)
    away = (x - exact).norm(dim=1)
    assert bool((away <= error).all())
    assert bool((error <= away * 1.7 / 0.3).all())


def test_determinants_of_small_and_large_dimensions():
    layer = layers.InvertibleResidual(contraction(5)).double().eval()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    found = layer.log_determinant(x)
    matrices = [torch.autograd.functional.jacobian(layer, row[None])[0, :, 0] for row in x]
    for value, matrix in zip(found, matrices, strict=True):
        sign, expected = torch.linalg.slogdet(matrix)
        assert float(sign) == 1
        assert float(value) == pytest.approx(float(expected), abs=1e-10)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    step = 1e-6 * torch.randn_like(x)
    rise = layer.log_determinant((x + step).detach()) - found
    assert float(rise.sum()) == pytest.approx(float((gradient * step).sum()), rel=1e-3)
    seeded = torch.Generator().manual_seed(0)
    guess = layer.log_determinant_estimate(x, probes=400, terms=60, generator=seeded)
    off = (guess.mean - found).abs()
    assert bool((off <= 5 * guess.deviation + guess.truncation).all())
    assert not hasattr(guess, "__float__")
    short = layer.log_determinant_estimate(x, probes=1, terms=2)
    assert short.truncation > guess.truncation
    with pytest.raises(NotApplicableError, match="log_determinant_estimate"):
        layer.log_determinant(torch.zeros(1, 200))
    with pytest.raises(UsageError, match="probes and terms"):
        layer.log_determinant_estimate(x, terms=0)


def test_what_cannot_be_inverted():
    wide = layers.InvertibleResidual(nn.Linear(3, 3)).eval()
    nn.init.eye_(wide.block.weight)
    for query in (wide.inverse, wide.log_determinant, wide.log_determinant_estimate):
        with pytest.raises(UnboundedModuleError, match="below 1 is asked"):
            query(torch.zeros(1, 3))
    fine = layers.InvertibleResidual(contraction(3))
    with pytest.raises(UsageError, match="training mode"):
        fine.inverse(torch.zeros(1, 3))
    with pytest.raises(UnboundedModuleError, match="nothing is known of the rounding"):
        fine.eval().inverse(torch.zeros(1, 3))
    fixed = onelip.export(fine)
    for y in (torch.zeros(1, 3).half(), torch.full((1, 3), math.nan), torch.zeros(1, 3).to("meta")):
        with pytest.raises(UsageError, match=r"inverts float32|finite numbers"):
            fixed.inverse(y)
    with pytest.raises(ValueError, match="a residual branch turned"):
        layers.InvertibleResidual(nn.Linear(3, 1))(torch.zeros(1, 3))
    assert len(fixed.inverse(torch.zeros(0, 3)).x) == 0


def test_scores_grow_with_their_features():
    """Whatever the weights: random ones, and ones that fall as steeply as they may."""
    steep = nn.Linear(3, 1)
    steep.weight.data = torch.tensor([[-1.0, 0.0, 0.0]])
    for block in (steep, nn.Sequential(layers.CholeskyLinear(3, 8), layers.MaxMin(), _head())):
        score = layers.Monotone(block, (0, 2), slope=1.125).double()
        least = float(score.least_slope())
        x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
        (slopes,) = torch.autograd.grad(score(x).sum(), x)
        assert float(slopes[:, [0, 2]].min()) >= least - 1e-12
        assert least == pytest.approx(0.125, abs=1e-6)
    assert float(slopes[:, [0, 2]].min()) > 0
    with pytest.raises(UnboundedModuleError, match="a larger slope"):
        layers.Monotone(steep, [0], slope=1.0).least_slope()


def _head() -> nn.Module:
    return layers.CholeskyLinear(8, 1)


def test_scores_that_are_none():
    for features, slope in (([], 1.0), ([0, 0], 1.0), ([-1], 1.0), ([0], 0.0), ([0], math.nan)):
        with pytest.raises(UsageError, match=r"places of features|positive number"):
            layers.Monotone(nn.Identity(), features, slope=slope)
    with pytest.raises(ValueError, match="one output"):
        layers.Monotone(nn.Linear(3, 2), [0], slope=2.0)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="4 or more"):
        layers.Monotone(nn.Linear(3, 1), [3], slope=2.0)(torch.zeros(1, 3))
