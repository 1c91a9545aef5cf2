"""Almost-orthogonal layers against the materialised map and orthogonium's layer."""

import itertools

import pytest
import torch
from orthogonium.layers.conv.AOL.aol import AOLConv2D
from torch import Tensor, nn

import onelip
from onelip.errors import UnboundedModuleError
from onelip.layers import AOLConv2d, AOLLinear
from tests.oracles import materialised, sigma_max

SETTINGS = [
    {},
    {"kernel_size": 2},
    {"in_channels": 1, "out_channels": 3, "kernel_size": 1},
    {"in_channels": 4, "out_channels": 6, "groups": 2},
    {"dilation": 2},
    {"stride": 2},
    {"stride": 2, "kernel_size": 4},
    {"stride": 2, "kernel_size": 5, "dilation": 2},
    {"stride": 3, "kernel_size": 2},
    {"stride": 2, "in_channels": 4, "out_channels": 2, "groups": 2},
]
DRAWS = ["normal", "positive", "unequal columns", "nearly orthogonal"]


def conv(**options) -> AOLConv2d:
    layer = AOLConv2d(**{"in_channels": 2, "out_channels": 3, "kernel_size": 3} | options)
    return layer.double().eval()


@torch.no_grad()
def redraw(layer: AOLConv2d, how: str) -> AOLConv2d:
    weight = layer.raw_weight
    columns = torch.logspace(-2, 2, weight.shape[1], dtype=weight.dtype)[:, None, None]
    if how == "nearly orthogonal":
        weight += 1e-3 * torch.randn_like(weight)
    elif how == "normal":
        weight.normal_()
    elif how == "positive":
        weight.uniform_()
    else:
        weight.normal_().mul_(columns)
    return layer


def matrix_of(layer: AOLConv2d, weight: Tensor, size: int | tuple[int, int]) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    with torch.no_grad():
        return materialised(lambda x: layer.convolve(x, weight), (layer.in_channels, height, width))


def test_formula_of_the_dense_layer():
    layer = AOLLinear(3, 4).double()
    free = nn.init.normal_(layer.raw_weight).detach()
    for j in range(3):
        total = sum(abs(sum(free[o, i] * free[o, j] for o in range(4))) for i in range(3))
        expected = free[:, j] / total**0.5
        assert layer.weight[:, j].tolist() == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_formula_of_the_convolution(options):
    """Columns of the written-out matrix are scaled as those of a dense layer would be."""
    layer = redraw(conv(**options), "normal")
    size = 18  # what the longest Gram kernel spans
    free = matrix_of(layer, layer.raw_weight, size)
    scale = (free.T @ free).abs().sum(0).rsqrt()
    expected = (free * scale).nan_to_num()  # pixels between the windows have empty columns
    assert torch.allclose(matrix_of(layer, layer.weight, size), expected, rtol=1e-12, atol=1e-14)


def test_norms_on_images_of_many_sizes(each):
    for options, how in each(itertools.product(SETTINGS, DRAWS)):
        for mode in ("circular", "zeros"):
            layer = redraw(conv(**options, padding_mode=mode), how)
            step = 1 if mode == "zeros" else layer.stride[0]
            for size in (step * 4, (step * 5, step * 6)):
                assert sigma_max(matrix_of(layer, layer.weight, size)) <= 1 + 1e-12


@pytest.mark.slow
def test_measured_bounds(each):
    """One up to rounding, even if no entry cancels, on an image and for every size."""
    for options, how in each(itertools.product(SETTINGS, DRAWS)):
        for size, limit in ((36, 1 + 1e-6), (None, 1 + 1e-6)):
            layer = redraw(conv(**options, image_size=size), how)
            assert float(onelip.lipschitz_bound(layer)) <= limit


def test_positive_kernels_attain_one():
    layer = redraw(conv(image_size=8), "positive")
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_new_square_layers_keep_the_pixels(kernel_size, stride):
    layer = AOLConv2d(2, 2 * stride**2, kernel_size, stride=stride)
    x = torch.randn(1, 2, 4, 4)
    y = layer(x)
    assert torch.allclose(y.flatten().sort().values, x.flatten().sort().values)
    if stride == 1:
        assert torch.allclose(y, x)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "out_channels": 9}, {"groups": 2}], ids=str)
def test_new_layers_that_grow_are_isometries(options):
    layer = conv(**{"out_channels": 6} | options)
    values = torch.linalg.svdvals(matrix_of(layer, layer.weight, 4))
    assert values.tolist() == pytest.approx([1] * len(values), rel=1e-6)
    dense = AOLLinear(3, 5).double()
    assert torch.linalg.svdvals(dense.weight).tolist() == pytest.approx([1] * 3, rel=1e-6)


def test_length_of_the_free_weight_does_not_matter():
    layer = redraw(conv(stride=2), "normal")
    before = layer.weight
    layer.raw_weight.data *= 1e-4
    assert torch.allclose(layer.weight, before, rtol=1e-12)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_after_steps_at_a_huge_learning_rate(options):
    layer = conv(**options).train()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e3)
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(torch.randn(2, layer.in_channels, 12, 12, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    assert sigma_max(matrix_of(layer, layer.weight, 12)) <= 1 + 1e-12
    exported = onelip.export(layer)
    shape = (layer.in_channels, 12, 12)
    bias = exported(torch.zeros(1, *shape, dtype=torch.float64))
    assert sigma_max(materialised(lambda x: exported(x) - bias, shape)) <= 1 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_zero_weights(dtype):
    for layer, x in ((conv(stride=2), torch.ones(1, 2, 4, 4)), (AOLLinear(4, 3), torch.ones(1, 4))):
        layer.to(dtype).raw_weight.data.zero_()
        layer(x.to(dtype)).sum().backward()
        assert not layer.weight.any()
        assert bool(layer.raw_weight.grad.isfinite().all())
        assert float(onelip.lipschitz_bound(layer)) < 1e-100


def test_half_precision_is_measured():
    layer = redraw(AOLConv2d(2, 3, 3, image_size=4), "positive").to(torch.bfloat16)
    true = sigma_max(matrix_of(conv(), layer.weight.double(), 4))
    assert true <= float(onelip.lipschitz_bound(layer)) <= true * (1 + 1e-8)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=0.02)


def test_wider_padding_repeats_pixels():
    layer = redraw(conv(padding=2, image_size=3), "positive")
    true = sigma_max(matrix_of(layer, layer.weight, 3))
    assert 1.1 < true <= float(onelip.lipschitz_bound(layer)) <= true * (1 + 1e-8)


@pytest.mark.parametrize(("channels", "groups"), [((2, 3), 1), ((3, 3), 1), ((4, 6), 2)])
def test_values_of_orthogonium(channels, groups):
    """Its layer scales the smaller side; with as many outputs as inputs that is ours."""
    theirs = AOLConv2D(*channels, 3, groups=groups).double()
    layer = AOLConv2d(*channels, 3, groups=groups).double()
    layer.raw_weight.data = torch.randn_like(layer.raw_weight)
    theirs.parametrizations.weight.original.data = layer.raw_weight.data.clone()
    assert torch.allclose(layer.weight, theirs.weight, rtol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match="groups=2 must divide 3 and 4 channels"):
        AOLConv2d(3, 4, 3, groups=2)
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        AOLConv2d(2, 2, 3, padding_mode="reflect")
    with pytest.raises(ValueError, match="features must be positive"):
        AOLLinear(0, 2)
