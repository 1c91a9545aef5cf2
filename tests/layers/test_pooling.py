"""Scaled pooling beyond the contract."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import UnboundedModuleError
from onelip.norms.windows import overlap_of_maxima, overlap_of_sums
from tests.oracles import materialised, sigma_max

POOLS = [(1, 1), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (4, 2), (4, 3), (5, 2)]


def test_scaled_average_pooling_contracts(each):
    for (kernel, stride), size in each(itertools.product(POOLS, [5, 6, 8])):
        pool = layers.ScaledAvgPool2d(kernel, stride)
        assert sigma_max(materialised(pool, (1, size, size))) <= 1 + 1e-14


RECTANGLES = [((2, 3), None), ((2, 3), (2, 1)), ((1, 4), 2), (3, (1, 2)), ((3, 2), (2, 3))]


def test_windows_that_are_no_squares(each):
    """Against torch's pools, divided by the norm of the map, or by what a pixel attains."""
    image = torch.randn(2, 1, 7, 8, dtype=torch.float64)
    for kernel, stride in each(RECTANGLES):
        mean, largest = nn.AvgPool2d(kernel, stride), nn.MaxPool2d(kernel, stride)
        norm = sigma_max(materialised(mean, (1, 12, 12)))
        pool = layers.ScaledAvgPool2d(kernel, stride)
        assert torch.allclose(pool(image), pool.scale * mean(image))
        assert pool.scale * norm <= 1 + 1e-12
        assert pool.scale >= 1 / sigma_max(materialised(mean, (1, 36, 36))) * (1 - 0.1)
        root = math.sqrt(most_windows(kernel, stride))
        assert torch.allclose(layers.ScaledMaxPool2d(kernel, stride)(image) * root, largest(image))
        squares = layers.ScaledL2NormPool2d(kernel, stride)(image).square() * root**2
        size = math.prod(mean.kernel_size if isinstance(kernel, tuple) else (kernel, kernel))
        assert torch.allclose(squares, mean(image.square()) * size)


def most_windows(kernel, stride) -> int:
    """How many windows read one pixel, by counting."""
    ones = nn.AvgPool2d(kernel, stride, divisor_override=1)
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    ones(image).sum().backward()
    return int(image.grad.max())


@pytest.mark.parametrize("kind", ["ScaledAvgPool2d", "ScaledL2NormPool2d", "ScaledMaxPool2d"])
def test_windows_that_are_none(kind):
    for arguments in ((0,), ((2, 0),), (2, -1), ((2, 3, 4),), (2.0,)):
        with pytest.raises(ValueError, match=r"whole number or two|must be positive"):
            getattr(layers, kind)(*arguments)


def test_windows_side_by_side_are_isometric_on_constants():
    x = torch.ones(1, 1, 6, 6)
    for kernel in (2, 3):
        assert float(layers.ScaledAvgPool2d(kernel)(x).norm()) == pytest.approx(6, rel=1e-6)


@pytest.mark.parametrize("kernel", range(1, 8))
def test_scales_are_rounded_down_and_are_float32(kernel):
    for stride in range(1, 8):
        window = [(kernel, stride)] * 2
        for pool, number, square in (  # of an average, and of a maximum
            (layers.ScaledAvgPool2d(kernel, stride), kernel**2, overlap_of_sums(window)),
            (layers.ScaledMaxPool2d(kernel, stride), 1, overlap_of_maxima(window)),
        ):
            assert Fraction(pool.scale) ** 2 * square <= number**2
            assert float(torch.tensor(pool.scale)) == pool.scale
            assert pool.scale == pytest.approx(number / math.sqrt(square), rel=1e-6)


@pytest.mark.parametrize(("kernel", "stride"), POOLS)
def test_max_pooling_attains_its_constant(kernel, stride):
    pool = nn.MaxPool2d(kernel, stride)
    size = 3 * kernel + 2 * stride
    stretch = 0.0
    for y, x in itertools.product(range(size), repeat=2):
        peak = torch.zeros(1, 1, size, size)
        peak[0, 0, y, x] = 1.0
        stretch = max(stretch, float(pool(peak).norm()))
    assert stretch == pytest.approx(float(onelip.lipschitz_bound(pool)), rel=1e-6)
    assert stretch <= float(onelip.lipschitz_bound(pool)) * (1 + 1e-6)


def test_other_windows_have_another_scale(each):
    """Overlapping windows stretch by 2, and by as much as the scale is too large."""
    image = torch.rand(1, 1, 6, 6)
    for kind, (name, value) in each(
        itertools.product(
            (layers.ScaledAvgPool2d, layers.ScaledL2NormPool2d, layers.ScaledMaxPool2d),
            (("stride", 1), ("scale", -3.0), ("scale", math.nan)),
        )
    ):
        pool = kind(2)
        setattr(pool, name, value)
        if kind is layers.ScaledAvgPool2d and name == "stride":
            assert sigma_max(materialised(pool, (1, 6, 6))) > 1.8
        pool(image)
        with pytest.raises(UnboundedModuleError, match="build a new one for other windows"):
            onelip.lipschitz_bound(pool)


def test_pooling_under_another_default_dtype():
    try:
        torch.set_default_dtype(torch.float64)
        scale = layers.ScaledMaxPool2d(3, stride=1).scale
    finally:
        torch.set_default_dtype(torch.float32)
    assert scale == layers.ScaledMaxPool2d(3, stride=1).scale


@pytest.mark.parametrize(("size", "sides"), [(1, (5, 7)), (2, (4, 6)), ((3, 1), (6, 5))])
def test_adaptive_pools_are_those_of_their_windows(size, sides):
    x = torch.randn(2, 3, *sides)
    mean, norm = layers.ScaledAdaptiveAvgPool2d(size), layers.ScaledAdaptiveL2NormPool2d(size)
    factor = math.sqrt(math.prod(sides) / mean(x)[0, 0].numel())
    assert torch.allclose(mean(x), factor * nn.AdaptiveAvgPool2d(size)(x), atol=1e-6)
    assert torch.allclose(norm(x).square().sum((2, 3)), x.square().sum((2, 3)))
    assert sigma_max(materialised(mean, (1, *sides))) <= 1


def test_the_scale_of_adaptive_pools_is_that_of_windows():
    """Both are rounded down to 24 bits, one in whole numbers."""
    for area in (*range(1, 400), 224 * 224, 10007 * 3):
        pool = layers.ScaledAdaptiveAvgPool2d()
        found = float(pool(torch.ones(1, 1, 1, area, dtype=torch.float64)))
        fixed = layers.ScaledAvgPool2d((1, area))
        assert found == pytest.approx(fixed.scale, rel=1e-15)
        assert pool.pool((1, 1, area)).scale == fixed.scale


@pytest.mark.parametrize(
    "kind", [layers.ScaledAdaptiveAvgPool2d, layers.ScaledAdaptiveL2NormPool2d]
)
def test_adaptive_windows_that_would_overlap(kind):
    for sides in ((5, 4), (1, 2), (0, 2)):
        with pytest.raises(ValueError, match="does not divide into 2 x 2 equal windows"):
            kind(2)(torch.zeros(1, 1, *sides))
    with pytest.raises(ValueError, match="does not divide"):
        onelip.reading.read(kind(2), (1, 5, 4))
    with pytest.raises(ValueError, match="output_size must be positive"):
        kind(0)
