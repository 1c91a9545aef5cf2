"""Slopes between two inputs against secants."""

import math

import torch
from torch import nn

from onelip.bounds.neighbourhood.slopes import local_slopes
from onelip.chains import Elementwise
from onelip.layers import Abs

ONE = torch.ones((), dtype=torch.float64)


def _prelu() -> nn.PReLU:
    module = nn.PReLU(3)
    module.weight.data = torch.tensor([-2.0, 0.5, 3.0])
    return module.double()


ACTIVATIONS = [
    *(Elementwise.of(module) for module in (nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.Hardtanh())),
    *(Elementwise.of(nn.LeakyReLU(slope)) for slope in (0.0, 0.1, 2.5, -1.5)),
    *(Elementwise.of(nn.Softshrink(width)) for width in (0.0, 0.7)),
    *(Elementwise.of(nn.Hardtanh(low, high)) for low, high in ((-0.3, 2.0), (1.0, 1.5))),
    *(Elementwise.of(module) for module in (nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.Mish())),
    Elementwise.of(_prelu()),
    Elementwise(Abs(), -ONE, ONE),
]


def test_secants_lie_between_them(each):
    for activation in each(ACTIVATIONS):
        ends = 3 * torch.randn(400, 3).double()
        low = torch.cat([ends, torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 6.0]]).double()])
        high = low + torch.rand(402, 3).double() * 10 ** (torch.rand(402, 3) * 5 - 4)
        least, most = local_slopes(activation, low, high)
        points = low[..., None] + (high - low)[..., None] * torch.rand(402, 3, 40).double()
        values = activation.module(points)
        secants = values.diff(dim=2) / points.diff(dim=2)
        noise = 1e-13 * (1 + values.abs().amax(2)) / points.diff(dim=2).abs().amin(2)
        assert (secants.amin(2) >= least - noise).all()
        assert (secants.amax(2) <= most + noise).all()


def test_a_point_has_its_derivative(each):
    for activation in each(ACTIVATIONS[:15]):
        x = (2 * torch.randn(300, 3)).double().requires_grad_()
        if isinstance(activation.module, nn.GELU | nn.Mish):
            continue  # known for all inputs only
        (slope,) = torch.autograd.grad(activation.module(x).sum(), x)
        least, most = local_slopes(activation, x.detach(), x.detach())
        torch.testing.assert_close(least, slope, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(most, slope, rtol=1e-9, atol=1e-12)


def test_never_outside_the_slopes_of_the_whole_line_and_all_of_them_where_nothing_is_known(each):
    for activation in each(ACTIVATIONS):
        nothing = torch.full((1, 3), math.nan).double()
        everything = torch.tensor([[-math.inf, math.inf]]).double().mT.repeat(1, 3)[:, None]
        for low, high in ((nothing, nothing), tuple(everything)):
            least, most = local_slopes(activation, low, high)
            assert (least == activation.low).all() or isinstance(activation.module, nn.PReLU)
            assert (most == activation.high).all() or isinstance(activation.module, nn.PReLU)
        prelu = Elementwise.of(_prelu())
        least, most = local_slopes(prelu, nothing, nothing)
        assert least.tolist() == [[-2.0, 0.5, 1.0]]
        assert most.tolist() == [[1.0, 1.0, 3.0]]


def test_a_kink_on_the_end_counts():
    relu, zero, one = Elementwise.of(nn.ReLU()), torch.zeros(1, 1).double(), ONE[None, None]
    for low, high in ((zero, one), (-one, zero), (zero, zero)):
        least, most = local_slopes(relu, low, high)
        assert (float(least), float(most)) == (0, 1)
