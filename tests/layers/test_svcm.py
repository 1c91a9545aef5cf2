"""Singular value clipping and masking against the clipped matrix."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip.errors import UnboundedModuleError
from onelip.layers import SVCMConv2d, computed_once, project
from onelip.layers.svcm import clipped
from tests.oracles import materialised, sigma_max

SETTINGS = [
    {},
    {"image_size": (5, 6)},
    {"kernel_size": 2},
    {"in_channels": 1, "out_channels": 4},
    {"in_channels": 4, "out_channels": 6, "groups": 2},
    {"stride": 2, "kernel_size": 4, "out_channels": 6},
    {"stride": 2, "image_size": (6, 8)},
    {"stride": 3, "kernel_size": 2, "image_size": 6},
    {"dilation": 2, "image_size": 7},
    {"padding_mode": "zeros"},
    {"padding_mode": "zeros", "stride": 2, "image_size": (5, 4)},
]


def conv(scale: float = 3.0, **options) -> SVCMConv2d:
    defaults = {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "image_size": 6}
    layer = SVCMConv2d(**defaults | options).double().eval()
    layer.raw_weight.data *= scale
    return layer


def matrix_of(layer: SVCMConv2d) -> Tensor:
    with torch.no_grad():
        return materialised(
            lambda x: layer.convolve(x, layer.weight), (layer.in_channels, *layer.image_size)
        )


def rolled(kernel: Tensor, x: Tensor) -> Tensor:
    """``y(p) = sum_t K_t x(p + t)`` on a torus, tap by tap."""
    return sum(
        torch.einsum("oi,bihw->bohw", kernel[..., u, v], x.roll((-u, -v), (2, 3)))
        for u in range(kernel.shape[2])
        for v in range(kernel.shape[3])
    )


def test_clipping_is_that_of_the_matrix(each):
    for grid, (outputs, inputs) in each(
        itertools.product([(4, 4), (3, 5), (5, 4), (2, 3)], [(3, 3), (2, 4), (4, 1)])
    ):
        kernels, expected = torch.randn(2, outputs, inputs, 2, 3, dtype=torch.float64), []
        for kernel in kernels:
            matrix = materialised(lambda x, k=kernel: rolled(k, x), (inputs, *grid))
            u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
            middle = (values[0] + values[-1]) / 2  # scaled to 1: some are longer, some are shorter
            kernel.div_(middle)
            expected.append((u * (values / middle).clamp_max(1)) @ vh)
        for wanted, full in zip(expected, clipped(kernels, grid), strict=True):
            found = materialised(lambda x, k=full: rolled(k, x), (inputs, *grid))
            assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_projected_kernels_are_close_to_norm_one(options):
    layer = conv(**options)
    before = sigma_max(matrix_of(layer))
    excess = []
    for iterations in (1, 49, 450):
        layer.project(iterations=iterations)
        true = sigma_max(matrix_of(layer))
        bound = float(onelip.lipschitz_bound(layer))
        assert true * (1 - 1e-12) <= bound
        excess.append(bound - 1)
    assert before > 1.1
    assert excess[1] < 0.02
    assert excess[2] < 0.003


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_kernels_that_are_short_enough_stay(options):
    layer = conv(scale=0.1, **options)
    before = layer.raw_weight.clone()
    assert float(onelip.lipschitz_bound(layer)) < 1
    layer.project()
    assert torch.allclose(layer.raw_weight, before, rtol=1e-12, atol=1e-14)


def test_it_moves_towards_kernels_of_norm_one():
    """A projection onto a convex set that holds the target never moves away from it."""
    layer, target = conv(), conv(scale=0.1)
    distances: list[float] = []
    for _ in range(5):
        distances.append(float((layer.raw_weight - target.raw_weight).detach().norm()))
        layer.project(iterations=1)
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > distances[1]


def test_long_singular_values_are_not_shrunk_below_one():
    """A multiple of an orthogonal kernel comes out orthogonal."""
    layer = conv(in_channels=3, scale=0)
    layer.raw_weight.data[:, :, 1, 1] = 5 * torch.eye(3)
    layer.project()
    assert torch.allclose(layer.raw_weight[:, :, 1, 1], torch.eye(3).double(), atol=1e-12)


def test_without_projection_the_bound_follows_the_weights():
    layer = conv()
    layer.raw_weight.data *= 7 / sigma_max(matrix_of(layer))
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(7, rel=1e-6)


def test_project_reaches_every_layer_of_a_model():
    inner = nn.Sequential(nn.ReLU(), conv(in_channels=3))
    model = nn.Sequential(conv(), inner, nn.Conv2d(3, 3, 1))
    plain = model[2].weight.clone()
    project(model)
    for layer in (model[0], inner[1]):
        assert float(onelip.lipschitz_bound(layer)) < 1.02
        assert layer.raw_weight.requires_grad
        assert layer.raw_weight.is_leaf
    assert torch.equal(model[2].weight, plain)
    project(nn.ReLU())


def test_training_with_projections():
    layer = conv(stride=2).train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        with computed_once(layer):
            assert not isinstance(layer.weight, nn.Parameter)
            layer(x).square().sum().backward()
        optimizer.step()
        project(layer)
    assert [name for name, _ in layer.named_parameters()] == ["bias", "raw_weight"]
    assert float(onelip.lipschitz_bound(layer)) < 1.02
    exported = onelip.export(layer.eval())
    assert torch.allclose(exported(x), layer(x), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_dtypes(dtype):
    layer = conv().to(dtype)
    layer.project()
    assert layer.raw_weight.dtype == dtype
    assert float(onelip.lipschitz_bound(layer)) < 1.03
    layer.raw_weight.data.zero_()
    layer.project()
    assert not layer.raw_weight.any()


def test_errors():
    with pytest.raises(ValueError, match=r"circular padding with stride 2 .* got 5 x 4"):
        SVCMConv2d(1, 1, 3, image_size=(5, 4), stride=2)
    with pytest.raises(ValueError, match="a kernel that spans 5 pixels is larger than the image"):
        SVCMConv2d(1, 1, 3, image_size=4, dilation=2)
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        SVCMConv2d(1, 1, 3, image_size=4, padding_mode="replicate")
    with pytest.raises(ValueError, match=r"proved for images of \(6, 6\), got \(5, 5\)"):
        conv()(torch.zeros(1, 2, 5, 5, dtype=torch.float64))
