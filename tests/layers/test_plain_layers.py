"""Pooling, channels, heads, scaling and sorting beyond the contract."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NonFiniteError
from onelip.norms.windows import overlap_of_maxima, overlap_of_sums, root_above
from tests.oracles import materialised, sigma_max

POOLS = [(1, 1), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (4, 2), (4, 3), (5, 2)]


# Pooling


@pytest.mark.parametrize(("kernel", "stride"), POOLS)
def test_sums_over_windows_along_an_axis(kernel, stride):
    """Never above the counted norm, and close to it on a long axis."""

    def pool(x):
        return nn.functional.avg_pool1d(x, kernel, stride) * kernel

    limit = math.sqrt(sum(len(range(p, kernel, stride)) ** 2 for p in range(stride)))
    assert overlap_of_sums([(kernel, stride)]) == round(limit**2)
    assert overlap_of_sums([(kernel, stride)] * 2) == round(limit**4)
    norms = [sigma_max(materialised(pool, (1, n))) for n in (kernel, 2 * kernel + stride, 120)]
    assert max(norms) <= limit * (1 + 1e-12)
    assert norms[-1] >= 0.99 * limit


@pytest.mark.parametrize(("kernel", "stride"), POOLS)
@pytest.mark.parametrize("size", [5, 6, 8])
def test_scaled_average_pooling_contracts(kernel, stride, size):
    pool = layers.ScaledAvgPool2d(kernel, stride)
    assert sigma_max(materialised(pool, (1, size, size))) <= 1 + 1e-14


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


DILATED = [(2, 1, 2), (2, 2, 2), (3, 2, 2), (3, 2, 3), (3, 3, 2), (3, 4, 2), (4, 6, 4)]


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [*((k, s, 1) for k, s in POOLS), *DILATED]
)
def test_windows_that_share_a_pixel_by_brute_force(kernel, stride, dilation):
    size = 60
    counts = [0] * size
    for start in range(0, size - (kernel - 1) * dilation, stride):
        for tap in range(kernel):
            counts[start + tap * dilation] += 1
    assert overlap_of_maxima([(kernel, stride)], (dilation,)) == max(counts)


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


@pytest.mark.parametrize("square", [0, 1, 2, 3, 4, 16, 10**9 + 7, 10**15 + 37, (10**7 + 1) ** 2])
@pytest.mark.parametrize("divisor", [1, 2, -3, 10**6])
def test_roots_are_rounded_up(square, divisor):
    root = root_above(square, divisor)
    assert Fraction(root) ** 2 * divisor**2 >= square
    assert root == pytest.approx(math.sqrt(square) / abs(divisor), rel=1e-15)


# Channels


def test_zero_padding_and_truncation_undo_each_other():
    x = torch.randn(2, 3, 4, 5)
    padded = layers.ZeroPadChannels(7)(x)
    assert padded.shape == (2, 7, 4, 5)
    assert bool((padded[:, 3:] == 0).all())
    assert torch.equal(layers.TruncateChannels(3)(padded), x)
    assert torch.equal(layers.TruncateChannels(2)(x), x[:, :2])


@pytest.mark.parametrize("layer", [layers.ZeroPadChannels(3), layers.TruncateChannels(3)], ids=repr)
def test_as_many_channels_change_nothing(layer):
    x = torch.randn(2, 3)
    assert torch.equal(layer(x), x)


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="4 channels do not fit into 3"):
        layers.ZeroPadChannels(3)(torch.ones(1, 4))
    with pytest.raises(ValueError, match="2 channels, fewer than 3"):
        layers.TruncateChannels(3)(torch.ones(1, 2))


def test_downsampling_keeps_every_pixel():
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    y = layers.InvertibleDownsampling(2)(x)
    assert y.shape == (1, 8, 2, 3)
    assert torch.equal(nn.functional.pixel_shuffle(y, 2), x)
    assert float(y.norm()) == float(x.norm())
    with pytest.raises(RuntimeError, match="divisible"):
        layers.InvertibleDownsampling(3)(x)


# Heads and scaling


def test_rows_of_the_last_layer_have_length_one():
    head = layers.UnitNormLinear(5, 4).double()
    head.raw_weight.data = (
        torch.randn(4, 5, dtype=torch.float64) * torch.logspace(-6, 6, 4)[:, None]
    )
    assert head.weight.norm(dim=1).tolist() == pytest.approx([1] * 4, rel=1e-12)
    x = torch.randn(3, 5, dtype=torch.float64)
    assert torch.equal(head(x), x @ head.weight.T + head.bias) or torch.allclose(
        head(x), x @ head.weight.T + head.bias, rtol=1e-14
    )


def test_the_bound_of_the_last_layer_is_measured():
    head = layers.UnitNormLinear(5, 4)
    assert float(onelip.lipschitz_bound(head)) == pytest.approx(1, abs=1e-5)
    head.raw_weight.data = torch.ones(4, 5)
    assert float(onelip.lipschitz_bound(head)) == pytest.approx(2, rel=1e-6)
    head.raw_weight.data.zero_()  # no direction to normalise
    assert float(onelip.lipschitz_bound(head)) == 0


def test_normalize_by_hand_and_its_errors():
    layer = layers.Normalize([0.5, 0.25], [0.25, 0.5])
    x = torch.tensor([[[[1.0]], [[1.0]]]])
    assert layer(x).flatten().tolist() == [2.0, 1.5]
    assert layer(x.flatten(1)).tolist() == [[2.0, 1.5]]
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(4, rel=1e-12)
    for mean, std in (([0.0], [0.0]), ([0.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="one mean and one std"):
            layers.Normalize(mean, std)
    layer.std.zero_()
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)


def test_the_bound_of_normalize_is_that_of_the_stored_std():
    """0.1 in float32 is a little more than 0.1; in float16 a little less."""
    for dtype in (torch.float32, torch.float16, torch.float64):
        layer = layers.Normalize([0.0], [0.1]).to(dtype)
        exact = 1 / Fraction(layer.std.item())
        assert Fraction(float(onelip.lipschitz_bound(layer))) >= exact


# Sorting


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_group_sort_sorts_each_group(size):
    x = torch.randn(2, 6, 3)
    y = layers.GroupSort(size)(x)
    for start in range(0, 6, size):
        assert torch.equal(y[:, start : start + size], x[:, start : start + size].sort(1).values)


def test_max_min_is_a_descending_sort_of_pairs():
    x = torch.randn(3, 6, 2, 2)
    y = layers.MaxMin()(x)
    for start in (0, 2, 4):
        pair = x[:, start : start + 2].sort(1, descending=True).values
        assert torch.equal(y[:, start : start + 2], pair)


def test_sorting_keeps_norms():
    x = torch.randn(4, 6)
    for layer in (layers.MaxMin(), layers.GroupSort(3)):
        assert torch.allclose(layer(x).norm(dim=1), x.norm(dim=1))


def test_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="5 channels do not divide into groups of 2"):
        layers.MaxMin()(torch.ones(1, 5))
    with pytest.raises(ValueError, match="4 channels do not divide into groups of 3"):
        layers.GroupSort(3)(torch.ones(1, 4))
    with pytest.raises(ValueError, match="group_size must be positive, got 0"):
        layers.GroupSort(0)


def test_pooling_under_another_default_dtype():
    try:
        torch.set_default_dtype(torch.float64)
        scale = layers.ScaledMaxPool2d(3, stride=1).scale
    finally:
        torch.set_default_dtype(torch.float32)
    assert scale == layers.ScaledMaxPool2d(3, stride=1).scale
