"""Published layers are schemes of this package: the same outputs on the same parameters."""

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NotApplicableError, UnboundedModuleError
from onelip.flows import (
    ExactFlow,
    ExplicitEuler,
    ExplicitEulerSkew,
    ImplicitEuler,
    ImplicitEulerSkew,
    Midpoint,
    Potential,
    QuadraticPotential,
    RidgeConv2d,
    RidgeLinear,
    SkewConv2d,
    SkewLinear,
    SumPotential,
)

ACTIVATIONS = [nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.3)]
DTYPES = [torch.float32, torch.float64]


def same(mine: nn.Module, published: nn.Module, x: torch.Tensor) -> None:
    slack = 1e-12 if x.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(mine(x), published(x), rtol=slack, atol=slack)
    found, expected = onelip.lipschitz_bound(mine), onelip.lipschitz_bound(published)
    if isinstance(mine, ExplicitEuler) and mine.potential.convexity() > 0:
        assert found < expected  # the published bound is 1, whatever the slopes
        return
    torch.testing.assert_close(found, expected, rtol=slack, atol=slack)


def take(part: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    part = part.to(weight.dtype)
    with torch.no_grad():
        part.weight.copy_(weight)
        if bias is not None:
            part.bias.copy_(bias)
    return part


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_convex_potential_layers_are_explicit_steps(activation, dtype):
    dense = layers.ConvexPotentialLinear(4, 7, activation=activation(), step=0.6).to(dtype)
    ridge = take(RidgeLinear(4, 7, activation=activation()), dense.weight, dense.bias)
    same(ExplicitEuler(ridge, 0.6), dense, 3 * torch.randn(9, 4, dtype=dtype))
    for padding_mode in ("zeros", "circular"):
        options = {"image_size": (4, 6), "padding_mode": padding_mode}
        conv = layers.ConvexPotentialConv2d(2, 3, 3, activation=activation(), step=2.0, **options)
        conv = conv.to(dtype)
        ridge = RidgeConv2d(2, 3, 3, activation=activation(), **options)
        ridge = take(ridge, conv.weight, conv.bias)
        same(ExplicitEuler(ridge, 2.0), conv, torch.randn(5, 2, 4, 6, dtype=dtype))


def test_an_exported_convex_potential_layer_is_the_longest_step():
    dense = layers.ConvexPotentialLinear(4, 7).double()
    dense.power_step(2000)
    ridge = take(RidgeLinear(4, 7), dense.weight, dense.bias)
    x = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(ExplicitEuler(ridge)(x), dense(x), rtol=1e-3, atol=1e-3)
    exported = onelip.export(ExplicitEuler(ridge))
    assert type(exported) is layers.GradientStep
    same(exported, ExplicitEuler(ridge), x)
    assert onelip.lipschitz_bound(exported) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_cayley_layers_are_midpoint_steps(dtype):
    """``(I - B)(I + B)^{-1}`` with ``B = U - U^T`` is the midpoint step on ``A = -2 B``."""
    for size in (1, 3, 6):
        dense = layers.CayleyLinear(size, size, bias=False).to(dtype)
        free = dense.length * dense.raw_weight / dense.raw_weight.norm()
        same(Midpoint(take(SkewLinear(size), -2 * free)), dense, torch.randn(9, size, dtype=dtype))
    for kernel_size, image_size in ((3, (4, 5)), (1, (3, 3)), (3, (3, 4))):
        conv = layers.CayleyConv2d(3, 3, kernel_size, image_size=image_size, bias=False).to(dtype)
        free = conv.length * conv.raw_weight / conv.raw_weight.norm()
        part = take(SkewConv2d(3, kernel_size, image_size=image_size), -2 * free)
        x = torch.randn(2, 3, *image_size, dtype=dtype)
        same(Midpoint(part), conv, x)
        same(onelip.export(Midpoint(part)), conv, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_soc_layers_are_exact_flows(padding_mode, dtype):
    options = {"image_size": (4, 5), "padding_mode": padding_mode}
    published = layers.SOCConv2d(3, 3, 3, bias=False, **options).to(dtype).eval()
    part = take(SkewConv2d(3, 3, **options), published.kernel() / 2)  # M - M^* of M = L / 2
    x = torch.randn(2, 3, 4, 5, dtype=dtype)
    same(ExactFlow(part, terms=6), published, x)
    same(ExactFlow(part), onelip.export(published), x)
    exported = onelip.export(ExactFlow(part))
    assert type(exported) is layers.FixedSOCConv2d
    same(exported, ExactFlow(part), x)


def test_exact_flow_is_the_exponential():
    part = SkewLinear(5).double()
    for step in (0.1, 1.0):
        layer, x = ExactFlow(part, step), torch.randn(4, 5, dtype=torch.float64)
        expected = x @ torch.linalg.matrix_exp(step * (part.weight - part.weight.T)).T
        torch.testing.assert_close(layer(x), expected, rtol=1e-7, atol=1e-7)
        assert onelip.lipschitz_bound(layer) == 1
        torch.testing.assert_close(onelip.export(layer)(x), layer(x))
    assert onelip.lipschitz_bound(ExactFlow(part, 100.0)) > 1e3


def test_schemes_on_a_skew_part_stretch_keep_and_shrink():
    """The paper has the implicit one increase the norm (section 3.3); it shrinks."""
    for part, x in (
        (SkewLinear(4), torch.randn(6, 4)),
        (SkewConv2d(2, 3, image_size=4), torch.randn(6, 2, 4, 4)),
    ):
        lengths = x.flatten(1).norm(dim=1)
        explicit, implicit, midpoint = (
            kind(part, 1.0)(x).flatten(1).norm(dim=1)
            for kind in (ExplicitEulerSkew, ImplicitEulerSkew, Midpoint)
        )
        assert (explicit > lengths * 1.001).all()
        assert (implicit < lengths * 0.999).all()
        torch.testing.assert_close(midpoint, lengths)
        turned = part(x).flatten(1).norm(dim=1)
        torch.testing.assert_close(explicit**2, lengths**2 + turned**2)
    part = SkewLinear(4).double()
    values = torch.linalg.svdvals(part.blocks())
    for kind, expected in (
        (ExplicitEulerSkew, (1 + 0.49 * values[0] ** 2).sqrt()),
        (ImplicitEulerSkew, (1 + 0.49 * values[-1] ** 2).rsqrt()),
    ):
        bound = onelip.lipschitz_bound(kind(part, 0.7))
        torch.testing.assert_close(bound, expected.detach(), rtol=1e-7, atol=0)
        assert bound >= expected * (1 - 1e-14)


def test_a_thousand_random_networks():
    """No pair of inputs is stretched by more than the bound, whatever the step and the slopes."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for i in range(1000):
        activation = (nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.5), nn.Identity())[i % 4]
        ridge = RidgeLinear(2, 1 + i % 3, activation=activation).double()
        step = float(10 ** (2 * torch.rand((), generator=generator) - 1))
        bound = float(onelip.lipschitz_bound(ExplicitEuler(ridge, step)))
        x, z = torch.randn(2, 64, 2, dtype=torch.float64, generator=generator)
        z = x + 10.0 ** -(i % 3) * z
        with torch.no_grad():
            change = ExplicitEuler(ridge, step)(x) - ExplicitEuler(ridge, step)(z)
        stretch = float((change.norm(dim=1) / (x - z).norm(dim=1)).max())
        assert stretch <= bound * (1 + 1e-10)
        largest = max(largest, stretch / bound)
    assert largest > 0.999


def test_potentials_of_one_sample_in_inference_mode():
    class Hills(Potential):
        def forward(self, x):
            return (1 + x.square()).sqrt().sum(1)

        def smoothness(self):
            return torch.ones((), dtype=torch.float64)

    x = torch.randn(3, 2)
    for kind in (ExplicitEuler, ImplicitEuler):
        layer = kind(Hills(), 0.5)
        with torch.inference_mode():
            inferred = layer(x.clone())
        torch.testing.assert_close(inferred, layer(x))
        assert not layer(x).requires_grad


def test_zero_padding_cannot_be_solved_with():
    part = SkewConv2d(2, 3, image_size=4, padding_mode="zeros")
    for kind in (Midpoint, ImplicitEulerSkew):
        with pytest.raises(NotApplicableError, match="padding_mode='circular', or ExactFlow"):
            kind(part)


def test_bounds_of_explicit_steps_are_attained():
    quadratic = QuadraticPotential(3).double()
    with torch.no_grad():
        quadratic.weight.copy_(torch.diag(torch.tensor([0.5, 1.0, 2.0])))
    for step, expected in ((0.1, 0.975), (0.5, 1.0), (1.0, 3.0), (0.4, 0.9)):
        bound = float(onelip.lipschitz_bound(ExplicitEuler(quadratic, step)))
        matrix = torch.eye(3) - step * torch.diag(torch.tensor([0.25, 1.0, 4.0]))
        assert abs(bound - expected) < 1e-7
        assert float(torch.linalg.matrix_norm(matrix.double(), 2)) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
def test_extreme_weights(size):
    for potential in (RidgeLinear(2, 3).double(), QuadraticPotential(2).double()):
        with torch.no_grad():
            potential.weight.fill_(size)
        layer = ExplicitEuler(potential)
        if size > 1e150:
            with pytest.raises((NotApplicableError, onelip.errors.NonFiniteError)):
                onelip.lipschitz_bound(layer)
        else:
            assert onelip.lipschitz_bound(layer) == 1
            assert layer(torch.ones(1, 2, dtype=torch.float64)).isfinite().all()


def test_non_finite_weights_are_refused():
    for build in (
        lambda: ExplicitEuler(RidgeLinear(2, 3), 0.1),
        lambda: ExplicitEuler(QuadraticPotential(2)),
        lambda: Midpoint(SkewLinear(2)),
        lambda: ExactFlow(SkewConv2d(2, 3, image_size=4)),
    ):
        for value in (torch.nan, torch.inf):
            layer = build()
            with torch.no_grad():
                next(layer.parameters()).fill_(value)
            with pytest.raises(onelip.errors.NonFiniteError):
                onelip.lipschitz_bound(layer)


def test_construction_errors():
    with pytest.raises(ValueError, match="not convex"):
        RidgeLinear(2, 3, activation=nn.GELU())
    with pytest.raises(ValueError, match="must be positive"):
        RidgeLinear(0, 3)
    with pytest.raises(ValueError, match="must be positive"):
        SkewConv2d(0, 3, image_size=4)
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, torch.inf], [1.0, torch.nan]):
        with pytest.raises(ValueError, match="weights"):
            SumPotential([RidgeLinear(2, 2), QuadraticPotential(2)], weights)
    with pytest.raises(ValueError, match="0 parts"):
        SumPotential([])
    with pytest.raises(ValueError, match="odd"):
        RidgeConv2d(2, 3, 4, image_size=4)
    with pytest.raises(ValueError, match="wraps"):
        SkewConv2d(2, 7, image_size=2)
    with pytest.raises(UnboundedModuleError, match="repeats"):
        SkewConv2d(2, 3, image_size=2, padding_mode="reflect")
    with pytest.raises(ValueError, match="positive and finite"):
        ExplicitEuler(RidgeLinear(2, 2), 0.0)
    with pytest.raises(ValueError, match="terms"):
        ExactFlow(SkewLinear(2), terms=1)
    with pytest.raises(ValueError, match="images of"):
        RidgeConv2d(2, 3, image_size=4).gradient(torch.zeros(1, 2, 5, 5))
    with pytest.raises(NotApplicableError, match="no primitive is known for Softplus"):
        RidgeLinear(2, 2, activation=nn.Softplus())(torch.zeros(1, 2))
