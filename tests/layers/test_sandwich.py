"""Sandwich layers: their formula, and the bound against every pattern of slopes."""

import itertools
import math

import pytest
import torch
from flint import ctx
from torch import Tensor, nn

import onelip
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import Sandwich, SandwichLinear, computed_once
from onelip.layers.sandwich import sandwich_bound
from onelip.testing import jacobian_norm
from tests.oracles import PRECISION, is_above, norm_below, sigma_max


def dense(in_features: int = 4, out_features: int = 3, **options) -> SandwichLinear:
    layer = SandwichLinear(in_features, out_features, **options).double().eval()
    nn.init.normal_(layer.raw_weight)
    nn.init.normal_(layer.log_psi)
    return layer


def worst_stretch(inner: Tensor, outer: Tensor) -> float:
    """Over all slopes in [0, 1]: a convex function of them, largest where each is 0 or 1."""
    patterns = itertools.product([0.0, 1.0], repeat=len(inner))
    return max(sigma_max(outer * torch.tensor(p, dtype=inner.dtype) @ inner) for p in patterns)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 3), (2, 5), (3, 3), (1, 1)])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=repr)
def test_formula(inputs, outputs, activation):
    layer = dense(inputs, outputs, activation=activation)
    free, eye = layer.raw_weight.detach(), torch.eye(outputs, dtype=torch.float64)
    square, rest = free[:outputs], free[outputs:]
    z = square - square.T + rest.T @ rest
    inverse = torch.linalg.inv(eye + z)
    a_transposed, b_transposed = inverse @ (eye - z), -2 * rest @ inverse
    gram = a_transposed.T @ a_transposed + b_transposed.T @ b_transposed
    assert torch.allclose(gram, eye, atol=1e-12)
    psi, root = layer.log_psi.detach().exp().diag(), math.sqrt(2)
    x = torch.randn(6, inputs, dtype=torch.float64)
    hidden = activation(x @ (root * psi.inverse() @ b_transposed.T).T + layer.bias.detach())
    expected = hidden @ (root * a_transposed @ psi).T
    assert torch.allclose(layer(x), expected, rtol=1e-10, atol=1e-11)


def test_the_bound_for_any_maps_and_any_psi():
    for _ in range(300):
        hidden = int(torch.randint(1, 6, ()))
        inner = torch.randn(hidden, 3, dtype=torch.float64)
        outer, psi = torch.randn(2, hidden).double(), torch.randn(hidden).double().exp()
        bound = float(sandwich_bound(inner, outer, psi, (0, 1)))
        assert worst_stretch(inner, outer) <= bound
        assert float(sandwich_bound(inner, outer, psi, (0, 0.25))) == pytest.approx(bound / 4)


def test_the_bound_is_attained():
    """By one unit at the best psi, and by a sandwich of orthogonal maps."""
    one, psi = torch.ones(1, 1), torch.tensor([3.0]).sqrt()
    assert float(sandwich_bound(one, 3 * one, psi, (0, 1))) == pytest.approx(3, rel=1e-6)
    eye = torch.eye(3)
    assert float(sandwich_bound(eye, eye, torch.ones(3), (0, 1))) == pytest.approx(1, abs=1e-8)


def test_the_bound_is_above_the_exact_norm():
    for _ in range(50):
        inner, outer = torch.randn(4, 3).double(), torch.randn(2, 4).double()
        psi = 2.0 ** torch.randint(-3, 4, (4,)).double()  # products are exact
        both = torch.cat([psi[:, None] * inner, (outer / psi).T], 1)
        with ctx.workprec(PRECISION):
            exact = norm_below(both) ** 2 / 2
        bound = sandwich_bound(inner, outer, psi, (0, 1))
        assert is_above(bound, exact.lower())
        assert float(bound) == pytest.approx(float(exact.lower()), rel=1e-7)


def test_maps_that_are_not_orthogonal_enough():
    """The claim of 1 is false after a perturbation; the bound is close to what is true."""
    layer = dense(3, 3)
    inner, outer, psi = (part.detach() for part in layer.compute_maps())
    inner, outer = 1.05 * inner, 1.05 * outer
    true = worst_stretch(inner, outer)
    assert 1.01 < true <= float(sandwich_bound(inner, outer, psi, (0, 1))) <= 1.05**2 * (1 + 1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("reach", [0.0, 5.0, 20.0])
def test_one_up_to_rounding(dtype, reach):
    limit = 1 + max(1e-9, 100 * torch.finfo(dtype).eps)
    for sizes in ((4, 3), (2, 6), (5, 5)):
        layer = dense(*sizes).to(dtype)
        layer.log_psi.data = torch.linspace(-reach, reach, sizes[1]).to(dtype)
        assert 1 - 1e-5 < float(onelip.lipschitz_bound(layer)) <= limit
        exported = onelip.export(layer)
        assert float(onelip.lipschitz_bound(exported)) <= limit
        inner, outer = exported.inner.weight.double(), exported.outer.weight.double()
        assert worst_stretch(inner, outer) <= float(onelip.lipschitz_bound(exported))


def test_after_steps_at_a_huge_learning_rate():
    layer = dense().train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e3)
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(torch.randn(4, 4, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        layer.log_psi.grad.clamp_(-1e-3, 1e-3)  # psi itself has no limit
        optimizer.step()
    assert float(onelip.lipschitz_bound(layer.eval())) == pytest.approx(1, abs=1e-6)
    x = torch.randn(4, dtype=torch.float64)
    assert float(jacobian_norm(layer, x)) <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-12)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Softplus(), nn.LeakyReLU(0.1)], ids=repr)
def test_other_activations(activation):
    layer = dense(activation=activation)
    high = onelip.activations.slopes(activation)[1]
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(high, rel=1e-9)


def test_a_prelu_that_left_its_interval():
    layer = dense(activation=nn.PReLU())
    layer.activation.weight.data.fill_(3.0)
    layer.bias.data.fill_(-100.0)
    stretch = float(jacobian_norm(layer, torch.zeros(4, dtype=torch.float64)))
    assert 1 < stretch <= float(onelip.lipschitz_bound(layer)) <= 3 * (1 + 1e-9)
    layer.activation.weight.data.fill_(-0.5)
    with pytest.raises(UnboundedModuleError, match=r"slopes from -0.5 on: .* decreases"):
        onelip.lipschitz_bound(layer)


def test_gradients_of_the_parameters():
    layer, x = dense(), torch.randn(2, 4, dtype=torch.float64)
    names = ("raw_weight", "log_psi", "bias")

    def output(*values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [getattr(layer, name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(output, values)


def test_computed_once():
    layer = dense().train()
    with computed_once(layer):
        held = layer.maps()
        assert layer.maps() is held
        layer(torch.randn(2, 4, dtype=torch.float64)).sum().backward()
    assert layer.raw_weight.grad.abs().sum() > 0
    assert layer.maps() is not held


def test_export_is_made_of_plain_layers():
    layer = dense(bias=False)
    exported = onelip.export(layer)
    assert [type(part) for part in exported.children()] == [nn.Linear, nn.ReLU, nn.Linear]
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.allclose(exported(x), layer(x), rtol=1e-12)
    exported.inner.weight *= 2
    exported.outer.weight *= 2  # the proof sees it
    assert float(onelip.lipschitz_bound(exported)) == pytest.approx(4, rel=1e-6)


def test_a_part_that_was_exchanged():
    exported = onelip.export(dense())
    exported.outer = nn.Sequential(exported.outer)
    with pytest.raises(UnboundedModuleError, match="Sandwich holds a Sequential"):
        onelip.lipschitz_bound(exported)


@pytest.mark.parametrize("psi", [0.0, -1.0, math.nan])
def test_psi_that_proves_nothing(psi):
    one = torch.ones(1, 1)
    layer = Sandwich(one, None, nn.ReLU(), one, torch.tensor([psi]))
    with pytest.raises(UnboundedModuleError, match="psi of a sandwich layer must be positive"):
        onelip.lipschitz_bound(layer)


def test_infinite_weights():
    one = torch.ones(1, 1).double()
    layer = Sandwich(one, None, nn.ReLU(), 1e200 * one, 1e-200 * one[0])
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SELU(), nn.LeakyReLU(2.0)], ids=repr)
def test_activations_with_other_slopes(activation):
    with pytest.raises(ValueError, match=r"has slopes from .* a sandwich needs them in \[0, 1\]"):
        SandwichLinear(2, 2, activation=activation)


def test_errors():
    with pytest.raises(ValueError, match="features must be positive, got 0 and 2"):
        SandwichLinear(0, 2)
    with pytest.raises(UnboundedModuleError, match="no slopes are known for Softmax"):
        SandwichLinear(2, 2, activation=nn.Softmax(1))
