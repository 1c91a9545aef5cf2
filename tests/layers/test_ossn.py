"""One-sided spectral normalisation: its estimate, its gradient, and where it falls short."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import onelip
from onelip.errors import UnboundedModuleError
from onelip.layers import OSSNConv2d, ProjectedOSSNConv2d, computed_once, project
from tests.oracles import materialised, sigma_max

SETTINGS = [
    {},
    {"padding_mode": "zeros"},
    {"kernel_size": 4, "stride": 2, "image_size": (4, 6)},
    {"stride": 2, "padding_mode": "zeros", "image_size": 5},
    {"dilation": 2, "image_size": 5},
    {"kernel_size": 2, "padding_mode": "zeros"},
    {"in_channels": 4, "out_channels": 6, "groups": 2},
    {"padding": 0, "padding_mode": "zeros"},
    {"padding": 2, "image_size": 3},
]


def conv(scale: float = 3.0, **options) -> OSSNConv2d:
    defaults = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "image_size": 4}
    layer = OSSNConv2d(**defaults | options).double().eval()
    layer.raw_weight.data = scale * torch.randn_like(layer.raw_weight)
    return layer


def matrix_of(layer: OSSNConv2d, weight: Tensor) -> Tensor:
    with torch.no_grad():
        return materialised(
            lambda x: layer.convolve(x, weight), (layer.in_channels, *layer.image_size)
        )


def images(layer: OSSNConv2d, count: int = 2) -> Tensor:
    return torch.randn(count, layer.in_channels, *layer.image_size, dtype=torch.float64)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_converged_kernels_are_divided_by_their_norm(options):
    """Which they are only if the adjoint is the adjoint."""
    layer = conv(**options)
    layer.power_step(2000)
    expected = layer.raw_weight / sigma_max(matrix_of(layer, layer.raw_weight))
    assert torch.allclose(layer.weight, expected, rtol=1e-6)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-6)


def test_short_kernels_are_left_alone():
    layer = conv(scale=0.05)
    layer.power_step(100)
    assert torch.equal(layer.weight, layer.raw_weight)
    assert float(onelip.lipschitz_bound(layer)) < 1


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_after_a_cold_start_it_stretches_and_the_bound_says_so(options):
    """Claimed is 1, for kernels that changed since their last step."""
    worst = 0.0
    for _ in range(10):
        layer = conv(**options)
        layer.power_step()
        true = sigma_max(matrix_of(layer, layer.weight))
        assert true * (1 - 1e-12) <= float(onelip.lipschitz_bound(layer)) <= true * 1.1
        worst = max(worst, true)
    assert worst > 1.05


def test_ten_steps_in_training_and_none_in_evaluation():
    layer = conv()
    before, by_hand = layer.direction.clone(), copy.deepcopy(layer)
    by_hand.power_step(10)
    layer(images(layer))
    onelip.lipschitz_bound(layer)
    assert torch.equal(layer.direction, before)
    layer.train()
    onelip.lipschitz_bound(layer)
    assert torch.equal(layer.direction, before)
    layer(images(layer))
    assert torch.equal(layer.direction, by_hand.direction)
    assert float(layer.direction.norm()) == pytest.approx(1, rel=1e-12)


def test_steps_once_inside_computed_once():
    layer = conv(iterations=3).train()
    by_hand = copy.deepcopy(layer)
    by_hand.power_step(3)
    with computed_once(layer):
        layer(images(layer))
        layer(images(layer)).sum().backward()
        assert torch.equal(layer.direction, by_hand.direction)
    assert layer.raw_weight.grad.abs().sum() > 0
    with computed_once(layer.eval()):
        layer(images(layer))
    assert torch.equal(layer.direction, by_hand.direction)


def test_gradient_of_torch_spectral_norm():
    """A kernel as large as its image is a matrix."""
    layer = conv(kernel_size=3, padding=0, padding_mode="zeros", image_size=3, bias=False)
    layer.power_step(500)
    dense = nn.Linear(18, 3, bias=False).double()
    dense.weight.data = layer.raw_weight.data.flatten(1)
    parametrizations.spectral_norm(dense, n_power_iterations=500)
    x, weights = images(layer), torch.randn(2, 3, dtype=torch.float64)
    (layer(x).flatten(1) * weights).sum().backward()
    (dense.eval()(x.flatten(1)) * weights).sum().backward()
    assert torch.allclose(layer(x).flatten(1), dense(x.flatten(1)), rtol=1e-9, atol=1e-12)
    theirs = dense.parametrizations.weight.original.grad
    assert torch.allclose(layer.raw_weight.grad.flatten(1), theirs, rtol=1e-8, atol=1e-10)


def test_a_layer_used_twice_in_training():
    """Its direction moves in between; the first gradient needs the old one."""
    layer = conv(in_channels=3, padding_mode="zeros").train()
    x = images(layer)
    layer(layer(x)).sum().backward()
    assert bool(layer.raw_weight.grad.isfinite().all())


@pytest.mark.parametrize("spoiled", [0.0, 1e200])
def test_weights_that_were_zero_or_overflowed_recover(spoiled):
    layer = conv()
    good = layer.raw_weight.data.clone()
    layer.raw_weight.data.fill_(spoiled)
    layer.train()(images(layer)).sum().backward()
    layer.raw_weight.data = good
    layer.power_step(2000)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-6)


def test_float32_and_export():
    layer = conv(stride=2).float().train()
    for _ in range(3):
        layer(images(layer).float())
    exported = onelip.export(layer.eval())
    x = images(layer).float()
    assert torch.allclose(exported(x), layer(x), rtol=1e-5, atol=1e-6)
    true = sigma_max(matrix_of(conv(stride=2), exported.conv.weight.double()))
    assert true <= float(onelip.lipschitz_bound(exported)) <= true * (1 + 1e-8)


def test_autocast_leaves_the_estimate_alone():
    layer = conv().float()
    plain, other = layer.weight, copy.deepcopy(layer)
    layer.power_step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(other.weight, plain)
        other.power_step()
    assert torch.equal(layer.direction, other.direction)


def test_errors():
    with pytest.raises(ValueError, match=r"circular padding with stride 2 .* got 5 x 4"):
        OSSNConv2d(1, 1, 3, image_size=(5, 4), stride=2)
    with pytest.raises(ValueError, match="iterations must be positive, got 0"):
        OSSNConv2d(1, 1, 3, image_size=4, iterations=0)
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        OSSNConv2d(1, 1, 3, image_size=4, padding_mode="reflect")
    with pytest.raises(ValueError, match=r"proved for images of \(4, 4\), got \(5, 5\)"):
        conv()(torch.zeros(1, 2, 5, 5, dtype=torch.float64))


def test_projected_ossn_puts_a_long_kernel_back_and_leaves_a_short_one():
    layer = ProjectedOSSNConv2d(2, 3, 3, image_size=5, iterations=300).double()
    layer.raw_weight.data *= 10
    long = layer.raw_weight.detach().clone()
    assert float(onelip.lipschitz_bound(layer)) > 3
    project(layer)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-6)
    factor = float(layer.raw_weight.norm() / long.norm())
    assert torch.allclose(layer.raw_weight, factor * long)
    layer.raw_weight.data *= 0.5
    short = layer.raw_weight.detach().clone()
    project(layer)
    assert torch.equal(layer.raw_weight, short)
    before = copy.deepcopy(layer.state_dict())
    layer.train()(torch.randn(2, 2, 5, 5, dtype=torch.float64)).square().sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    radial = float((layer.raw_weight.grad * layer.raw_weight).sum())
    assert abs(radial) > 1e-3  # a gradient that can shrink it, which OSSN has not:
    other = OSSNConv2d(2, 3, 3, image_size=5).double()
    other.raw_weight.data *= 10
    other.power_step(300)
    other(torch.randn(2, 2, 5, 5, dtype=torch.float64)).square().sum().backward()
    assert float((other.raw_weight.grad * other.raw_weight).sum()) == pytest.approx(0, abs=1e-9)


def test_the_adjoint_of_the_power_iteration(each):
    for mode, options in each(
        itertools.product(
            ["zeros", "circular"],
            [
                {"kernel_size": 3},
                {"kernel_size": 2},
                {"kernel_size": 4},
                {"kernel_size": 3, "stride": 3},
                {"kernel_size": 4, "stride": 2, "padding": 1},
                {"kernel_size": 3, "padding": "valid"},
                {"kernel_size": 2, "dilation": 3},
                {"kernel_size": 3, "padding": 2, "groups": 2},
            ],
        )
    ):
        layer = OSSNConv2d(
            2, 4, image_size=(6, 9 if mode == "zeros" else 6), padding_mode=mode, **options
        )
        operator, adjoint = layer.double()._maps()
        x = torch.randn(layer.direction.shape, dtype=torch.float64)
        image = operator(x)
        y = torch.randn_like(image)
        back = adjoint(y)
        assert back.shape == x.shape
        assert float((image * y).sum()) == pytest.approx(float((x * back).sum()), rel=1e-10)
