"""SDP-based Lipschitz layers against their formula and orthogonium's layers."""

import math

import pytest
import torch
from orthogonium.layers.conv.SLL.sll_layer import (
    SDPBasedLipschitzDense,
    SDPBasedLipschitzResBlock,
)
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import SLLConv2d, SLLLinear, computed_once
from onelip.layers.sll import SLL
from onelip.testing import jacobian_norm
from tests.oracles import materialised, sigma_max


def redrawn(layer: SLL) -> SLL:
    layer = layer.double().eval()
    for parameter in (layer.weight, layer.bias, layer.log_q):
        nn.init.normal_(parameter)
    return layer


def dense(features: int = 5, hidden: int = 7, **options) -> SLL:
    return redrawn(SLLLinear(features, hidden, **options))


def conv(kernel_size: int = 3, **options) -> SLL:
    return redrawn(SLLConv2d(2, 3, kernel_size, **options))


def slow_inverse_t(matrix: Tensor, q: Tensor) -> Tensor:
    gram = matrix @ matrix.T
    return torch.stack(
        [sum(gram[i, j].abs() * q[j] / q[i] for j in range(len(q))) for i in range(len(q))]
    )


@pytest.mark.parametrize(("activation", "slope"), [(None, 1), (nn.LeakyReLU(3.0), 3)])
def test_formula_of_the_dense_layer(activation, slope):
    layer = dense(activation=activation)
    x = torch.randn(5, dtype=torch.float64)
    with torch.no_grad():
        scale = 2 / slope / slow_inverse_t(layer.weight, layer.log_q.exp())
        hidden = layer.activation(layer.weight @ x + layer.bias)
        expected = x - layer.weight.T @ (scale * hidden)
        assert torch.allclose(layer(x[None])[0], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_formula_of_the_convolution(mode, kernel_size):
    """T from the rows of the circular map, on an image that holds the whole Gram kernel."""
    layer, size = conv(kernel_size, padding_mode=mode), 5
    x = torch.randn(2, size, size, dtype=torch.float64)

    def written_out(padding_mode: str) -> Tensor:
        options = {"padding": kernel_size // 2, "padding_mode": padding_mode, "bias": False}
        plain = nn.Conv2d(2, 3, kernel_size, **options).double().requires_grad_(False)
        plain.weight.copy_(layer.weight)
        return materialised(plain, (2, size, size))

    with torch.no_grad():
        pixels = size**2
        q, bias = (p.repeat_interleave(pixels) for p in (layer.log_q.exp(), layer.bias))
        scale = 2 / slow_inverse_t(written_out("circular"), q)
        matrix = written_out(mode)
        hidden = F.relu(matrix @ x.flatten() + bias)
        expected = x - (matrix.T @ (scale * hidden)).view_as(x)
        assert torch.allclose(layer(x[None])[0], expected, rtol=1e-9, atol=1e-11)


def test_values_of_orthogonium_dense():
    theirs = SDPBasedLipschitzDense(5, 5, 7).double()
    layer = SLLLinear(5, 7).double()
    layer.weight.data, layer.log_q.data = theirs.weight.data, theirs.q.data
    layer.bias.data = theirs.bias.data[0]
    x = torch.randn(4, 5, dtype=torch.float64)
    assert torch.allclose(layer(x), theirs(x), rtol=1e-9, atol=1e-10)


def test_values_of_orthogonium_convolution():
    """With q = 1: theirs cancels. It adds its bias to rows that are scaled already."""
    theirs = SDPBasedLipschitzResBlock(3, 2, 3).double()
    layer = SLLConv2d(3, 6, 3).double()
    layer.weight.data = theirs.parametrizations.kernel.original.data
    scale = theirs.kernel.detach()[:, 0, 0, 0] / layer.weight.detach()[:, 0, 0, 0]
    layer.bias.data = theirs.bias.detach().flatten() / scale
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    assert torch.allclose(layer(x), theirs(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("hidden", [1, 3, 8])
def test_never_longer_than_two(hidden):
    for _ in range(20):
        layer = dense(5, hidden)
        layer.log_q.data *= 10
        square = sigma_max(layer.rows()[0]) ** 2
        assert square <= 2 * (1 + 1e-12)
        if hidden == 1:
            assert square == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_stretch_with_every_unit_active(mode):
    layer = conv(padding_mode=mode)
    layer.bias.data.fill_(1e3)
    x = torch.randn(2, 4, 4, dtype=torch.float64)
    for module in (layer, onelip.export(layer)):
        assert float(jacobian_norm(module, x)) <= 1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_export_is_one_in_every_dtype(dtype, scale):
    for layer in (
        SLLLinear(6, 1),  # one row attains 2
        SLLLinear(6, 9),
        SLLConv2d(2, 1, 3),
        SLLConv2d(2, 3, 3, image_size=4, padding_mode="circular"),
    ):
        nn.init.uniform_(layer.weight, 0.5 * scale, scale)  # nothing cancels
        assert float(onelip.lipschitz_bound(layer.to(dtype).export())) == 1


def test_export_keeps_the_function():
    layer = conv(image_size=4)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    assert torch.allclose(onelip.export(layer)(x), layer(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("build", [dense, conv])
def test_still_a_contraction_after_violent_training(build):
    layer = build().train()
    shape = (5,) if build is dense else (2, 4, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e2)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(8, *shape, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.float64)
        assert float(jacobian_norm(layer.eval(), x)) <= 1 + 1e-12
    assert float(onelip.lipschitz_bound(onelip.export(layer))) == 1


@pytest.mark.parametrize("build", [dense, conv])
def test_gradients_of_the_parameters(build):
    layer = build()
    x = torch.randn(2, *((5,) if build is dense else (2, 3, 3)), dtype=torch.float64)
    names = ("weight", "bias", "log_q")

    def output(*values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [getattr(layer, name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(output, values)


@pytest.mark.parametrize("build", [dense, conv])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_zero_weights_are_the_identity(build, dtype):
    layer = build().to(dtype)
    layer.weight.data.zero_()
    x = torch.randn(1, *((5,) if build is dense else (2, 4, 4))).to(dtype)
    y = layer(x)
    assert torch.equal(y, x)
    y.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
    assert float(onelip.lipschitz_bound(layer)) == 1
    assert float(onelip.lipschitz_bound(onelip.export(layer))) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reach", [30.0, 1e3, 1e30])
def test_any_q_is_safe(dtype, reach):
    layer = dense().to(dtype)
    layer.log_q.data = torch.linspace(-reach, reach, 7).to(dtype)
    layer.weight.data[2] = 0
    assert bool(layer.rows()[0].isfinite().all())
    assert sigma_max(layer.rows()[0]) ** 2 <= 2 * (1 + 1e-6)
    layer(torch.ones(1, 5, dtype=dtype)).sum().backward()
    assert bool(layer.log_q.grad.isfinite().all())


def test_an_activation_that_came_to_decrease_in_training():
    layer = dense(activation=nn.PReLU())
    layer.activation.weight.data.fill_(-2.0)
    layer.bias.data.fill_(-100.0)
    x = torch.zeros(5, dtype=torch.float64)
    for module in (layer, onelip.export(layer)):
        stretch = float(jacobian_norm(module, x))
        assert 1.5 < stretch <= float(onelip.lipschitz_bound(module))


def test_computed_once():
    layer = conv().train()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with computed_once(layer):
        held = layer.rows()
        assert layer.rows() is held
        layer(x).sum().backward()
    assert layer.log_q.grad.abs().sum() > 0
    assert layer.rows() is not held
    assert torch.equal(layer.rows()[0], held[0])


def test_autocast_leaves_the_scales_alone():
    layer = dense().float()
    plain = layer.rows()[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.rows()[0], plain)


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.Tanh(), nn.LeakyReLU(-0.1), nn.Softmax(1)], ids=repr
)
def test_activations_that_are_refused(activation):
    with pytest.raises(ValueError, match=r"decreases or does not scale: use ReLU.*Convex Potent"):
        SLLLinear(2, 2, activation=activation)


def test_errors():
    with pytest.raises(ValueError, match=r"kernel_size must be odd .* got 2"):
        SLLConv2d(1, 1, 2)
    with pytest.raises(ValueError, match="a kernel of 7 wraps around an image of 2"):
        SLLConv2d(1, 1, 7, image_size=2)
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        SLLConv2d(1, 1, 3, padding_mode="replicate")
    layer, x = conv(image_size=4), torch.zeros(1, 2, 5, 4, dtype=torch.float64)
    for module in (layer, onelip.export(layer)):
        with pytest.raises(ValueError, match=r"proved for images of \(4, 4\)"):
            module(x)
    layer.weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        onelip.lipschitz_bound(layer)
