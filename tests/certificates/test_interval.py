"""Intervals of outputs: nothing within eps is outside, and linear networks reach their ends."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import interval, layers
from onelip.bounds import LipLT
from onelip.errors import UnboundedModuleError, UsageError


def regression(outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    body = [layers.CholeskyLinear(5, 16), layers.MaxMin(), layers.CholeskyLinear(16, 16)]
    return onelip.export(nn.Sequential(*body, nn.Linear(16, outputs), layers.Rescale(3.0)).eval())


def ascended(model: nn.Module, x: Tensor, eps: float, output: int, sign: int) -> Tensor:
    """Outputs after gradient steps that drive one of them up or down within eps."""
    moved = torch.zeros_like(x).requires_grad_()
    for _ in range(30):
        (gradient,) = torch.autograd.grad(sign * model(x + moved)[:, output].sum(), moved)
        step = moved + 0.3 * eps * gradient / gradient.norm(dim=1, keepdim=True)
        length = step.norm(dim=1, keepdim=True)
        moved = (step * (eps / length).clamp(max=1)).detach().requires_grad_()
    return model(x + moved * (1 - 1e-6)).detach()


@pytest.mark.parametrize("level", ["real", "float"])
@pytest.mark.parametrize("method", ["product", LipLT()], ids=str)
def test_no_output_within_eps_is_outside(method, level):
    model = regression(3).double()
    x = torch.randn(20, 5, dtype=torch.float64) * 10  # no pixels
    found = interval(model, x, 0.7, method=method, level=level)
    assert torch.equal(found.prediction, model(x))
    for output in range(3):
        for sign in (-1, 1):
            values = ascended(model, x, 0.7, output, sign)
            assert bool(((values >= found.lower) & (values <= found.upper)).all())
    assert found.constants.shape == (3,)
    assert bool((found.constants <= found.bound).all())
    assert (found.level, found.rests_on()["level"]) == (level, level)


def test_the_ends_are_reached_by_a_linear_network_and_rounded_outwards():
    for seed in range(50):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 3)).eval().requires_grad_(False)
        x, eps = torch.randn(6, 4), torch.rand(6)
        found = interval(model, x, eps)
        squares = [sum(Fraction(v) ** 2 for v in row) for row in model[0].weight.tolist()]
        for values, radius, low, high in zip(
            found.prediction.tolist(),
            eps.double().tolist(),
            found.lower.tolist(),
            found.upper.tolist(),
            strict=True,
        ):
            for value, square, end, other in zip(values, squares, low, high, strict=True):
                most = square * Fraction(radius) ** 2
                for off in (Fraction(value) - Fraction(end), Fraction(other) - Fraction(value)):
                    assert most <= off**2 <= most * Fraction(1 + 1e-9) + Fraction(1e-28)


def test_one_number_for_all_and_one_for_each_are_the_same():
    model, x = regression(), torch.randn(4, 5)
    one, each = interval(model, x, 0.25), interval(model, x, torch.full((4,), 0.25))
    assert torch.equal(one.lower, each.lower)
    assert torch.equal(one.upper, each.upper)
    still = interval(model, x, 0.0)
    assert bool((still.lower < still.prediction).all())
    assert torch.allclose(still.lower, still.upper, rtol=1e-15, atol=1e-300)


def test_level_float_pays_for_both_passes():
    model, x = regression(), torch.randn(8, 5)
    real, single = interval(model, x, 0.5), interval(model, x, 0.5, level="float")
    assert bool(((single.lower < real.lower) & (single.upper > real.upper)).all())
    assert float((single.upper - real.upper).max()) < 1e-3
    moved = x + 0.5 * nn.functional.normalize(torch.randn(8, 5), dim=1) * (1 - 1e-6)
    assert bool((model(moved) <= single.upper).all())


def test_images_and_outputs_of_any_shape():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    found = interval(model, torch.rand(3, 1, 6, 6), 0.1)
    assert found.lower.shape == (3, 2, 4, 4)
    assert found.constants.shape == (2, 4, 4)
    assert bool((found.lower < found.upper).all())


def test_outputs_that_are_not_finite_have_no_ends():
    model = nn.Sequential(nn.Linear(1, 1)).eval().requires_grad_(False)
    model[0].weight.fill_(3e38)
    found = interval(model, torch.tensor([[0.0], [3e38]]), 1.0)
    assert bool(found.lower.isfinite()[0])
    assert (found.lower[1].item(), found.upper[1].item()) == (-math.inf, math.inf)


def test_a_class_of_the_users_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    model, x = Net().eval(), torch.randn(5, 3)
    found = interval(model, x, 0.1)
    plain = interval(nn.Sequential(model.a, nn.ReLU(), model.b).eval(), x, 0.1)
    assert torch.allclose(found.upper, plain.upper)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, torch.zeros(2), torch.zeros(3, 5)])
def test_eps_is_a_distance(eps):
    with pytest.raises(UsageError, match="eps is a distance"):
        interval(regression(), torch.zeros(3, 5), eps)


def test_refusals():
    x = torch.zeros(3, 5)
    with pytest.raises(UsageError, match="training mode"):
        interval(nn.Sequential(nn.Linear(5, 1), nn.Dropout()), x, 0.1)
    with pytest.raises(UsageError, match="float64, weights float32"):
        interval(regression(), x.double(), 0.1)
    with pytest.raises(UsageError, match="infinite or NaN"):
        interval(regression(), x / 0, 0.1)
    with pytest.raises(UsageError, match="no level 'exact'"):
        interval(regression(), x, 0.1, level="exact")
    with pytest.raises(UsageError, match="no bound method 'curvature'"):
        interval(regression(), x, 0.1, method="curvature")
    with pytest.raises(UnboundedModuleError):
        interval(nn.Sequential(nn.Hardshrink()).eval(), x, 0.1)


def test_level_float_of_a_table_is_not_cut_to_the_cube_of_pixels():
    model = nn.Sequential(nn.Linear(2, 2)).eval().double().requires_grad_(False)
    x = torch.tensor([[1000.0, -3000.0]], dtype=torch.float64)
    real = onelip.certify(model, x, box=None)
    rounded = onelip.certify(model, x, box=None, level="float")
    assert float(real.radius) > 2**0.5
    assert torch.allclose(rounded.radius, real.radius, rtol=1e-6)
    assert bool(rounded.radius < real.radius)
    model[0].weight.fill_(0)  # an infinite radius of level real
    assert onelip.certify(model, x, box=None, level="float").radius.isfinite().all()
