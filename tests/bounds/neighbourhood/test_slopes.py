"""Slopes between two inputs against secants."""

import math

import pytest
import torch
from torch import nn

from onelip.activations import ACTIVATIONS as RECORDS
from onelip.bounds.neighbourhood.slopes import local_slopes, pair_slopes, secants
from onelip.chains import Elementwise
from onelip.layers import Abs, SoftHuber

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
    *(Elementwise.of(SoftHuber(delta)) for delta in (0.05, 1.0)),
    *(Elementwise.of(module) for module in (nn.SiLU(), nn.GELU("tanh"), nn.SELU(), nn.Softsign())),
    *(Elementwise.of(nn.ELU(alpha)) for alpha in (1.0, 0.4, 2.5)),
    *(Elementwise.of(nn.CELU(alpha)) for alpha in (1.0, 0.4, 2.5)),
    *(Elementwise.of(nn.Softplus(beta, 40)) for beta in (1.0, 3.0)),
    *(Elementwise.of(module) for module in (nn.LogSigmoid(), nn.Tanhshrink())),
    *(Elementwise.of(module) for module in (nn.Hardsigmoid(), nn.Hardswish())),
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
    for activation in each(ACTIVATIONS[:-2]):
        x = (2 * torch.randn(300, 3)).double().requires_grad_()
        (slope,) = torch.autograd.grad(activation.module(x).sum(), x)
        least, most = local_slopes(activation, x.detach(), x.detach())
        torch.testing.assert_close(least, slope, rtol=1e-7, atol=1e-11)
        torch.testing.assert_close(most, slope, rtol=1e-7, atol=1e-11)


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


def test_slopes_from_a_centre_lie_between_them(each):
    for activation in each(ACTIVATIONS):
        centre, reach = 2 * torch.randn(500, 3).double(), 4 * torch.rand(500, 3).double()
        nothing = torch.zeros_like(centre)
        found = secants(activation, centre, nothing, reach)
        pairs = pair_slopes(activation, centre, nothing, reach)
        assert (found.low >= pairs.low).all()
        assert (found.high <= pairs.high).all()
        away = reach[..., None] * torch.linspace(-1, 1, 81).double()
        value = activation.module(centre)[..., None]
        moved = activation.module(centre[..., None] + away)
        slopes = (moved - value[..., :1]) / away
        noise = 1e-13 * (1 + moved.abs()) / away.abs()
        assert not (slopes < found.low[..., None] - noise).any()
        assert not (slopes > found.high[..., None] + noise).any()
        rise = (moved - value) - found.tangent[..., None] * away
        assert (found.side[..., None] * rise >= -1e-12).all()


def test_one_kink_is_exact():
    """The interval of a ReLU and of an absolute value, written down."""
    centre = torch.tensor([[0.5, -0.5, 3.0, -3.0]]).double()
    nothing, reach = torch.zeros_like(centre), torch.full_like(centre, 2.0)
    relu = secants(Elementwise.of(nn.ReLU()), centre, nothing, reach)
    torch.testing.assert_close(relu.low, torch.tensor([[0.25, 0, 1, 0]]).double())
    torch.testing.assert_close(relu.high, torch.tensor([[1, 0.75, 1, 0]]).double())
    assert relu.low[0, 2] == relu.high[0, 2] == 1  # a unit that cannot switch has one slope
    assert relu.low[0, 3] == relu.high[0, 3] == 0
    assert relu.side.tolist() == [[1.0] * 4]
    size = secants(Elementwise(Abs(), -ONE, ONE), centre, nothing, reach)
    torch.testing.assert_close(size.low, torch.tensor([[-0.5, -1, 1, -1]]).double())
    torch.testing.assert_close(size.high, torch.tensor([[1, 0.5, 1, -1]]).double())


def test_a_centre_that_rounding_hides_has_all_slopes():
    """The exact centre may lie on the other side of the kink, where the secants are others."""
    relu = Elementwise.of(nn.ReLU())
    for centre, error in ((0.0, 0.0), (1e-9, 1e-9), (-1e-9, 2e-9), (1e-300, 1e-300), (math.nan, 0)):
        ends = [torch.tensor([[number]]).double() for number in (centre, error, 2.0)]
        found = secants(relu, *ends)
        assert (float(found.low), float(found.high), float(found.side)) == (0, 1, 0)
    ends = [torch.tensor([[number]]).double() for number in (0.5, 0.1, math.nan)]
    assert [float(end) for end in secants(relu, *ends)[:2]] == [0, 1]
    ends = [torch.tensor([[number]]).double() for number in (0.5, 0.1, 0.0)]
    assert [float(end) for end in secants(relu, *ends)[:2]] == [1, 1]
    near = secants(relu, *(torch.tensor([[n]]).double() for n in (0.5, 0.1, 1.0)))
    assert float(near.low) == pytest.approx(0.4)  # the exact centre may be 0.4


def test_every_activation_is_here():
    assert {type(activation.module) for activation in ACTIVATIONS} == set(RECORDS)


def test_turns_between_two_inputs_count(each):
    """SiLU is steepest at 2.4: an interval around it has that slope, though its ends do not."""
    for module, turn in each([(nn.SiLU(), 2.3994), (nn.GELU(), 1.4142), (nn.Mish(), 1.4906)]):
        activation = Elementwise.of(module)
        ends = torch.tensor([[turn - 0.4]]).double(), torch.tensor([[turn + 0.4]]).double()
        steepest = float(local_slopes(activation, *ends)[1])
        x = torch.linspace(turn - 0.4, turn + 0.4, 4001).double().requires_grad_()
        (slope,) = torch.autograd.grad(module(x).sum(), x)
        assert float(slope.max()) <= steepest <= float(slope.max()) + 1e-7
        assert steepest > float(torch.maximum(slope[0], slope[-1])) + 1e-3
