"""Implicit Euler steps: what the iterates are worth, and the gradient without unrolling."""

import itertools
import math

import pytest
import torch
from torch import nn

import onelip
from onelip.errors import NotApplicableError, UnboundedModuleError
from onelip.flows import ImplicitEuler, Potential, QuadraticPotential, RidgeConv2d, RidgeLinear
from onelip.flows.implicit import Plan
from onelip.testing import jacobian_norm, largest_stretch

torch.manual_seed(0)


def iterated(quadratic: QuadraticPotential) -> RidgeLinear:
    """The same quadratic (without its linear part), as a potential without a closed form."""
    rows, features = quadratic.weight.shape
    ridge = RidgeLinear(features, rows, activation=nn.Identity()).double()
    with torch.no_grad():
        ridge.weight.copy_(quadratic.weight)
        ridge.bias.zero_()
    return ridge


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_agrees_with_a_closed_form(rows):
    quadratic = QuadraticPotential(4, rows).double()
    exact = ImplicitEuler(quadratic, 2.0)
    solved = ImplicitEuler(iterated(quadratic), 2.0, tolerance=1e-14)
    x = torch.randn(7, 4, dtype=torch.float64)
    inverse = torch.linalg.inv(torch.eye(4) + 2 * quadratic.weight.T @ quadratic.weight)
    torch.testing.assert_close(exact(x), x @ inverse, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solved(x), exact(x), rtol=1e-12, atol=1e-12)
    upstream, found = torch.randn(7, 4, dtype=torch.float64), []
    for layer in (exact, solved):
        point = x.clone().requires_grad_()
        (layer(point) * upstream).sum().backward()
        found.append((point.grad, layer.potential.weight.grad))
    for mine, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Softplus(), nn.LeakyReLU(0.2)])
def test_gradients_are_those_of_finite_differences(activation):
    layer = ImplicitEuler(RidgeLinear(3, 4, activation=activation).double(), 1.5, tolerance=1e-13)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = layer.potential.weight, layer.potential.bias

    def of(x, w, b):
        with torch.no_grad():
            weight.copy_(w), bias.copy_(b)
        return layer(x)

    torch.autograd.gradcheck(layer, (x,), atol=1e-7)
    (layer(x) * torch.arange(6.0).view(2, 3)).sum().backward()
    for parameter in (weight, bias):
        start, flat = parameter.detach().clone(), parameter.grad.flatten()
        for i in range(start.numel()):
            values = []
            for sign in (1, -1):
                moved = start.flatten().clone()
                moved[i] += sign * 1e-6
                with torch.no_grad():
                    parameter.copy_(moved.view_as(start))
                    values.append((layer(x) * torch.arange(6.0).view(2, 3)).sum())
            assert math.isclose((values[0] - values[1]) / 2e-6, flat[i], rel_tol=1e-5, abs_tol=1e-6)
            with torch.no_grad():
                parameter.copy_(start)


def test_autograd_through_a_potential_without_a_gradient():
    class Quartic(Potential):
        """Smooth on what it is given here: |x| <= 2."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, x):
            return self.scale * x.pow(4).sum(1) / 12

        def smoothness(self):
            return 4 * self.scale.detach().double().abs()

    layer = ImplicitEuler(Quartic(), 1.0, tolerance=1e-14)
    x = torch.tensor([[0.5, -1.5]], dtype=torch.float64, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y + 0.1 * y**3, x, rtol=1e-12, atol=1e-12)
    y.sum().backward()
    slope = 1 / (1 + 0.3 * y.detach() ** 2)
    torch.testing.assert_close(x.grad, slope)
    by_hand = (-(y.detach() ** 3) / 3 * slope).sum()
    torch.testing.assert_close(layer.potential.scale.grad, by_hand)


def test_every_iterate_is_bounded(each):
    """Any number of iterations: the bound holds, and is attained on quadratics."""
    for iterations, low in each(itertools.product([1, 2, 3, 10, 100], [0.0, 0.2, 1.0])):
        ridge = RidgeLinear(4, 4, activation=nn.Identity()).double()
        with torch.no_grad():
            ridge.weight.copy_(torch.diag(torch.tensor([1.0, 0.7, 0.5, low]).double().sqrt()))
        h = 3.0
        rate = 2 / (2 + h * (1 + low)) * (1 - 1e-7)
        layer = ImplicitEuler(ridge, h, plan=Plan(rate, iterations))
        bound = onelip.lipschitz_bound(layer)
        attained = jacobian_norm(layer, torch.randn(4, dtype=torch.float64))
        assert attained <= bound * (1 + 1e-14)
        assert bound <= 1
        assert bound <= attained * (1 + 1e-6)


def test_a_thousand_random_networks():
    generator = torch.Generator().manual_seed(3)
    for i in range(1000):
        rows = int(torch.randint(1, 5, (), generator=generator))
        ridge = RidgeLinear(3, rows, activation=(nn.ReLU(), nn.LeakyReLU(0.4))[i % 2]).double()
        with torch.no_grad():
            ridge.weight.mul_(2.0)
        layer = ImplicitEuler(ridge, 0.9, plan=Plan(0.05, 1 + i % 7))
        try:
            bound = onelip.lipschitz_bound(layer)
        except UnboundedModuleError:
            continue
        x, z = torch.randn(2, 32, 3, dtype=torch.float64)
        z = x + 10.0 ** -(i % 4) * z
        stretch = (layer(x) - layer(z)).norm(dim=1) / (x - z).norm(dim=1)
        assert stretch.max() <= bound * (1 + 1e-9)


def test_strong_convexity_shrinks():
    ridge = iterated(QuadraticPotential(4, 9).double())
    layer = ImplicitEuler(ridge, 2.0, tolerance=1e-10)
    least = float(torch.linalg.svdvals(ridge.weight.detach())[-1] ** 2)
    bound = onelip.lipschitz_bound(layer)
    assert bound < 0.9
    assert math.isclose(bound, 1 / (1 + 2 * least), rel_tol=1e-6)
    closed = ImplicitEuler(QuadraticPotential(4, 9).double(), 2.0)
    assert onelip.lipschitz_bound(closed) < 1


def test_the_residual_bounds_the_error():
    ridge = RidgeLinear(5, 8, activation=nn.Softplus()).double()
    exact = ImplicitEuler(ridge, 2.0, tolerance=1e-14)
    x = 3 * torch.randn(20, 5, dtype=torch.float64)
    limit = exact(x)
    for iterations in (1, 2, 5):
        rough = ImplicitEuler(ridge, 2.0, plan=Plan(exact.plan().rate, iterations))
        error = (rough(x) - limit).norm(dim=1)
        assert (error <= rough.residual(x, rough(x)) * (1 + 1e-9)).all()
        assert (error > 1e-6).any()
    assert exact.residual(x, limit).max() < 1e-12
    y = torch.randn_like(x)  # any point, not only iterates
    assert ((y - limit).norm(dim=1) <= exact.residual(x, y) * (1 + 1e-9)).all()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-9])
def test_the_tolerance_is_kept(tolerance):
    ridge = RidgeConv2d(2, 4, image_size=5).double()
    x = torch.randn(6, 2, 5, 5, dtype=torch.float64)
    limit = ImplicitEuler(ridge, 4.0, tolerance=1e-14)(x)
    error = (ImplicitEuler(ridge, 4.0, tolerance=tolerance)(x) - limit).flatten(1).norm(dim=1)
    assert (error <= tolerance * (x - limit).flatten(1).norm(dim=1) * (1 + 1e-6)).all()


def test_a_stopping_rule_that_looks_at_x_breaks_the_bound():
    """Stopped at a residual of 0.1 instead, the output jumps by about that at some x."""
    ridge = RidgeLinear(1, 1, activation=nn.Identity()).double()
    with torch.no_grad():
        ridge.weight.fill_(1), ridge.bias.zero_()
    fixed = ImplicitEuler(ridge, 1.0, plan=Plan(0.2, 10))

    def stopped(x):
        y = x
        while fixed.residual(x, y).max() > 0.1:
            y = y + 0.2 * (x - y - ridge.gradient(y))
        return y

    grid = torch.linspace(0.1, 1, 2001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        jumping, smooth = torch.cat([stopped(x[None]) for x in grid]), fixed(grid)
    apart = grid[1] - grid[0]
    assert (jumping[1:] - jumping[:-1]).abs().max() > 20 * apart
    assert (smooth[1:] - smooth[:-1]).abs().max() <= apart


def test_memory_does_not_grow_with_the_iterations():
    ridge = RidgeLinear(4, 5, activation=nn.Tanh())
    kept = []
    for iterations in (3, 300):
        saved = []
        layer = ImplicitEuler(ridge, 1.0, plan=Plan(0.1, iterations))
        x = torch.randn(2, 4, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=saved: s.append(t) or t, lambda t: t
        ):
            y = layer(x)
        y.sum().backward()
        kept.append(len(saved))
    assert kept[0] == kept[1] <= 3


def test_no_second_derivative_in_silence():
    layer = ImplicitEuler(RidgeLinear(2, 3, activation=nn.Tanh()), 1.0)
    x = torch.randn(1, 2, requires_grad=True)
    with pytest.raises(NotApplicableError, match="no second derivatives"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


def test_a_changed_weight_between_passes_is_noticed():
    layer = ImplicitEuler(RidgeLinear(2, 3), 1.0)
    y = layer(torch.randn(1, 2))
    with torch.no_grad():
        layer.potential.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_export_fixes_the_plan_and_notices_other_weights():
    layer = ImplicitEuler(RidgeLinear(3, 5), 2.0)
    exported = onelip.export(layer)
    x = torch.randn(4, 3)
    torch.testing.assert_close(exported(x), layer(x))
    assert exported.fixed_plan == layer.plan()
    assert onelip.lipschitz_bound(exported) == 1
    assert onelip.lipschitz_bound(onelip.export(layer.double()).float()) == 1
    exported.potential.weight.mul_(3)
    with pytest.raises(UnboundedModuleError, match="export again"):
        onelip.lipschitz_bound(exported)


def test_float32_and_tiny_weights():
    ridge = RidgeLinear(3, 4)
    layer = ImplicitEuler(ridge, 1.0)
    x = torch.randn(5, 3)
    torch.testing.assert_close(
        layer.double()(x.double()).float(), layer.float()(x), atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        layer.double()
        ridge.weight.fill_(1e-200)
    assert onelip.lipschitz_bound(layer) == 1
    assert largest_stretch(layer, (3,)) <= 1 + 1e-12


def test_errors():
    ridge = RidgeLinear(3, 4)
    with pytest.raises(ValueError, match="positive and finite, got -1"):
        ImplicitEuler(ridge, -1.0)
    with pytest.raises(ValueError, match="tolerance"):
        ImplicitEuler(ridge, 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="rate and iterations"):
        ImplicitEuler(ridge, 1.0, plan=Plan(-0.1, 3))
    with pytest.raises(NotApplicableError, match="too many iterations: a shorter step"):
        ImplicitEuler(ridge, 1e6)

    class Rough(Potential):
        def forward(self, x):
            return x.abs().sum(1)

        def smoothness(self):
            return torch.tensor(torch.inf, dtype=torch.float64)

    with pytest.raises(NotApplicableError, match="closed form"):
        ImplicitEuler(Rough(), 0.1)
    with torch.no_grad():
        ridge.weight.fill_(torch.nan)
    with pytest.raises(onelip.errors.NonFiniteError):
        ImplicitEuler(ridge, 1.0)


def test_gradients_are_those_of_the_parameters_that_forward_used():
    """Under ``functional_call`` the module holds others again by the time of the backward pass."""
    torch.manual_seed(0)
    layer = ImplicitEuler(RidgeLinear(3, 5, activation=nn.Tanh()).double(), 1.0, tolerance=1e-10)
    x = torch.randn(4, 3, dtype=torch.float64)
    other = {k: torch.randn_like(v).requires_grad_() for k, v in layer.named_parameters()}
    plan = layer.plan()
    layer = ImplicitEuler(layer.potential, 0.1, plan=plan._replace(rate=0.05, iterations=200))
    found = torch.autograd.grad(
        torch.func.functional_call(layer, other, (x,)).square().sum(), list(other.values())
    )
    layer.load_state_dict(other)
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert float(b.norm()) > 0.01
        torch.testing.assert_close(a, b)
