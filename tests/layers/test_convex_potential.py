"""Convex Potential layers beyond the contract."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import ConvexPotentialConv2d, ConvexPotentialLinear, computed_once
from onelip.testing import jacobian_norm
from tests.oracles import materialised, sigma_max


def dense(features: int = 5, hidden: int = 7, **options) -> ConvexPotentialLinear:
    layer = ConvexPotentialLinear(features, hidden, **options).double().eval()
    nn.init.normal_(layer.bias)
    return layer


def conv(size: int | tuple[int, int] = 4, kernel_size: int = 3, **options) -> ConvexPotentialConv2d:
    layer = ConvexPotentialConv2d(2, 3, kernel_size, image_size=size, **options).double().eval()
    nn.init.normal_(layer.bias)
    return layer


def slow_conv(layer: ConvexPotentialConv2d, x: Tensor) -> Tensor:
    """x - h W^T sigma(W x + b) with W written out as a matrix."""
    height, width = layer.image_size
    matrix = matrix_of(layer)
    hidden = layer.activation(matrix @ x.flatten() + layer.bias.repeat_interleave(height * width))
    return x - layer.step() * (matrix.T @ hidden).view_as(x)


def matrix_of(layer: ConvexPotentialConv2d) -> Tensor:
    return materialised(lambda x: layer.inner(x).detach(), (2, *layer.image_size))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.LeakyReLU(0.2)], ids=repr)
def test_formula_of_the_dense_layer(activation):
    layer = dense(activation=activation)
    x = torch.randn(5, dtype=torch.float64)
    weight, bias, hidden = layer.weight.detach(), layer.bias.detach(), []
    for i in range(7):
        hidden.append(activation(sum(weight[i, j] * x[j] for j in range(5)) + bias[i]))
    square = sum((weight @ layer.direction)[i] ** 2 for i in range(7))
    step = 2 / (square + 1e-4)
    expected = [x[j] - step * sum(weight[i, j] * hidden[i] for i in range(7)) for j in range(5)]
    assert layer(x[None])[0].tolist() == pytest.approx([float(v) for v in expected], rel=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(("size", "kernel"), [((4, 4), 3), ((3, 5), 3), ((4, 4), 1), ((3, 4), 5)])
def test_formula_of_the_convolution(mode, size, kernel):
    layer = conv(size, kernel, padding_mode=mode)
    x = torch.randn(2, *size, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(layer(x[None])[0], slow_conv(layer, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("size", [(4, 4), (3, 6), (2, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_adjoint_is_the_adjoint(mode, size, kernel):
    layer = conv(size, kernel, padding_mode=mode)
    back = materialised(lambda y: layer.adjoint(y).detach(), (3, *size))
    assert torch.allclose(back, matrix_of(layer).T, atol=1e-15)


@pytest.mark.parametrize("build", [dense, conv])
def test_the_power_step_belongs_to_training(build):
    layer = build()
    x = torch.randn(2, *((5,) if build is dense else (2, 4, 4)), dtype=torch.float64)
    before = layer.direction.clone()
    layer(x)
    assert torch.equal(layer.direction, before)
    layer.train()(x)
    assert not torch.equal(layer.direction, before)
    assert float(layer.direction.norm()) == pytest.approx(1, rel=1e-12)


def test_power_steps_approach_the_longest_safe_step():
    layer = dense()
    layer.power_step(500)
    assert float(layer.step()) == pytest.approx(2 / (sigma_max(layer.weight) ** 2 + 1e-4), rel=1e-9)
    assert float(onelip.lipschitz_bound(layer)) == 1


@pytest.mark.parametrize("build", [dense, conv])
def test_still_a_contraction_after_training(build):
    layer = build().train()
    shape = (5,) if build is dense else (2, 4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (layer(torch.randn(8, *shape, dtype=torch.float64)) * 3).square().mean().backward()
        optimizer.step()
    layer.eval()
    exported = onelip.export(layer)
    assert float(onelip.lipschitz_bound(exported)) == 1
    for _ in range(5):
        x = torch.randn(shape, dtype=torch.float64)
        assert float(jacobian_norm(exported, x)) <= 1 + 1e-12
        assert float(jacobian_norm(layer, x)) <= float(onelip.lipschitz_bound(layer)) + 1e-12


@pytest.mark.parametrize("step", [0.01, 1.0, 7.0])
def test_a_fixed_step_may_stretch_and_says_so(step):
    layer = dense(step=step)
    layer.bias.data.fill_(100.0)  # every unit active: the Jacobian is I - h W^T W
    norm = sigma_max(layer.weight)
    expected = max(1.0, step * norm**2 - 1)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(expected, rel=1e-8)
    x = torch.zeros(5, dtype=torch.float64)
    assert float(jacobian_norm(layer, x)) <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-14)
    exported = onelip.export(layer)
    assert torch.allclose(exported(x[None]), layer(x[None]), rtol=1e-12)
    before = layer.direction.clone()
    layer.train()(x[None])
    assert torch.equal(before, layer.direction)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan])
def test_steps_that_are_refused(step):
    with pytest.raises(ValueError, match="step must be positive"):
        ConvexPotentialLinear(2, 2, step=step)


@pytest.mark.parametrize("kernel", [0, 2, 4])
def test_even_kernels(kernel):
    with pytest.raises(ValueError, match=f"kernel_size must be odd .* got {kernel}"):
        ConvexPotentialConv2d(1, 1, kernel, image_size=4)


def test_a_kernel_that_wraps_twice():
    with pytest.raises(ValueError, match="a kernel of 7 wraps around an image of 2"):
        ConvexPotentialConv2d(1, 1, 7, image_size=2, padding_mode="circular")


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (8, 8)])
def test_images_of_another_size(size):
    layer, x = conv(4), torch.zeros(1, 2, *size, dtype=torch.float64)
    for module in (layer, onelip.export(layer)):
        with pytest.raises(ValueError, match=r"proved for images of \(4, 4\).*image_size"):
            module(x)


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.SiLU(), nn.Mish(), nn.LeakyReLU(-0.1)], ids=repr
)
def test_activations_that_decrease(activation):
    with pytest.raises(ValueError, match="its potential is not convex"):
        ConvexPotentialLinear(2, 2, activation=activation)


def test_activations_that_are_not_known():
    with pytest.raises(UnboundedModuleError, match="no slopes are known for Softmax"):
        ConvexPotentialLinear(2, 2, activation=nn.Softmax(1))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_other_padding(mode):
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        ConvexPotentialConv2d(1, 1, image_size=4, padding_mode=mode)


def test_an_activation_that_came_to_decrease_in_training():
    """A PReLU can: then the layer expands, and bound and export say by how much."""
    layer = dense(activation=nn.PReLU())
    layer.activation.weight.data.fill_(-2.0)
    layer.bias.data.fill_(-100.0)
    x = torch.zeros(5, dtype=torch.float64)
    for module in (layer, onelip.export(layer)):
        stretch = float(jacobian_norm(module, x))
        assert stretch > 1.5
        assert stretch <= float(onelip.lipschitz_bound(module)) <= stretch * 1.01


def test_steep_activations_take_shorter_steps():
    layer = dense(activation=nn.LeakyReLU(4.0))
    layer.bias.data.fill_(-100.0)
    layer.power_step(200)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-6)
    assert (
        float(jacobian_norm(onelip.export(layer), torch.zeros(5, dtype=torch.float64))) <= 1 + 1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_export_is_one_in_every_dtype(dtype, scale):
    layer = ConvexPotentialLinear(6, 8)
    layer.weight.data = (torch.randn(8, 6) * scale).to(dtype).float()
    layer.to(dtype)
    assert float(onelip.lipschitz_bound(layer.export())) == 1


def test_the_step_stays_in_full_precision_under_autocast():
    layer = ConvexPotentialLinear(64, 64).eval()
    plain = layer.step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.step().dtype == torch.float32
        assert torch.equal(layer.step(), plain)
        before = layer.direction.clone()
        layer.power_step()
        assert layer.direction.dtype == torch.float32
        moved = layer.direction.clone()
    layer.direction.copy_(before)
    layer.power_step()
    assert torch.equal(moved, layer.direction)


def test_weights_that_were_zero_or_overflowed_recover():
    """The direction is not lost, so the step is right again once the weights are."""
    for spoiled in (0.0, 1e30):
        layer = ConvexPotentialLinear(5, 7)
        good = layer.weight.data.clone()
        layer.weight.data.fill_(spoiled)
        layer.train()(torch.randn(2, 5))
        layer.weight.data = good
        layer.power_step(200)
        assert float(layer.step()) == pytest.approx(2 / (sigma_max(good) ** 2 + 1e-4), rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_weights(value):
    layer = dense()
    layer.weight.data[0, 0] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.export(layer)


def test_zero_weights_are_the_identity():
    layer = conv()
    layer.weight.data.zero_()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(layer(x), x)
    assert float(onelip.lipschitz_bound(layer)) == 1
    assert float(onelip.lipschitz_bound(onelip.export(layer))) == 1


# GradientStep, the exported form


def test_outer_must_remain_the_adjoint():
    step = onelip.export(dense())
    step.outer.weight.data *= 2
    with pytest.raises(UnboundedModuleError, match="no longer the adjoint"):
        onelip.lipschitz_bound(step)


def test_a_hook_inside_is_seen():
    step = onelip.export(dense())
    step.inner.register_forward_hook(lambda m, i, o: 10 * o)
    with pytest.raises(UnboundedModuleError, match="Linear has a forward hook"):
        onelip.lipschitz_bound(step)


def test_a_negative_step_expands():
    with pytest.raises(ValueError, match="step must not be negative"):
        onelip.layers.GradientStep(torch.ones(1, 1), torch.zeros(1), nn.ReLU(), torch.tensor(-1.0))
    step = onelip.export(dense(activation=nn.Softplus()))
    step.step.fill_(-1.0)
    step.inner.bias.fill_(100.0)
    stretch = float(jacobian_norm(step, torch.zeros(5, dtype=torch.float64)))
    assert 1 < stretch <= float(onelip.lipschitz_bound(step)) * (1 + 1e-14)


# Power steps of a whole model


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_shared_power_steps_are_those_of_the_layers(mode):
    layers = [
        conv(padding_mode=mode),
        conv(padding_mode=mode),
        conv(padding_mode=mode, size=3),
        dense(),
    ]
    together = nn.ModuleList(layers).train()
    alone = copy.deepcopy(together)
    with computed_once(together):
        for layer, same in zip(together, alone, strict=True):
            same.power_step()
            assert torch.allclose(layer.direction, same.direction, rtol=1e-10, atol=1e-12)
        before = together[0].direction.clone()
        together[0](torch.randn(1, 2, 4, 4, dtype=torch.float64))
        assert torch.equal(before, together[0].direction)
    together[0](torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert torch.equal(before, together[0].direction)  # the weights are those of the last step
    together[0].weight.data.add_(0.01 * torch.randn_like(together[0].weight))
    together[0](torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert not torch.equal(before, together[0].direction)


def test_shared_power_steps_leave_evaluation_alone_and_survive_zeros():
    layers = nn.ModuleList([conv(), conv(), conv()]).train()
    layers[0].eval()
    layers[1].weight.data.zero_()
    before = [layer.direction.clone() for layer in layers]
    with computed_once(layers):
        pass
    assert torch.equal(layers[0].direction, before[0])
    assert torch.equal(layers[1].direction, before[1])
    assert not torch.equal(layers[2].direction, before[2])


def test_an_error_inside_restores_the_steps():
    layer = conv().train()
    with pytest.raises(RuntimeError, match="stop"), computed_once(layer):
        raise RuntimeError("stop")
    before = layer.direction.clone()
    layer.weight.data *= torch.rand_like(layer.weight)
    layer(torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert not torch.equal(layer.direction, before)


def test_gradients_reach_weight_and_bias_through_the_step():
    layer = dense().train()
    x = torch.randn(3, 5, dtype=torch.float64)

    def output(weight: Tensor) -> Tensor:
        square = F.linear(layer.direction, weight).square().sum()
        hidden = layer.activation(F.linear(x, weight, layer.bias))
        return x - 2 / (square + 1e-4) * hidden @ weight

    layer.eval()
    expected = torch.autograd.grad(output(layer.weight).sum(), layer.weight)[0]
    found = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
