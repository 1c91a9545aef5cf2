"""Every layer under torch's other ways to run it: low precision, no samples, other derivatives."""

import copy

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NotApplicableError
from onelip.flows import ImplicitEuler, RidgeLinear
from onelip.layers import MaxMin
from tests.cases import CASES, LAYERS, Case


def built(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build().double().eval()


def batch(case: Case, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *case.input_shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_no_samples(case: Case):
    """torch's transforms and pixel_unshuffle fail, or keep the shape."""
    module, x = built(case), batch(case)
    for part in (module, onelip.export(module)):
        expected = part(x).shape[1:]
        assert part(x[:0]).shape == (0, *expected)
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        assert module.train()(x[:0]).shape == (0, *expected)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_parameters_of_16_bits(case: Case):
    """Weights are computed in float32 and rounded; what comes out has the type that went in."""
    for dtype in (torch.bfloat16, torch.float16):
        module, x = built(case).to(dtype), batch(case).to(dtype)
        bound = onelip.lipschitz_bound(module)
        assert bound.isfinite()
        y = module(x)
        assert y.dtype == dtype
        assert y.isfinite().all(), dtype
        assert onelip.export(module)(x).dtype == dtype
        trained = module.train()(x)
        if trained.requires_grad:
            trained.float().sum().backward()
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            assert all(gradient.isfinite().all() for gradient in gradients), dtype


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_vmap_and_both_modes_of_derivatives(case: Case):
    module, x = built(case), batch(case)

    def single(sample: torch.Tensor) -> torch.Tensor:
        return module(sample[None])[0]

    y = module(x).detach()
    assert torch.allclose(torch.func.vmap(single)(x), y, atol=1e-12)
    backward = torch.func.jacrev(single)(x[0])
    forward = torch.func.jacfwd(single)(x[0])
    assert torch.allclose(forward, backward, atol=1e-9)
    tangent = torch.randn_like(x)
    values, moved = torch.func.jvp(module, (x,), (tangent,))
    assert torch.allclose(values, y, atol=1e-12)
    expected = backward.reshape(y[0].numel(), -1) @ tangent[0].flatten()
    assert torch.allclose(moved[0].flatten(), expected, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_gradient_penalty_is_differentiated(case: Case):
    """``|grad|^2``, as a WGAN with a penalty has it, against a small step of the weights."""
    module, x = built(case), batch(case).requires_grad_()
    weights = list(module.requires_grad_().parameters())
    with torch.no_grad():  # away from kinks
        for parameter in weights:
            parameter.add_(0.3 * torch.randn_like(parameter))

    def penalty(part: nn.Module, at: torch.Tensor) -> torch.Tensor:
        y = part(at)
        if not y.requires_grad:
            return y.sum() * 0
        (gradient,) = torch.autograd.grad(y.sin().sum(), at, create_graph=True)
        return gradient.square().sum()

    value = penalty(module, x)
    if not weights or not value.requires_grad:
        return
    found = torch.autograd.grad(value, weights, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in found)
    if isinstance(module, layers.SOCConv2d) and not module.exact_gradient:
        return  # the kernel's gradient is the fast one here, too
    if case.id == "BjorckLinear-one-step":
        return  # its norm estimate counts as a constant, which matters before it has converged
    directions = [torch.randn_like(p) for p in weights]
    slope = sum((g * d).sum() for g, d in zip(found, directions, strict=True) if g is not None)
    ends = []
    for step in (1e-6, -1e-6):
        other = copy.deepcopy(module)
        with torch.no_grad():
            for p, d in zip(other.parameters(), directions, strict=True):
                p.add_(step * d)
        ends.append(float(penalty(other, x.detach().clone().requires_grad_())))
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-4)


WEIGHTED = {
    "aoc": (lambda: layers.AOCConv2d(2, 3, 3), (2, 4, 4)),
    "soc": (lambda: layers.SOCConv2d(2, 2, 3), (2, 4, 4)),
    "cholesky": (lambda: layers.CholeskyLinear(3, 2), (3,)),
}


@pytest.mark.parametrize(("build", "shape"), WEIGHTED.values(), ids=WEIGHTED)
def test_derivatives_in_forward_mode_through_the_weights(build, shape):
    layer, x = build().double().eval(), torch.randn(2, *shape, dtype=torch.float64)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    steps = {name: torch.randn_like(p) for name, p in weights.items()}

    def output(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(layer, parameters, (x,))

    _, moved = torch.func.jvp(output, (weights,), (steps,))
    up, down = (
        output({name: p + sign * 1e-6 * steps[name] for name, p in weights.items()})
        for sign in (1, -1)
    )
    assert torch.allclose(moved, (up - down) / 2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (layers.CholeskyLinear(3, 3), (3,), "orthogonalise=bjorck"),
        (layers.SOCConv2d(2, 2, 3), (2, 4, 4), "exact_gradient=True"),
    ],
    ids=["cholesky", "soc"],
)
def test_second_derivatives_in_the_weights_are_refused_instead_of_wrong(layer, shape, message):
    """With ``once_differentiable`` a gradient that no input of it tracks counts as a constant."""
    layer = layer.double()
    weight = layer.raw_weight
    y = layer(torch.randn(2, *shape, dtype=torch.float64)).sum()
    (gradient,) = torch.autograd.grad(y, weight, create_graph=True)
    with pytest.raises(NotApplicableError, match=message):
        gradient.square().sum().backward()


def test_derivatives_of_derivatives():
    """``torch.func.hessian`` is forward mode over a gradient; others nest the other way round."""
    layer = nn.Sequential(layers.BCOPConv2d(2, 4, 3), MaxMin(), layers.SOCConv2d(4, 2, 3)).double()
    layer.eval().requires_grad_(False)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)

    def value(at: torch.Tensor) -> torch.Tensor:
        return layer(at).sin().sum()

    func = torch.func
    found = func.hessian(value)(x).reshape(32, 32)
    others = {
        "reverse over forward": func.jacrev(func.jacfwd(value))(x),
        "reverse over reverse": func.jacrev(func.jacrev(value))(x),
        "vectorised": torch.autograd.functional.hessian(value, x, vectorize=True),
    }
    assert float(found.norm()) > 1e-3
    for name, other in others.items():
        assert torch.allclose(found, other.reshape(32, 32), atol=1e-9), name
    convolution = layer[0]
    weights = {k: p.detach() for k, p in convolution.named_parameters() if p.numel()}

    def of_weights(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return func.functional_call(convolution, parameters, (x,)).sin().sum()

    steps = {key: torch.randn_like(p) for key, p in weights.items()}

    def slope(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return func.jvp(of_weights, (parameters,), (steps,))[1]

    gradient = func.grad(slope)(weights)
    up, down = (
        slope({key: p + sign * 1e-5 * steps[key] for key, p in weights.items()}) for sign in (1, -1)
    )
    along = sum((gradient[key] * steps[key]).sum() for key in weights)
    assert float(along) == pytest.approx(float((up - down) / 2e-5), rel=1e-5, abs=1e-6)


def test_implicit_steps_refuse_transforms_with_the_way_out():
    step = ImplicitEuler(RidgeLinear(3, 4), 0.5)
    with pytest.raises(NotApplicableError, match=r"torch\.func"):
        torch.func.vmap(lambda sample: step(sample[None])[0])(torch.randn(2, 3))


def test_bjorck_with_one_channel_per_group_and_no_projectors():
    layer = layers.AOCConv2d(2, 2, 2, stride=2, groups=2, orthogonalise=layers.bjorck)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-5)
