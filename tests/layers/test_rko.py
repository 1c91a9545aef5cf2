"""Reshaped kernels against their definition, the windows of a pixel counted, and others' layers.

orthogonium's ``RKOConv2d`` and deel-torchlip's ``SpectralConv2d`` orthogonalise the same reshaped
kernel; both divide by ``ceil(k / stride)`` whatever the dilation. deel-torchlip stops Bjorck's
iteration when a step is shorter than 1e-3, so its values are only near to ours.
"""

import itertools
import random

import pytest
import torch
from orthogonium.layers.conv.AOC import RKOConv2d as OrthogoniumRKO
from orthogonium.model_factory.classparam import ClassParam
from orthogonium.reparametrizers import BatchedIdentity, BatchedQROrthogonalization, OrthoParams
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.errors import UnboundedModuleError
from onelip.layers import RKOConv2d, bjorck
from onelip.norms.windows import overlap_of_maxima
from tests.oracles import is_above, materialised, norm_below, positive_q, sigma_max


def redrawn(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def linear(layer: RKOConv2d, size: tuple[int, int]) -> Tensor:
    with torch.no_grad():
        return materialised(lambda x: layer.convolve(x, layer.weight), (layer.in_channels, *size))


# The construction


def test_the_kernel_is_a_reshaped_orthogonal_matrix(each):
    for channels, (kernel_size, stride), groups in each(
        itertools.product(
            [(1, 1), (2, 3), (1, 9), (1, 12), (5, 2)],
            [(1, 1), (2, 1), (3, 2), (3, 3), (2, 3)],
            [1, 2],
        )
    ):
        inputs, outputs = channels
        layer = redrawn(
            RKOConv2d(inputs * groups, outputs * groups, kernel_size, stride=stride, groups=groups)
        )
        columns = inputs * kernel_size**2
        for raw, kernel in zip(layer.raw_weight, layer.weight.chunk(groups), strict=True):
            q = positive_q(raw)
            q = q if outputs >= columns else q.T
            for o, i, u, v in itertools.product(*map(range, kernel.shape)):
                place = (i * kernel_size + u) * kernel_size + v
                wanted = q[o, place] / -(-kernel_size // stride)
                assert kernel[o, i, u, v].item() == pytest.approx(wanted.item(), abs=1e-12)


def test_windows_side_by_side_are_orthogonal(each):
    for channels, side in each(itertools.product([(2, 3), (1, 9), (2, 8), (3, 2)], [1, 2, 3])):
        layer = redrawn(RKOConv2d(*channels, side, stride=side))
        values = torch.linalg.svdvals(linear(layer, (2 * side, 3 * side)))
        assert torch.allclose(values, torch.ones_like(values), atol=1e-9, rtol=0)


# Windows


def most_windows(kernel: int, stride: int, dilation: int) -> int:
    """How many windows read one pixel of a line that goes on for ever, the worst pixel."""
    reads = [start + tap * dilation for start in range(0, 300, stride) for tap in range(kernel)]
    return max(reads.count(pixel) for pixel in range(100, 100 + stride))


def test_windows_of_a_pixel_are_as_many_as_there_are(each):
    for dilation, stride, kernel in each(itertools.product([1, 2, 3, 4], range(1, 7), range(1, 7))):
        counted = most_windows(kernel, stride, dilation)
        assert overlap_of_maxima([(kernel, stride)], (dilation,)) == counted


def test_the_count_of_undilated_windows_is_false_with_dilation():
    """2 taps, 2 apart, every 2 pixels: each pixel is read twice, and ceil(2 / 2) is once."""
    layer = RKOConv2d(1, 1, 2, stride=2, dilation=2, bias=False).double()
    layer.raw_weight.data.fill_(1)
    norm = sigma_max(linear(layer, (8, 8)))
    naive = norm * overlap_of_maxima([(2, 2)], (2,)) / -(-2 // 2)
    assert naive > 1.99
    assert norm <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-6


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 1), (3, 1), (4, 2), (6, 3), (2, 2)])
def test_the_division_can_be_needed_in_full(kernel_size, stride):
    """A constant image under a constant kernel attains the norm 1."""
    layer = RKOConv2d(1, 1, kernel_size, stride=stride, bias=False).double()
    layer.raw_weight.data.fill_(1)
    norm = sigma_max(linear(layer, (6 * stride, 6 * stride)))
    assert norm == pytest.approx(1, abs=1e-12)
    assert norm * (1 - 1e-14) <= float(onelip.lipschitz_bound(layer))


# Norms


def _random_setting(seed: int) -> tuple[RKOConv2d, tuple[int, int]]:
    draw = random.Random(seed).randint
    torch.manual_seed(seed)
    stride, groups = draw(1, 4), draw(1, 2)
    layer = RKOConv2d(
        draw(1, 3) * groups,
        draw(1, 4) * groups,
        draw(1, 5),
        stride=stride,
        dilation=draw(1, 3),
        groups=groups,
        padding_mode=("circular", "zeros")[draw(0, 1)],
    )
    if seed % 3:
        redrawn(layer)
    if seed % 3 == 2:  # constant kernels stretch most
        layer.raw_weight.data = 1 + 1e-3 * layer.raw_weight.data
    return layer.double(), (stride * draw(1, 4), stride * draw(1, 4))


@pytest.mark.parametrize("first", range(0, 600, 150))
def test_never_above_one_and_never_above_the_bound(first):
    """Every stride, kernel, dilation and padding, on every image that fits."""
    tried = 0
    for seed in range(first, first + 150):
        layer, size = _random_setting(seed)
        try:
            matrix = linear(layer, size)
        except RuntimeError:
            continue  # torch wraps an image around once at most, and kernels must fit
        tried += 1
        norm = sigma_max(matrix)
        assert norm <= 1 + 1e-12, (seed, layer)
        if seed % 5 == 0:
            assert norm <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-13), (seed, layer)
    assert tried > 75


def test_the_bound_is_above_in_ball_arithmetic():
    tried = 0
    for seed in range(40):
        layer, size = _random_setting(seed)
        layer.image_size = size
        try:
            matrix = linear(layer, size)
        except RuntimeError:
            continue
        if matrix.numel() < 1000 and matrix.any():
            tried += 1
            assert is_above(onelip.lipschitz_bound(layer), norm_below(matrix))
    assert tried > 10


def test_wide_circular_padding_repeats_pixels_and_the_bound_says_so():
    layer = RKOConv2d(1, 1, 3, padding=3, bias=False).double()
    layer.raw_weight.data.fill_(1)
    for size in ((3, 3), (4, 5)):
        norm = sigma_max(linear(layer, size))
        assert 1.2 < norm <= float(onelip.lipschitz_bound(layer))


# Values of others


def test_values_of_orthogonium(each):
    for channels, (kernel_size, stride), groups in each(
        itertools.product([(3, 4), (1, 12), (6, 2)], [(1, 1), (3, 1), (3, 2), (2, 2)], [1, 2])
    ):
        inputs, outputs = (channel * groups for channel in channels)
        parameters = OrthoParams(BatchedIdentity, ClassParam(BatchedQROrthogonalization))
        theirs = OrthogoniumRKO(
            inputs,
            outputs,
            kernel_size,
            stride=stride,
            groups=groups,
            padding=0,
            ortho_params=parameters,
        ).double()
        ours = redrawn(RKOConv2d(inputs, outputs, kernel_size, stride=stride, groups=groups))
        free = (
            ours.raw_weight if channels[1] >= channels[0] * kernel_size**2 else ours.raw_weight.mT
        )
        theirs.parametrizations.weight.original.data = free.reshape(theirs.weight.shape).clone()
        assert torch.allclose(ours.weight, theirs.weight, atol=1e-12)


@pytest.mark.parametrize(("channels", "stride"), [((3, 4), 1), ((2, 20), 1), ((4, 3), 2)], ids=str)
def test_values_of_deel_torchlip(channels, stride):
    torchlip = pytest.importorskip("deel.torchlip")
    theirs = torchlip.SpectralConv2d(*channels, 3, stride=stride, bias=False)
    free = torch.randn(channels[1], channels[0] * 9)
    left, _, right = torch.linalg.svd(free, full_matrices=False)
    free = (left * torch.linspace(0.7, 1, min(free.shape))) @ right  # it iterates 15 times at most
    theirs.parametrizations.weight.original.data = free.view(theirs.weight.shape).clone()
    theirs.train()
    for _ in range(20):
        theirs(torch.zeros(1, channels[0], 4, 4))  # its power iteration moves in forward
    ours = RKOConv2d(*channels, 3, stride=stride, orthogonalise=bjorck)
    ours.raw_weight.data = (free if channels[1] >= free.shape[1] else free.T)[None].clone()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-3)


def test_others_divide_by_too_little_under_dilation():
    """orthogonium refuses strides that divide the dilation, but not those that share a factor."""
    kernel_size, stride, dilation, size = 4, 6, 4, 24
    theirs = OrthogoniumRKO(1, 1, kernel_size, stride=stride, dilation=dilation, padding=0)
    constant = torch.full((1, 1, 4, 4), theirs.scale / kernel_size).double()

    def circular(x: Tensor) -> Tensor:
        wrapped = F.pad(x, (0, dilation * (kernel_size - 1)) * 2, mode="circular")
        return F.conv2d(wrapped, constant, stride=stride, dilation=dilation)

    assert sigma_max(materialised(circular, (1, size, size))) > 1.4
    ours = RKOConv2d(1, 1, kernel_size, stride=stride, dilation=dilation, bias=False).double()
    ours.raw_weight.data.fill_(1)
    assert sigma_max(linear(ours, (size, size))) <= float(onelip.lipschitz_bound(ours)) <= 1 + 1e-6


# Errors


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, 4, 3), {"groups": 2}, "groups=2 must divide 3 and 4 channels"),
        ((3, 4, 0), {}, "must be positive"),
        ((0, 4, 3), {}, "must be positive"),
        ((3, 4, 3), {"stride": 0}, "must be positive"),
        ((3, 4, 3), {"dilation": -1}, "must be positive"),
    ],
)
def test_preconditions(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        RKOConv2d(*arguments, **options)


def test_padding_that_repeats_pixels():
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        RKOConv2d(3, 4, 3, padding_mode="reflect")


def test_images_that_the_stride_does_not_divide():
    with pytest.raises(ValueError, match="pad the image, or use padding_mode='zeros'"):
        RKOConv2d(1, 3, 3, stride=2)(torch.zeros(1, 1, 5, 4))
    y = RKOConv2d(1, 3, 3, stride=2, padding_mode="zeros")(torch.zeros(1, 1, 5, 4))
    assert y.shape == (1, 3, 3, 2)
