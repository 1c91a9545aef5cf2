"""Second derivatives of activations against dense grids."""

import math

import pytest
import torch
from torch import nn

from onelip.activations import ACTIVATIONS, second_derivatives
from onelip.errors import NonFiniteError, UnboundedModuleError

GRID = torch.linspace(-30, 30, 1_200_001, dtype=torch.float64)
FLAT = {nn.Identity}

MODULES = [
    *[kind() for kind, known in ACTIVATIONS.items() if known.second_derivatives],
    nn.GELU(approximate="tanh"),
    nn.CELU(0.3),
    nn.CELU(4.0),
    nn.Softplus(beta=0.2),
    nn.Softplus(beta=5.0, threshold=40),
]


def derivative(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    return slope


def test_every_slope_of_the_derivative_is_inside_and_the_ends_are_reached(each):
    for module in each(MODULES):
        low, high = second_derivatives(module)
        slope = derivative(module, GRID).diff() / GRID.diff()
        jump = 2e-9 * max(1.0, getattr(module, "beta", 0)) / float(GRID.diff()[0])
        slack = 1e-9 + (jump if isinstance(module, nn.Softplus) else 0.0)  # at torch's threshold
        assert low - slack <= float(slope.min())
        assert float(slope.max()) <= high + slack
        if low < 0:
            assert float(slope.min()) < low * 0.998
        if high > 0:
            assert float(slope.max()) > high * 0.998 - slack


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.ReLU(), "second derivative of ReLU; known: CELU, ELU, GELU"),
        (nn.ELU(0.5), "ELU with alpha=0.5 has a kink: use alpha=1"),
        (nn.Softplus(threshold=5), "Softplus jumps"),
        (nn.CELU(-1.0), "alpha=-1.0"),
    ],
    ids=repr,
)
def test_kinks_are_refused(module, message):
    with pytest.raises(UnboundedModuleError, match=message):
        second_derivatives(module)


def test_a_class_derived_from_a_known_one_is_not_known():
    class Bent(nn.Softplus):
        pass

    with pytest.raises(UnboundedModuleError, match="Bent"):
        second_derivatives(Bent())


def test_a_beta_that_is_no_number():
    with pytest.raises(NonFiniteError, match="derivative of Softplus"):
        second_derivatives(nn.Softplus(beta=math.inf))
