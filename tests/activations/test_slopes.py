"""Slopes of activations against dense grids."""

import math

import pytest
import torch
from torch import nn

import onelip
from onelip.activations import ACTIVATIONS, slopes
from onelip.errors import NonFiniteError, UnboundedModuleError

# Where curvature is large and where pieces meet, in steps of 1e-3 and finer around 0.
GRID = torch.cat(
    [
        torch.arange(-40_000, 0) / 1000.0,
        torch.linspace(-9e-4, 9e-4, 4001),
        torch.arange(1, 40_001) / 1000.0,
    ]
).double()

MODULES = [
    *[kind() for kind in ACTIVATIONS if kind not in (nn.PReLU, nn.Softplus)],
    nn.GELU(approximate="tanh"),
    nn.Hardtanh(-0.3, 2.0),
    nn.LeakyReLU(0.3),
    nn.LeakyReLU(2.5),
    nn.LeakyReLU(-0.5),
    nn.ELU(0.3),
    nn.ELU(3.0),
    nn.ELU(-0.7),
    nn.CELU(0.1),
    nn.CELU(5.0),
    nn.Softshrink(0.0),
    nn.Softshrink(2.0),
    nn.PReLU(),
    nn.PReLU(init=-2.0),
    nn.PReLU(init=4.0),
]


def _secants(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        values = module.double()(GRID[:, None]).squeeze(1)
    return values.diff() / GRID.diff()


def test_secants_stay_inside(each):
    for module in each(MODULES):
        low, high = slopes(module)
        secants = _secants(module)
        assert float(secants.min()) >= low - 1e-8
        assert float(secants.max()) <= high + 1e-8


def test_derivatives_stay_inside(each):
    for module in each(MODULES):
        low, high = slopes(module)
        x = GRID[:, None].clone().requires_grad_()
        (slope,) = torch.autograd.grad(module.double()(x).sum(), x)
        assert float(slope.min()) >= low - 1e-15
        assert float(slope.max()) <= high * (1 + 3e-8)  # torch rounds 1 / 6 to float32


def test_the_interval_is_tight(each):
    for module in each(MODULES):
        low, high = slopes(module)
        secants = _secants(module)
        assert max(abs(low), abs(high)) <= float(secants.abs().max()) * 1.002 + 1e-9


def test_a_lower_end_of_zero_means_non_decreasing(each):
    for module in each(MODULES):
        with torch.no_grad():
            decreases = bool((module.double()(GRID[:, None]).squeeze(1).diff() < -1e-15).any())
        assert decreases <= (slopes(module)[0] < 0)


def test_softplus_below_its_threshold():
    module = nn.Softplus(beta=2.0)
    secants = _secants(module)[GRID[1:] * 2 < 20]
    assert float(secants.max()) <= slopes(module)[1] + 1e-12
    assert float(secants.min()) >= 0


def test_prelu_of_several_slopes():
    module = nn.PReLU(3)
    module.weight.data = torch.tensor([-3.0, 0.5, 2.0])
    assert slopes(module) == (-3.0, 2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [nn.PReLU, nn.LeakyReLU, nn.ELU])
def test_settings_that_are_not_finite(kind, value):
    module = nn.PReLU(init=value) if kind is nn.PReLU else kind(value)
    with pytest.raises((NonFiniteError, UnboundedModuleError)):
        onelip.lipschitz_bound(module)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.CELU(-1.0), "steep without limit"),
        (nn.Softplus(threshold=1), "jumps at its threshold"),
        (nn.Softplus(beta=-1), "jumps at its threshold"),
        (nn.Softplus(beta=0), "jumps at its threshold"),
        (nn.Hardshrink(), "no slopes are known for Hardshrink; known: Abs, CELU, ELU"),
        (nn.Linear(2, 2), "no slopes are known for Linear"),
        (nn.RReLU(), "no slopes are known for RReLU"),
    ],
    ids=repr,
)
def test_refusals(module, message):
    with pytest.raises(UnboundedModuleError, match=message):
        slopes(module)


def test_negative_softshrink():
    module = nn.Softshrink()
    module.lambd = -0.1
    with pytest.raises(UnboundedModuleError, match="not continuous"):
        slopes(module)


def test_a_subclass_inherits_nothing():
    class Steep(nn.ReLU):
        def forward(self, x):
            return 3 * super().forward(x)

    with pytest.raises(UnboundedModuleError, match="no slopes are known for Steep"):
        slopes(Steep())
